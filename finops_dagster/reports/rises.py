"""Finds services that cost more than estimated, for some days or from a day on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np

from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports.changes import has_commitment_ended
from finops_dagster.reports.daily_costs import Array, DailyCosts, Days
from finops_dagster.reports.estimated_costs import (
    MONTH,
    WEEK,
    deviations,
    relative_deviation,
    without_recurring,
)
from finops_dagster.reports.findings import (
    AnomalyKind,
    CostHistory,
    Finding,
    Flags,
    flagged_periods,
    known_mean,
)
from finops_dagster.reports.rolling import rolling_max, rolling_mean, shifted

_ANOMALOUS = 4.5  # times the usual deviation
_LEAST_RISE = np.log(1.15)
_LEAST_GROWTH, _LEAST_GROWTH_OF_A_PART = np.log(1.3), np.log(1.03)
_RESTING = 0.05  # times the level: what a service costs on a day of rest


def find_rises(history: CostHistory) -> Iterator[Finding]:
    """Yield findings of the kinds SPIKE, WEEKEND_WORK, STEP, RAMP and COMMITMENT_ENDED.

    Each is of one service whose cost is far above its estimate on one day or several.
    `find_price_changes` also yields COMMITMENT_ENDED.
    """
    flags = _high_days(history) & history.has_enough_days
    # A service that rests on many days has a usual cost on none.
    busiest = shifted(rolling_max(history.costs.cost, 3 * MONTH), 1)
    flags &= ~_rests(history) | (history.costs.cost > 2 * busiest)
    for row, first, last in flagged_periods(flags, gap=3):
        yield from _rise(history, row, first, last)


def _high_days(history: CostHistory) -> Flags:
    """Return the days far above their estimate, alone or together with their neighbours."""
    costs, expected = history.costs, history.estimates
    cost = without_recurring(costs.cost, expected, _same_days(costs))
    # A cost that returns to where it was four weeks ago, as after holidays, has not risen.
    level = np.fmax(expected.level, shifted(expected.level, MONTH))
    deviation = deviations(cost, level, expected.weekdays)
    flags = np.zeros(cost.shape, bool)
    for days in (1, 2, WEEK):
        high = relative_deviation(expected, deviation, days) > _ANOMALOUS
        high &= rolling_mean(deviation, days) > _LEAST_RISE
        for back in range(days):
            flags[:, : costs.day_count - back] |= high[:, back:]
    return flags & (expected.deviation > 0)


def _same_days(costs: DailyCosts) -> list[Days]:
    """Return the numbers of the same days one and three months before, -1 where there is none.

    A day is the same if it is as far from the start of its month, or from its end.
    """
    days = [costs.day(number) for number in range(costs.day_count)]
    return [
        np.array([_number(costs, same_day(day, months)) for day in days])
        for same_day in (_from_start, _from_end)
        for months in (1, 3)
    ]


def _number(costs: DailyCosts, day: date) -> int:
    return max((day - costs.first_day).days, -1)


def _from_start(day: date, months: int) -> date:
    month = BillingMonth.of(day)
    for _ in range(months):
        month = month.previous
    same_day = month.first_day + timedelta(days=day.day - 1)
    return min(same_day, month.next.first_day - timedelta(days=1))


def _from_end(day: date, months: int) -> date:
    days_left = BillingMonth.of(day).next.first_day - day
    month = BillingMonth.of(day)
    for _ in range(months):
        month = month.previous
    return max(month.next.first_day - days_left, month.first_day)


def _rests(history: CostHistory) -> Flags:
    """Return the days on which a service rests often, and not only on the same weekdays."""
    expected = history.estimates
    busy = expected.weekdays > 0.3
    resting = busy & (history.costs.cost < _RESTING * expected.level)
    often = rolling_mean(resting, 2 * MONTH) > 0.2 * rolling_mean(busy, 2 * MONTH)
    return np.asarray(often | (rolling_mean(busy, WEEK) < 0.6))


def _rise(history: CostHistory, row: int, first: int, last: int) -> Iterator[Finding]:
    """Yield the finding of a run of high days, by its shape and what comes after it."""
    deviation = history.estimates.deviation[row, first : last + 1]
    upper_half = np.sort(deviation)[len(deviation) // 2 :]
    high = np.flatnonzero(deviation > 0.5 * upper_half.mean())
    first, last = first + int(high[0]), first + int(high[-1])
    length = last - first + 1
    days = slice(first, min(last + 1 + WEEK, history.costs.day_count))
    ratio = _ratio(history, row, days)
    after = ratio[length:]
    stays = len(after) < 3 or known_mean(after) > 0.5 * known_mean(ratio[:length])
    if length <= 3 or not stays:
        kind = (
            AnomalyKind.WEEKEND_WORK
            if _is_weekend(history, row, first, last)
            else AnomalyKind.SPIKE
        )
        yield from history.finding(kind, row, slice(first, last + 1))
    elif length > WEEK and _is_rising(ratio[:length]):
        yield from history.finding(AnomalyKind.RAMP, row, slice(first, last + 1))
    else:
        kind = (
            AnomalyKind.COMMITMENT_ENDED
            if has_commitment_ended(history, row, first)
            else AnomalyKind.STEP
        )
        yield from history.finding(kind, row, history.week_from(first))


def _ratio(history: CostHistory, row: int, days: slice) -> Array:
    """Return how much more than its estimate each day costs: 1 for twice as much."""
    expected = history.estimates_from(row, days)
    least = _RESTING * history.estimates.level[row, days.start]
    return np.asarray(history.costs.cost[row, days] / np.fmax(expected, least) - 1)


def _is_rising(ratio: Array) -> bool:
    third = len(ratio) // 3
    return known_mean(ratio[:third]) < 0.6 * known_mean(ratio[-third:])


def _is_weekend(history: CostHistory, row: int, first: int, last: int) -> bool:
    weekdays = [history.costs.day(number).weekday() for number in range(first, last + 1)]
    return min(weekdays) >= 5 and history.estimates.weekdays[row, first] < 0.9


def find_slow_leaks(history: CostHistory) -> Iterator[Finding]:
    """Yield a finding of the kind SLOW_LEAK for each service that grew in four fortnights in a row.

    What grew is the level, the usual cost of a day. The growth over all of them must be large, and
    no fortnight may have half of it. The days of the finding are the week after the fortnights, and
    `expected` is their cost at the level before the growth.
    """
    part = 2 * WEEK
    levels = [shifted(history.estimates.level, part * parts) for parts in range(1, 5)]
    growth = np.stack(
        [
            np.log(later / earlier)
            for later, earlier in zip([history.estimates.level, *levels], levels, strict=False)
        ]
    )
    total = growth.sum(axis=0)
    # The level is that of four weeks: it varies about a fifth as much as the days do.
    noise = _ANOMALOUS * history.estimates.usual_deviation / 5 * np.sqrt(2)
    flags = (total > np.fmax(_LEAST_GROWTH, noise)) & history.has_enough_days
    flags &= growth.min(axis=0) > _LEAST_GROWTH_OF_A_PART
    # A step would be most of the growth.
    flags &= (growth.max(axis=0) < 0.5 * total) & ~_rests(history)
    for row, first, _ in flagged_periods(flags, gap=MONTH):
        days = history.week_from(first)
        expected = levels[-1][row, first] * history.estimates.weekdays[row, days]
        yield from history.finding(AnomalyKind.SLOW_LEAK, row, days, expected)
