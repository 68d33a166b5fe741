"""One export as the chain sees it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores
from finops_dagster.sources import VENDORS
from finops_dagster.sources.base import Format, Source
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Export:
    """An export's settings, the formats that it may be in, its source and its months."""

    settings: ExportSettings

    @property
    def name(self) -> str:
        """The first part of the export's asset keys."""
        return self.settings.name

    @property
    def table(self) -> str:
        """The export's table, in DuckDB and in the warehouse."""
        return self.settings.table_name

    @property
    def rounds_money(self) -> bool:
        """Whether amounts of more than 18 decimals are rounded and counted, or else refused."""
        return self.settings.decimals == "round"

    @functools.cached_property
    def formats(self) -> Mapping[str, Format]:
        """The vendor's formats by name; which of them a month is in, its manifest says."""
        return VENDORS[self.settings.vendor].formats(self.settings)

    def source(self, stores: ObjectStores) -> Source:
        """Return where the export's months come from."""
        return VENDORS[self.settings.vendor].source(self.settings, stores)

    @functools.cached_property
    def partitions(self) -> dg.MonthlyPartitionsDefinition:
        """Billing months from the export's first to its last, or to the one in progress."""
        last = self.settings.end_month
        endless = last is None or last == "9999-12"  # after which Dagster knows no month
        return dg.MonthlyPartitionsDefinition(
            start_date=self.settings.start_month,
            end_date=None if endless else str(BillingMonth.parse(str(last)).next),
            fmt="%Y-%m",
            end_offset=1,
        )

    def months(self) -> list[BillingMonth]:
        """The partitions as months, the oldest first."""
        return self.settings.months()

    def key(self, stage: str) -> dg.AssetKey:
        """The asset key of a stage."""
        return dg.AssetKey([self.name, stage])
