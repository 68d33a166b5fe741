"""Whether what is said of a month is so: event log, ledger, table, Parquet file, warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import dagster as dg

from finops_dagster.assets.export import Export
from finops_dagster.assets.warehouse_table import month_file
from finops_dagster.billing import ledger
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import Footer, read_footer
from finops_dagster.billing.table import held_version
from finops_dagster.cli.months import Asked, versions_by_stage
from finops_dagster.definitions import build_definitions
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.resources.parquet_lake import ParquetLake
from finops_dagster.resources.warehouses import Warehouse
from finops_dagster.runs import open_instance
from finops_dagster.settings import Settings


def differences(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """What differs, a row each, with the command that mends it."""
    resources = build_definitions(settings).resources or {}
    with open_instance() as instance:
        return [
            {"export": export.name, "month": str(month), "what differs": what, "mend": mend}
            for export in asked.exports(settings)
            for month, versions in _months(instance, export, asked, resources)
            for what, mend in _of_month(export, month, versions, resources)
        ]


def _months(
    instance: dg.DagsterInstance, export: Export, asked: Asked, resources: Mapping[str, Any]
) -> Iterator[tuple[BillingMonth, dict[str, str | None]]]:
    """The months that anybody speaks of, with the version that the event log has of each stage."""
    lake = cast(ParquetLake, resources["lake"])
    logged = versions_by_stage(instance, export)
    for month in asked.months(export):
        versions = {stage: held.get(str(month)) for stage, held in logged.items()}
        if any(versions.values()) or lake.path(export.name, month).exists():
            yield month, versions


def _of_month(
    export: Export, month: BillingMonth, logged: dict[str, str | None], resources: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    only = f"--export {export.name} --start-date {month} --end-date {month}"
    run = f"finops {export.settings.vendor} run-pipeline {only}"
    again = f"finops state reprocess {export.name} {month}"
    said, held = _table(export, month, cast(BillingDatabase, resources["database"]))
    if said is not None and held is None:
        yield f"the ledger has {said.manifest_id}, but the table does not hold its rows", again
        return
    version = held and held.manifest_id
    if version != logged["billing_table"]:
        yield f"the table holds {version}, the event log has {logged['billing_table']}", run
    path = cast(ParquetLake, resources["lake"]).path(export.name, month)
    footer = read_footer(path)
    if held is not None and footer != Footer(held.manifest_id, held.totals):
        has = footer and f"{footer.manifest_id} with {footer.totals}"
        yield f"{path} has {has or 'no whole month'}, the table {version} with {held.totals}", run
    if footer is not None and footer.manifest_id != logged["parquet"]:
        yield f"{path} has {footer.manifest_id}, the event log {logged['parquet']}", run
    if footer is not None and "warehouse" in resources:
        yield from _of_warehouse(export, month, logged, resources, again)


def _of_warehouse(
    export: Export,
    month: BillingMonth,
    logged: dict[str, str | None],
    resources: Mapping[str, Any],
    again: str,
) -> Iterator[tuple[str, str]]:
    warehouse = cast(Warehouse, resources["warehouse"])
    file = month_file(export, month, cast(ParquetLake, resources["lake"]))
    held = warehouse.held_version(file)
    if logged["warehouse_table"] is not None and held != file.footer:
        has = held and f"{held.manifest_id} with {held.totals}"
        name = warehouse.full_name(file.table)
        yield f"{name} has {has or 'no whole month'}, {file.path} {file.footer.totals}", again


def _table(
    export: Export, month: BillingMonth, database: BillingDatabase
) -> tuple[Load | None, Load | None]:
    """What the ledger says that the table holds, and the same if it really does."""
    with database.connect(export.name, month) as connection:
        said = ledger.loaded(connection, export.name, month)
        return said, held_version(connection, export.name, month, export.formats)
