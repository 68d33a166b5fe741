"""`finops budgets` and `finops anomalies`: what was spent of each budget, and anomalies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Json, Options, month_option
from finops_dagster.cli.output import Headings, Row, print_rows
from finops_dagster.terminal import print_error

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from finops_dagster.reports.anomalies import Anomaly
    from finops_dagster.reports.budgets import BudgetMonth
    from finops_dagster.settings import Settings

Month = Annotated[
    str | None,
    typer.Option(
        "--month", metavar="YYYY-MM", callback=month_option, help="Month. Default: the newest."
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

    For the month in progress there is a forecast. It assumes that the remaining days cost the
    average of the days so far. The newest day is not part of the average, because it may be
    incomplete. The exit code is 1 if more was spent than the amount of a budget.

    $ finops budgets
    $ finops budgets --month 2026-01
    """
    settings = Options.of(context).settings()
    budget_months, unmatched = _budgets(settings, month)
    empty = "no month has charges" if settings.budgets else "no budgets are set: docs/budgets.md"
    rows = list(map(_budget_row, budget_months))
    print_rows(rows, as_json=json, empty=empty, headings=_BUDGET_HEADINGS)
    for line in unmatched:
        print_error(line)
    raise typer.Exit(any(budget.is_exceeded for budget in budget_months))


def anomalies(context: typer.Context, month: Month = None, json: Json = False) -> None:
    """Show the anomalies that begin in a month, the newest first.

    An anomaly is one or more days on which a service of an account costs much more or less than
    expected. The expected cost is estimated from earlier days, as docs/budgets.md says. A lasting
    change is shown once, mostly with its first seven days.

    $ finops anomalies
    $ finops anomalies --month 2026-01
    """
    rows = list(map(_anomaly_row, _anomalies(Options.of(context).settings(), month)))
    print_rows(rows, as_json=json, empty="no anomalies", headings=_ANOMALY_HEADINGS)


def _budgets(settings: Settings, month: str | None) -> tuple[list[BudgetMonth], list[str]]:
    """Return each budget in a month, and lines about filters that match no charge.

    The month is the newest by default; without any, both lists are empty. Raises BillError if the
    month has no charges.
    """
    from finops_dagster.reports.budgets import budget_months, unmatched_filter_messages

    with _bill(settings, month) as (bill, chosen):
        if chosen is None:
            return [], []
        months = budget_months(bill, settings.budgets)
        unmatched = unmatched_filter_messages(bill, settings.budgets)
    return [budget for budget in months if budget.month == chosen], unmatched


def _anomalies(settings: Settings, month: str | None) -> list[Anomaly]:
    """Return the anomalies that begin in a month, by default the newest.

    Raises BillError if the month has no charges.
    """
    from finops_dagster.reports.anomalies import read_anomalies

    with _bill(settings, month) as (bill, chosen):
        if chosen is None:
            return []
        # The month after shows whether a change on the last days lasts.
        anomalies = read_anomalies(bill, chosen.next)
    return [anomaly for anomaly in anomalies if anomaly.month == chosen]


@contextmanager
def _bill(
    settings: Settings, month: str | None
) -> Iterator[tuple[DuckDBPyConnection, BillingMonth | None]]:
    """Open the bill for the block, which gets the connection and the chosen month.

    The month is None if no month has charges. Raises BillError if the chosen one has none.
    """
    from finops_dagster.cli.relations import open_bill_relations
    from finops_dagster.reports.charges import months_of_charges

    with open_bill_relations(settings) as (bill, relations):
        available = months_of_charges(bill) if "focus" in relations else []
        yield bill, _chosen_month(month, available)


def _chosen_month(month: str | None, available: Sequence[BillingMonth]) -> BillingMonth | None:
    """Return the month, by default the newest available one; None if there is none.

    Raises BillError for a month that is not available.
    """
    from finops_dagster.reports.versions import no_charges_error

    if month is None:
        return max(available, default=None)
    chosen = BillingMonth.parse(month)
    if chosen not in available:
        raise no_charges_error(chosen, available)
    return chosen


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
        "percent_spent": of_month.percent_spent,
        "percent_passed": of_month.percent_passed,
        "forecast": None if forecast is None else round(forecast, 2),
        "state": of_month.state,
    }


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
