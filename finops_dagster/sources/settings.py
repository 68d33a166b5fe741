"""The settings that exports of every vendor have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import PositiveInt, field_validator, model_validator

from finops_dagster.billing.columns import flat_name
from finops_dagster.billing.errors import excerpt
from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings_table import SettingsTable, pattern_validator

_NAME = "must have letters, digits, - and _ only, at most 63, and begin with a letter or a digit"
_TABLE = "must have letters, digits and _ only, and begin with no digit"
# The owners that Dagster accepts.
_OWNER = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,7}\b|team:.+")
# Relations, assets and folders of the lake beside those of the exports.
_RESERVED = ("focus", "focus_named", "accounts", "report", "state_backup", "backups")

VendorsExportName = Annotated[
    str, pattern_validator(r"[^/\x00]+", "must be the name of the export alone, without a slash")
]
"""The name that an export has at its vendor, where it is a part of the files' keys."""


class ExportSettings(SettingsTable):
    """The settings of one export, from which each vendor derives its own.

    `name` is the first part of the export's asset keys. Without an `end_month`, the month in
    progress is the last. `decimals` decides about amounts of money with more than 18 decimals:
    "exact" refuses them, "round" rounds and counts them. `sensor` is whether the export's sensor
    is on at first. `owner` is shown in Dagster's UI: an e-mail address or `team:name`.
    `silent_days` overrides the `silent_days` of the alerts for this export.
    """

    name: Annotated[str, pattern_validator(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", _NAME)]
    vendor: str
    start_month: str
    end_month: str | None = None
    table: Annotated[str, pattern_validator(r"[A-Za-z_][A-Za-z0-9_]*", _TABLE)] = ""
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
    def bill_exports_by_dataset(self) -> Mapping[str, str] | None:
        """The names of the exports from whose bills this export's charges are derived, by dataset.

        By default this export alone, with the dataset "". Only Azure's actual costs have two
        datasets, "actual" and "amortized". None if this export has no charges of its own. Formats
        without a mapping count too; `focus.exports.charge_sources` leaves them out.
        """
        return {"": self.name}

    def lacks_charges(self, exports: Sequence[ExportSettings]) -> bool:
        """Return whether no export has charges that are derived from this export's bill.

        `exports` are all of the settings. Decided by their `bill_exports_by_dataset` alone: a
        format without a mapping is not noticed.
        """
        bills = {
            name for export in exports for name in (export.bill_exports_by_dataset or {}).values()
        }
        return self.name not in bills

    def check_named_exports(self, exports: Sequence[ExportSettings]) -> None:
        """Raise ValueError if this export names one that is missing or that it may not name.

        `exports` are all of the settings. By default an export names no other.
        """

    @property
    def shares_files(self) -> bool:
        """Whether a file may hold rows of several months.

        If it may, the rows of a file that the store no longer has stay in their months.
        """
        return False

    @cached_property
    def dagster_name(self) -> str:
        """The export's name as Dagster allows it for groups, jobs and sensors: `acme_cur`."""
        return re.sub(r"[^A-Za-z0-9]", "_", self.name)

    @property
    def table_name(self) -> str:
        """The name of the table in DuckDB and the warehouse: `table`, or else `dagster_name`."""
        return self.table or self.dagster_name

    def months(self) -> list[BillingMonth]:
        """Return the months of the export in order, from `start_month` on.

        The last is `end_month` or the month in progress, whichever is earlier. There is at least
        one: a `start_month` in the future is returned alone.
        """
        months = [BillingMonth.parse(self.start_month)]
        last = BillingMonth.current()
        if self.end_month is not None:
            last = min(last, BillingMonth.parse(self.end_month))
        while months[-1] < last:
            months.append(months[-1].next)
        return months

    @property
    def months_text(self) -> str:
        """The first and the last month, for messages: `2024-01 (start_month) to 2024-06`."""
        return f"{self.start_month} (start_month) to {self.months()[-1]}"
