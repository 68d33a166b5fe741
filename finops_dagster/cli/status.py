"""What each month holds, by the record beside each stage's data, and how its last run ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.money import plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.cli.history import Ending, History, Materialization, open_history
from finops_dagster.cli.output import Columns, Row, named
from finops_dagster.cli.selection import Selection
from finops_dagster.lake import Lake, read_record
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import Settings
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.staging.folder import StagedMonth, StagingFolder
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import complain
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import LoadedMonth, WarehouseUnavailable, newest_loads

Report = Callable[[str], None]
UNKNOWN = "unknown"
_LOADS = """
SELECT strftime(billing_month, '%Y-%m'), manifest_id, row_count, loaded_at
FROM finops_state.manifests WHERE export = ? AND state = 'loaded'
"""


def last_stage(settings: Settings) -> str:
    """Return the stage at which the chain ends."""
    return "warehouse_table" if settings.database.has_warehouse else "parquet"


def stages_of(settings: Settings, until: str | None = None) -> tuple[str, ...]:
    """Return the stages of the chain, up to one or to the last."""
    return STAGES[: STAGES.index(until or last_stage(settings)) + 1]


def ledger_loads(settings: Settings, export: ExportSettings) -> list[LoadedMonth]:
    """Return the months that the ledger says the DuckDB table holds, the newest first, without
    waiting for who has the file open. Raises BillError where it cannot be read."""
    database = settings.database.duckdb
    connections = replace(DuckDB.of(database), lock_wait_seconds=0)
    files = {database.database_path.format(export=export.name, month=m) for m in export.months()}
    loads: list[tuple[Any, ...]] = []
    for path in filter(Path.exists, map(Path, files)):
        with connections.open(path, read_only=True) as connection:
            try:
                loads += connection.execute(_LOADS, [export.name]).fetchall()
            except duckdb.CatalogException:
                continue  # it has no ledger yet
            except duckdb.BinderException as error:
                raise BillError(f"the ledger of {path} is damaged: {first_line(error)}") from error
    return newest_loads(loads)


def warehouse_loads(settings: Settings, export: ExportSettings) -> tuple[str, list[LoadedMonth]]:
    """Return the name of the export's table in the warehouse, and the months that the warehouse's
    own ledger says are loaded. Raises BillError and WarehouseUnavailable."""
    warehouse = open_warehouse(settings.database)
    table = export.table_name
    return warehouse.full_name(table), warehouse.loaded_months(table)


def loaded_months(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row for each month that the warehouse says is loaded, the newest first; without a
    warehouse, that the DuckDB file says. Raises BillError and WarehouseUnavailable."""
    rows = []
    for export in selection.exports(settings):
        if settings.database.has_warehouse:
            table, loads = warehouse_loads(settings, export)
        else:
            table, loads = export.table_name, ledger_loads(settings, export)
        rows += [{"export": export.name, **vars(load), "table": table} for load in loads]
    return rows


@dataclass(frozen=True)
class MonthRecords:
    """What is recorded of a month beside its data: the version by stage, and the lake's record."""

    versions: dict[str, str | None]
    lake: LoadedVersion | None
    is_staged: bool

    @property
    def has_any(self) -> bool:
        """Whether anything is known of the month."""
        return not set(self.versions.values()) <= {None, UNKNOWN}

    def holds(self, stage: str) -> bool:
        """Whether the stage has the month for the stage after it."""
        return self.is_staged if stage == "staged_files" else self.versions[stage] is not None


def month_records(
    settings: Settings, selection: Selection
) -> Iterator[tuple[ExportSettings, str, MonthRecords]]:
    """Yield what is recorded of each month. Where staged files are not kept any more, the table
    answers for them; what cannot be read is said on standard error."""
    stages = stages_of(settings)
    for export in selection.exports(settings):
        months = selection.months(export)
        lake = {month: read_record(_lake_file(settings, export, month)) for month in months}
        tables = table_versions(settings, export)
        warehouse = _in_warehouse(settings, export)
        for month in months:
            in_lake = lake[month]
            parquet = in_lake.manifest_id if in_lake else None
            table = tables.get(str(month))
            staging = staged_month(settings, export, month)
            manifest, staged = staging.manifest(), staging.records()
            is_staged = bool(manifest and staged and staged[0].vendor_id == manifest.id)
            of_files = staged[0].manifest_id if staged else table
            versions = {
                "manifest": manifest.id if manifest else of_files and of_files.partition("+")[0],
                "staged_files": of_files,
                "billing_table": table,
                "parquet": parquet,
                "warehouse_table": warehouse.get(str(month)) if warehouse is not None else UNKNOWN,
            }
            yield (
                export,
                str(month),
                MonthRecords({s: versions[s] for s in stages}, in_lake, is_staged),
            )


def _lake_file(settings: Settings, export: ExportSettings, month: BillingMonth) -> Path:
    return Lake(settings.storage.parquet_dir).path(export.name, month)


