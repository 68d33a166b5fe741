"""Stage 4: the month's Parquet file in the lake, which replaces the old one in one step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
import duckdb

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import restatement_number_in_footer
from finops_dagster.billing.version import Load, LoadedVersion
from finops_dagster.lake import (
    Lake,
    LakeFile,
    load_missing_in_ledger,
    verify_file_of_load,
    version_of_footer,
    writing_month_to_lake,
)
from finops_dagster.pipeline.checks import RECONCILES, passed_reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import location_metadata, version_metadata
from finops_dagster.pipeline.registration import OpenCatalog, catalog_checks, register_files
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    billing_month,
    month_command,
    require_version,
    stage,
    stage_result,
)
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import verified_load
from finops_dagster.tables.database import BillingDatabase, logging_query_progress
from finops_dagster.tables.restatements import newest_restatement_number

_REPAIRED = "exported again, as the file was damaged"  # an outcome


def parquet_asset(export: Export, open_catalog: OpenCatalog = None) -> dg.AssetsDefinition:
    """Return the asset that exports a month's rows to its Parquet file, and registers the file.

    `open_catalog` opens the catalog to register it in; with None there is no catalog.
    """
    checks = [RECONCILES, *catalog_checks(open_catalog)]

    @stage(export, "parquet", kinds={"parquet"}, checks=checks, load="billing_table")
    def parquet(
        context: dg.AssetExecutionContext,
        load: Load | None,
        database: dg.ResourceParam[BillingDatabase],
        lake: dg.ResourceParam[Lake],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[LoadedVersion]:
        """Write the month's rows to its Parquet file in the lake, which is replaced in one step.

        The rows come from the billing table. If the export fails, the old file stays. With an
        Iceberg catalog, the file is then registered there.
        """
        month = billing_month(context)
        writing = writing_month(export, month, database, lake, force=run_options.force)
        with writing as (version, outcome, size):
            if load is not None:
                require_version(load.manifest_id, version.manifest_id)
            location = lake.file(export.name, month).location
            result = parquet_result(version, outcome, location, size, ())
        # After this, what fails leaves the file without a materialization in Dagster's event log.
        if open_catalog is None:
            return result
        registered = register_files(open_catalog, lake, export, export.table, context.log.warning)
        return parquet_result(version, outcome, location, size, registered)

    return parquet


def parquet_result(
    load: Load,
    outcome: str,
    location: str,
    size: int,
    catalog_results: Sequence[dg.AssetCheckResult],
) -> dg.MaterializeResult[LoadedVersion]:
    """Return the stage's result; the file at `location` has `size` bytes.

    `catalog_results` is what `register_files` returned.
    """
    metadata = {**version_metadata(load), **location_metadata(location), "bytes": size}
    return stage_result(load, outcome, metadata, [passed_reconciles(load), *catalog_results])


@contextmanager
def writing_month(
    export: Export, month: BillingMonth, database: BillingDatabase, lake: Lake, *, force: bool
) -> Iterator[tuple[Load, str, int]]:
    """Write the month's rows from the table to the lake, unless the file there is up to date.

    A file is up to date if it has the version and the restatements in the ledger, and if
    `verify_file_of_load` returns True. An intact file in a store is also up to date if the ledger
    has no load of the month. `force` replaces it in any case.

    The block gets the load, the outcome, and the file's size in bytes. The outcome is `unchanged`
    or `exported`; for a damaged file it is `exported again, as the file was damaged`. The block
    runs, with the database open, before the new file replaces the old one and the ledger gets its
    checksum: after any error, also in the block, the old file stays. Raises StageMissing if the
    ledger has no load of the month, or the table does not have its totals, and ReconciliationError
    if the new file does not.
    """
    with database.connect(export.name, month) as connection:
        # Another process may have written the month while this one waited for the database.
        file = lake.file(export.name, month).snapshot()
        unchanged = None if force else load_of_unchanged_file(connection, export, month, file)
        if unchanged is not None:
            yield unchanged, "unchanged", file.size()
            return
        load = verified_load(connection, export.name, month, export.formats)
        if load is None:
            command = month_command("load-billing-local", export, month)
            raise StageMissing(
                f"table {export.table} has no load of {month}, or its rows differ from the load; "
                f"run {command}"
            )
        is_damaged = not force and _is_damaged(connection, load, file)
        with (
            logging_query_progress(connection, "exported", load.totals.rows),
            writing_month_to_lake(connection, load, file, export.formats[load.format]) as size,
        ):
            yield load, _REPAIRED if is_damaged else "exported", size


def load_of_unchanged_file(
    connection: duckdb.DuckDBPyConnection, export: Export, month: BillingMonth, file: LakeFile
) -> Load | None:
    """Return the load of a file that is up to date, as `writing_month` defines it; else None.

    The ledger may get the file's checksum.
    """
    recorded, texts = ledger.newest_load(connection, export.name, month), file.footer_texts() or {}
    if recorded is None:
        return load_missing_in_ledger(connection, file, export.name, month, export.table)
    is_current = _has_footer_of(connection, recorded, texts)
    return recorded if is_current and verify_file_of_load(connection, recorded, file) else None


def _is_damaged(connection: duckdb.DuckDBPyConnection, load: Load, file: LakeFile) -> bool:
    """Return whether a stale file has no footer, or the right one but other bytes."""
    texts = file.footer_texts() or {}
    has_footer = version_of_footer(texts) is not None
    return file.exists() and (not has_footer or _has_footer_of(connection, load, texts))


def _has_footer_of(
    connection: duckdb.DuckDBPyConnection, load: Load, texts: Mapping[str, str]
) -> bool:
    """Return whether a footer is of this load, and has the restatements in the ledger."""
    newest = newest_restatement_number(connection, load.export, load.month)
    return (
        load.is_same_version(version_of_footer(texts))
        and restatement_number_in_footer(texts) >= newest
    )
