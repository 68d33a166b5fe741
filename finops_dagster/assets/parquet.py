"""Stage 4: the month as one Parquet file of the lake, written beside and renamed."""

import time

import dagster as dg

from finops_dagster.assets.checks import TOTALS_CHECKS, totals_hold
from finops_dagster.assets.export import Export
from finops_dagster.assets.stage import RunOptions, StageEvents, month_of, stage, version_metadata
from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.footer import Footer, read_footer
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import export_month
from finops_dagster.billing.table import held_version
from finops_dagster.resources.duckdb import BillingDatabase, rows_shown, watched
from finops_dagster.resources.parquet_lake import ParquetLake


def parquet_asset(export: Export) -> dg.AssetsDefinition:
    """The Parquet file of a month of this export."""

    @stage(export, after="billing_table", kinds={"parquet"}, checks=TOTALS_CHECKS)
    def parquet(
        context: dg.AssetExecutionContext,
        database: BillingDatabase,
        lake: ParquetLake,
        run_options: RunOptions,
    ) -> StageEvents:
        """The month as one zstd Parquet file, readable while the next one loads."""
        month = month_of(context)
        path = lake.path(export.name, month)
        started = time.monotonic()
        load, outcome = write_month(export, month, database, lake, force=run_options.force)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(load.manifest_id),
            metadata={
                "outcome": outcome,
                **version_metadata(load.manifest_id, load.totals),
                "path": dg.MetadataValue.path(path),
                "bytes": path.stat().st_size,
                "seconds": round(time.monotonic() - started, 3),
            },
            check_results=totals_hold(load.totals),
        )

    return parquet


def write_month(
    export: Export,
    month: BillingMonth,
    database: BillingDatabase,
    lake: ParquetLake,
    *,
    force: bool,
) -> tuple[Load, str]:
    """Make the lake's file hold what the table holds, unless its footer says that it does.

    Raises StageMissing where the table does not hold what the ledger says.
    """
    path = lake.path(export.name, month)
    with database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.formats)
        if load is None:
            raise StageMissing(
                f"table {export.table} holds no whole {month}; materialize "
                f"{export.name}/billing_table"
            )
        if not force and read_footer(path) == Footer(load.manifest_id, load.totals):
            return load, "unchanged"
        with watched(connection, "exported", load.totals.rows, rows_shown):
            export_month(connection, load, path, export.formats[load.format])
        return load, "exported"
