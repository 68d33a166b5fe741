"""The daily costs of usage by service and account, as arrays in which anomalies are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Days = npt.NDArray[np.int_]


@dataclass(frozen=True)
class Series:
    """What a row of daily costs is of: a service of an account, in one currency."""

    currency: str
    provider: str
    account: str
    account_name: str
    service: str


@dataclass(frozen=True)
class DailyCosts:
    """The effective cost of usage by service, account and day.

    The arrays have a row for each series and a column for each day. `cost` is NaN on days that are
    not loaded, or not complete yet. `repriced` is the cost of the same usage at the prices of the
    month before: what changes it changes the quantity too. `committed` is the part of the cost that
    commitments covered, and `credits` is what was credited, as a positive amount. `region_costs`
    has a row for each of `regions`, which are pairs of the number of a series and a region.
    """

    first_day: date
    series: Sequence[Series]
    cost: Array
    repriced: Array
    committed: Array
    credits: Array
    regions: Sequence[tuple[int, str]]
    region_costs: Array

    @property
    def day_count(self) -> int:
        """The number of days, which is that of the columns."""
        return int(self.cost.shape[1])

    def day(self, number: int) -> date:
        """Return the day of a column."""
        return self.first_day + timedelta(days=number)

    def of_rows(self, rows: Sequence[int]) -> DailyCosts:
        """Return the daily costs of some of the series, in this order."""
        places = {row: place for place, row in enumerate(rows)}
        regions = [n for n, (row, _) in enumerate(self.regions) if row in places]
        return DailyCosts(
            self.first_day,
            [self.series[row] for row in rows],
            self.cost[rows],
            self.repriced[rows],
            self.committed[rows],
            self.credits[rows],
            [(places[self.regions[n][0]], self.regions[n][1]) for n in regions],
            self.region_costs[regions],
        )
