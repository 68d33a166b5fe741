"""The billing month, which is the partition of every stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from finops_dagster.billing.errors import excerpt

# AWS closes a month within about ten days of its end, Azure earlier.
_CLOSING_DAYS = 15
_KEY = re.compile(r"([1-9][0-9]{3})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, order=True)
class BillingMonth:
    """A billing period: a calendar month in UTC; `2024-01` as text and as partition key."""

    year: int
    month: int

    @classmethod
    def parse(cls, key: str) -> BillingMonth:
        """Return the month of a text `YYYY-MM`. Raises ValueError with a message of one line."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"{excerpt(key)} is not a month; write it as YYYY-MM")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, day: date) -> BillingMonth:
        """Return the month of a day. A time is not converted: pass one in UTC."""
        return cls(day.year, day.month)

    @classmethod
    def current(cls) -> BillingMonth:
        """Return the month in progress, in UTC."""
        return cls.of(datetime.now(UTC).date())

    @property
    def first_day(self) -> date:
        """The first day, which is the value of the column `billing_month`."""
        return date(self.year, self.month, 1)

    @property
    def next(self) -> BillingMonth:
        """The month after this one."""
        return BillingMonth(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def previous(self) -> BillingMonth:
        """The month before this one."""
        return BillingMonth(self.year - (self.month == 1), (self.month - 2) % 12 + 1)

    @property
    def closing_day(self) -> date:
        """The day by which vendors have closed the month: the 16th of the next one."""
        return self.next.first_day + timedelta(days=_CLOSING_DAYS)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"
