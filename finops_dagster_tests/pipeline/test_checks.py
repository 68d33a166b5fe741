"""Checks that compare a month with the previous one, or its manifest with the time of day."""

from __future__ import annotations

import os
import time
from decimal import Decimal

import dagster as dg
import pytest

from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.pipeline.checks import usual_cost
from finops_dagster_tests.project import Project


def load(month: int, costs: dict[str, str] | None) -> Load:
    by_currency = costs and {currency: Decimal(cost) for currency, cost in costs.items()}
    whole = sum(map(Decimal, (costs or {"": "100"}).values()), Decimal(0))
    totals = Totals(1, whole, costs=by_currency)
    return Load("v1", totals, export="acme", month=BillingMonth(2024, month), table="bills")


@pytest.mark.parametrize(
    ("previous", "current", "passes", "text"),
    [
        ({"USD": "100", "JPY": "9000"}, {"USD": "140", "JPY": "5000"}, True, "+40.0% in USD"),
        ({"USD": "100", "JPY": "9000"}, {"USD": "160", "JPY": "9000"}, False, "+60.0% in USD"),
        ({"USD": "100", "JPY": "9000"}, {"JPY": "9000"}, False, "-100.0% in USD"),
        ({"USD": "100"}, {"USD": "100", "EUR": "900"}, True, "+0.0% in USD compared with 2024-01."),
        ({"": "100"}, {"": "40"}, False, "-60.0% compared with 2024-01."),
        (None, {"USD": "120"}, True, "+20.0% compared with 2024-01."),
        ({"USD": "0"}, {"USD": "120"}, True, "no cost of the previous month to compare with"),
    ],
)
def test_usual_cost_compares_each_currency_with_itself(
    previous: dict[str, str] | None, current: dict[str, str], passes: bool, text: str
) -> None:
    """JPY 9,000 would hide a change of 100 USD; an old record has no costs by currency."""
    result = usual_cost(load(2, current), load(1, previous))
    assert result.passed is passes
    assert text in str(result.description)


def test_a_tick_evaluates_the_check_of_a_month_that_is_no_longer_delivered(
    project: Project,
) -> None:
    """No run evaluates it while the vendor delivers nothing."""
    month = BillingMonth.current()
    project.export["start_month"] = str(month.previous)
    project.deliver("1", month=str(month.previous))
    first = project.tick()
    assert first.asset_events == [], "the newest manifest is recent"
    ten_days_ago = time.time() - 10 * 86_400
    for manifest in project.source.rglob("*Manifest.json"):
        os.utime(manifest, (ten_days_ago, ten_days_ago))
    second = project.tick(first.cursor)
    (event,) = second.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.check_name, event.passed) == ("manifest_is_fresh", False)
    assert (event.asset_key.path[0], event.partition) == ("acme", str(month))
    assert "The newest manifest is 10 days old" in str(event.description)
    project.instance.report_runless_asset_event(event)
    third = project.tick(second.cursor)
    assert third.asset_events == [], "once for each manifest"
    project.deliver("1", month=str(month))
    assert project.tick(third.cursor).asset_events == []
    assert project.materialize(str(month)).checks()["manifest.manifest_is_fresh"]
