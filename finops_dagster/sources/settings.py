"""The settings that exports of every vendor have."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import StringConstraints, field_validator, model_validator

from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings_table import SettingsTable


class ExportSettings(SettingsTable):
    """The settings of one export, from which each vendor derives its own.

    `name` is the first part of the export's asset keys. Without an `end_month`, the month in
    progress is the last. `decimals` decides about amounts of money with more than 18 decimals:
    "exact" refuses them, "round" rounds and counts them.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
    vendor: str
    start_month: str
    end_month: str | None = None
    table: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = ""
    decimals: Literal["exact", "round"] = "exact"
    sensor: bool = False

    @field_validator("start_month", "end_month")
    @classmethod
    def _check_month(cls, key: str | None) -> str | None:
        return key and str(BillingMonth.parse(key))

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_month is not None and self.end_month < self.start_month:
            raise ValueError(f"end_month {self.end_month} is before start_month {self.start_month}")
        return self

    @property
    def shares_files(self) -> bool:
        """Whether a file may hold rows of several months, and stays in them once it is deleted."""
        return False

    @cached_property
    def group(self) -> str:
        """The name for groups, jobs and sensors, of characters that Dagster allows there."""
        return re.sub(r"[^A-Za-z0-9]", "_", self.name)

    @property
    def table_name(self) -> str:
        """The name of the export's table in DuckDB and in the warehouse."""
        return self.table or self.group

    def months(self) -> list[BillingMonth]:
        """Return the months from the first to the last, or to the month in progress."""
        months = [BillingMonth.parse(self.start_month)]
        last = BillingMonth.current()
        if self.end_month is not None:
            last = min(last, BillingMonth.parse(self.end_month))
        while months[-1] < last:
            months.append(months[-1].next)
        return months
