"""Where months end: one file a warehouse, imported only when the settings choose it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import dagster as dg
import pyarrow as pa

from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import Footer
from finops_dagster.settings import BigQuerySettings, DatabaseSettings


class WarehouseUnavailable(Exception):
    """The warehouse or the way to it failed; asking again may help."""


@dataclass(frozen=True)
class MonthFile:
    """One month of one export, ready to be loaded: the file, what its footer says, its columns, and
    the names of those that a warehouse must know, where the bill has them."""

    export: str
    table: str
    month: BillingMonth
    path: Path
    footer: Footer
    schema: pa.Schema
    cost: str | None
    billing_period: str | None
    cluster_by: tuple[str, ...]


@runtime_checkable
class Warehouse(Protocol):
    """What the chain asks of a warehouse. Errors are BillError, ReconciliationError, and
    WarehouseUnavailable where asking again may help."""

    def reach(self) -> str:
        """Ask the warehouse for nothing, and say what it is that answered."""
        ...

    def full_name(self, table: str) -> str:
        """The table's name as a person would query it."""
        ...

    def held_version(self, file: MonthFile) -> Footer | None:
        """The version of the month that the ledger says is loaded, if the table really holds its
        rows and cost."""
        ...

    def replace_month(self, file: MonthFile) -> str:
        """Make the table hold exactly this month's file, in one step; the name of the job."""
        ...


def open_warehouse(settings: DatabaseSettings) -> dg.ConfigurableResource:  # type: ignore[type-arg]
    """The warehouse that `database.backend` names. Makes no connection yet."""
    match settings:
        case DatabaseSettings(backend="bigquery", bigquery=BigQuerySettings() as chosen):
            from finops_dagster.resources.warehouses.bigquery import BigQueryWarehouse

            return BigQueryWarehouse(
                project=chosen.project_id,
                dataset=chosen.dataset,
                location=chosen.location,
                api_endpoint=chosen.api_endpoint,
            )
        case _:
            raise ValueError(f"{settings.backend} is no warehouse")
