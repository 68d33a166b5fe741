"""Where all meet: settings become exports, and exports become assets, checks, jobs and sensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import dagster as dg

from finops_dagster.assets.billing_table import billing_table_asset
from finops_dagster.assets.export import Export
from finops_dagster.assets.manifest import manifest_asset
from finops_dagster.assets.parquet import parquet_asset
from finops_dagster.assets.stage import RunOptions
from finops_dagster.assets.staged_files import staged_files_asset
from finops_dagster.assets.warehouse_table import warehouse_table_asset
from finops_dagster.jobs import month_job
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.resources.parquet_lake import ParquetLake
from finops_dagster.resources.staging import StagingFolder
from finops_dagster.resources.warehouses import open_warehouse
from finops_dagster.sensors import manifest_sensor
from finops_dagster.settings import Settings, SettingsError, load_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """The code location that the settings describe. Touches no network and no credentials."""
    exports = [Export(export) for export in settings.exports]
    resources: dict[str, object] = {
        "staging": StagingFolder(root=str(settings.storage.staging_dir)),
        "database": BillingDatabase(
            database=settings.database.duckdb.database_path,
            memory_limit=settings.database.duckdb.memory_limit,
            threads=settings.database.duckdb.threads,
            lock_wait_seconds=settings.database.duckdb.lock_wait_seconds,
        ),
        "lake": ParquetLake(root=str(settings.storage.parquet_dir)),
        "run_options": RunOptions(),
    }
    stages: list[Callable[[Export], dg.AssetsDefinition]] = [
        manifest_asset,
        staged_files_asset,
        billing_table_asset,
        parquet_asset,
    ]
    if settings.database.has_warehouse:
        stages.append(partial(warehouse_table_asset, backend=settings.database.backend))
        resources["warehouse"] = open_warehouse(settings.database)
    return dg.Definitions(
        assets=[stage(export) for export in exports for stage in stages],
        jobs=[month_job(export) for export in exports],
        sensors=[manifest_sensor(export) for export in exports],
        resources=resources,
        # The chain is a line: a process for each step would cost seconds and gain nothing.
        executor=dg.in_process_executor,
    )


try:
    defs = build_definitions(load_settings())
except SettingsError as error:
    raise SystemExit(str(error)) from None
