"""Stage 5: the month in the organization's warehouse, loaded from the lake's file."""

import dagster as dg
import pyarrow.parquet as pq

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import Lake, column_names, read_record
from finops_dagster.pipeline.checks import RECONCILES, reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import version_metadata, warnings
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    checks_metadata,
    hold_to_version,
    kept_metadata,
    month_of,
    shows_failures,
    stage,
)
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.warehouses.base import MonthFile, Warehouse


def warehouse_table_asset(export: Export, backend: str) -> dg.AssetsDefinition:
    """Return the asset of a month in a warehouse of the kind `backend`."""

    @dg.asset(
        **stage(export, "warehouse_table", kinds={backend, "table"}, checks=[RECONCILES]),
        ins={"footer": dg.AssetIn(export.key("parquet"))},
    )
    @shows_failures
    def warehouse_table(
        context: dg.AssetExecutionContext,
        footer: LoadedVersion | None,
        lake: dg.ResourceParam[Lake],
        database: dg.ResourceParam[BillingDatabase],
        warehouse: dg.ResourceParam[Warehouse],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[None]:
        """The month in the warehouse, replaced there in one step."""
        file = month_file(export, month_of(context), lake, database.duckdb)
        version, totals = file.footer.manifest_id, file.footer.totals
        if footer is not None:
            hold_to_version(footer.manifest_id, version)
        results = [reconciles(version, totals)]
        metadata = {
            **version_metadata(version, totals),
            "dagster/table_name": warehouse.full_name(file.table),
            **kept_metadata(context, version, "warnings"),
            **checks_metadata(results),
        }
        done = None
        if run_options.force or not file.footer.is_same(warehouse.held_version(file)):
            done = warehouse.replace_month(file)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                "outcome": "loaded" if done else "unchanged",
                **metadata,
                "job_id": done.job if done else "none",
                **(warnings(done.warnings) if done and done.warnings else {}),
            },
            check_results=results,
        )

    return warehouse_table


def month_file(export: Export, month: BillingMonth, lake: Lake, duckdb: DuckDB) -> MonthFile:
    """The lake's file of the month and what it says of itself; `duckdb` is what warehouses read it
    with. Raises StageMissing."""
    path = lake.path(export.name, month)
    footer = read_record(path)
    if footer is None:
        raise StageMissing(f"{path} is not there or not whole; materialize {export.name}/parquet")
    schema = pq.read_schema(path)

    vendor = export.formats[footer.format]

    def present(name: str) -> str | None:
        return name if name in schema.names else None

    return MonthFile(
        export.name,
        export.table,
        month,
        path,
        footer,
        schema,
        cost=present(vendor.cost),
        billing_period=present(vendor.billing_period),
        cluster_by=tuple(filter(None, [present(vendor.usage_start), present(vendor.service)])),
        free_text=tuple(
            name
            for header, name in column_names([path]).items()
            if vendor.is_free_text(header) and name in schema.names
        ),
        currency=present(vendor.currency),
        duckdb=duckdb,
    )
