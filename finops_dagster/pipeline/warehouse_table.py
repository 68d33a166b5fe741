"""Stage 5: the month in the warehouse, loaded from the lake's file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

from finops_dagster.billing.errors import StageMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import Lake, names_from_footers
from finops_dagster.pipeline.checks import RECONCILES, passed_reconciles
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import version_metadata, warnings_metadata
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    StageMonth,
    month_command,
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
        """Replace the month in the warehouse's table by the month's Parquet file, in one step.

        Nothing is loaded if the warehouse has this version already.
        """
        at = StageMonth.of_run(context, export, run_options)
        file = month_file(export, at.month, lake, database.duckdb)
        if footer is not None:
            require_version(footer.manifest_id, file.footer.manifest_id)
        loading = WarehouseLoading(at, file, file.footer, warehouse)
        return loading.load_month(context)

    return warehouse_table


@dataclass(frozen=True)
class WarehouseLoading:
    """The load of a month's file into the warehouse.

    `version` is the version in the stage's results. For charges, `file.footer` has another id,
    which names the versions of all bills and of the mapping: by that, loads are compared.
    """

    at: StageMonth
    file: MonthFile
    version: LoadedVersion
    warehouse: Warehouse

    def unchanged_result(self) -> dg.MaterializeResult[LoadedVersion] | None:
        """Return the stage's result if the warehouse has this version of the month; else None.

        The month's rows are measured in the warehouse. Raises BillError and WarehouseUnavailable.
        """
        has_month = self.file.footer.is_same_version(self.warehouse.measured_version(self.file))
        return self._result("unchanged") if has_month else None

    def load_month(
        self,
        context: dg.AssetExecutionContext,
        after_load: Callable[[], Sequence[str]] = tuple,
    ) -> dg.MaterializeResult[LoadedVersion]:
        """Load the month unless the warehouse has this version, and return the stage's result.

        A stage with `force` loads it in any case. `after_load` runs only after a load, which is
        committed then: it returns warnings, and must not raise. Adds the load's metadata to
        `context`. Raises as `Warehouse.replace_month`.
        """
        if not self.at.force and (unchanged := self.unchanged_result()) is not None:
            return unchanged
        result = self._result("loaded")
        # Last, after all that can fail: a failure after the commit would leave the load without
        # a materialization in Dagster's event log.
        load = self.warehouse.replace_month(self.file)
        warnings = [*load.warnings, *after_load()]
        messages = warnings_metadata(warnings) if warnings else {}
        loaded = {"job_id": load.job_id, "loaded_from": load.loaded_from}
        context.add_asset_metadata({**loaded, **messages})
        return result

    def _result(self, outcome: str) -> dg.MaterializeResult[LoadedVersion]:
        version = self.version
        metadata = {
            **version_metadata(version),
            "dagster/table_name": self.warehouse.full_name(self.file.table),
            **self.at.previous_metadata(version.manifest_id, "warnings"),
            "job_id": "none",
        }
        return stage_result(version, outcome, metadata, [passed_reconciles(version)])


def month_file(export: Export, month: BillingMonth, lake: Lake, duckdb: DuckDB) -> MonthFile:
    """Return the month's Parquet file, as a warehouse loads it; only its footer is read.

    `duckdb` has the limits of the DuckDB that warehouses read the file with. Raises StageMissing
    if the file is missing or its footer cannot be read.
    """
    file = lake.file(export.name, month)
    current = file.snapshot()
    footer = current.version()
    if footer is None:
        command = month_command("export-parquet", export, month)
        raise StageMissing(f"{file.location} is missing or damaged; run {command}")
    schema = current.schema()
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
            for header, name in names_from_footers([current]).items()
            if bill_format.is_user_defined(header) and name in schema.names
        ),
        currency_column=if_present(bill_format.currency),
        duckdb=duckdb,
    )
