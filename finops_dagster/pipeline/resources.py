"""What Dagster gives to the stages: each resource makes one plain object of the project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import Lake, read_footer
from finops_dagster.processes import run_lock
from finops_dagster.staging.folder import StagingFolder
from finops_dagster.tables.database import BillingDatabase, DuckDB


class BillingDatabaseResource(DuckDBResource):
    """The DuckDB file of the billing tables, within the limits of every connection; a stage takes
    it as `dg.ResourceParam[BillingDatabase]`."""

    memory_limit: str
    threads: int | None = None
    temp_dir: str | None = None
    lock_wait_seconds: int

    def create_resource(self, context: dg.InitResourceContext) -> Any:  # noqa: ARG002 Dagster's
        """Return what the stages take: DuckDBResource's own connections leak where a body raises,
        and wait for no other process."""
        temp_dir = None if self.temp_dir is None else Path(self.temp_dir)
        limits = DuckDB(self.memory_limit, self.threads, temp_dir, self.lock_wait_seconds)
        return BillingDatabase(self.database, limits)


class RunOptions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a person may ask of one run, in its config:
    `resources: {run_options: {config: {force: true}}}`."""

    force: bool = False
    """Do every stage again, also where it holds the month already."""


class RunLock(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lock that tells other processes of this machine that a run's process is alive."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[RunLock]:
        """Hold the lock from the run's first stage to its last, also where Dagster began it."""
        assert context.instance is not None
        assert context.run is not None
        with run_lock(Path(context.instance.root_directory), context.run.run_id):
            yield self


class RecordsIOManager(dg.IOManager):
    """Hand what a stage knows of the version to the next one: within a run from memory, and to a
    stage that is run alone the record beside the data of the stage before.

    The record of the billing table is the ledger, which the stage after it opens itself.
    """

    def __init__(self, staging: StagingFolder, lake: Lake) -> None:
        self._staging, self._lake = staging, lake
        self._of_run: dict[tuple[dg.AssetKey, str], object] = {}

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Keep the record until the run ends."""
        self._of_run[context.asset_key, context.asset_partition_key] = obj

    def load_input(self, context: dg.InputContext) -> object:
        """Return the record of the stage before; None where it has none."""
        key, month = context.asset_key, context.asset_partition_key
        if (key, month) in self._of_run:
            return self._of_run[key, month]
        (export, stage), billing_month = key.path, BillingMonth.parse(month)
        if stage == "parquet":
            return read_footer(self._lake.path(export, billing_month))
        staged = self._staging.month(export, billing_month)
        kept = {"manifest": staged.manifest, "staged_files": staged.current_record}
        return kept[stage]() if stage in kept else None


@dg.io_manager(required_resource_keys={"staging", "lake", "run_lock"})
def records(context: dg.InitResourceContext) -> RecordsIOManager:
    """Return what hands the records of one run from stage to stage."""
    return RecordsIOManager(context.resources.staging, context.resources.lake)
