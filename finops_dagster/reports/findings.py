"""Findings: anomalies in daily costs, with their kind, their cost and its estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from finops_dagster.reports.daily_costs import Array, DailyCosts
from finops_dagster.reports.estimated_costs import (
    LEARNING_DAYS,
    MONTH,
    WEEK,
    EstimatedCosts,
    estimated_costs,
)
from finops_dagster.reports.rolling import rolling_median

Flags = npt.NDArray[np.bool_]

# A difference below one of them is no anomaly: in units of the currency, and as a part of what a
# day of all series in the currency usually costs.
_LEAST_DIFFERENCE, LEAST_SHARE_OF_A_DAY = 5.0, 0.005


class AnomalyKind(StrEnum):
    """The kind of an anomaly; docs/budgets.md describes each."""

    SPIKE = "spike"
    STEP = "step"
    RAMP = "ramp"
    NEW_SERVICE = "new service"
    NEW_ACCOUNT = "new account"
    REGION_MOVED = "region moved"
    COMMITMENT_ENDED = "commitment ended"
    CREDIT_ENDED = "credit ended"
    PRICE_CHANGE = "price change"
    VANISHED_SERVICE = "vanished service"
    WEEKEND_WORK = "weekend work"
    SLOW_LEAK = "slow leak"


@dataclass(frozen=True)
class Finding:
    """An anomaly in the series `rows`, from the day `first` to the day `last`, by their numbers.

    If the change lasts, the days are its first week at most; a RAMP has all of its days, and a
    SLOW_LEAK the week after eight weeks of growth. `cost` is the sum of the days, and `expected`
    that of their estimates. If costs moved to another region, `detail` is this region, and both are
    of it alone.
    """

    kind: AnomalyKind
    rows: tuple[int, ...]
    first: int
    last: int
    cost: float
    expected: float
    detail: str = ""


@dataclass(frozen=True)
class CostHistory:
    """Daily costs with their estimates; `thresholds` is that of `anomaly_thresholds`."""

    costs: DailyCosts
    estimates: EstimatedCosts
    thresholds: Array

    @classmethod
    def of(cls, costs: DailyCosts, least: Array) -> CostHistory:
        """Return a history with estimates computed from `costs`, and `least` as its thresholds."""
        return cls(costs, estimated_costs(costs.cost), least)

    @property
    def has_enough_days(self) -> Flags:
        """For each series and day, whether more than 70 days up to it are known."""
        return np.cumsum(~np.isnan(self.costs.cost), axis=1) > LEARNING_DAYS

    def week_from(self, first: int) -> slice:
        """Return the seven days from the day `first`; fewer at the end of the array."""
        return slice(first, min(first + WEEK, self.costs.day_count))

    def estimates_from(self, row: int, days: slice) -> Array:
        """Return the estimate of each of the days, as it was before the first of them.

        It is the level of the first day times the factor of each day's weekday; 0 without a level.
        """
        level = np.nan_to_num(self.estimates.level[row, days.start])
        return np.asarray(level * self.estimates.weekdays[row, days])

    def finding(
        self, kind: AnomalyKind, row: int, days: slice, expected: Array | None = None
    ) -> Iterator[Finding]:
        """Yield a finding of a row and days, or none if their cost is close to its estimate.

        The sums of both must differ by `thresholds` of the first day or more; days whose cost is
        NaN do not count. `expected` is the estimate of each day; by default, that of
        `estimates_from`.
        """
        cost = self.costs.cost[row, days]
        usual = self.estimates_from(row, days) if expected is None else expected
        is_known = ~np.isnan(cost)
        total, usual_total = float(cost[is_known].sum()), float(usual[is_known].sum())
        if abs(total - usual_total) >= self.thresholds[row, days.start]:
            yield Finding(kind, (row,), days.start, days.stop - 1, total, usual_total)


def anomaly_thresholds(costs: DailyCosts) -> Array:
    """Return, for each series and day, the smallest difference of an anomaly, in its currency.

    It is 5, or 0.5 % of what a day of all series in the currency usually costs, if that is more.
    """
    currencies = np.array([series.currency for series in costs.series])
    least = np.full(costs.cost.shape, _LEAST_DIFFERENCE)
    for currency in set(currencies.tolist()):
        rows = currencies == currency
        total = np.nansum(costs.cost[rows], axis=0, keepdims=True)
        usual_day = rolling_median(total, 2 * MONTH)
        least[rows] = np.maximum(least[rows], LEAST_SHARE_OF_A_DAY * usual_day)
    return least


def flagged_periods(flags: Flags, gap: int) -> Iterator[tuple[int, int, int]]:
    """Yield row, first and last day of each run of flagged days.

    The flagged days of a run are at most `gap` days apart; with a gap of 1, they follow each other.
    """
    for row in np.flatnonzero(flags.any(axis=1)):
        days = np.flatnonzero(flags[row])
        breaks = np.flatnonzero(np.diff(days) > gap)
        firsts, lasts = days[np.r_[0, breaks + 1]], days[np.r_[breaks, len(days) - 1]]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            yield int(row), first, last


def known_mean(values: Array) -> float:
    """Return the mean of the values that are not NaN; 0 if there is none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else 0.0
