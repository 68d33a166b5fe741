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
    """A service of an account in one currency: a row of DailyCosts."""

    currency: str
    provider: str
    account: str
    account_name: str
    service: str


@dataclass(frozen=True)
class DailyCosts:
    """The effective cost of usage by service, account and day, without credits and corrections.

    The arrays have a row for each series and a column for each day, from `first_day`. `cost` is NaN
    on days that are not loaded, or not complete yet; the other arrays have no NaN.
    `repriced` is the cost of the same usage at the prices of the month before. `committed` is the
    part of the cost that commitments covered, and `credits` is what was credited, as a positive
    amount. `region_costs` has a row for each of `regions`, which are pairs of the number of a
    series and the name of a region; series with only one region have none.
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
        """Return the day of the column with this number, from 0."""
        return self.first_day + timedelta(days=number)

    def select_series(self, rows: Sequence[int]) -> DailyCosts:
        """Return the daily costs of the series with these numbers, in this order.

        They get new numbers, from 0, also in `regions`.
        """
        new_rows = {row: new_row for new_row, row in enumerate(rows)}
        regions = [n for n, (row, _) in enumerate(self.regions) if row in new_rows]
        return DailyCosts(
            self.first_day,
            [self.series[row] for row in rows],
            self.cost[rows],
            self.repriced[rows],
            self.committed[rows],
            self.credits[rows],
            [(new_rows[self.regions[n][0]], self.regions[n][1]) for n in regions],
            self.region_costs[regions],
        )
