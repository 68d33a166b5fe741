"""Finds changes other than higher usage: what begins, ends, moves, or has another price.

The cost of each finding differs from the expected one by `anomaly_thresholds` or more; smaller
changes are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from finops_dagster.reports.daily_costs import Array, DailyCosts
from finops_dagster.reports.estimated_costs import MONTH, WEEK, robust_deviation
from finops_dagster.reports.findings import (
    AnomalyKind,
    CostHistory,
    Finding,
    Flags,
    flagged_periods,
    known_mean,
)
from finops_dagster.reports.rolling import (
    rolling_max,
    rolling_mean,
    rolling_median,
    rolling_second_lowest,
    shifted,
)

_LEAST_PRICE_RISE, _LEAST_MOVED_SHARE = np.log(1.15), 0.15
_EQUAL = 1.35  # times as much at most
_UNUSUAL = 6  # times the usual change
_LEAST_SCALE = 0.02  # of a price or a share
_DAYS_OF_A_CHANGE = 3  # over which a change is measured


def find_new_accounts(costs: DailyCosts, least: Array) -> Iterator[Finding]:
    """Yield a finding for the first week of an account's costs after eight weeks without any.

    Half of the eight weeks must be known; at the start of the data, four weeks are enough. The
    finding's `rows` are all series of the account. `least` is the result of `anomaly_thresholds`
    for `costs`: the week must cost at least that of its first day. `costs` must have a series.
    """
    accounts = defaultdict(list)
    for row, series in enumerate(costs.series):
        accounts[series.currency, series.provider, series.account].append(row)
    rows = list(accounts.values())
    highest = np.stack([np.fmax.reduce(costs.cost[of_account], axis=0) for of_account in rows])
    for number, first in _beginnings(highest):
        yield from _first_week(costs, AnomalyKind.NEW_ACCOUNT, rows[number], first, least)


def find_new_services(history: CostHistory) -> Iterator[Finding]:
    """Yield a finding for the first week of a service's costs after eight weeks without any.

    Half of the eight weeks must be known; at the start of the data, four weeks are enough. The week
    must cost at least `history.thresholds` of its first day.
    """
    for row, first in _beginnings(history.costs.cost):
        yield from _first_week(
            history.costs, AnomalyKind.NEW_SERVICE, [row], first, history.thresholds
        )


def _first_week(
    costs: DailyCosts, kind: AnomalyKind, rows: Sequence[int], first: int, least: Array
) -> Iterator[Finding]:
    last = min(first + WEEK, costs.day_count) - 1
    cost = float(np.nansum(costs.cost[rows, first : last + 1]))
    if cost >= least[rows[0], first]:
        yield Finding(kind, tuple(rows), first, last, cost, 0.0)


def _beginnings(cost: Array) -> Iterator[tuple[int, int]]:
    """Yield row and day of each cost after eight weeks without one, half of which are known."""
    is_known = ~np.isnan(cost)
    positive = np.where(is_known, cost > 0, np.nan)
    quiet = (rolling_mean(positive, 2 * MONTH) == 0) & (rolling_mean(is_known, 2 * MONTH) >= 0.5)
    quiet[:, : MONTH - 1] = False
    for row, day in np.argwhere(quiet[:, :-1] & (cost[:, 1:] > 0)):
        yield int(row), int(day) + 1


def find_vanished_services(history: CostHistory) -> Iterator[Finding]:
    """Yield a finding for the first week without a service that had costs on nearly every day.

    The costs are those of the four weeks before; the first three days of the week must have none.
    """
    cost = history.costs.cost
    for row, first in _ends(cost > 0, cost <= 0):
        yield from history.finding(AnomalyKind.VANISHED_SERVICE, row, history.week_from(first))


def find_ended_credits(history: CostHistory) -> Iterator[Finding]:
    """Yield a finding for the first week without credits that a service got on nearly every day.

    The credits are those of the four weeks before; the first three days of the week must have none.
    `expected` is the cost less the credits that were usual.
    """
    credited = history.costs.credits
    usual = rolling_mean(credited, MONTH)
    for row, first in _ends(credited > 0, (credited <= 0) & ~np.isnan(history.costs.cost)):
        days = history.week_from(first)
        expected = history.costs.cost[row, days] - usual[row, first - 1]
        yield from history.finding(AnomalyKind.CREDIT_ENDED, row, days, expected)


def _ends(positive: Flags, absent: Flags) -> Iterator[tuple[int, int]]:
    """Yield row and first day of three absent days, after four weeks of mostly positive days."""
    steady = rolling_mean(positive, MONTH) > 0.9
    ends = steady[:, MONTH - 1 : -3] & positive[:, MONTH - 1 : -3]
    for days in (1, 2, 3):
        ends &= absent[:, MONTH - 1 + days : absent.shape[1] - 3 + days]
    for row, day in np.argwhere(ends):
        yield int(row), int(day) + MONTH


def find_price_changes(history: CostHistory) -> Iterator[Finding]:
    """Yield a finding for the first week in which a service's prices are higher.

    That is: compared with the month before, the same usage costs at least 15 % more, far more than
    its prices usually change, and more than on any days of the two months before. `expected` is the
    cost of the usage without this rise. The kind is COMMITMENT_ENDED as by `has_commitment_ended`,
    otherwise PRICE_CHANGE.
    """
    days = _DAYS_OF_A_CHANGE
    prices = np.log(history.costs.cost / history.costs.repriced)
    prices[~np.isfinite(prices)] = np.nan
    price = rolling_median(prices, days)
    usual = np.fmax(shifted(rolling_median(price, MONTH, 2 * WEEK), days), 0)
    scale = robust_deviation(price - usual, days, _LEAST_SCALE)
    flags = price - usual > np.fmax(_LEAST_PRICE_RISE, _UNUSUAL * scale)
    flags &= (price > shifted(rolling_max(price, 2 * MONTH), days)) & history.has_enough_days
    for row, first, _ in flagged_periods(flags, gap=WEEK):
        week = history.week_from(first)
        rise = np.nanmax(price[row, first : first + days]) - usual[row, first]
        kind = AnomalyKind.PRICE_CHANGE
        if has_commitment_ended(history, row, first):
            kind = AnomalyKind.COMMITMENT_ENDED
        expected = history.costs.cost[row, week] / np.exp(rise)
        yield from history.finding(kind, row, week, expected)


def has_commitment_ended(history: CostHistory, row: int, first: int) -> bool:
    """Return whether the part of a row's cost that commitments covered fell on the day `first`.

    Before that day, it must be more than a tenth of the usual cost; from that day on, less than
    half of what it was.
    """
    covered = history.costs.committed[row]
    before = known_mean(covered[max(first - MONTH, 0) : first - _DAYS_OF_A_CHANGE + 1])
    after = known_mean(covered[first : first + _DAYS_OF_A_CHANGE])
    usual = np.nan_to_num(history.estimates.level[row, first])
    return bool(before > 0.1 * usual and after < 0.5 * before)


def find_moved_regions(history: CostHistory) -> Iterator[Finding]:
    """Yield a finding for the first week in which a region has a larger share of a service's cost.

    The share must be more than 15 percentage points above that of the month before, and the cost of
    the service about as before: at most 1.35 times as high or as low. `cost` and `expected` are
    those of this region alone, and `detail` is its name.
    """
    if not history.costs.regions:
        return
    owners = np.array([row for row, _ in history.costs.regions])
    shares = history.costs.region_costs / history.costs.cost[owners]
    usual = shifted(rolling_median(shares, MONTH, 2 * WEEK), WEEK)
    flags = rolling_median(shares, WEEK) - usual > _LEAST_MOVED_SHARE
    # Where jobs happen to run changes from day to day: nearly all days of the week have to be
    # above nearly all days of two months.
    flags &= rolling_second_lowest(shares, WEEK) > shifted(
        -rolling_second_lowest(-shares, 2 * MONTH), WEEK
    )
    flags &= history.has_enough_days[owners]
    total = rolling_median(history.costs.cost, WEEK)
    usual_total = shifted(rolling_median(total, MONTH, 2 * WEEK), WEEK)
    flags &= np.abs(np.log(total / usual_total))[owners] < np.log(_EQUAL)
    for number, day, _ in flagged_periods(flags, gap=WEEK):
        row, region = history.costs.regions[number]
        # The median of a week is that of its fourth day.
        week = history.week_from(day - WEEK // 2)
        cost = history.costs.region_costs[number, week]
        moved = cost - usual[number, day] * history.costs.cost[row, week]
        if np.nansum(moved) >= history.thresholds[row, week.start]:
            total_cost, last = float(np.nansum(cost)), week.stop - 1
            expected = total_cost - float(np.nansum(moved))
            yield Finding(
                AnomalyKind.REGION_MOVED, (row,), week.start, last, total_cost, expected, region
            )
