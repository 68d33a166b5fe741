"""The settings that exports of every vendor have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import PositiveInt, StringConstraints, field_validator, model_validator

from finops_dagster.billing.columns import flat_name
from finops_dagster.billing.errors import excerpt
from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings_table import SettingsTable

# As Dagster wants them.
_OWNER = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,7}\b|team:.+")
# Relations that `finops query` and the warehouse have beside those of the exports.
_RESERVED = ("focus", "focus_named", "accounts", "report")


class ExportSettings(SettingsTable):
    """The settings of one export, from which each vendor derives its own.

    `name` is the first part of the export's asset keys. Without an `end_month`, the month in
    progress is the last. `decimals` decides about amounts of money with more than 18 decimals:
    "exact" refuses them, "round" rounds and counts them. `sensor` is whether the export's sensor
    is on at first. `owner` is shown in Dagster's UI: an e-mail address or `team:name`.
    `silent_days` replaces that of the alerts for this export.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
    vendor: str
    start_month: str
    end_month: str | None = None
    table: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = ""
    decimals: Literal["exact", "round"] = "exact"
    sensor: bool = False
    owner: str = "team:finops"
    silent_days: PositiveInt | None = None

    @field_validator("owner")
    @classmethod
    def _check_owner(cls, owner: str) -> str:
        if not _OWNER.fullmatch(owner):
            raise ValueError(
                f"{excerpt(owner)} is no owner; write an e-mail address, or team: and a name"
            )
        return owner

    @field_validator("start_month", "end_month")
    @classmethod
    def _check_month(cls, key: str | None) -> str | None:
        return key and str(BillingMonth.parse(key))

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_month is not None and self.end_month < self.start_month:
            raise ValueError(
                f"end_month {self.end_month} is before start_month {self.start_month}; set it to "
                "that month or a later one"
            )
        return self

    @model_validator(mode="after")
    def _check_reserved(self) -> Self:
        for key, name in {"name": flat_name(self.name), "table": self.table.lower()}.items():
            if name in _RESERVED:
                raise ValueError(f"{key} {name!r} is reserved; give the export another {key}")
        return self

    @property
    def focus_exports(self) -> Mapping[str, str] | None:
        """The exports whose bills the charges of this export are derived from, by dataset.

        One bill has the dataset "". None if the export has no charges of its own.
        """
        return {"": self.name}

    def without_focus(self, exports: Sequence[ExportSettings]) -> bool:
        """Return whether no charges are derived from this export's bill; `exports` are all."""
        bills = {name for export in exports for name in (export.focus_exports or {}).values()}
        return self.name not in bills

    def check_partners(self, exports: Sequence[ExportSettings]) -> None:
        """Raise ValueError unless the exports that this one names are in the settings, and fit."""

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
        """Return the months from the first to the last, without months of the future.

        At least the first is returned.
        """
        months = [BillingMonth.parse(self.start_month)]
        last = BillingMonth.current()
        if self.end_month is not None:
            last = min(last, BillingMonth.parse(self.end_month))
        while months[-1] < last:
            months.append(months[-1].next)
        return months
