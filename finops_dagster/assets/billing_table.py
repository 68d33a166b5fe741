"""Stage 3: the month in the export's DuckDB table, replaced whole or not at all."""

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import dagster as dg

from finops_dagster.assets.checks import (
    HAS_ROWS,
    NOT_FEWER_ROWS,
    TOTALS_CHECKS,
    USUAL_COST,
    has_rows,
    not_fewer_rows,
    totals_hold,
    usual_cost,
)
from finops_dagster.assets.export import Export
from finops_dagster.assets.stage import RunOptions, StageEvents, month_of, stage, version_metadata
from finops_dagster.assets.staged_files import staged_manifest
from finops_dagster.billing import ledger
from finops_dagster.billing.csv_files import group_by_header
from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import column_names
from finops_dagster.billing.table import columns, cost_by_service, held_version, replace_month
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.resources.parquet_lake import ParquetLake
from finops_dagster.resources.staging import StagedVersion, StagingFolder

_SERVICES_SHOWN = 20


@dataclass(frozen=True)
class Loaded:
    """The month as the table now holds it, and what to compare it with."""

    load: Load
    outcome: str
    version_before: Load | None
    month_before: Load | None
    columns: dict[str, str]
    services: list[tuple[str, Decimal]]


def billing_table_asset(export: Export) -> dg.AssetsDefinition:
    """The table of this export, a month of it."""

    @stage(
        export,
        after="staged_files",
        kinds={"duckdb", "table"},
        checks=[*TOTALS_CHECKS, HAS_ROWS, NOT_FEWER_ROWS, USUAL_COST],
    )
    def billing_table(
        context: dg.AssetExecutionContext,
        staging: StagingFolder,
        database: BillingDatabase,
        lake: ParquetLake,
        run_options: RunOptions,
    ) -> StageEvents:
        """The month's line items with exact types, in one table for all months of the export."""
        month = month_of(context)
        manifest = staged_manifest(staging, export, month)
        staged = staging.month(export.name, month)
        started = time.monotonic()
        now = load_month(
            export,
            month,
            manifest,
            staged.version(manifest),
            database,
            lake,
            run_id=context.run.run_id,
            force=run_options.force,
        )
        staged.remove_other_versions(manifest)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(now.load.manifest_id),
            metadata={**_metadata(now), "seconds": round(time.monotonic() - started, 3)},
            check_results=[
                *totals_hold(now.load.totals),
                has_rows(now.load.totals),
                not_fewer_rows(now.load, now.version_before),
                usual_cost(now.load, now.month_before),
            ],
        )

    return billing_table


def load_month(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    version: StagedVersion,
    database: BillingDatabase,
    lake: ParquetLake,
    *,
    run_id: str,
    force: bool,
) -> Loaded:
    """Make the table hold this version of the month, unless it does. Raises StageMissing, and what
    `replace_month` raises; then the month is as it was."""
    with database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.vendor)
        outcome = "unchanged"
        if force or load is None or load.manifest_id != manifest.id:
            load = _new_load(export, month, manifest, version, run_id)
            files = group_by_header(version.paths)
            names = column_names(lake.paths(export.name))
            replace_month(connection, load, manifest, files, export.vendor, names)
            outcome = "loaded"
        return Loaded(
            load,
            outcome,
            ledger.superseded(connection, export.name, month),
            ledger.loaded(connection, export.name, month.previous),
            columns(connection, export.table),
            cost_by_service(connection, export.table, month, export.vendor),
        )


def _new_load(
    export: Export, month: BillingMonth, manifest: Manifest, version: StagedVersion, run_id: str
) -> Load:
    counted = version.counted()
    if counted is None:
        raise StageMissing(
            f"the files of {export.name} {month}, version {manifest.id}, are not all staged; "
            f"materialize {export.name}/staged_files"
        )
    return Load(
        export.name,
        month,
        manifest.id,
        export.table,
        counted.totals,
        counted.files,
        counted.bytes,
        run_id,
    )


def _metadata(now: Loaded) -> dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float]:
    return {
        "outcome": now.outcome,
        **version_metadata(now.load.manifest_id, now.load.totals),
        "dagster/table_name": now.load.table,
        "services": len(now.services),
        "cost_by_service": dg.MetadataValue.md(_services_table(now.services)),
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, sql_type) for name, sql_type in now.columns.items()]
        ),
    }


def _services_table(services: list[tuple[str, Decimal]]) -> str:
    lines = ["| service | unblended cost |", "|---|---:|"]
    lines += [f"| {name} | {cost:,.2f} |" for name, cost in services[:_SERVICES_SHOWN]]
    rest = services[_SERVICES_SHOWN:]
    if rest:
        lines.append(f"| {len(rest)} more | {sum(cost for _, cost in rest):,.2f} |")
    return "\n".join(lines)
