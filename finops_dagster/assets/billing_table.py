"""Stage 3: the month in the export's DuckDB table, replaced whole or not at all."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import duckdb

from finops_dagster.assets.checks import (
    HAS_ROWS,
    NOT_FEWER_ROWS,
    ONE_CURRENCY,
    TOTALS_CHECKS,
    USUAL_COST,
    has_rows,
    not_fewer_rows,
    one_currency,
    totals_hold,
    usual_cost,
)
from finops_dagster.assets.export import Export
from finops_dagster.assets.stage import RunOptions, StageEvents, month_of, stage, version_metadata
from finops_dagster.assets.staged_files import staged_manifest
from finops_dagster.billing import ledger
from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.files import read_files
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import column_names
from finops_dagster.billing.restatement import Costs, Restatement
from finops_dagster.billing.table import (
    columns,
    cost_by,
    held_version,
    is_final,
    replace_month,
)
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.resources.parquet_lake import ParquetLake
from finops_dagster.resources.staging import StagedVersion, StagingFolder

_SERVICES_SHOWN = 20


@dataclass(frozen=True)
class Loaded:
    """The month as the table now holds it, and what to compare it with. `warnings` are of columns
    whose type is not what this version gives."""

    load: Load
    version_before: Load | None
    month_before: Load | None
    columns: dict[str, str]
    cost_column: str
    services: Costs
    currencies: Costs
    is_final: bool | None
    outcome: str = "unchanged"
    warnings: Sequence[str] = ()
    restatement: Restatement | None = None


def billing_table_asset(export: Export) -> dg.AssetsDefinition:
    """The table of this export, a month of it."""

    @stage(
        export,
        after="staged_files",
        kinds={"duckdb", "table"},
        checks=[*TOTALS_CHECKS, HAS_ROWS, NOT_FEWER_ROWS, USUAL_COST, ONE_CURRENCY],
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
                one_currency(now.currencies),
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
        held = held_version(connection, export.name, month, export.formats)
        if held is not None and held.manifest_id == manifest.id and not force:
            return _as_held(connection, export, held)
        before = None if held is None else _as_held(connection, export, held)
        load = _new_load(export, month, manifest, version, run_id)
        vendor = export.formats[manifest.format]
        files = read_files(version.paths, vendor)
        names = column_names(lake.paths(export.name))
        warnings = replace_month(connection, load, manifest, files, vendor, names)
        now = _as_held(connection, export, load)
        if before is not None and before.load.manifest_id != load.manifest_id:
            now = replace(now, restatement=_restatement(before, now))
        return replace(now, outcome="loaded", warnings=warnings)


def _as_held(connection: duckdb.DuckDBPyConnection, export: Export, load: Load) -> Loaded:
    """What the table says of the month that it holds."""
    vendor, month = export.formats[load.format], load.month
    return Loaded(
        load,
        ledger.superseded(connection, export.name, month),
        ledger.loaded(connection, export.name, month.previous),
        columns(connection, export.table),
        vendor.cost,
        cost_by(connection, export.table, month, vendor, vendor.service),
        cost_by(connection, export.table, month, vendor, vendor.currency),
        is_final(connection, export.table, month, vendor),
    )


def _restatement(before: Loaded, now: Loaded) -> Restatement:
    return Restatement(
        before.load.manifest_id,
        before.load.totals,
        now.load.totals,
        before.services,
        now.services,
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
        manifest.format,
    )


def _metadata(now: Loaded) -> dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float]:
    metadata: dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float] = {
        "outcome": now.outcome,
        **version_metadata(now.load.manifest_id, now.load.totals),
        "dagster/table_name": now.load.table,
        "currency": ", ".join(currency for currency, _ in now.currencies),
        "services": len(now.services),
        "cost_by_service": dg.MetadataValue.md(_services_table(now)),
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, sql_type) for name, sql_type in now.columns.items()]
        ),
    }
    if now.is_final is not None:
        metadata["final"] = dg.MetadataValue.bool(now.is_final)
    if now.warnings:
        metadata["warnings"] = dg.MetadataValue.md("\n".join(f"- {w}" for w in now.warnings))
    if now.restatement is not None:
        metadata["rows_changed"] = now.restatement.rows
        metadata["cost_changed"] = float(now.restatement.cost)
        metadata["restatement"] = dg.MetadataValue.md(_restatement_table(now.restatement))
    return metadata


def _services_table(now: Loaded) -> str:
    lines = [f"| service | {now.cost_column} |", "|---|---:|"]
    lines += [f"| {name} | {cost:,.2f} |" for name, cost in now.services[:_SERVICES_SHOWN]]
    rest = now.services[_SERVICES_SHOWN:]
    if rest:
        lines.append(f"| {len(rest)} more | {sum(cost for _, cost in rest):,.2f} |")
    return "\n".join(lines)


def _restatement_table(change: Restatement) -> str:
    before, now = change.before, change.now
    lines = [
        f"| | {change.manifest_id_before} | now | change |",
        "|---|---:|---:|---:|",
        f"| rows | {before.rows:,} | {now.rows:,} | {change.rows:+,} |",
        f"| cost | {before.cost:,.2f} | {now.cost:,.2f} | {change.cost:+,.2f} |",
    ]
    for service, was, is_now in change.largest_moves():
        lines.append(f"| {service} | {was:,.2f} | {is_now:,.2f} | {is_now - was:+,.2f} |")
    return "\n".join(lines)
