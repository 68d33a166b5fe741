"""The settings that an export of any vendor has."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import StringConstraints, field_validator, model_validator

from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings_table import SettingsTable


class ExportSettings(SettingsTable):
    """One cost export; its name is the first part of its asset keys. Each vendor derives its own.

    Without an `end_month`, months come until the one in progress. `decimals` says what is done with
    an amount of money of more than 18: refused, or rounded and counted.
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

    @cached_property
    def group(self) -> str:
        """The name as Dagster takes it for groups, jobs and sensors."""
        return re.sub(r"[^A-Za-z0-9]", "_", self.name)

    @property
    def table_name(self) -> str:
        """The table of this export, in DuckDB and in the warehouse."""
        return self.table or self.group

    def months(self) -> list[BillingMonth]:
        """Return every month from the first to the last, or to the one in progress."""
        months = [BillingMonth.parse(self.start_month)]
        last = BillingMonth.current()
        if self.end_month is not None:
            last = min(last, BillingMonth.parse(self.end_month))
        while months[-1] < last:
            months.append(months[-1].next)
        return months
