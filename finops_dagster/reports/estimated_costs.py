"""Estimates the cost of each day: medians of the days before it, by weekday.

All arrays have a row for each series and a column for each day. The results of a day depend on that
day and on earlier ones only, so that they stay the same when later days are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finops_dagster.reports.daily_costs import Array, Days
from finops_dagster.reports.rolling import median, rolling_mean, rolling_median, shifted

WEEK, MONTH = 7, 28
# Most kinds of anomalies are not found in the first ten weeks, which have few ends of months.
LEARNING_DAYS = 10 * WEEK
_WEEKS_OF_WEEKDAYS = 13
_DAYS_OF_SCALE, _LEAST_DAYS_OF_SCALE = 56, 14
# The median deviation times this is the standard deviation of what is distributed normally.
_NORMAL = 1.4826
# The steadiest cost may still change by a fifth on a day.
_LEAST_SCALE = 0.045
# This part of the level is added to costs before they are compared as ratios. Otherwise the first
# work of a weekend would be infinitely many times the usual.
_OFFSET = 0.1
# The job at the end of a month may cost this much more than the one before.
_RECURRING_VARIES = 1.3


@dataclass(frozen=True)
class EstimatedCosts:
    """The estimated cost of each day, and how far the cost is from it.

    The estimate is `level` * `weekdays`: the usual cost of a day, and the factor of its weekday.
    `deviation` is that of `deviations`, and `usual_deviation` its usual size in the eight weeks
    before: a standard deviation, estimated by the median of the absolute deviations, and 0.045 at
    least.
    """

    level: Array
    weekdays: Array
    deviation: Array
    usual_deviation: Array


def estimated_costs(cost: Array) -> EstimatedCosts:
    """Return the estimate of each day from the days before it.

    Its arrays are NaN on days that have too few days before them, or after weeks most of which cost
    nothing; only `weekdays` has no NaN.
    """
    weekdays = _weekday_factors(cost)
    # The median of four weeks of weekly means: neither a spike nor a weekend changes it.
    level = shifted(rolling_median(rolling_mean(cost, WEEK), MONTH - WEEK), 1)
    level[:, : MONTH - WEEK + 1] = np.nan
    level[level <= 0] = np.nan
    deviation = deviations(cost, level, weekdays)
    usual = rolling_median(np.abs(deviation), _DAYS_OF_SCALE, _LEAST_DAYS_OF_SCALE)
    scale = np.maximum(_NORMAL * shifted(usual, 1), _LEAST_SCALE)
    return EstimatedCosts(level, weekdays, deviation, scale)


def deviations(cost: Array, level: Array, weekdays: Array) -> Array:
    """Return the natural logarithms of cost / estimate, with a tenth of the level added to both.

    So a cost where none is usual has no infinite deviation. A negative cost counts as 0.
    """
    offset = _OFFSET * level
    return np.asarray(np.log((np.maximum(cost, 0) + offset) / (level * weekdays + offset)))


def _weekday_factors(cost: Array) -> Array:
    """Return what each day's weekday costs, as a factor of the mean of its week."""
    week = shifted(rolling_mean(cost, WEEK), -(WEEK // 2))
    ratio = np.where(week > 0, cost / week, np.nan)
    # The week around a day is known three days later, so that of a week before is known.
    earlier = [shifted(ratio, WEEK * weeks) for weeks in range(1, _WEEKS_OF_WEEKDAYS + 1)]
    return np.nan_to_num(median(np.stack(earlier, axis=-1)), nan=1.0)


def relative_deviation(expected: EstimatedCosts, deviation: Array, days: int) -> Array:
    """Return, for each day, the mean deviation of `days` days up to it, divided by its usual size.

    `deviation` has a value for each day, as `deviations` returns it; it need not be that of
    `expected`. Days that follow each other often deviate alike, so for more than two days the usual
    size is at least that of earlier means of as many days.
    """
    mean = rolling_mean(deviation, days)
    scale = expected.usual_deviation / np.sqrt(days)
    if days > 2:
        usual = rolling_median(np.abs(mean), 2 * _DAYS_OF_SCALE, _LEAST_DAYS_OF_SCALE)
        scale = np.fmax(scale, _NORMAL * shifted(usual, days))
    return np.asarray(mean / scale)


def robust_deviation(values: Array, days: int, least: float) -> Array:
    """Return for each day the standard deviation of earlier values, which are around 0.

    It is estimated by the median of their absolute values, in the eight weeks that end `days` days
    before the day. It is `least` at least, and NaN if fewer than 14 of the values are known.
    """
    usual = rolling_median(np.abs(values), 2 * MONTH, _LEAST_DAYS_OF_SCALE)
    return np.maximum(_NORMAL * shifted(usual, days), least)


def without_recurring(cost: Array, expected: EstimatedCosts, same_days: Sequence[Days]) -> Array:
    """Return the cost without rises that recur: those of the same day of an earlier month.

    `expected` has the estimates of `cost`. Each of `same_days` has, for each day, the number of the
    same day of an earlier month, or -1. A rise is the amount by which a cost is above its
    estimate, on a day whose deviation is more than three times the usual one. What is subtracted is
    1.3 times the largest rise on those days and the days beside them, but never more than the cost
    itself is above its estimate.
    """
    usual = expected.level * expected.weekdays
    above = np.where(expected.deviation > 3 * expected.usual_deviation, cost - usual, 0)
    padded = np.pad(above, ((0, 0), (2, 2)))
    recurring = np.zeros_like(cost)
    for numbers in same_days:
        for beside in (-1, 0, 1):
            places = np.where(numbers < 0, 0, numbers + 2 + beside)
            recurring = np.fmax(recurring, padded[:, places])
    return np.asarray(cost - np.fmin(_RECURRING_VARIES * recurring, np.fmax(cost - usual, 0)))
