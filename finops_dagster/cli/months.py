"""What each month holds, by the record beside each stage's data, and how its last run ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.money import decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load, LoadedVersion
from finops_dagster.cli.history import Ending, History, Materialization, open_history
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Columns, Row, named
from finops_dagster.lake import Lake, read_footer
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import Settings
from finops_dagster.sources import VENDORS
from finops_dagster.sources.base import Format
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.staging.folder import StagedMonth, StagingFolder
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.tables.load import verified_load
from finops_dagster.terminal import print_error
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse, WarehouseMonth, newest_loads
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable

Report = Callable[[str], None]
Versions = Mapping[str, Any]  # the version by stage; also a row that has it
UNKNOWN = "unknown"
_LOADS = """
SELECT export, strftime(billing_month, '%Y-%m'), manifest_id, row_count, loaded_at
FROM finops_state.manifests WHERE state = 'loaded'
"""


def last_stage(settings: Settings) -> str:
    """Return the stage at which the chain ends."""
    return "warehouse_table" if settings.database.has_warehouse else "parquet"


def stages_of(settings: Settings, until: str | None = None) -> tuple[str, ...]:
    """Return the stages of the chain, up to one or to the last."""
    return STAGES[: STAGES.index(until or last_stage(settings)) + 1]


class MonthRecords:
    """What is recorded beside the data; each file of a ledger, and the warehouse's ledger of each
    export, is read once. What cannot be read is a line on standard error, once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stages = stages_of(settings)
        storage, duckdb = settings.storage, settings.database.duckdb
        self.lake = Lake(storage.parquet_dir)
        limits = InflationLimits(storage.max_inflation, storage.max_inflated_bytes)
        self.staging = StagingFolder(storage.staging_dir, limits)
        self.database = BillingDatabase(duckdb.database_path, DuckDB.of(duckdb))
        self._exports = {export.name: export for export in settings.exports}
        self._ledger, self._complain = cache(self._read_ledger), cache(print_error)
        self.tables = cache(self._tables)
        self.warehouse_versions = cache(self._warehouse_versions)

    @cached_property
    def warehouse(self) -> Warehouse | None:
        """The warehouse, where months do not end at Parquet."""
        database = self.settings.database
        return open_warehouse(database) if database.has_warehouse else None

    def months(self, selection: Selection) -> Iterator[Month]:
        """Yield the months of the selection, by export, the newest first."""
        for export in selection.exports(self.settings):
            for month in selection.months(export):
                yield Month(export, month, self)

    def loads(self, export: ExportSettings) -> tuple[str, list[WarehouseMonth]]:
        """Return the name of the export's table, and the months that the warehouse's own ledger
        says are loaded, the newest first; without a warehouse, that the DuckDB file says. Raises
        BillError and WarehouseUnavailable."""
        table = export.table_name
        if self.warehouse is None:
            return table, self._ledger_loads(export)
        return self.warehouse.full_name(table), self.warehouse.loaded_months(table)

    def _ledger_loads(self, export: ExportSettings) -> list[WarehouseMonth]:
        """Return what the ledger says, without waiting for who has the file open."""
        files = {self.database.path(export.name, month) for month in export.months()}
        loads: list[Any] = []
        for ledger in map(self._ledger, files):
            if isinstance(ledger, BillError):
                raise ledger
            loads += [load for name, *load in ledger if name == export.name]
        return newest_loads(loads)

    def _read_ledger(self, file: Path) -> list[tuple[Any, ...]] | BillError:
        if not file.exists():
            return []
        try:
            connections = replace(self.database.duckdb, lock_wait_seconds=0)
            with connections.open(file, read_only=True) as connection:
                return connection.execute(_LOADS).fetchall()
        except duckdb.CatalogException:
            return []  # it has no ledger yet
        except duckdb.BinderException as error:
            return BillError(f"the ledger of {file} is damaged: {first_line(error)}")
        except BillError as error:
            return error

    def _tables(self, name: str) -> dict[str, str]:
        """Return by month the version that the ledger has; where it cannot be read, as while
        another process loads, what the lake has."""
        export = self._exports[name]
        try:
            return {load.month: load.version for load in self._ledger_loads(export)}
        except BillError as error:
            what = str(error).partition(";")[0]
            self._complain(f"{what}; what the lake has is shown for the table")
        lake = {str(month): Month(export, month, self).lake for month in export.months()}
        return {month: record.manifest_id for month, record in lake.items() if record}

    def _warehouse_versions(self, name: str) -> dict[str, str] | None:
        """Return by month the version in the warehouse; None where it does not answer."""
        try:
            if self.warehouse is None:
                return {}
            return {load.month: load.version for load in self.loads(self._exports[name])[1]}
        except (BillError, WarehouseUnavailable) as error:
            self._complain(f"{error}; what the warehouse holds is not known")
            return None


