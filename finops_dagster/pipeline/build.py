"""Build the Dagster definitions from the settings: assets, checks, jobs, sensors, resources."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import dagster as dg

from finops_dagster.focus.exports import completing_exports
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline import RUN_TAGS, STAGES_TAG, last_bill_stage
from finops_dagster.pipeline.alerts import alerts_sensor
from finops_dagster.pipeline.billing_table import billing_table_asset
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.focus import focus_asset
from finops_dagster.pipeline.manifest import manifest_asset
from finops_dagster.pipeline.manifest_sensor import manifest_sensor
from finops_dagster.pipeline.parquet import parquet_asset
from finops_dagster.pipeline.report import report_asset
from finops_dagster.pipeline.resources import (
    BillingDatabaseResource,
    RunLock,
    RunOptions,
    records_resource,
)
from finops_dagster.pipeline.sensors import focus_automation_sensor, lost_runs_sensor
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
)


@dataclass(frozen=True)
class Resources:
    """The objects that store months, one of each kind; `warehouse` is None if there is none."""

    staging: StagingFolder
    database: BillingDatabase
    lake: Lake
    warehouse: Warehouse | None


def build_resources(settings: Settings) -> Resources:
    """Return the objects that the settings name, without Dagster; opens no file or connection.

    Raises SettingsError if the client of the warehouse is not installed.
    """
    return Resources(
        StagingFolder(
            settings.storage.staging_dir,
            InflationLimits(settings.storage.max_inflation, settings.storage.max_inflated_bytes),
        ),
        settings.database.duckdb.billing_database(),
        settings.storage.open_lake(),
        open_warehouse(settings.database) if settings.database.has_warehouse else None,
    )


def build_definitions(settings: Settings, exports: Collection[str] | None = None) -> dg.Definitions:
    """Return the Dagster definitions of exports, and of what all exports share.

    `exports` are names; None means all, and unknown names are ignored. Exports that complete the
    charges of these are added. The definitions of `upkeep_definitions` are not included. Needs no
    network and no credentials. Raises SettingsError if the client of the warehouse, of Prometheus
    or of Iceberg is not installed.
    """
    project_wide = dg.Definitions(
        # A run writes JSON lines if its config names that logger: docs/operations.md.
        loggers={"console": dg.colored_console_logger, "json": dg.json_console_logger},
        executor=dg.in_process_executor,
    )
    names = {export.name for export in settings.exports}
    if exports is not None:
        names = {*exports, *completing_exports(e for e in settings.exports if e.name in exports)}
    definitions = [
        export_definitions(settings, export.name)
        for export in settings.exports
        if export.name in names
    ]
    return dg.Definitions.merge(*definitions, shared_definitions(settings), project_wide)


def export_definitions(settings: Settings, name: str, prefix: str = "") -> dg.Definitions:
    """Return the assets, checks, job and sensor of one export.

    `name` must be the name of an export of the settings. The definitions need the resources of
    `shared_definitions` with the same `prefix`, which does not change the names of the assets, the
    job and the sensor.
    """
    exports = [Export(export, prefix) for export in settings.exports]
    (export,) = (export for export in exports if export.name == name)
    open_catalog = settings.open_catalog if settings.catalog else None
    factories: list[AssetFactory] = [*_FACTORIES]
    factories.append(partial(parquet_asset, open_catalog=open_catalog))
    group = export.settings.dagster_name
    backend = settings.database.backend if settings.database.has_warehouse else None
    if backend is not None:
        factories.append(partial(warehouse_table_asset, backend=backend))
    if export.has_focus:
        factories.append(partial(focus_asset, exports=exports, open_catalog=open_catalog))
    if export.has_focus and backend is not None:
        tables = [focus_table(other) for other in exports if other.has_focus]
        factories.append(partial(warehouse_focus_asset, backend=backend, tables=tables))
    last_stage = last_bill_stage(has_warehouse=settings.database.has_warehouse)
    # A backfill starts one run for each month, so that a bad month fails alone.
    job = dg.define_asset_job(
        f"{group}_month",
        selection=dg.AssetSelection.groups(group),
        description=f"Loads a month of {name}, from manifest to {last_stage}"
        f"{', and derives its charges' if export.has_focus else ''}.",
        tags={"finops/export": name, STAGES_TAG: "all", **RUN_TAGS},
        # The stages run one after the other: a process for each would cost seconds for nothing.
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(
        assets=[factory(export) for factory in factories],
        jobs=[job],
        sensors=[manifest_sensor(export, last_stage, settings.run_sizes)],
    )


def shared_definitions(settings: Settings, prefix: str = "") -> dg.Definitions:
    """Return what all exports of the settings share: resources, the report, further sensors.

    `prefix` begins the keys of the resources and the names of the sensors. Raises SettingsError if
    the client of the warehouse, of Prometheus or of Iceberg is not installed.
    """
    exports = [Export(export, prefix) for export in settings.exports]
    with_focus = [export for export in exports if export.has_focus]
    has_warehouse = settings.database.has_warehouse
    sensors = [
        *focus_automation_sensor(exports, has_warehouse=has_warehouse, prefix=prefix),
        lost_runs_sensor(prefix),
    ]
    if settings.catalog:
        settings.catalog.require_client()
    if settings.alerts:
        last_stage = last_bill_stage(has_warehouse=has_warehouse)
        sensors.append(alerts_sensor(settings.alerts, exports, last_stage, prefix))
    if settings.metrics.file is not None:
        settings.metrics.require_client()
        from finops_dagster.pipeline.metrics_sensor import metrics_sensor

        sensors.append(metrics_sensor(settings, settings.metrics.file, prefix))
    return dg.Definitions(
        assets=[report_asset(settings, with_focus)] if with_focus else [],
        sensors=sensors,
        resources={f"{prefix}{name}": r for name, r in _resources(settings, prefix).items()},
    )


def _resources(settings: Settings, prefix: str) -> dict[str, object]:
    """Return the Dagster resources by name; `prefix` begins their keys."""
    duckdb, limit_names = settings.database.duckdb, set(DuckDB.__annotations__)
    objects = {name: value for name, value in vars(build_resources(settings)).items() if value}
    return {
        **objects,
        "database": BillingDatabaseResource(
            database=duckdb.database_path, **duckdb.model_dump(mode="json", include=limit_names)
        ),
        "stores": ObjectStores(),
        "run_options": RunOptions(),
        "run_lock": RunLock(),
        "records": records_resource(prefix),
    }
