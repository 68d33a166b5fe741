"""Stage 4: the month's Parquet file in the lake, written beside the old one and renamed."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import newest_number_in_footer
from finops_dagster.billing.version import Load, LoadedVersion
from finops_dagster.lake import (
    Lake,
    exporting_month,
    is_intact,
    load_in_shared_lake,
    version_of_footer,
)
from finops_dagster.pipeline.checks import RECONCILES, reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import location_metadata, version_metadata
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    billing_month,
    month_command,
    require_version,
    stage,
    stage_result,
)
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase, logging_query_progress
from finops_dagster.tables.load import verified_load
from finops_dagster.tables.restatements import newest_number

_REPAIRED = "exported again, as the file was damaged"  # an outcome


def parquet_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset that exports a month's rows to its Parquet file."""

    @stage(export, "parquet", kinds={"parquet"}, checks=[RECONCILES], load="billing_table")
    def parquet(
        context: dg.AssetExecutionContext,
        load: Load | None,
        database: dg.ResourceParam[BillingDatabase],
        lake: dg.ResourceParam[Lake],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[LoadedVersion]:
        """Export the month to a Parquet file, which stays readable while the next one loads."""
        month = billing_month(context)
        writing = writing_month(export, month, database, lake, force=run_options.force)
        with writing as (version, outcome, size):
            if load is not None:
                require_version(load.manifest_id, version.manifest_id)
            metadata = {
                **version_metadata(version),
                **location_metadata(lake.file(export.name, month).location),
                "bytes": size,
            }
            return stage_result(version, outcome, metadata, [reconciles(version)])

    return parquet


@contextmanager
def writing_month(
    export: Export, month: BillingMonth, database: BillingDatabase, lake: Lake, *, force: bool
) -> Iterator[tuple[Load, str, int]]:
    """Write the month's rows from the table to the lake, unless the file there is up to date.

    With `force` that file is replaced too. A file is up to date if it is of the ledger's load, has
    the restatements in the ledger, and has the checksum that it was written with; then no row of
    the table is read. A file in a store is also up to date if this machine's table never had the
    month. The block gets the load, the outcome, and the file's size in bytes, also if unchanged.
    It runs, with the database open, before the new file replaces the old one and the ledger gets
    its checksum; after any error, also in the block, the old one stays. Raises StageMissing if the
    table does not have the rows that the ledger records, and ReconciliationError if the new file
    does not have them.
    """
    file = lake.file(export.name, month)
    with database.connect(export.name, month) as connection:
        recorded = ledger.newest_load(connection, export.name, month)
        texts, newest = file.texts() or {}, newest_number(connection, export.name, month)
        footer = version_of_footer(texts)
        is_same = recorded is not None and recorded.is_same(footer)
        is_current = is_same and newest_number_in_footer(texts) >= newest
        if recorded and is_current and not force and is_intact(connection, recorded, file):
            yield recorded, "unchanged", file.size()
            return
        load = verified_load(connection, export.name, month, export.formats)
        if load is None and not force:
            in_lake = load_in_shared_lake(connection, file, export.name, month, export.table)
            if in_lake is not None:
                yield in_lake, "unchanged", file.size()
                return
        if load is None:
            command = month_command("load-billing-local", export, month)
            raise StageMissing(
                f"table {export.table} has no load of {month}, or its rows differ from the load; "
                f"run {command}"
            )
        is_damaged = file.exists() and not force and (footer is None or is_current)
        with (
            logging_query_progress(connection, "exported", load.totals.rows),
            exporting_month(connection, load, file, export.formats[load.format]) as size,
        ):
            yield load, _REPAIRED if is_damaged else "exported", size