@dataclass(frozen=True)
class Month:
    """A month of an export in all places that hold it; each record of it is read when it is asked
    for."""

    export: ExportSettings
    month: BillingMonth
    records: MonthRecords

    def __str__(self) -> str:
        return " ".join(self.key)

    @property
    def key(self) -> tuple[str, str]:
        """The export's name and the month."""
        return self.export.name, str(self.month)

    @property
    def staging(self) -> StagedMonth:
        """Where the month is staged, which need not exist."""
        return self.records.staging.month(self.export.name, self.month)

    @property
    def path(self) -> Path:
        """Its file in the lake, which need not exist."""
        return self.records.lake.path(self.export.name, self.month)

    @cached_property
    def lake(self) -> LoadedVersion | None:
        """What that file says of itself."""
        return read_footer(self.path)

    @property
    def file(self) -> MonthFile:
        """That file, as a warehouse is given it. Raises StageMissing."""
        from finops_dagster.pipeline.export import Export
        from finops_dagster.pipeline.warehouse_table import month_file

        return month_file(
            Export(self.export), self.month, self.records.lake, self.records.database.duckdb
        )

    @property
    def formats(self) -> Mapping[str, Format]:
        """The formats in which it may have come."""
        return VENDORS[self.export.vendor].formats(self.export)

    @property
    def database(self) -> Path:
        """The DuckDB file that holds it."""
        return self.records.database.path(self.export.name, self.month)

    def connect(self, *, mend: bool = False) -> AbstractContextManager[DuckDBPyConnection]:
        """Open that file, with the ledger. Raises BillError."""
        return self.records.database.connect(self.export.name, self.month, mend=mend)

    def verified(self, connection: DuckDBPyConnection) -> Load | None:
        """Return the version that the ledger says is loaded, if the table really holds it."""
        return verified_load(connection, self.export.name, self.month, self.formats)

    @property
    def table(self) -> str | None:
        """The version that the ledger says is in the table; the table is not read."""
        return self.records.tables(self.export.name).get(str(self.month))

    @cached_property
    def versions(self) -> dict[str, str | None]:
        """The version by stage. Where staged files are not kept any more, the table answers for
        them."""
        manifest, staged = self.staging.manifest(), self.staging.records()
        files = staged[0].manifest_id if staged else self.table
        warehouse = self.records.warehouse_versions(self.export.name)
        versions = {
            "manifest": manifest.id if manifest else files and files.partition("+")[0],
            "staged_files": files,
            "billing_table": self.table,
            "parquet": self.lake.manifest_id if self.lake else None,
            "warehouse_table": UNKNOWN if warehouse is None else warehouse.get(str(self.month)),
        }
        return {stage: versions[stage] for stage in self.records.stages}

    def holds(self, stage: str) -> bool:
        """Whether the stage has the month for the stage after it."""
        if stage == "staged_files":
            return self.staging.current_record() is not None
        return self.versions[stage] is not None


def loaded_months(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row for each month that the warehouse says is loaded, the newest first; without a
    warehouse, that the DuckDB file says. Raises BillError and WarehouseUnavailable."""
    records, rows = MonthRecords(settings), list[Row]()
    for export in selection.exports(settings):
        table, loads = records.loads(export)
        rows += [{"export": export.name, **vars(load), "table": table} for load in loads]
    return rows


def month_rows(settings: Settings, selection: Selection, history: History) -> Iterator[Row]:
    """Yield a row a month of which anything is known: the version of each stage, the totals of the
    Parquet file, and how the last run ended."""
    for month in MonthRecords(settings).months(selection):
        export, name = month.key
        last_run, reason = history.status(export, name)
        if last_run != "success" or not set(month.versions.values()) <= {None, UNKNOWN}:
            yield {
                "export": export,
                "month": name,
                **month.versions,
                "rows": month.lake and month.lake.totals.rows,
                "cost": month.lake and month.lake.totals.cost,
                "last_run": last_run,
                "reason": reason,
            }


def month_detail(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row a stage of one month: what was recorded when it last ran, and why it has not
    done what it last had to do."""
    export, month = selection.exports(settings)[0].name, str(selection.start)
    with open_history() as history:
        made = history.materializations(export, [month], stages_of(settings))
        return [
            _stage_row(stage, last, history.undone(export, month, stage, last))
            for stage, last in ((stage, made[stage].get(month)) for stage in made)
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
    rounded = None if cost is None else decimal_text(Decimal(str(cost)))
    return {
        "replaced_version": metadata.get("replaced_version"),
        "rows_changed": metadata.get("rows_changed"),
        "cost_changed": metadata.get("cost_changed_exact", rounded),
    }


def restatement_text(row: Row) -> str | None:
    """Return the changes in a row in words, or None where it has none."""
    if row["rows_changed"] is None:
        return None
    rows, cost = row["rows_changed"], Decimal(row["cost_changed"])
    against = row["replaced_version"] or "the version before"
    return f"{rows:+,} rows, {cost:+,.2f} against {against}"


def newest_version(versions: Versions) -> str | None:
    """Return the version that was found in the files of the manifest that was read last, or the
    manifest's own id where they have not been looked at since."""
    manifest: str | None = versions["manifest"]
    staged: str | None = versions.get("staged_files")
    return staged if manifest and staged and is_version_of(staged, manifest) else manifest


def stages_behind(versions: Versions) -> str | None:
    """Return the stages that hold another version than the newest, and which."""
    newest = newest_version(versions)
    if newest is None:
        return None
    behind: dict[str, list[str]] = defaultdict(list)
    for stage in STAGES[1:]:
        if stage in versions and versions[stage] != newest:
            behind[versions[stage] or "nothing"].append(stage)
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
