"""Unusual days are found in bills in which they were planted."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta
from decimal import Decimal

import numpy as np
import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports.anomalies import find_anomalies
from finops_dagster.reports.daily_costs import DailyCosts, Series
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.reports.judge import JUDGED_SEEDS, false_alarms_a_month, judge, judge_all
from finops_dagster_tests.reports.months import Months, charge
from finops_dagster_tests.reports.planted import DAYS, KINDS, bill, plant_all


@pytest.mark.parametrize("factor", [2.0, 5.0])
def test_most_kinds_are_found_in_one_bill(factor: float) -> None:
    judgement = judge(7, factor)
    assert len(judgement.found) >= 10, sorted(set(KINDS) - judgement.found)
    assert len(judgement.named) >= 8, sorted(judgement.named)


def test_few_alarms_are_false_in_a_bill_without_anything_planted() -> None:
    assert false_alarms_a_month([judge(7, None)]) <= 2


@pytest.mark.thorough
@pytest.mark.parametrize("factor", [1.3, 2.0, 5.0])
def test_the_kinds_are_found_in_many_bills_with_few_false_alarms(factor: float) -> None:
    judgements = judge_all(JUDGED_SEEDS, factor)
    assert false_alarms_a_month(judgements) <= 1
    if factor >= 2:
        found = sum(len(judgement.found) >= 10 for judgement in judgements)
        assert found >= 0.95 * len(judgements)


def test_what_is_said_of_a_day_stays_when_later_days_are_loaded() -> None:
    planted = bill(3)
    plant_all(planted, 5.0)
    costs = planted.daily_costs()
    days = DAYS - 90
    earlier = replace(
        costs,
        cost=costs.cost[:, :days],
        repriced=costs.repriced[:, :days],
        committed=costs.committed[:, :days],
        credits=costs.credits[:, :days],
        region_costs=costs.region_costs[:, :days],
    )
    # Of the last weeks it is not known yet what stays, and what was a spike.
    settled = costs.day(days - 35)
    before = {a for a in find_anomalies(earlier) if a.first_day < settled}
    after = {a for a in find_anomalies(costs) if a.first_day < settled}
    assert before == after
    assert before


def _steady(*rows: float, days: int = 200) -> DailyCosts:
    """Return series that cost the same on each day."""
    cost = np.repeat(np.array(rows, float)[:, None], days, axis=1)
    series = [Series("USD", "AWS", "0123", "web", f"service {n}") for n in range(len(rows))]
    first_day = bill(0).first_day
    return DailyCosts(
        first_day, series, cost, cost.copy(), cost * 0, cost * 0, [], np.empty((0, days))
    )


def _use(costs: DailyCosts, days: int | slice, cost: float, row: int = 0) -> None:
    """Let a series cost this much on the days, by its usage: prices stay."""
    costs.cost[row, days] = costs.repriced[row, days] = cost


def test_a_step_is_reported_once_with_its_first_week() -> None:
    costs = _steady(100, 1000)
    _use(costs, slice(150, None), 180)
    (anomaly,) = find_anomalies(costs)
    assert (anomaly.kind, anomaly.service) == ("step", "service 0")
    assert (anomaly.first_day, anomaly.last_day) == (costs.day(150), costs.day(156))
    assert (anomaly.cost, anomaly.expected) == (Decimal(1260), Decimal(700))
    assert anomaly.sentence == (
        f"service 0 of account web costs more since {costs.day(150)}: 1,260.00 instead of about "
        f"700.00 USD from {costs.day(150)} to {costs.day(156)}."
    )


def test_a_price_on_a_single_day_is_a_spike() -> None:
    costs = _steady(100, 1000)
    costs.cost[0, 150] = 200
    (anomaly,) = find_anomalies(costs)
    assert (anomaly.kind, anomaly.first_day, anomaly.last_day) == (
        "spike",
        costs.day(150),
        costs.day(150),
    )


def test_a_difference_that_is_small_in_the_bill_is_no_anomaly() -> None:
    costs = _steady(1, 1000)
    _use(costs, 150, 5.5)  # less than a two-hundredth of a day
    _use(costs, 120, 1010, row=1)
    assert find_anomalies(costs) == []


def test_amounts_of_two_currencies_are_not_compared() -> None:
    costs = _steady(10, 1_000_000)
    series = [costs.series[0], replace(costs.series[1], currency="JPY")]
    _use(costs, 150, 20)
    (anomaly,) = find_anomalies(replace(costs, series=series))
    assert (anomaly.currency, anomaly.cost) == ("USD", Decimal(20))


def test_days_that_are_not_loaded_are_no_anomaly() -> None:
    costs = _steady(100, 1000)
    costs.cost[:, 100:131] = np.nan  # a whole month
    costs.cost[:, -1] = np.nan
    assert find_anomalies(costs) == []


def test_the_same_job_at_the_end_of_each_month_is_no_anomaly() -> None:
    costs = _steady(100, 1000)
    for number in range(200):
        if costs.day(number + 1).day == 1:
            _use(costs, number, 400)
    assert find_anomalies(costs) == []


def test_no_series_has_no_anomaly() -> None:
    assert find_anomalies(_steady()) == []


def test_finops_anomalies_shows_what_begins_in_a_month(finops: Finops) -> None:
    assert "no anomalies" in finops("anomalies")
    months = Months(finops.project.folder / "data/parquet")
    for month in ("2025-01", "2025-02", "2025-03", "2025-04"):
        first = BillingMonth.parse(month)
        days = (first.next.first_day - first.first_day).days
        start = datetime.combine(first.first_day, time())
        cheap_days = 10 if month == "2025-04" else days
        months.write(
            month,
            [
                charge("20" if day < cheap_days else "60", ChargePeriodStart=start + timedelta(day))
                for day in range(days)
            ],
        )
    (anomaly,) = finops.json("anomalies")
    assert (anomaly["first_day"], anomaly["kind"]) == ("2025-04-11", "step")
    assert (anomaly["account"], anomaly["account_name"]) == ("002", "web")
    assert (anomaly["cost"], anomaly["expected"], anomaly["difference"]) == ("420", "140", "280")
    assert "costs more since 2025-04-11" in anomaly["sentence"]
    assert "step" in finops("anomalies", "--month", "2025-04")
    assert "no anomalies" in finops("anomalies", "--month", "2025-03")
