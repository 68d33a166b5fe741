"""Checks of the report: budgets that are exceeded, and anomalies; both only warn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import dagster as dg

from finops_dagster.billing.errors import count_text, shortened
from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.checks import Check
from finops_dagster.pipeline.report_alerts import alerts_metadata, anomaly_alert, budget_alert

if TYPE_CHECKING:  # They take time to import.
    from finops_dagster.reports.anomalies import Anomaly
    from finops_dagster.reports.budgets import BudgetMonth
    from finops_dagster.reports.builder import Report

BUDGETS_KEPT = Check(
    "budgets_kept",
    "In the newest month and the one before, no more was spent of any budget than its amount.",
)
NO_ANOMALIES = Check(
    "no_anomalies",
    "In the newest month and the one before, no service of an account costs much more or less than "
    "is estimated from earlier days.",
)
_MOST_ROWS = 200
_BUDGET_COLUMNS = "month budget state currency spent amount part forecast".split()
_MONTH_COLUMNS = "month currency anomalies difference".split()
_ANOMALY_COLUMNS = [
    "first day",
    "last day",
    *"kind account service currency cost expected difference".split(),
]


def check_report(report: Report) -> list[dg.AssetCheckResult]:
    """Return the results of all checks of a report, which must have at least one month."""
    newest = BillingMonth.parse(report.document["months"][-1])
    return [check_budgets(report.budgets), check_anomalies(report.anomalies, newest)]


def check_budgets(months: Sequence[BudgetMonth]) -> dg.AssetCheckResult:
    """Check that no budget is exceeded in the newest month or in the one before it.

    `months` has each budget in each month of the bill; the newest month is the newest of these.
    Passes without budgets.
    """
    newest = max((budget_month.month for budget_month in months), default=None)
    # The last days of a month are delivered when the next one has begun.
    exceeded = [m for m in months if newest and m.month >= newest.previous and m.is_exceeded]
    description = "No budgets are set."
    if newest:
        description = f"No budget is exceeded in {newest} or the month before."
    if exceeded:
        sentences = " ".join(m.sentence for m in exceeded)
        description = f"{sentences} finops report shows the costs behind it."
    rows = [
        {
            "month": str(budget_month.month),
            "budget": budget_month.budget.name,
            "state": budget_month.state,
            "currency": budget_month.budget.currency,
            "spent": f"{budget_month.spent:,.2f}",
            "amount": f"{budget_month.budget.amount:,.2f}",
            "part": f"{budget_month.percent_spent}%",
            "forecast": "" if budget_month.forecast is None else f"{budget_month.forecast:,.2f}",
        }
        for budget_month in months
    ]
    return BUDGETS_KEPT.warning_result(
        passed=not exceeded,
        description=description,
        metadata={
            "exceeded": len(exceeded),
            "budgets": _table(_BUDGET_COLUMNS, rows),
            **alerts_metadata(map(budget_alert, exceeded)),
        },
    )


def check_anomalies(
    anomalies: Sequence[Anomaly], newest: BillingMonth | None
) -> dg.AssetCheckResult:
    """Check that no anomaly begins in the month `newest` or in the one before it.

    `anomalies` are those of all months. Passes if `newest` is None: no month has charges.
    """
    found = [anomaly for anomaly in anomalies if newest and anomaly.month >= newest.previous]
    description = "No month has charges."
    if newest:
        description = f"No anomaly begins in {newest} or the month before."
    if found:
        largest = max(found, key=lambda anomaly: abs(anomaly.difference))
        count = count_text(len(found), "unusual change")
        description = (
            f"{count} in {newest} or the month before; the largest: {largest.sentence} "
            "finops anomalies --month lists those of a month."
        )
    return NO_ANOMALIES.warning_result(
        passed=not found,
        description=description,
        metadata={
            "anomalies_found": len(found),
            "by_month": _by_month(anomalies),
            "anomalies": _anomaly_table(anomalies),
            **alerts_metadata(map(anomaly_alert, found)),
        },
    )


def _by_month(anomalies: Sequence[Anomaly]) -> dg.TableMetadataValue:
    """Return how many anomalies begin in each month, and their difference by currency."""

    def month_and_currency(anomaly: Anomaly) -> tuple[BillingMonth, str]:
        return anomaly.month, anomaly.currency

    rows = []
    ordered = sorted(anomalies, key=month_and_currency, reverse=True)
    for (month, currency), group in groupby(ordered, key=month_and_currency):
        differences = [anomaly.difference for anomaly in group]
        rows.append(
            {
                "month": str(month),
                "currency": currency,
                "anomalies": str(len(differences)),
                "difference": f"{sum(differences):+,.2f}",
            }
        )
    return _table(_MONTH_COLUMNS, rows)


def _anomaly_table(anomalies: Sequence[Anomaly]) -> dg.TableMetadataValue:
    rows = [
        {
            "first day": str(anomaly.first_day),
            "last day": str(anomaly.last_day),
            "kind": str(anomaly.kind),
            "account": shortened(anomaly.account_name),
            "service": shortened(anomaly.service or ""),
            "currency": anomaly.currency,
            "cost": f"{anomaly.cost:,.2f}",
            "expected": f"{anomaly.expected:,.2f}",
            "difference": f"{anomaly.difference:+,.2f}",
        }
        for anomaly in anomalies
    ]
    return _table(_ANOMALY_COLUMNS, rows)


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn(column) for column in columns])
    records = [dg.TableRecord(row) for row in rows[:_MOST_ROWS]]
    return dg.MetadataValue.table(records=records, schema=schema)
