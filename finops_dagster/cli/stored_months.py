"""The versions of each month in the staging folder, DuckDB, the lake and the warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.content import is_version_of, vendor_id_of
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import Restatement, restatements_of_footer
from finops_dagster.billing.version import Load, LoadedVersion
from finops_dagster.cli.options import Selection
from finops_dagster.focus.exports import charge_sources, focus_derivation, no_charges_reason
from finops_dagster.focus.month import ChargesRecord, FocusDerivation, focus_lake
from finops_dagster.lake import LakeFile, load_from_footer, map_months, version_of_footer
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline import FOCUS_STAGES, export_stages
from finops_dagster.settings import Settings
from finops_dagster.sources import VENDORS
from finops_dagster.sources.base import Format, Source
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.staging.folder import StagedMonth, StagingFolder
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster.staging.months_reader import MonthsReader
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import verified_load
from finops_dagster.terminal import print_error
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse, WarehouseMonth, months_from_loads
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable

StageVersions = Mapping[str, Any]
"""The version of each stage, by the stage's name. A row of `finops aws show-state` is one too."""
UNKNOWN = "unknown"
"""Stands for the version in a warehouse that does not answer."""
_LOADS = """
SELECT export, strftime(billing_month, '%Y-%m'), manifest_id, row_count, loaded_at
FROM finops_state.manifests WHERE state = 'loaded'
"""


def stages_of(settings: Settings, export: ExportSettings) -> tuple[str, ...]:
    """Return the stages of an export, those of the bill first.

    The stages of the charges are left out if the export has no charges of its own, see
    `charge_sources`. Without a warehouse, `warehouse_table` and `warehouse_focus` are left out.
    """
    return export_stages(
        has_warehouse=settings.database.has_warehouse, has_focus=charge_sources(export) is not None
    )


def _bill_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """Return the stages without those of the charges."""
    return tuple(stage for stage in stages if stage not in FOCUS_STAGES)


def newest_read_version(versions: StageVersions) -> str | None:
    """Return the newest version of a month that this machine has read; None if it has read none.

    The vendor may have a newer one. `versions` must have `manifest`. The result is the version id
    of the staged files if they are those of that manifest, or else the manifest's id.
    """
    manifest: str | None = versions["manifest"]
    staged: str | None = versions.get("staged_files")
    return staged if manifest and staged and is_version_of(staged, manifest) else manifest


