"""Stage 4: the month as one Parquet file of the lake, written beside and renamed."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.folder import ParquetLake
from finops_dagster.lake.footer import Footer, read_footer
from finops_dagster.lake.intact import is_intact
from finops_dagster.lake.month import exporting_month
from finops_dagster.pipeline.checks import RECONCILES, reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.stage import (
    RunOptions,
    StageEvents,
    hold_to_one_version,
    month_of,
    stage,
    version_metadata,
)
from finops_dagster.progress import rows_shown
from finops_dagster.tables.database import BillingDatabase, watched
from finops_dagster.tables.ledger import Load
from finops_dagster.tables.load import held_version

_REPAIRED = "exported again, as the file was damaged"


def parquet_asset(export: Export) -> dg.AssetsDefinition:
    """The Parquet file of a month of this export."""

    @stage(export, after="billing_table", kinds={"parquet"}, checks=[RECONCILES])
    def parquet(
        context: dg.AssetExecutionContext,
        database: dg.ResourceParam[BillingDatabase],
        lake: ParquetLake,
        run_options: RunOptions,
    ) -> StageEvents:
        """The month as one zstd Parquet file, readable while the next one loads."""
        month = month_of(context)
        path = lake.path(export.name, month)
        with writing_month(export, month, database, lake, force=run_options.force) as (
            load,
            outcome,
            size,
        ):
            hold_to_one_version(context, load.manifest_id)
            result: dg.MaterializeResult[None] = dg.MaterializeResult(
                data_version=dg.DataVersion(load.manifest_id),
                metadata={
                    "outcome": outcome,
                    **version_metadata(load.manifest_id, load.totals),
                    "path": dg.MetadataValue.path(path),
                    "bytes": size,
                },
                check_results=[reconciles(load.manifest_id, load.totals)],
            )
        yield result

    return parquet


@contextmanager
def writing_month(
    export: Export,
    month: BillingMonth,
    database: BillingDatabase,
    lake: ParquetLake,
    *,
    force: bool,
) -> Iterator[tuple[Load, str, int]]:
    """Make the lake's file hold what the table holds, unless it is the file that was written from
    it, to its last byte.

    The block is given the load, what is done, and the file's bytes, and runs before the new file is
    put in place. Raises StageMissing where the table does not hold what the ledger says.
    """
    path = lake.path(export.name, month)
    with database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.formats)
        if load is None:
            raise StageMissing(
                f"table {export.table} holds no whole {month}; materialize "
                f"{export.name}/billing_table"
            )
        footer, vendor = read_footer(path), export.formats[load.format]
        is_current = footer == Footer(load.manifest_id, load.totals)
        if is_current and not force and is_intact(connection, load, path):
            yield load, "unchanged", path.stat().st_size
            return
        is_damaged = path.exists() and not force and (footer is None or is_current)
        with (
            watched(connection, "exported", load.totals.rows, rows_shown),
            exporting_month(connection, load, path, vendor) as size,
        ):
            yield load, _REPAIRED if is_damaged else "exported", size
