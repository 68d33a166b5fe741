"""The Dagster resources of the stages, each of which creates a plain object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from finops_dagster.billing.months import BillingMonth
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake
from finops_dagster.processes import run_lock
from finops_dagster.staging.folder import StagingFolder
from finops_dagster.tables.database import BillingDatabase, DuckDB


class BillingDatabaseResource(DuckDBResource):
    """The DuckDB file of the billing tables, and the limits of its connections.

    `database` is the setting `database_path`, which may have {export} and {month}. A stage receives
    the resource as `dg.ResourceParam[BillingDatabase]`.
    """

    memory_limit: str
    threads: int | None = None
    temp_dir: str | None = None
    lock_wait_seconds: int

    def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002 Dagster's
        """Return the database, which each stage opens for itself; this opens no connection."""
        # DuckDBResource's own connections stay open if a body raises, and fail where another
        # process has the file.
        temp_dir = None if self.temp_dir is None else Path(self.temp_dir)
        limits = DuckDB(self.memory_limit, self.threads, temp_dir, self.lock_wait_seconds)
        return BillingDatabase(self.database, limits)


class RunOptions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Options of one run: `resources: {run_options: {config: {force: true}}}` in its config."""

    force: bool = False
    """Run every stage again, also where it has the version already.

    The newest of the vendor's runs that are left is loaded, also if the loaded one is newer or
    covers more days.
    """


class RunLock(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lock that shows other processes of this machine that a run's process is alive."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[RunLock]:
        """Hold the run's lock from the first stage to the last.

        If `finops` started the run, its process holds the lock already, and this does nothing.
        """
        assert context.instance is not None
        assert context.run is not None
        with run_lock(Path(context.instance.root_directory), context.run.run_id):
            yield self


class StageRecords:
    """The records of versions that the stages of one run hand over to the next; in memory."""

    def __init__(self, staging: StagingFolder, lake: Lake) -> None:
        self._staging, self._lake = staging, lake
        self._records: dict[tuple[dg.AssetKey, str], object] = {}

    def put(self, stage: dg.AssetKey, month: str, record: object) -> None:
        """Keep the record of a stage until the run ends."""
        self._records[stage, month] = record

    def get(self, stage: dg.AssetKey, month: str) -> object:
        """Return the record that the stage put in this run, or else the stored one.

        That one is in the staging folder or in the footer of the lake's file, from any earlier run.
        None if there is none, and for a billing table, whose ledger the next stage reads itself.
        """
        if (stage, month) in self._records:
            return self._records[stage, month]
        (export, name), billing_month = stage.path, BillingMonth.parse(month)
        lakes = {"parquet": self._lake, "focus": focus_lake(self._lake)}
        if name in lakes:
            return lakes[name].file(export, billing_month).version()
        staged = self._staging.staged_month(export, billing_month)
        readers = {"manifest": staged.manifest, "staged_files": staged.current_record}
        return readers[name]() if name in readers else None


def records_resource(prefix: str) -> dg.ResourceDefinition:
    """Return the definition of the resource `records`: new `StageRecords` for each run.

    It needs the resources `staging`, `lake` and `run_lock`, whose keys begin with `prefix`. Every
    stage needs the records, so each run holds its lock from its first stage on.
    """
    staging, lake, run_lock = (f"{prefix}{name}" for name in ("staging", "lake", "run_lock"))

    @dg.resource(required_resource_keys={staging, lake, run_lock})
    def new_records(context: dg.InitResourceContext) -> StageRecords:
        return StageRecords(getattr(context.resources, staging), getattr(context.resources, lake))

    return new_records
