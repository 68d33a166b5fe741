"""Where all meet: settings become exports, and exports become assets, checks, jobs and sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import dagster as dg

from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.billing_table import billing_table_asset
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.manifest import manifest_asset
from finops_dagster.pipeline.parquet import parquet_asset
from finops_dagster.pipeline.resources import BillingDatabaseResource, RunLock, RunOptions, records
from finops_dagster.pipeline.sensors import lost_runs_sensor, manifest_sensor
from finops_dagster.pipeline.staged_files import staged_files_asset
from finops_dagster.pipeline.warehouse_table import warehouse_table_asset
from finops_dagster.settings import Settings
from finops_dagster.staging.folder import StagingFolder
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse

Stage = Callable[[Export], dg.AssetsDefinition]


@dataclass(frozen=True)
class Resources:
    """What holds the months; without a `warehouse` they end at Parquet."""

    staging: StagingFolder
    database: BillingDatabase
    lake: Lake
    warehouse: Warehouse | None


def build_resources(settings: Settings) -> Resources:
    """What the settings name, for the chain and for who looks at what it left."""
    duckdb = settings.database.duckdb
    return Resources(
        StagingFolder(
            settings.storage.staging_dir,
            InflationLimits(settings.storage.max_inflation, settings.storage.max_inflated_bytes),
        ),
        BillingDatabase(duckdb.database_path, DuckDB.of(duckdb)),
        Lake(settings.storage.parquet_dir),
        open_warehouse(settings.database) if settings.database.has_warehouse else None,
    )


def build_definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the settings. Touches no network and no credentials."""
    exports = [Export(export) for export in settings.exports]
    duckdb, limits = settings.database.duckdb, set(DuckDB.__annotations__)
    resources = {
        **vars(build_resources(settings)),
        "database": BillingDatabaseResource(
            database=duckdb.database_path, **duckdb.model_dump(mode="json", include=limits)
        ),
        "stores": ObjectStores(),
        "run_options": RunOptions(),
        "run_lock": RunLock(),
        "records": records,
    }
    stages: list[Stage] = [manifest_asset, staged_files_asset, billing_table_asset, parquet_asset]
    last_stage = "warehouse_table" if settings.database.has_warehouse else "parquet"
    if settings.database.has_warehouse:
        stages.append(partial(warehouse_table_asset, backend=settings.database.backend))
    else:
        del resources["warehouse"]
    return dg.Definitions(
        assets=[stage(export) for export in exports for stage in stages],
        jobs=[
            # A backfill is one run a month, so a bad month fails alone.
            dg.define_asset_job(
                f"{export.settings.group}_month",
                selection=dg.AssetSelection.groups(export.settings.group),
                description=f"Load a billing month of {export.name}, from manifest to warehouse.",
                tags={"finops/export": export.name},
            )
            for export in exports
        ],
        sensors=[*(manifest_sensor(export, last_stage) for export in exports), lost_runs_sensor()],
        resources=resources,
        # A run writes the second where its configuration names it: docs/operations.md.
        loggers={"console": dg.colored_console_logger, "json": dg.json_console_logger},
        # The chain is a line: a process for each step would cost seconds and gain nothing.
        executor=dg.in_process_executor,
    )
