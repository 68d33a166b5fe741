"""`finops budgets` and `finops anomalies`: what was spent of each budget, and unusual days."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Json, Options, check_month
from finops_dagster.cli.output import Headings, Row, show
from finops_dagster.terminal import print_error

if TYPE_CHECKING:
    from finops_dagster.reports.anomalies import Anomaly
    from finops_dagster.reports.budgets import BudgetMonth
    from finops_dagster.settings import Settings

Month = Annotated[
    str | None,
    typer.Option(
        "--month", metavar="YYYY-MM", callback=check_month, help="Month. Default: the newest."
    ),
]

_BUDGET_HEADINGS: Headings = {
    "month": "month",
    "budget": "budget",
    "spent": "spent",
    "amount": "amount",
    "currency": "currency",
    "percent spent": "percent_spent",
    "percent passed": "percent_passed",
    "forecast": "forecast",
    "state": "state",
}
_ANOMALY_HEADINGS: Headings = {
    "first day": "first_day",
    "days": lambda row: (row["last_day"] - row["first_day"]).days + 1,
    "kind": "kind",
    "account": "account_name",
    "service": "service",
    "cost": "cost",
    "expected": "expected",
    "currency": "currency",
}


def budgets(context: typer.Context, month: Month = None, json: Json = False) -> None:
    """Show what was spent of each budget in a month.

    In the month in progress, the forecast is what the month costs if each day costs as much as
    those so far. The exit code is 1 if a budget is crossed: if more was spent than its amount.

    $ finops budgets
    $ finops budgets --month 2026-01
    """
    settings = Options.of(context).settings()
    of_month, unmatched = _budgets(settings, month)
    empty = "no month has charges" if settings.budgets else "no budgets are set: docs/budgets.md"
    rows = list(map(_budget_row, of_month))
    show(rows, as_json=json, empty=empty, headings=_BUDGET_HEADINGS)
    for line in unmatched:
        print_error(line)
    raise typer.Exit(any(budget.is_crossed for budget in of_month))


def anomalies(context: typer.Context, month: Month = None, json: Json = False) -> None:
    """Show unusual days of services and accounts that begin in a month, the newest first.

    The expected cost is what the days before let expect; docs/budgets.md says what is found. Of a
    change that stays, the first week is shown.

    $ finops anomalies
    $ finops anomalies --month 2026-01
    """
    rows = list(map(_anomaly_row, _anomalies(Options.of(context).settings(), month)))
    show(rows, as_json=json, empty="no unusual days", headings=_ANOMALY_HEADINGS)


def _budgets(settings: Settings, month: str | None) -> tuple[list[BudgetMonth], list[str]]:
    """Return the budgets in a month, and lines about filters that match nothing."""
    from finops_dagster.reports.budgets import budget_months, unmatched_filters
    from finops_dagster.reports.relations import open_relations
    from finops_dagster.tables.database import DuckDB

    database, lake = DuckDB.of(settings.database.duckdb), settings.storage.parquet_dir
    with open_relations(database, lake, settings.exports, settings.accounts) as (bill, relations):
        if "focus" not in relations:
            return [], []
        months = budget_months(bill, settings.budgets)
        unmatched = unmatched_filters(bill, settings.budgets)
    chosen = BillingMonth.parse(month) if month else max((m.month for m in months), default=None)
    return [of_month for of_month in months if of_month.month == chosen], unmatched


def _anomalies(settings: Settings, month: str | None) -> list[Anomaly]:
    """Return the anomalies that begin in a month, by default the newest."""
    from finops_dagster.reports.anomalies import read_anomalies
    from finops_dagster.reports.charges import newest_month
    from finops_dagster.reports.relations import open_relations
    from finops_dagster.tables.database import DuckDB

    database, lake = DuckDB.of(settings.database.duckdb), settings.storage.parquet_dir
    with open_relations(database, lake, settings.exports, settings.accounts) as (bill, relations):
        if "focus" not in relations:
            return []
        chosen = BillingMonth.parse(month) if month else newest_month(bill)
        # The month after tells whether what begins on the last days stays.
        found = read_anomalies(bill, chosen.next if chosen else None)
    return [anomaly for anomaly in found if anomaly.month == chosen]


def _budget_row(of_month: BudgetMonth) -> Row:
    budget, forecast = of_month.budget, of_month.forecast
    return {
        "month": str(of_month.month),
        "budget": budget.name,
        "filter": budget.filter_text,
        "cost": budget.cost,
        "spent": of_month.spent,
        "amount": budget.amount,
        "currency": budget.currency,
        "percent_spent": _percent(of_month.spent / budget.amount),
        "percent_passed": _percent(of_month.passed),
        "forecast": None if forecast is None else round(forecast, 2),
        "state": of_month.state,
    }


def _percent(part: Decimal) -> Decimal:
    return round(100 * part, 1)


def _anomaly_row(anomaly: Anomaly) -> Row:
    return {
        "first_day": anomaly.first_day,
        "last_day": anomaly.last_day,
        "kind": str(anomaly.kind),
        "provider": anomaly.provider,
        "account": anomaly.account,
        "account_name": anomaly.account_name,
        "service": anomaly.service,
        "cost": anomaly.cost,
        "expected": anomaly.expected,
        "difference": anomaly.difference,
        "currency": anomaly.currency,
        "sentence": anomaly.sentence,
    }
