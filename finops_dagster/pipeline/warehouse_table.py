"""Stage 5: the month in the organization's warehouse, loaded from the lake's file."""

import dagster as dg
import pyarrow.parquet as pq

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import Lake, names_by_header, read_footer
from finops_dagster.pipeline.checks import RECONCILES, reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import version_metadata, warnings
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    materialized,
    metadata_of_version,
    month_of,
    require_version,
    stage,
)
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile


def warehouse_table_asset(export: Export, backend: str) -> dg.AssetsDefinition:
    """Return the asset of a month in a warehouse of the kind `backend`."""

    kinds = {backend, "table"}

    @stage(export, "warehouse_table", kinds=kinds, checks=[RECONCILES], footer="parquet")
    def warehouse_table(
        context: dg.AssetExecutionContext,
        footer: LoadedVersion | None,
        lake: dg.ResourceParam[Lake],
        database: dg.ResourceParam[BillingDatabase],
        warehouse: dg.ResourceParam[Warehouse],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[LoadedVersion]:
        """The month in the warehouse, replaced there in one step."""
        file = month_file(export, month_of(context), lake, database.duckdb)
        version = file.footer
        if footer is not None:
            require_version(footer.manifest_id, version.manifest_id)
        is_loaded = not run_options.force and version.is_same(warehouse.verified_version(file))
        metadata = {
            **version_metadata(version),
            "dagster/table_name": warehouse.full_name(file.table),
            **metadata_of_version(context, version.manifest_id, "warnings"),
            "job_id": "none",
        }
        outcome = "unchanged" if is_loaded else "loaded"
        result = materialized(version, outcome, metadata, [reconciles(version)])
        if not is_loaded:
            # What could fail has been done: the event log must follow the commit.
            loaded = warehouse.replace_month(file)
            messages = warnings(loaded.warnings) if loaded.warnings else {}
            context.add_asset_metadata({"job_id": loaded.job_id, **messages})
        return result

    return warehouse_table


def month_file(export: Export, month: BillingMonth, lake: Lake, duckdb: DuckDB) -> MonthFile:
    """The lake's file of the month and what it says of itself; `duckdb` is what warehouses read it
    with. Raises StageMissing."""
    path = lake.path(export.name, month)
    footer = read_footer(path)
    if footer is None:
        raise StageMissing(f"{path} is not there or not whole; materialize {export.name}/parquet")
    schema = pq.read_schema(path)

    bill_format = export.formats[footer.format]

    def present(name: str) -> str | None:
        return name if name in schema.names else None

    return MonthFile(
        export.name,
        export.table,
        month,
        path,
        footer,
        schema,
        cost_column=present(bill_format.cost),
        period_column=present(bill_format.billing_period),
        cluster_by=tuple(
            filter(None, [present(bill_format.usage_start), present(bill_format.service)])
        ),
        user_defined_columns=tuple(
            name
            for header, name in names_by_header([path]).items()
            if bill_format.is_user_defined(header) and name in schema.names
        ),
        currency_column=present(bill_format.currency),
        duckdb=duckdb,
    )
