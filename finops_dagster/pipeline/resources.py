"""What Dagster gives to the stages: each resource makes one plain object of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.warehouses.duckdb import Settings


class BillingDatabaseResource(DuckDBResource):
    """The DuckDB file of the billing tables, within the limits of every connection; a stage takes
    it as `dg.ResourceParam[BillingDatabase]`."""

    memory_limit: str
    threads: int | None = None
    temp_dir: str | None = None
    lock_wait_seconds: int

    @classmethod
    def of(cls, settings: Settings) -> BillingDatabaseResource:
        """Return the resource with the settings' values."""
        return cls(
            database=settings.database_path,
            memory_limit=settings.memory_limit,
            threads=settings.threads,
            temp_dir=None if settings.temp_dir is None else str(settings.temp_dir),
            lock_wait_seconds=settings.lock_wait_seconds,
        )

    def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002 Dagster's
        """Return what the stages take: DuckDBResource's own connections leak where a body raises,
        and wait for no other process."""
        temp_dir = None if self.temp_dir is None else Path(self.temp_dir)
        limits = DuckDB(self.memory_limit, self.threads, temp_dir, self.lock_wait_seconds)
        return BillingDatabase(self.database, limits)
