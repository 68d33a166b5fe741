"""Fills the budgets and anomalies of a report."""

from __future__ import annotations

from collections.abc import Sequence

from duckdb import DuckDBPyConnection

from finops_dagster.reports.anomalies import Anomaly
from finops_dagster.reports.budgets import BudgetMonth
from finops_dagster.reports.document import Document
from finops_dagster.reports.versions import ReportMonths

MOST_ANOMALIES = 200
_ACCOUNT_POSITIONS = "SELECT provider, account, min(position) FROM account_lines GROUP BY ALL"
_SERVICE_POSITIONS = "SELECT provider, service, min(position) FROM service_lines GROUP BY ALL"


def add_budgets(files: ReportMonths, budgets: Sequence[BudgetMonth], document: Document) -> None:
    """Fill the document's `budgets` with those of its months and currencies; amounts are decimals.

    Needs the document's `currencies`. A budget is left out also if its currency, which is in
    capital letters, differs from one of them by case alone.
    """
    for of_month in budgets:
        budget = of_month.budget
        if of_month.month in files.months and budget.currency in document["currencies"]:
            document["budgets"].append(
                {
                    "name": budget.name,
                    "currency": document["currencies"].index(budget.currency),
                    "month": files.months.index(of_month.month),
                    "amount": budget.amount,
                    "spent": of_month.spent,
                    "filter": budget.filter_text,
                }
            )


def add_anomalies(
    connection: DuckDBPyConnection,
    files: ReportMonths,
    anomalies: Sequence[Anomaly],
    document: Document,
) -> None:
    """Fill the document's `anomalies` with the newest 200 of its months; amounts are decimals.

    `anomalies` are in the order of `find_anomalies`. Those of the 200 in a currency that the
    document does not have are left out. Needs the tables of `add_lines`, and the document's
    `currencies`.
    """
    positions = [
        {(provider, name): position for provider, name, position in rows}
        for rows in (
            connection.execute(query).fetchall()
            for query in (_ACCOUNT_POSITIONS, _SERVICE_POSITIONS)
        )
    ]
    accounts, services = positions
    of_months = [anomaly for anomaly in anomalies if anomaly.month in files.months]
    for anomaly in of_months[:MOST_ANOMALIES]:
        if anomaly.currency in document["currencies"]:
            document["anomalies"].append(
                {
                    "day": anomaly.first_day.isoformat(),
                    "currency": document["currencies"].index(anomaly.currency),
                    "service": services.get((anomaly.provider, anomaly.service)),
                    "account": accounts.get((anomaly.provider, anomaly.account)),
                    "cost": anomaly.cost,
                    "expected": anomaly.expected,
                    "kind": anomaly.kind,
                }
            )
