"""Whether what is said of a month is so: event log, ledger, table, Parquet file, warehouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finops_dagster.assets import STAGES
from finops_dagster.assets.export import Export
from finops_dagster.assets.warehouse_table import month_file
from finops_dagster.billing import ledger, proof
from finops_dagster.billing.errors import LedgerDamaged
from finops_dagster.billing.footer import Footer, read_footer
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.table import held_version
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog
from finops_dagster.cli.held import last_stage
from finops_dagster.cli.months import run
from finops_dagster.code_location import Resources, build_resources
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.resources.warehouses import MonthFile, Warehouse
from finops_dagster.settings import Settings


@dataclass(frozen=True)
class Difference:
    """What differs in one month, and the command that mends it. `is_lost` where no stage after it
    can tell, so that all of them must be done again."""

    export: Export
    month: BillingMonth
    what: str
    is_lost: bool = False
    is_damaged: bool = False

    def row(self) -> dict[str, str]:
        """As a person reads it."""
        only = f"--export {self.export.name} --start-date {self.month} --end-date {self.month}"
        mend = f"finops {self.export.settings.vendor} run-pipeline {only}"
        if self.is_lost:
            mend = f"finops state reprocess {self.export.name} {self.month}"
        if self.is_damaged:
            mend = "finops state verify --mend"
        return {
            "export": self.export.name,
            "month": str(self.month),
            "what differs": self.what,
            "mend": mend,
        }


def differences(settings: Settings, asked: Asked) -> list[Difference]:
    """What differs, one after the other."""
    resources = build_resources(settings)
    return [
        difference
        for export in map(Export, asked.exports(settings))
        for month, versions in _months(export, asked, resources)
        for difference in _of_month(export, month, versions, resources)
    ]


def mend(settings: Settings, asked: Asked, say: Callable[[str], None]) -> bool:
    """Make the ledger again where the data proves itself, then run the months that still differ;
    whether all went well."""
    resources = build_resources(settings)
    for export in map(Export, asked.exports(settings)):
        for month, _ in _months(export, asked, resources):
            restored = _restored(export, month, resources)
            if restored is not None:
                say(f"{export.name} {month}  the ledger has {restored.manifest_id} again")
    by_month = {(one.export.name, str(one.month)): one for one in differences(settings, asked)}
    until = last_stage(settings)
    ended_well = [
        run(settings, Asked(None, export, month, month), until, force=one.is_lost)
        for (export, month), one in by_month.items()
    ]
    return all(ended_well)


def _restored(export: Export, month: BillingMonth, resources: Resources) -> Load | None:
    """What the ledger says of the month only since now, by the word of the Parquet file."""
    path = resources.lake.path(export.name, month)
    with resources.database.connect(export.name, month, mend=True) as connection:
        if held_version(connection, export.name, month, export.formats) is not None:
            return None
        recorded = proof.load_of(path, export.name, month, export.table)
        if recorded is None:
            return None
        vendor = export.formats[recorded.load.format]
        return recorded.load if proof.restore(connection, recorded, vendor, path) else None


def _months(
    export: Export, asked: Asked, resources: Resources
) -> Iterator[tuple[BillingMonth, dict[str, str | None]]]:
    """The months that anybody speaks of, with the version that the event log has of each stage."""
    logged = EventLog().versions(export.name)
    for month in asked.months(export.settings):
        versions = {stage: logged[stage].get(str(month)) for stage in STAGES}
        if any(versions.values()) or resources.lake.path(export.name, month).exists():
            yield month, versions


def _of_month(
    export: Export, month: BillingMonth, logged: dict[str, str | None], resources: Resources
) -> Iterator[Difference]:
    try:
        said, held = _table(export, month, resources.database)
    except LedgerDamaged as error:
        yield Difference(export, month, str(error), is_damaged=True)
        return
    if said is not None and held is None:
        what = f"the ledger has {said.manifest_id}, but the table does not hold its rows"
        yield Difference(export, month, what, is_lost=True)
        return
    version = held and held.manifest_id
    if version != logged["billing_table"]:
        what = f"the table holds {version}, the event log has {logged['billing_table']}"
        yield Difference(export, month, what)
    path = resources.lake.path(export.name, month)
    footer = read_footer(path)
    if held is not None and footer != Footer(held.manifest_id, held.totals):
        has = footer and f"{footer.manifest_id} with {footer.totals}"
        what = f"{path} has {has or 'no whole month'}, the table {version} with {held.totals}"
        yield Difference(export, month, what)
    if footer is not None and footer.manifest_id != logged["parquet"]:
        what = f"{path} has {footer.manifest_id}, the event log {logged['parquet']}"
        yield Difference(export, month, what)
    if footer is not None and resources.warehouse is not None:
        file = month_file(export, month, resources.lake)
        yield from _of_warehouse(export, file, logged, resources.warehouse)


def _of_warehouse(
    export: Export, file: MonthFile, logged: dict[str, str | None], warehouse: Warehouse
) -> Iterator[Difference]:
    held, name = warehouse.held_version(file), warehouse.full_name(file.table)
    version = held and held.manifest_id
    if version is not None and version != logged["warehouse_table"]:
        what = f"{name} holds {version}, the event log has {logged['warehouse_table']}"
        yield Difference(export, file.month, what)
    if logged["warehouse_table"] is not None and held != file.footer:
        has = held and f"{held.manifest_id} with {held.totals}"
        what = f"{name} has {has or 'no whole month'}, {file.path} {file.footer.totals}"
        yield Difference(export, file.month, what, is_lost=True)


def _table(
    export: Export, month: BillingMonth, database: BillingDatabase
) -> tuple[Load | None, Load | None]:
    """What the ledger says that the table holds, and the same if it really does."""
    with database.connect(export.name, month) as connection:
        said = ledger.loaded(connection, export.name, month)
        return said, held_version(connection, export.name, month, export.formats)
