"""The month's charges in the warehouse, loaded from their file, and the view of all charges."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import dagster as dg

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import BillError, StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.entries import COST, CURRENCY
from finops_dagster.focus.mapping import ADDED_TYPES
from finops_dagster.focus.month import FOCUS_VERSION, ChargesRecord, focus_lake
from finops_dagster.focus.query import x_column_name
from finops_dagster.focus.specification import Specification
from finops_dagster.lake import Lake, LakeFile, names_from_footers
from finops_dagster.pipeline.checks import Check
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.focus import OPTIONS
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import StageMonth, month_command, require_version, stage
from finops_dagster.pipeline.warehouse_table import WarehouseLoading
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.tables.digest import DATE
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable

VIEW = "focus"
RECONCILES_CHARGES = Check(
    "reconciles",
    "The warehouse has the charges of the file: as many rows, with the same costs to the last "
    "digit.",
    blocking=True,
)
_CLUSTER_BY = ("ChargePeriodStart", "ServiceName")


def warehouse_focus_asset(
    export: Export, backend: str, tables: Sequence[str]
) -> dg.AssetsDefinition:
    """Return the asset of a month's charges in a warehouse of the kind `backend`.

    `tables` are the tables of charges of all exports, which the view `focus` unites.
    """
    kinds, checks = {backend, "table"}, [RECONCILES_CHARGES]

    @stage(export, "warehouse_focus", kinds=kinds, checks=checks, options=OPTIONS, charges="focus")
    def warehouse_focus(
        context: dg.AssetExecutionContext,
        charges: LoadedVersion | None,
        lake: dg.ResourceParam[Lake],
        database: dg.ResourceParam[BillingDatabase],
        warehouse: dg.ResourceParam[Warehouse],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[LoadedVersion]:
        """Replace the month's charges in the warehouse, in one step, and update the view `focus`.

        They are loaded from the file of charges in the lake. The view has the charges of all
        exports.
        """
        at = StageMonth.of_run(context, export, run_options)
        record, file = charges_record_and_file(export, at.month, lake, database.duckdb)
        if charges is not None:
            require_version(charges.manifest_id, record.version.manifest_id)
        loading = WarehouseLoading(at, file, record.version, warehouse)
        return loading.load_month(context, after_load=partial(_unite, warehouse, tables))

    return warehouse_focus


def focus_table(export: Export) -> str:
    """Return the name of the table of an export's charges in the warehouse."""
    return f"{export.table}_focus"


def _view_columns() -> dict[str, str]:
    """Return the columns of the view of all charges, with the names of their types in DuckDB.

    They are those that every mapping may have: FOCUS's columns, and those that say where a charge
    is from. The vendors' own columns are only in the tables, so that the view stays the same.
    """
    defined = {c.name: c.type.sql_type for c in Specification.load(FOCUS_VERSION).columns}
    added = {name: DATE if sql == DATE else SqlType.TEXT for name, sql in ADDED_TYPES.items()}
    return {**defined, **added}


def _unite(warehouse: Warehouse, tables: Sequence[str]) -> list[str]:
    """Create or replace the view of all charges, and return a warning if that fails."""
    try:
        warehouse.create_union_view(VIEW, tables, _view_columns())
    except (BillError, WarehouseUnavailable) as error:
        name = warehouse.full_name(VIEW)
        return [
            f"the month is loaded, but the view {name} is not updated, and lacks new tables and "
            f"columns until the next load of any month: {error}"
        ]
    return []


def _tags(export: Export, bill: LakeFile) -> list[str]:
    """Return the names that tags and cost categories of a bill have among its charges."""
    footer = bill.version()
    if footer is None:
        return []
    is_user_defined = export.formats[footer.format].is_user_defined
    names = names_from_footers([bill]).items()
    return [x_column_name(name) for header, name in names if is_user_defined(header)]


def charges_record_and_file(
    export: Export, month: BillingMonth, lake: Lake, duckdb: DuckDB
) -> tuple[ChargesRecord, MonthFile]:
    """Return the record of a month's charges, and their file as a warehouse loads it.

    The version id in the `MonthFile.footer` has the versions of all the bills and of the mapping,
    so that the warehouse is loaded again if any of them changes. Raises StageMissing if the file is
    missing or damaged.
    """
    file = focus_lake(lake).file(export.name, month)
    current = file.snapshot()
    record = ChargesRecord.from_file(current)
    if record is None:
        command = month_command("derive-focus", export, month)
        raise StageMissing(f"{file.location} is missing or damaged; run {command}")
    schema, bill = current.schema(), lake.file(export.name, month).snapshot()
    return record, MonthFile(
        export.name,
        focus_table(export),
        month,
        file,
        replace(record.version, manifest_id=record.warehouse_version_id),
        schema,
        cost_column=COST,
        billing_period_column=None,
        cluster_by=tuple(name for name in _CLUSTER_BY if name in schema.names),
        user_defined_columns=tuple(name for name in _tags(export, bill) if name in schema.names),
        currency_column=CURRENCY,
        duckdb=duckdb,
        month_column="x_billing_month",
        version_column="x_manifest_id",
        version_id_in_rows=record.version.manifest_id,
        folder_in_lake="focus/",
    )
