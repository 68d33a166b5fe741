"""The lake: one Parquet file a month of an export, which anybody may read at any time."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import month_path


class ParquetLake(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Files of the form `<root>/<export>/billing_month=2024-01/<export>-2024-01.parquet`."""

    root: str

    def path(self, export: str, month: BillingMonth) -> Path:
        """Where the month's file lies, or will lie."""
        return month_path(Path(self.root), export, month)

    def paths(self, export: str) -> list[Path]:
        """The files of all months that are there, the oldest month first."""
        return sorted(Path(self.root, export).glob("billing_month=*/*.parquet"))
