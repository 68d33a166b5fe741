"""Stage 5: the month in the warehouse, loaded from the lake's file."""

from collections.abc import Callable, Sequence

import dagster as dg

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import Lake, names_from_footers
from finops_dagster.pipeline.checks import RECONCILES, reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import version_metadata, warnings_metadata
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    billing_month,
    month_command,
    previous_metadata,
    require_version,
    stage,
    stage_result,
)
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile


def warehouse_table_asset(export: Export, backend: str) -> dg.AssetsDefinition:
    """Return the asset that replaces a month in a warehouse of the kind `backend`."""
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
        """Load the month's Parquet file into the warehouse, in one step."""
        file = month_file(export, billing_month(context), lake, database.duckdb)
        if footer is not None:
            require_version(footer.manifest_id, file.footer.manifest_id)
        return load_month(context, file, file.footer, warehouse, force=run_options.force)

    return warehouse_table


def load_month(
    context: dg.AssetExecutionContext,
    file: MonthFile,
    version: LoadedVersion,
    warehouse: Warehouse,
    *,
    force: bool,
    after_load: Callable[[], Sequence[str]] = tuple,
) -> dg.MaterializeResult[LoadedVersion]:
    """Load a month's file into the warehouse, and return the stage's result.

    If the warehouse has the file's version, nothing is loaded unless `force`. `version` is what the
    result records. `after_load` runs after a load, and returns warnings; it must not raise.
    """
    is_loaded = not force and file.footer.is_same(warehouse.measured_version(file))
    metadata = {
        **version_metadata(version),
        "dagster/table_name": warehouse.full_name(file.table),
        **previous_metadata(context, version.manifest_id, "warnings"),
        "job_id": "none",
    }
    outcome = "unchanged" if is_loaded else "loaded"
    result = stage_result(version, outcome, metadata, [reconciles(version)])
    if not is_loaded:
        # Last, after all that can fail: a failure after the commit would leave the load without
        # a materialization in Dagster's event log.
        load = warehouse.replace_month(file)
        warnings = [*load.warnings, *after_load()]
        messages = warnings_metadata(warnings) if warnings else {}
        loaded = {"job_id": load.job_id, "loaded_from": load.loaded_from}
        context.add_asset_metadata({**loaded, **messages})
    return result


def month_file(export: Export, month: BillingMonth, lake: Lake, duckdb: DuckDB) -> MonthFile:
    """Return the month's Parquet file, as a warehouse loads it; only its footer is read.

    `duckdb` has the limits of the DuckDB that warehouses read the file with. Raises StageMissing
    if the file is missing or its footer cannot be read.
    """
    file = lake.file(export.name, month)
    footer = file.version()
    if footer is None:
        command = month_command("export-parquet", export, month)
        raise StageMissing(f"{file.location} is missing or damaged; run {command}")
    schema = file.schema()
    bill_format = export.formats[footer.format]

    def if_present(name: str) -> str | None:
        return name if name in schema.names else None

    return MonthFile(
        export.name,
        export.table,
        month,
        file,
        footer,
        schema,
        cost_column=if_present(bill_format.cost),
        billing_period_column=if_present(bill_format.billing_period),
        cluster_by=tuple(
            filter(None, [if_present(bill_format.usage_start), if_present(bill_format.service)])
        ),
        user_defined_columns=tuple(
            name
            for header, name in names_from_footers([file]).items()
            if bill_format.is_user_defined(header) and name in schema.names
        ),
        currency_column=if_present(bill_format.currency),
        duckdb=duckdb,
    )