class StoredMonths:
    """The months of all exports in the staging folder, DuckDB, the lake and the warehouse.

    `table_versions(export_name)` and `warehouse_versions(table)` return the version id of each
    loaded month, by month as text. Each ledger is read once. If it cannot be read, one line on
    standard error says so: `table_versions` then returns the versions of the Parquet files, and
    `warehouse_versions` None. If the lake is in a store, whatever reads the lake also raises
    StoreError and StoreUnavailable.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        storage = settings.storage
        self.lake = storage.open_lake()
        limits = InflationLimits(storage.max_inflation, storage.max_inflated_bytes)
        self.staging = StagingFolder(storage.staging_dir, limits)
        self.database = settings.database.duckdb.billing_database()
        self._exports = {export.name: export for export in settings.exports}
        self._ledger_rows = cache(self._read_ledger)
        # Of `months_with_footers`, by the month's key. They are no cached properties of the months:
        # of these, Python 3.11 lets only one thread read at a time.
        self.footers: dict[tuple[str, str], tuple[dict[str, str], ChargesRecord | None]] = {}
        # A report reads the same ledger several times: the same line is printed once.
        self._print_error = cache(print_error)
        self.table_versions = cache(self._table_versions)
        self.warehouse_versions = cache(self._warehouse_versions)

    @cached_property
    def warehouse(self) -> Warehouse | None:
        """The warehouse; None if the settings have none. Nothing is connected yet.

        Raises SettingsError, as `open_warehouse` does.
        """
        database = self.settings.database
        return open_warehouse(database) if database.has_warehouse else None

    def months(self, selection: Selection) -> Iterator[StoredMonth]:
        """Yield the selected months, export by export, newest first; also months without data.

        Raises BillError, as the caller iterates, if no export is selected.
        """
        for export in selection.exports(self.settings):
            for month in selection.months(export):
                yield StoredMonth(export, month, self)

    def months_with_footers(self, selection: Selection) -> Iterator[StoredMonth]:
        """Yield the months as `months`, and read the footers of each export's bills and charges.

        `lake_version`, `restatements` and `charges_record` of a month then read nothing, until the
        months of the next export follow. Of a lake in a store, several footers are read at a time.
        """

        def read(month: StoredMonth) -> tuple[dict[str, str], ChargesRecord | None]:
            texts, has_focus = (
                month.lake_file.footer_texts() or {},
                "focus" in month.expected_stages,
            )
            return texts, ChargesRecord.from_file(month.focus_lake_file) if has_focus else None

        for _, of_export in groupby(self.months(selection), lambda month: month.export.name):
            months = list(of_export)
            footers = map_months(self.lake, read, months)
            self.footers = {m.key: footer for m, footer in zip(months, footers, strict=True)}
            yield from months

    def source(self, export: ExportSettings, stores: ObjectStores) -> Source:
        """Return the source of an export; it opens the export's store through `stores`."""
        reader = MonthsReader(export, self.staging, self.lake, self.database)
        return VENDORS[export.vendor].open_source(export, stores, reader)

    def warehouse_months(self, export: ExportSettings) -> tuple[str, list[WarehouseMonth]]:
        """Return the full name of the export's table and its loaded months, newest first.

        They are read from the ledger of the warehouse. Without a warehouse, they are read from the
        ledger in DuckDB, and months that it lacks from a lake in a store. Raises BillError and
        WarehouseUnavailable.
        """
        table = export.table_name
        if self.warehouse is None:
            return table, self._duckdb_loads(export)
        return self.warehouse.full_name(table), self.warehouse.loaded_months(table)

    def _duckdb_loads(self, export: ExportSettings) -> list[WarehouseMonth]:
        files = {self.database.path(export.name, month) for month in export.months()}
        loads: list[Any] = []
        for rows in map(self._ledger_rows, files):
            if isinstance(rows, BillError):
                raise rows
            loads += [load for name, *load in rows if name == export.name]
        months_in_ledger = {month for month, *_ in loads}
        in_lake = self.lake.files(export.name) if self.lake.is_in_store else {}
        for load in map_months(
            self.lake,
            lambda month: load_from_footer(in_lake[month], export.name, month, export.table_name),
            in_lake,
        ):
            if load is not None and str(load.month) not in months_in_ledger:
                loads.append((str(load.month), load.manifest_id, load.totals.rows, load.loaded_at))
        return months_from_loads(loads)

    def _read_ledger(self, file: Path) -> list[tuple[Any, ...]] | BillError:
        if not file.exists():
            return []
        try:
            # A load holds the file for minutes; a command must answer at once.
            connections = replace(self.database.duckdb, lock_wait_seconds=0)
            with connections.open(file, read_only=True) as connection:
                return connection.execute(_LOADS).fetchall()
        except duckdb.CatalogException:
            return []  # The file has no ledger yet.
        except duckdb.BinderException as error:
            return BillError(
                f"the ledger of {file} is damaged: {first_line(error)}; run finops state verify "
                "--repair to rebuild it from the data"
            )
        except BillError as error:
            return error

    def _table_versions(self, export_name: str) -> dict[str, str]:
        """Return the version in the billing table by month.

        While another process loads, the ledger cannot be read; the Parquet files answer instead.
        """
        export = self._exports[export_name]
        try:
            return {load.month: load.manifest_id for load in self._duckdb_loads(export)}
        except BillError as error:
            # After the semicolon is what to do about it, which does not help here.
            problem = str(error).partition(";")[0]
            self._print_error(
                f"{problem}; instead of the DuckDB table's version, that of the Parquet file is "
                "shown"
            )
        months = [StoredMonth(export, month, self) for month in export.months()]
        records = {str(stored.month): stored.lake_load for stored in months}
        return {month: record.manifest_id for month, record in records.items() if record}

    def _warehouse_versions(self, table: str) -> dict[str, str] | None:
        """Return the version in the warehouse by month; None if the warehouse does not answer."""
        try:
            if self.warehouse is None:
                return {}
            return {load.month: load.manifest_id for load in self.warehouse.loaded_months(table)}
        except (BillError, WarehouseUnavailable) as error:
            self._print_error(f"{error}; the version in the warehouse is unknown")
            return None


