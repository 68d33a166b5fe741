"""One export as the stages see it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from finops_dagster.billing.months import BillingMonth
from finops_dagster.focus.exports import charge_sources
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.sources import VENDORS
from finops_dagster.sources.base import Format, Source
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.staging.folder import StagingFolder
from finops_dagster.staging.months_reader import MonthsReader
from finops_dagster.tables.database import BillingDatabase


@dataclass(frozen=True)
class Export:
    """An export's settings, with its possible formats, its source and its months.

    `prefix` begins the keys of the Dagster resources that its stages and its sensor need.
    """

    settings: ExportSettings
    prefix: str = ""

    @property
    def name(self) -> str:
        """The name of the export in the settings, and the first part of its asset keys."""
        return self.settings.name

    @property
    def table(self) -> str:
        """The name of the export's table in DuckDB and in the warehouse."""
        return self.settings.table_name

    @property
    def rounds_money(self) -> bool:
        """Whether amounts with more than 18 decimals are rounded; otherwise they are an error."""
        return self.settings.decimals == "round"

    @functools.cached_property
    def formats(self) -> Mapping[str, Format]:
        """The formats that the export's months may have, by name; a manifest says which it is."""
        return VENDORS[self.settings.vendor].formats(self.settings)

    @functools.cached_property
    def has_focus(self) -> bool:
        """Whether charges are derived from this export's months.

        False without a mapping for its formats; also for an Azure export of amortized costs, which
        complete the bill of another, and for one of actual costs without `amortized_from`.
        """
        return charge_sources(self.settings) is not None

    def source(
        self, stores: ObjectStores, staging: StagingFolder, lake: Lake, database: BillingDatabase
    ) -> Source:
        """Return a new source, which finds and downloads the export's versions through `stores`.

        It reads the records of shared files in the staging folder, in the lake and in the ledger,
        which is in `database`. No request is sent yet. Raises StoreError as `open_store`, such as
        for credentials in the environment that are not usable.
        """
        reader = MonthsReader(self.settings, staging, lake, database)
        return VENDORS[self.settings.vendor].open_source(self.settings, stores, reader)

    @functools.cached_property
    def partitions(self) -> dg.MonthlyPartitionsDefinition:
        """Dagster's partitions of the export's assets, one for each month.

        The last is `end_month` or the month in progress, whichever is earlier.
        """
        last = self.settings.end_month
        # Dagster cannot represent the month after 9999-12.
        is_open = last is None or last == "9999-12"
        return dg.MonthlyPartitionsDefinition(
            start_date=self.settings.start_month,
            end_date=None if is_open else str(BillingMonth.parse(str(last)).next),
            fmt="%Y-%m",
            end_offset=1,
        )

    def months(self) -> list[BillingMonth]:
        """Return the months of the export in order, from `start_month` on.

        The last is `end_month` or the month in progress, whichever is earlier. There is at least
        one: a `start_month` in the future is returned alone.
        """
        return self.settings.months()

    def resource_key(self, name: str) -> str:
        """Return the key of the Dagster resource `name`, such as `lake`."""
        return f"{self.prefix}{name}"

    def asset_key(self, stage: str) -> dg.AssetKey:
        """Return the asset key of a stage."""
        return dg.AssetKey([self.name, stage])
