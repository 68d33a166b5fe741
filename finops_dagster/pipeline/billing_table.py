"""Stage 3: the month in the export's DuckDB table, replaced in one transaction."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import dagster as dg
import duckdb

from finops_dagster.billing.content import Content
from finops_dagster.billing.errors import BillError, FileInvalid, StageMissing, excerpts
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import Restatement
from finops_dagster.billing.version import Load, versions_with_vendor_id
from finops_dagster.lake import (
    Lake,
    LakeFile,
    file_has_totals,
    load_from_footer,
    load_missing_in_ledger,
    map_months,
    month_relation,
    names_from_footers,
    parquet_relation,
    restore_newer_restatements,
)
from finops_dagster.lake.restoring import loading_month_from_lake
from finops_dagster.pipeline import checks
from finops_dagster.pipeline.bar_charts import cost_by_month
from finops_dagster.pipeline.column_schema import table_schema
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import (
    LOAD_KEYS,
    LoadedMonth,
    Metadata,
    file_uri,
    table_metadata,
)
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    StageMonth,
    month_command,
    require_version,
    stage,
    stage_result,
)
from finops_dagster.sources.base import Format
from finops_dagster.staging.folder import StagedVersion, StagingFolder, VersionRecord
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import verified_load
from finops_dagster.tables.database import BillingDatabase, logging_query_progress
from finops_dagster.tables.digest import lake_type
from finops_dagster.tables.files import read_headers
from finops_dagster.tables.load import MonthLoader
from finops_dagster.tables.month_report import (
    MONTHS_SHOWN,
    MonthReport,
    labelled_costs,
    month_report,
)
from finops_dagster.tables.restatements import copy_replaced_costs, record_restatement


def billing_table_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset that replaces a month in the export's DuckDB table."""
    kinds, month_checks = {"duckdb", "table"}, _month_checks(export)

    @stage(export, "billing_table", kinds=kinds, checks=[*month_checks], version="staged_files")
    def billing_table(
        context: dg.AssetExecutionContext,
        version: VersionRecord | None,
        staging: dg.ResourceParam[StagingFolder],
        database: dg.ResourceParam[BillingDatabase],
        lake: dg.ResourceParam[Lake],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[Load]:
        """Replace the month in the export's DuckDB table by the new version's line items.

        It is one transaction: if the load fails or does not reconcile, the old version stays. What
        the new version changed is recorded as a restatement.
        """
        at = StageMonth.of_run(context, export, run_options)
        if version is None:
            raise _not_staged(export, at.month)
        loading = MonthLoading(
            export, at.month, version, staging, database, lake, context.run.run_id
        )
        with loading.replacing_month(force=at.force) as loaded:
            return table_result(at, loaded, database)

    return billing_table


def table_result(
    at: StageMonth, loaded: LoadedMonth, database: BillingDatabase
) -> dg.MaterializeResult[Load]:
    """Return the stage's result for a month in the table.

    For an unchanged month, what only its load knew (LOAD_KEYS) is copied from its last
    materialization in Dagster, if that has the same version. `database` only gives its path, and is
    not opened.
    """
    export, report = at.export, loaded.report
    is_unchanged = loaded.outcome == "unchanged"
    repeated = at.previous_metadata(report.load.manifest_id, *LOAD_KEYS) if is_unchanged else {}
    metadata = {
        **table_metadata(loaded, repeated),
        **_chart_and_location(export, report, database.path(export.name, at.month)),
    }
    results = [evaluate(report) for evaluate in _month_checks(export).values()]
    return stage_result(report.load, loaded.outcome, metadata, results)


def _chart_and_location(export: Export, report: MonthReport, database: Path) -> Metadata:
    """Return the metadata of the table: its costs by month, its columns, and where it is."""
    types, vendor = report.column_types, export.settings.vendor
    return {
        "cost_by_month": cost_by_month(report.month_costs),
        # DuckDB names a database by its file.
        "dagster/table_name": f"{database.stem}.main.{report.load.table}",
        "dagster/column_schema": table_schema(types, vendor, report.load.format),
        "dagster/uri": file_uri(database),
    }


def _month_checks(
    export: Export,
) -> dict[checks.Check, Callable[[MonthReport], dg.AssetCheckResult]]:
    """Return the checks of a month, each with the function that evaluates it."""
    evaluations: dict[checks.Check, Callable[[MonthReport], dg.AssetCheckResult]] = {
        checks.RECONCILES: lambda report: checks.passed_reconciles(report.load),
        checks.NOT_FEWER_ROWS: lambda report: checks.not_fewer_rows(
            report.load, report.superseded_load
        ),
        checks.USUAL_COST: lambda report: checks.usual_cost(
            report.load, report.previous_month_load
        ),
        checks.ONE_CURRENCY: lambda report: checks.one_currency(
            report.currencies, export.formats[report.load.format]
        ),
    }
    if export.rounds_money:
        evaluations[checks.COSTS_NOT_ROUNDED] = lambda report: checks.costs_not_rounded(report.load)
    return evaluations


@dataclass(frozen=True)
class MonthLoading:
    """The load of a staged version into the billing table; the ledger records it with `run_id`."""

    export: Export
    month: BillingMonth
    version: VersionRecord
    staging: StagingFolder
    database: BillingDatabase
    lake: Lake
    run_id: str

    @contextmanager
    def replacing_month(self, *, force: bool) -> Iterator[LoadedMonth]:
        """Replace the month in the table by this version, and give the block what was loaded.

        Nothing is loaded if the table has this version, or if this machine never loaded the month
        and a lake in a store has this version; `force` loads it in any case. The rows come from the
        staged files, or from the lake if those were deleted. If another version is replaced, what
        changed is recorded as a restatement.

        The block runs for an unchanged month too. After a load it runs before the commit: after any
        error, also in the block, the table has the previous version. Raises BillError for a version
        that lacks a shared file of the loaded one, unless `force`; StageMissing if neither files
        nor lake have the version; FileInvalid for a damaged staged file; ReconciliationError if
        another run has staged another version; and what `MonthLoader.replacing_month` raises.
        """
        export, month = self.export, self.month
        with self.database.connect(export.name, month) as connection:
            manifest_id = self._id_in_ledger(connection)
            existing = verified_load(connection, export.name, month, export.formats)
            report = None if force else self._current(connection, existing, manifest_id)
            if report is not None:
                yield LoadedMonth(report)
                return
            if existing is not None and not force:
                self._require_known_files(existing)
            replaced_id = self._keep_replaced_costs(connection, existing, manifest_id)
            with self._replacing_rows(connection, manifest_id) as (load, warnings):
                restatement = self._record_restatement(connection, load, replaced_id)
                report = month_report(connection, load, self._format(load))
                yield LoadedMonth(report, "loaded", warnings, restatement)

    def unchanged_month(self) -> LoadedMonth | None:
        """Return the month if `replacing_month` would load nothing; else None.

        No rows change, but a missing database file is created, and the ledger may get newer ETags
        of the files. Raises BillError if another process keeps the database file open.
        """
        export, month = self.export, self.month
        with self.database.connect(export.name, month) as connection:
            existing = verified_load(connection, export.name, month, export.formats)
            report = self._current(connection, existing, self._id_in_ledger(connection))
        return None if report is None else LoadedMonth(report)

    @cached_property
    def _lake_file(self) -> LakeFile:
        """The month's file in the lake, as it is when the database has been opened."""
        return self.lake.file(self.export.name, self.month).snapshot()

    def _current(
        self, connection: duckdb.DuckDBPyConnection, existing: Load | None, manifest_id: str
    ) -> MonthReport | None:
        """Return the report of the month if it has this version; `existing` is the table's load."""
        if existing and existing.manifest_id == manifest_id:
            self._complete_ledger(connection, existing)
            return month_report(connection, existing, self._format(existing))
        export, file = self.export, self._lake_file
        in_lake = load_missing_in_ledger(connection, file, export.name, self.month, export.table)
        if in_lake is None or in_lake.manifest_id != manifest_id:
            return None
        return self._report_of_lake(in_lake)

    def _report_of_lake(self, load: Load) -> MonthReport:
        """Return what the lake's records say of the month; they have no costs by service."""
        files, bill_format = self.lake.files(load.export), self._format(load)
        schema = self._lake_file.schema()
        months = [month for month in files if month <= self.month][-MONTHS_SHOWN:]
        recorded = map_months(
            self.lake,
            lambda month: load_from_footer(files[month], load.export, month, load.table),
            months,
        )
        loads = {past.month: past for past in recorded if past}
        return MonthReport(
            load,
            None,
            loads.get(self.month.previous),
            {field.name: lake_type(field.type) for field in schema},
            bill_format.cost,
            [],
            labelled_costs(load),
            [(month, dict(past.totals.costs or {})) for month, past in loads.items()],
            None,
        )

    def _format(self, load: Load) -> Format:
        return self.export.formats[load.format]

    def _keep_replaced_costs(
        self, connection: duckdb.DuckDBPyConnection, existing: Load | None, manifest_id: str
    ) -> str | None:
        """Keep the costs of the version that this load replaces; return its id, or None.

        It is the version in the table, or if the database was lost, another one in the lake.
        """
        if existing is not None:
            rows, bill_format = month_relation(existing), self._format(existing)
            copy_replaced_costs(connection, rows, bill_format)
            return existing.manifest_id
        export, file = self.export, self._lake_file
        in_lake = load_from_footer(file, export.name, self.month, export.table)
        if in_lake is None or in_lake.manifest_id == manifest_id:
            return None
        if not file_has_totals(connection, in_lake, file, export.formats):
            return None
        rows = parquet_relation(file.local_path())
        copy_replaced_costs(connection, rows, self._format(in_lake))
        return in_lake.manifest_id

    def _record_restatement(
        self, connection: duckdb.DuckDBPyConnection, load: Load, replaced_id: str | None
    ) -> Restatement | None:
        """Record what the load changed, and return it.

        None if it replaced nothing, or the same version without any change.
        A ledger that was lost gets the month's earlier restatements from the lake first.
        """
        restore_newer_restatements(connection, load, self._lake_file)
        if replaced_id is None:
            return None
        rows, bill_format = month_relation(load), self._format(load)
        return record_restatement(connection, load, rows, replaced_id, bill_format)

    def _id_in_ledger(self, connection: duckdb.DuckDBPyConnection) -> str:
        """Return the id of the ledger's load with this content, else the id for a new load.

        That is the version's id, with a digest if the ledger has other content under it: the ledger
        alone knows the older ids if the records of the staging folder were lost.
        """
        version, content = self.version, self.version.content
        loads = versions_with_vendor_id(
            ledger.loads(connection, self.export.name, self.month), version.vendor_id
        )
        loads.sort(key=lambda load: load.manifest_id != version.manifest_id)
        if content is None:
            return version.manifest_id
        for load in loads:
            if load.matches_content(content, version.totals):
                return load.manifest_id
        is_taken = version.manifest_id in {load.manifest_id for load in loads}
        return f"{version.vendor_id}+{content.digest}" if is_taken else version.manifest_id

    def _require_known_files(self, existing: Load) -> None:
        """Raise BillError if this version lacks a file of the loaded one that adds up with others.

        The source keeps such files in every version; it can only have missed the record of one.
        """
        names, old = (
            {file.name for file in c.files if file.months is not None} if c else set()
            for c in (self.version.content, existing.content)
        )
        if names and (missing := sorted(old - names)):
            raise BillError(
                f"version {self.version.manifest_id} lacks {excerpts(missing, 5)}, of which the "
                f"loaded version {existing.manifest_id} has rows; run the month again"
            )

    def _complete_ledger(self, connection: duckdb.DuckDBPyConnection, load: Load) -> None:
        """Add the files to a load that earlier releases recorded without, or update their ETags."""
        content = self.version.content
        has_more = load.content is None or (content and content.checksums)
        if content and content != load.content and has_more:
            ledger.update_load(connection, load, content=content)

    @contextmanager
    def _replacing_rows(
        self, connection: duckdb.DuckDBPyConnection, manifest_id: str
    ) -> Iterator[tuple[Load, list[str]]]:
        """Replace the rows from the staged files, or from the lake's file if those were deleted.

        The block gets the load and its warnings, and runs before the commit.
        """
        staged = self.staging.staged_month(self.export.name, self.month)
        manifest = staged.manifest()
        if manifest is None:
            raise _not_staged(self.export, self.month)
        require_version(self.version.vendor_id, manifest.id)
        files = staged.staged_version(manifest)
        with (
            files.lock(),
            logging_query_progress(connection, "loaded", self.version.totals.rows),
        ):
            if (content := files.content()) is None:
                replacing = self._replacing_by_lake(connection, manifest_id)
            else:
                self._verify_files(manifest_id, files, content)
                replacing = self._replacing_by_files(connection, manifest_id, files, content)
            with replacing as load_and_warnings:
                yield load_and_warnings

    def _verify_files(self, manifest_id: str, files: StagedVersion, content: Content) -> None:
        """Raise if another run has replaced the staged files, or one of them is damaged."""
        if not self.version.matches_content(content, self.version.totals):
            require_version(manifest_id, f"{self.version.vendor_id}+{content.digest}")
        for problem in files.find_damage() or ():
            raise FileInvalid(
                f"{problem}; to download it again, run finops state reprocess {self.export.name} "
                f"{self.month}"
            )

    def _replacing_by_files(
        self,
        connection: duckdb.DuckDBPyConnection,
        manifest_id: str,
        files: StagedVersion,
        content: Content,
    ) -> AbstractContextManager[tuple[Load, list[str]]]:
        export, manifest = self.export, files.manifest
        load = Load(
            manifest_id,
            self.version.totals,
            manifest.format,
            len(content.files),
            content.byte_count,
            content,
            self.run_id,
            delivery=self.version.delivery,
            export=export.name,
            month=self.month,
            table=export.table,
        )
        bill_format = export.formats[manifest.format]
        # A new database, or one of a single month, lacks the column names of the other months: they
        # are read from the lake's files.
        is_of_one_month = "{month}" in self.database.database
        has_names = bool(ledger.names_by_header(connection, export.table)) and not is_of_one_month
        return MonthLoader(connection, load, bill_format).replacing_month(
            read_headers(files.paths, bill_format, files.month_by_shared_file),
            manifest.columns,
            {} if has_names else names_from_footers(self.lake.files(export.name).values()),
            round_money=export.rounds_money,
        )

    def _replacing_by_lake(
        self, connection: duckdb.DuckDBPyConnection, manifest_id: str
    ) -> AbstractContextManager[tuple[Load, list[str]]]:
        file = self._lake_file
        load = load_from_footer(file, self.export.name, self.month, self.export.table)
        if load is None or load.manifest_id != manifest_id:
            raise _not_staged(self.export, self.month)
        load = replace(load, run_id=self.run_id)
        return loading_month_from_lake(connection, load, self.export.formats[load.format], file)


def _not_staged(export: Export, month: BillingMonth) -> StageMissing:
    command = month_command("extract-billing", export, month)
    return StageMissing(f"the files of {export.name} {month} are not all staged; run {command}")
