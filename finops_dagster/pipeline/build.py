"""Build the Dagster definitions from the settings: assets, checks, jobs, sensors, resources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import dagster as dg

from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline import RUN_TAGS
from finops_dagster.pipeline.alerts import alerts_sensor
from finops_dagster.pipeline.billing_table import billing_table_asset
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.focus import focus_asset
from finops_dagster.pipeline.manifest import manifest_asset
from finops_dagster.pipeline.parquet import parquet_asset
from finops_dagster.pipeline.report import report_asset
from finops_dagster.pipeline.resources import BillingDatabaseResource, RunLock, RunOptions, records
from finops_dagster.pipeline.sensors import (
    focus_automation_sensor,
    lost_runs_sensor,
    manifest_sensor,
)
from finops_dagster.pipeline.staged_files import staged_files_asset
from finops_dagster.pipeline.warehouse_focus import focus_table, warehouse_focus_asset
from finops_dagster.pipeline.warehouse_table import warehouse_table_asset
from finops_dagster.settings import Settings
from finops_dagster.staging.folder import StagingFolder
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse

AssetFactory = Callable[[Export], dg.AssetsDefinition]
_FACTORIES: Sequence[AssetFactory] = (
    manifest_asset,
    staged_files_asset,
    billing_table_asset,
    parquet_asset,
)


@dataclass(frozen=True)
class Resources:
    """The places that store months; `warehouse` is None if months end at the lake."""

    staging: StagingFolder
    database: BillingDatabase
    lake: Lake
    warehouse: Warehouse | None


def build_resources(settings: Settings) -> Resources:
    """Return the resources that the settings name, for the stages and for scripts; opens none.

    Raises SettingsError if the client of the warehouse is not installed.
    """
    duckdb = settings.database.duckdb
    return Resources(
        StagingFolder(
            settings.storage.staging_dir,
            InflationLimits(settings.storage.max_inflation, settings.storage.max_inflated_bytes),
        ),
        BillingDatabase(duckdb.database_path, DuckDB.of(duckdb)),
        settings.storage.open_lake(),
        open_warehouse(settings.database) if settings.database.has_warehouse else None,
    )


def build_definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the settings; needs no network access and no credentials.

    Raises SettingsError if the client of the warehouse or of Prometheus is not installed.
    """
    exports = [Export(export) for export in settings.exports]
    duckdb, limit_names = settings.database.duckdb, set(DuckDB.__annotations__)
    resources = {
        **vars(build_resources(settings)),
        "database": BillingDatabaseResource(
            database=duckdb.database_path, **duckdb.model_dump(mode="json", include=limit_names)
        ),
        "stores": ObjectStores(),
        "run_options": RunOptions(),
        "run_lock": RunLock(),
        "records": records,
    }
    factories = [*_FACTORIES]
    last_stage = "warehouse_table" if settings.database.has_warehouse else "parquet"
    if settings.database.has_warehouse:
        factories.append(partial(warehouse_table_asset, backend=settings.database.backend))
    else:
        del resources["warehouse"]
    with_focus = [export for export in exports if export.has_focus]
    focus = [focus_asset(export, exports) for export in with_focus]
    if settings.database.has_warehouse:
        backend, tables = settings.database.backend, list(map(focus_table, with_focus))
        focus += [warehouse_focus_asset(export, backend, tables) for export in with_focus]
    if with_focus:
        focus.append(report_asset(settings, with_focus))
    return dg.Definitions(
        assets=[*(factory(export) for export in exports for factory in factories), *focus],
        jobs=[
            # A backfill starts one run for each month, so that a bad month fails alone.
            dg.define_asset_job(
                f"{export.settings.group}_month",
                selection=dg.AssetSelection.groups(export.settings.group),
                description=f"Loads a month of {export.name}, from manifest to {last_stage}.",
                tags={"finops/export": export.name, **RUN_TAGS},
            )
            for export in exports
        ],
        sensors=[
            *(manifest_sensor(export, last_stage, settings.run_sizes) for export in exports),
            *focus_automation_sensor(exports, has_warehouse=settings.database.has_warehouse),
            lost_runs_sensor(),
            *([alerts_sensor(settings.alerts, exports, last_stage)] if settings.alerts else []),
            *_metrics_sensors(settings),
        ],
        resources=resources,
        # A run writes JSON lines if its config names that logger: docs/operations.md.
        loggers={"console": dg.colored_console_logger, "json": dg.json_console_logger},
        # The stages run one after the other: a process for each would cost seconds for nothing.
        executor=dg.in_process_executor,
    )


def _metrics_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    if settings.metrics.file is None:
        return []
    settings.metrics.require_client()
    from finops_dagster.pipeline.metrics_sensor import metrics_sensor

    return [metrics_sensor(settings, settings.metrics.file)]
