"""The delivery of a version: when the vendor wrote it, and which days of the month it covers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Delivery:
    """The vendor's run that wrote a version; a field is None if the vendor does not report it.

    `submitted_at` is the start of the run, in UTC without a time zone. The first and the last day
    are inclusive.
    """

    submitted_at: datetime | None = None
    first_day: date | None = None
    last_day: date | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any] | None) -> Delivery | None:
        """Return the delivery of a dict that `to_row` returned; None for None.

        The dict may also have dates and times instead of their texts, as a row of DuckDB has.
        """
        return _DELIVERY.validate_python(row)

    def to_row(self) -> dict[str, str | None]:
        """Return a dict for the ledger and the footers, fit for JSON: ISO 8601 texts or None."""
        return {name: value and value.isoformat() for name, value in vars(self).items()}

    @property
    def covered_days(self) -> str:
        """The days as text, such as `2026-01-01 to 2026-01-14`; empty if one is unknown."""
        if self.first_day is None or self.last_day is None:
            return ""
        return f"{self.first_day} to {self.last_day}"

    def misses_days_of(self, other: Delivery | None) -> bool:
        """Return whether the other delivery covers a day that this one does not.

        False where the days of either are unknown.
        """
        if other is None or not self.covered_days or not other.covered_days:
            return False
        assert self.first_day and self.last_day and other.first_day and other.last_day
        return self.first_day > other.first_day or self.last_day < other.last_day

    def is_older_than(self, other: Delivery | None) -> bool:
        """Return whether the vendor submitted this run before the other; False if unknown."""
        if other is None or self.submitted_at is None or other.submitted_at is None:
            return False
        return self.submitted_at < other.submitted_at


_DELIVERY = TypeAdapter(Delivery | None)