def table_versions(settings: Settings, export: ExportSettings) -> dict[str, str]:
    """Return by month the version that the ledger has; where it cannot be read, as while another
    process loads, what the lake has, and a line on standard error."""
    try:
        return {load.month: load.version for load in ledger_loads(settings, export)}
    except BillError as error:
        what = str(error).partition(";")[0]
        complain(f"{what}; what the lake has is shown for the table")
    lake = {str(m): read_record(_lake_file(settings, export, m)) for m in export.months()}
    return {month: record.manifest_id for month, record in lake.items() if record}


def _in_warehouse(settings: Settings, export: ExportSettings) -> dict[str, str] | None:
    if not settings.database.has_warehouse:
        return {}
    try:
        return {load.month: load.version for load in warehouse_loads(settings, export)[1]}
    except (BillError, WarehouseUnavailable) as error:
        complain(f"{error}; what the warehouse holds is not known")
        return None


def staged_month(settings: Settings, export: ExportSettings, month: BillingMonth) -> StagedMonth:
    """Return where the month is staged, which need not exist."""
    storage = settings.storage
    limits = InflationLimits(storage.max_inflation, storage.max_inflated_bytes)
    return StagingFolder(storage.staging_dir, limits).month(export.name, month)


def month_status(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row a month of which anything is known: the version of each stage, the totals of the
    Parquet file, and how the last run ended."""
    with open_history() as history:
        return list(month_rows(settings, selection, history))


def month_rows(settings: Settings, selection: Selection, history: History) -> Iterator[Row]:
    """Yield the rows of `month_status`."""
    runs = history.runs_by_month()
    for export, month, records in month_records(settings, selection):
        last_run, reason = history.status(runs.get((export.name, month), []), export.name)
        if records.has_any or last_run != "success":
            yield {
                "export": export.name,
                "month": month,
                **records.versions,
                "rows": records.lake and records.lake.totals.rows,
                "cost": records.lake and records.lake.totals.cost,
                "last_run": last_run,
                "reason": reason,
            }


def month_detail(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row a stage of one month: what was recorded when it last ran, and why it has not
    done what it last had to do."""
    export, month = selection.exports(settings)[0].name, str(selection.start)
    stages = stages_of(settings)
    with open_history() as history:
        runs = history.runs_by_month().get((export, month), [])
        last = {
            s: m.get(month) for s, m in history.materializations(export, [month], stages).items()
        }
        return [
            _stage_row(stage, last[stage], history.undone(stage, runs, export, last[stage]))
            for stage in stages
        ]


def _stage_row(stage: str, last: Materialization | None, undone: Ending | None) -> Row:
    metadata, error, failed = last.metadata if last else {}, None, None
    if undone and undone.stage in (None, stage):
        error, failed = undone.message, undone.check
    elif undone:
        error = f"not reached: {undone.stage} failed"
    return {
        "stage": stage,
        "version": last and last.version,
        "outcome": metadata.get("outcome"),
        "rows": metadata.get("dagster/partition_row_count", metadata.get("rows")),
        "cost": metadata.get("total_cost_exact"),
        **restatement_of(metadata),
        "when": last and last.at,
        "run": last and last.run,
        "checks": f"failed: {failed}" if failed else metadata.get("checks"),
        "error": error,
    }


def restatement_of(metadata: Mapping[str, Any]) -> Row:
    """Return the replaced version, rows and exact cost that the metadata of `billing_table` has of
    a restatement; None where the version replaced none.

    Months that earlier releases loaded have a rounded cost and no replaced version.
    """
    cost = metadata.get("cost_changed")
    rounded = None if cost is None else plain(Decimal(str(cost)))
    return {
        "replaced_version": metadata.get("replaced_version"),
        "rows_changed": metadata.get("rows_changed"),
        "cost_changed": metadata.get("cost_changed_exact", rounded),
    }


def restatement_text(row: Mapping[str, Any]) -> str | None:
    """Return the changes in a row in words, or None where it has none."""
    if row["rows_changed"] is None:
        return None
    rows, cost = row["rows_changed"], Decimal(row["cost_changed"])
    against = row["replaced_version"] or "the version before"
    return f"{rows:+,} rows, {cost:+,.2f} against {against}"


def newest_version(row: Mapping[str, Any]) -> str | None:
    """Return the version that was found in the files of the manifest that was read last, or the
    manifest's own id where they have not been looked at since."""
    manifest: str | None = row["manifest"]
    staged: str | None = row.get("staged_files")
    return staged if manifest and staged and is_version_of(staged, manifest) else manifest


def stages_behind(row: Mapping[str, Any]) -> str | None:
    """Return the stages that hold another version than the newest, and which."""
    newest = newest_version(row)
    if newest is None:
        return None
    behind: dict[str, list[str]] = defaultdict(list)
    for stage in STAGES[1:]:
        if stage in row and row[stage] != newest:
            behind[row[stage] or "nothing"].append(stage)
    return "; ".join(f"{', '.join(stages)}: {version}" for version, stages in behind.items())


# What a table for people shows of these rows.
MONTH_COLUMNS: Columns = {
    **named("export month"),
    "version": newest_version,
    "behind": stages_behind,
    **named("rows cost last_run"),
}
STAGE_COLUMNS: Columns = {
    **named("stage version outcome rows cost"),
    "restatement": restatement_text,
    **named("when run checks error"),
}
