"""Stage 3: the month in the export's DuckDB table, replaced whole or not at all."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import dagster as dg
import duckdb

from finops_dagster.billing.content import Content
from finops_dagster.billing.errors import FileInvalid, StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load, with_vendor_id
from finops_dagster.lake import Lake, load_from_footer, names_by_header, restoring_month
from finops_dagster.pipeline import checks
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import KEPT, MonthOutcome, table_metadata
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    materialized,
    metadata_of_version,
    month_of,
    require_version,
    stage,
)
from finops_dagster.progress import format_rows
from finops_dagster.staging.folder import StagedVersion, StagingFolder, VersionRecord
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase, logging_query_progress
from finops_dagster.tables.files import read_files
from finops_dagster.tables.load import MonthLoader, verified_load
from finops_dagster.tables.month_report import MonthReport, Restatement, month_report

_CHECKS = (
    checks.RECONCILES,
    checks.NOT_FEWER_ROWS,
    checks.USUAL_COST,
    checks.ONE_CURRENCY,
)


def billing_table_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset of a month in the export's table."""
    kinds = {"duckdb", "table"}
    of_month = [*_CHECKS, *([checks.COSTS_NOT_ROUNDED] if export.rounds_money else [])]

    @stage(export, "billing_table", kinds=kinds, checks=of_month, version="staged_files")
    def billing_table(
        context: dg.AssetExecutionContext,
        version: VersionRecord | None,
        staging: dg.ResourceParam[StagingFolder],
        database: dg.ResourceParam[BillingDatabase],
        lake: dg.ResourceParam[Lake],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[Load]:
        """The month's line items with exact types, in one table for all months of the export."""
        month = month_of(context)
        if version is None:
            raise _not_staged(export, month)
        loading = MonthLoading(export, month, version, staging, database, lake, context.run.run_id)
        with loading.replacing_month(force=run_options.force) as loaded:
            kept = metadata_of_version(context, loaded.month.load.manifest_id, *KEPT)
            results, metadata = _results(export, loaded.month), table_metadata(loaded, kept)
            return materialized(loaded.month.load, loaded.outcome, metadata, results)

    return billing_table


def _results(export: Export, month: MonthReport) -> list[dg.AssetCheckResult]:
    load = month.load
    return [
        checks.reconciles(load),
        checks.not_fewer_rows(load, month.previous_version),
        checks.usual_cost(load, month.previous_month),
        checks.one_currency(month.currencies, export.formats[load.format]),
        *([checks.costs_not_rounded(load)] if export.rounds_money else []),
    ]


@dataclass(frozen=True)
class MonthLoading:
    """A staged version of a month on its way into the table."""

    export: Export
    month: BillingMonth
    version: VersionRecord
    staging: StagingFolder
    database: BillingDatabase
    lake: Lake
    run_id: str

    @contextmanager
    def replacing_month(self, *, force: bool) -> Iterator[MonthOutcome]:
        """Make the table hold this version of the month, unless it does.

        The block is given what the table then holds, and runs before the commit. On any error, also
        of the block, the month stays as it was. Raises StageMissing, FileInvalid where a staged
        file is not what was fetched, ReconciliationError, and what `MonthLoader.replacing_month`
        raises.
        """
        export, month = self.export, self.month
        with self.database.connect(export.name, month) as connection:
            manifest_id = self._id_in_ledger(connection)
            held = verified_load(connection, export.name, month, export.formats)
            before = month_report(connection, held, export.formats[held.format]) if held else None
            is_restated = held is not None and held.manifest_id != manifest_id
            if before and not is_restated and not force:
                self._complete(connection, before.load)
                yield MonthOutcome(before)
                return
            with self._replacing_rows(connection, manifest_id) as (load, warnings):
                after = month_report(connection, load, export.formats[load.format])
                restatement = Restatement(before, after) if before and is_restated else None
                yield MonthOutcome(after, "loaded", warnings, restatement)

    def _id_in_ledger(self, connection: duckdb.DuckDBPyConnection) -> str:
        """Return the ledger's id of the version where it knows the content: the staging folder
        knows no older names where its record was lost."""
        version, content = self.version, self.version.content
        known = with_vendor_id(
            ledger.loads(connection, self.export.name, self.month), version.vendor_id
        )
        known.sort(key=lambda load: load.manifest_id != version.manifest_id)
        if content is None:
            return version.manifest_id
        for load in known:
            if load.has_content(content, version.totals):
                return load.manifest_id
        is_taken = version.manifest_id in {load.manifest_id for load in known}
        return f"{version.vendor_id}+{content.digest}" if is_taken else version.manifest_id

    def _complete(self, connection: duckdb.DuckDBPyConnection, load: Load) -> None:
        """Give the ledger the files of a load where it has none, or their ETags of today."""
        content = self.version.content
        is_better = load.content is None or (content and content.checksums)
        if content and content != load.content and is_better:
            ledger.complete_load(connection, load, content=content)

    @contextmanager
    def _replacing_rows(
        self, connection: duckdb.DuckDBPyConnection, manifest_id: str
    ) -> Iterator[tuple[Load, list[str]]]:
        """Load the staged files, or the lake's file of this very version where they were cleaned
        away and the table was lost."""
        staged = self.staging.month(self.export.name, self.month)
        manifest = staged.manifest()
        if manifest is None:
            raise _not_staged(self.export, self.month)
        require_version(self.version.vendor_id, manifest.id)
        files = staged.version(manifest)
        with (
            files.lock(),
            logging_query_progress(connection, "loaded", self.version.totals.rows, format_rows),
        ):
            if (content := files.content()) is None:
                rows = self._lake_rows(connection, manifest_id)
            else:
                self._hold_to_staged(manifest_id, files, content)
                rows = self._staged_rows(connection, manifest_id, files, content)
            with rows as loaded:
                yield loaded

    def _hold_to_staged(self, manifest_id: str, files: StagedVersion, content: Content) -> None:
        """Raise where another run has staged other files under the same id since, and where a file
        is damaged."""
        if not self.version.has_content(content, self.version.totals):
            require_version(manifest_id, f"{self.version.vendor_id}+{content.digest}")
        for problem in files.damage() or ():
            raise FileInvalid(
                f"{problem}; finops state reprocess {self.export.name} {self.month} fetches it "
                "again"
            )

    def _staged_rows(
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
            content.bytes,
            content,
            self.run_id,
            export=export.name,
            month=self.month,
            table=export.table,
        )
        bill_format = export.formats[manifest.format]
        # The names of columns that a lost database, or one of a month, cannot know.
        is_of_month = "{month}" in self.database.database
        has_names = bool(ledger.names_by_header(connection, export.table)) and not is_of_month
        return MonthLoader(connection, load, bill_format).replacing_month(
            read_files(files.paths, bill_format),
            manifest.columns,
            {} if has_names else names_by_header(self.lake.paths(export.name)),
            round_money=export.rounds_money,
        )

    def _lake_rows(
        self, connection: duckdb.DuckDBPyConnection, manifest_id: str
    ) -> AbstractContextManager[tuple[Load, list[str]]]:
        path = self.lake.path(self.export.name, self.month)
        load = load_from_footer(path, self.export.name, self.month, self.export.table)
        if load is None or load.manifest_id != manifest_id:
            raise _not_staged(self.export, self.month)
        load = replace(load, run_id=self.run_id)
        return restoring_month(connection, load, self.export.formats[load.format], path)


def _not_staged(export: Export, month: BillingMonth) -> StageMissing:
    return StageMissing(
        f"the files of {export.name} {month} are not all staged; materialize "
        f"{export.name}/staged_files"
    )
