"""Which months the place where they end holds, by the word of its own ledger."""

from __future__ import annotations

from typing import Any

from finops_dagster.cli.asked import Asked
from finops_dagster.pipeline.build import build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.warehouses.base import LoadedMonth, newest_loads


def loaded_months(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """Return a row for each month that the warehouse says is loaded, the newest month of each
    export first; without a warehouse, that the DuckDB file says. Raises BillError, and
    WarehouseUnavailable where asking again may help."""
    resources = build_resources(settings)
    rows = []
    for export in map(Export, asked.exports(settings)):
        if resources.warehouse is None:
            table, months = export.table, _in_duckdb(export, resources.database)
        else:
            table = resources.warehouse.full_name(export.table)
            months = resources.warehouse.loaded_months(export.table)
        rows += [
            {
                "export": export.name,
                "month": one.month,
                "version": one.version,
                "rows": one.rows,
                "loaded_at": one.loaded_at,
                "table": table,
            }
            for one in months
        ]
    return rows


def _in_duckdb(export: Export, database: BillingDatabase) -> list[LoadedMonth]:
    paths = {database.path(export.name, month): month for month in export.months()}
    loads = []
    for path, month in paths.items():
        if path.exists():
            with database.connect(export.name, month) as connection:
                loads += [
                    (str(one.load.month), one.load.manifest_id, one.load.totals.rows, one.loaded_at)
                    for one in ledger.versions(connection, export.name)
                    if one.state == "loaded"
                ]
    return newest_loads(loads)