@dataclass(frozen=True)
class StoredMonth:
    """A month of an export in every place that stores it; each place is read when needed.

    If the lake is in a store, whatever reads a footer also raises StoreError and StoreUnavailable.
    """

    export: ExportSettings
    month: BillingMonth
    stored_months: StoredMonths

    def __str__(self) -> str:
        return " ".join(self.key)

    @property
    def key(self) -> tuple[str, str]:
        """The name of the export and the month."""
        return self.export.name, str(self.month)

    @property
    def staged_month(self) -> StagedMonth:
        """The month's staging folder, which need not exist."""
        return self.stored_months.staging.staged_month(self.export.name, self.month)

    @property
    def lake_file(self) -> LakeFile:
        """The month's Parquet file, which need not exist."""
        return self.stored_months.lake.file(self.export.name, self.month)

    @cached_property
    def _footer_texts(self) -> dict[str, str]:
        footers = self.stored_months.footers.get(self.key)
        return footers[0] if footers else self.lake_file.footer_texts() or {}

    @cached_property
    def lake_load(self) -> LoadedVersion | None:
        """The version that the Parquet file's footer records; None if it is missing or damaged."""
        return version_of_footer(self._footer_texts)

    @cached_property
    def is_only_in_lake(self) -> bool:
        """Whether the month is in a lake in a store, and not in the ledger of this machine.

        If it is in such a lake, the DuckDB file is opened as by `connect`, and created if missing.
        """
        if not self.lake_file.is_in_store or self.lake_load is None:
            return False
        with self.connect() as connection:
            return ledger.newest_load(connection, self.export.name, self.month) is None

    @property
    def restatements(self) -> list[Restatement]:
        """The restatements in the Parquet file's footer, the newest first; none without a file."""
        return restatements_of_footer(self._footer_texts)

    @property
    def bill_month_file(self) -> MonthFile:
        """The input of a warehouse: the Parquet file with its footer and columns.

        Only the footer is read. Raises StageMissing if the file is missing or damaged.
        """
        from finops_dagster.pipeline.export import Export
        from finops_dagster.pipeline.warehouse_table import month_file

        return month_file(
            Export(self.export),
            self.month,
            self.stored_months.lake,
            self.stored_months.database.duckdb,
        )

    @property
    def formats(self) -> Mapping[str, Format]:
        """The formats in which the vendor may have delivered the month, by name."""
        return VENDORS[self.export.vendor].formats(self.export)

    @property
    def database_path(self) -> Path:
        """The DuckDB file of the month, which need not exist."""
        return self.stored_months.database.path(self.export.name, self.month)

    def connect(self, *, repair: bool = False) -> AbstractContextManager[DuckDBPyConnection]:
        """Open the DuckDB file for the block; create it and its ledger if they are missing.

        With `repair`, a damaged table of the ledger is renamed, and an empty one created; without
        it, LedgerDamaged is raised. Raises BillError if the file cannot be opened.
        """
        return self.stored_months.database.connect(self.export.name, self.month, repair=repair)

    def verified_load(self, connection: DuckDBPyConnection) -> Load | None:
        """Return the newest load of the ledger; None unless the table has the load's totals.

        The totals are measured in the table: rows, costs and sums of the money columns.
        `connection` is that of `connect`.
        """
        return verified_load(connection, self.export.name, self.month, self.formats)

    @property
    def table_version(self) -> str | None:
        """The version that the ledger records for the billing table; None if it records none.

        The table itself is not read. If the ledger cannot be read, as while a load has the DuckDB
        file open, the version is that of the Parquet file; also for a month that is only in a lake
        in a store.
        """
        return self.stored_months.table_versions(self.export.name).get(str(self.month))

    @cached_property
    def stage_versions(self) -> dict[str, str | None]:
        """The version of each stage; None if it has none, UNKNOWN if the warehouse does not answer.

        The keys are `expected_stages`. If the record of the staged files is missing, they have the
        version of the billing table; a missing manifest has the vendor's id of the staged files.
        `focus` has `focus_version_text`, which may end with a difference. `warehouse_focus` has the
        same if the warehouse has the charges of that file, else the version id in its ledger.
        """
        manifest, staged = self.staged_month.manifest(), self.staged_month.version_records()
        files = staged[0].manifest_id if staged else self.table_version
        warehouse = self.stored_months.warehouse_versions(self.export.table_name)
        versions = {
            "manifest": manifest.id if manifest else files and vendor_id_of(files),
            "staged_files": files,
            "billing_table": self.table_version,
            "parquet": self.lake_load.manifest_id if self.lake_load else None,
            "warehouse_table": UNKNOWN if warehouse is None else warehouse.get(str(self.month)),
            **(self._focus_versions if "focus" in self.expected_stages else {}),
        }
        return {stage: versions[stage] for stage in self.expected_stages}

    @property
    def expected_stages(self) -> tuple[str, ...]:
        """The stages of the export, without those of the charges if there is a `no_charges_reason`.

        Whether the month is stored does not matter.
        """
        stages = stages_of(self.stored_months.settings, self.export)
        return stages if self.no_charges_reason is None else _bill_stages(stages)

    @cached_property
    def no_charges_reason(self) -> str | None:
        """Why the settings leave the month without charges; None if they do not.

        The only reason: the export, or the one that completes its bill, starts later or ends
        earlier. None also for an export that never has charges. Whether the month is loaded does
        not matter.
        """
        return no_charges_reason(self.export, self.month, self.stored_months.settings.exports)

    @property
    def focus_lake_file(self) -> LakeFile:
        """The month's file of charges, which need not exist."""
        return focus_lake(self.stored_months.lake).file(self.export.name, self.month)

    @property
    def focus_derivation(self) -> FocusDerivation:
        """The derivation of the month's charges from its bill.

        Raises BillError if the export has no mapping, or the month is not loaded.
        """
        storage = self.stored_months
        return focus_derivation(self.export, self.month, storage.lake, storage.database.duckdb)

    @cached_property
    def charges_record(self) -> ChargesRecord | None:
        """The record in the footer of the file of charges; None if that is missing or damaged."""
        footers = self.stored_months.footers.get(self.key)
        return footers[1] if footers else ChargesRecord.from_file(self.focus_lake_file)

    @property
    def _focus_versions(self) -> dict[str, str | None]:
        """The version of each stage of the charges, None where there is none."""
        loads = self.stored_months.warehouse_versions(f"{self.export.table_name}_focus")
        loaded = UNKNOWN if loads is None else loads.get(str(self.month))
        if self.charges_record and loaded == self.charges_record.warehouse_version_id:
            loaded = self.focus_version_text
        return {"focus": self.focus_version_text, "warehouse_focus": loaded}

    @property
    def focus_month_file(self) -> MonthFile:
        """The input of a warehouse: the file of charges with its footer and columns.

        The footer's version id has the versions of the bills and of the mapping. Raises
        StageMissing if the file is missing or damaged.
        """
        from finops_dagster.pipeline.export import Export
        from finops_dagster.pipeline.warehouse_focus import charges_record_and_file

        export, storage = Export(self.export), self.stored_months
        return charges_record_and_file(export, self.month, storage.lake, storage.database.duckdb)[1]

    @cached_property
    def focus_version_text(self) -> str | None:
        """The version of the bill from which the charges were derived; None without charges.

        If the bill or the mapping has changed since, the difference follows in parentheses:
        `v1 (the bill of acme is v2)`. The rows of the charges are not read.
        """
        record = self.charges_record
        if record is None:
            return None
        with suppress(BillError):
            if difference := self.focus_derivation.outdated_reason(record):
                return f"{record.version.manifest_id} ({difference})"
        return record.version.manifest_id

    def has_stage(self, stage: str) -> bool:
        """Return whether this stage has stored the month, so that the next stage can run.

        Staged files count only if they are those of the newest manifest; only their record is read,
        and the files may have been deleted since. Any other stage counts if `stage_versions` has a
        version of it, also UNKNOWN. False for a stage that the export does not have.
        """
        if stage == "staged_files":
            return self.staged_month.current_record() is not None
        return self.stage_versions.get(stage) is not None
