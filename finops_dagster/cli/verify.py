"""Whether event log, ledger, table, Parquet file and warehouse agree on a month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress

from finops_dagster import lake as proof
from finops_dagster.billing.errors import BillError, LedgerDamaged
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.cli.differences import Coverage, Difference, Repair
from finops_dagster.cli.history import open_history
from finops_dagster.cli.month_runs import run_months
from finops_dagster.cli.options import Selection
from finops_dagster.cli.verify_deep import damage
from finops_dagster.lake import read_record
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.build import Resources, build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.tables.load import held_version
from finops_dagster.terminal import console
from finops_dagster.warehouses.base import MonthFile, Warehouse


def verify(
    settings: Settings, selection: Selection, *, deep: bool
) -> tuple[list[Difference], Coverage]:
    """Return what differs, and what was looked at to find it. `deep` reads everything."""
    resources = build_resources(settings)
    has_warehouse = settings.database.has_warehouse
    coverage = Coverage(deep, settings.database.backend if has_warehouse else None)
    found: list[Difference] = []
    with console(stderr=True).status("") as status:
        for export, month, logged in _months(settings, selection, resources, coverage):
            status.update(f"reading {export.name} {month}")
            try:
                found += _of_month(export, month, logged, resources)
                if deep:
                    in_warehouse = logged["warehouse_table"] is not None
                    found += damage(export, month, resources, coverage, in_warehouse=in_warehouse)
            except LedgerDamaged as error:
                found.append(Difference(export, month, str(error), Repair.LEDGER))
            except BillError as error:  # a database that is damaged hides no other month
                found.append(Difference(export, month, str(error)))
    return found, coverage


def mend(
    settings: Settings, selection: Selection, say: Callable[[str], None], *, deep: bool
) -> bool:
    """Make the ledger again where the data proves itself, then repair the months that still differ;
    return whether all went well."""
    resources = build_resources(settings)
    for export, month, _ in _months(settings, selection, resources):
        restored = None
        with suppress(BillError):  # a database that cannot be opened is said by what follows
            restored = _restored(export, month, resources)
        if restored is not None:
            say(f"{export.name} {month}  the ledger has {restored.manifest_id} again")
    repairs: dict[tuple[str, str], list[Repair]] = defaultdict(list)
    for one in verify(settings, selection, deep=deep)[0]:
        repairs[one.export.name, str(one.month)].append(one.repair)
    ended_well = [
        _repair(settings, Selection(None, export, month, month), Repair.of(several))
        for (export, month), several in repairs.items()
    ]
    return all(ended_well)


def _repair(settings: Settings, month: Selection, repair: Repair) -> bool:
    until = "staged_files" if repair == Repair.FETCH else None
    return run_months(settings, month, until, force=repair in (Repair.FETCH, Repair.REPROCESS))


def _restored(export: Export, month: BillingMonth, resources: Resources) -> Load | None:
    """What the ledger says of the month only since now, by the word of the Parquet file."""
    path = resources.lake.path(export.name, month)
    with resources.database.connect(export.name, month, mend=True) as connection:
        if held_version(connection, export.name, month, export.formats) is not None:
            return None
        load = proof.load_of(path, export.name, month, export.table)
        if load is None:
            return None
        vendor = export.formats[load.format]
        return load if proof.restore(connection, load, vendor, path) else None


def _months(
    settings: Settings,
    selection: Selection,
    resources: Resources,
    coverage: Coverage | None = None,
) -> Iterator[tuple[Export, BillingMonth, dict[str, str | None]]]:
    """Yield the months of which anything is recorded, with the version that Dagster has of each
    stage."""
    with open_history() as history:
        for export in map(Export, selection.exports(settings)):
            months = selection.months(export.settings)
            materialized = history.materializations(export.name, set(map(str, months)))
            for month in months:
                made = {stage: materialized[stage].get(str(month)) for stage in STAGES}
                has_data = any(made.values()) or resources.lake.path(export.name, month).exists()
                if coverage is not None:
                    coverage.months += has_data
                    coverage.without_data[export.name] += not has_data
                if has_data:
                    yield (
                        export,
                        month,
                        {stage: one.version if one else None for stage, one in made.items()},
                    )


def _of_month(
    export: Export, month: BillingMonth, logged: dict[str, str | None], resources: Resources
) -> Iterator[Difference]:
    said, held = _table(export, month, resources.database)
    if said is not None and held is None:
        what = f"the ledger has {said.manifest_id}, but the table does not hold its rows"
        yield Difference(export, month, what, Repair.REPROCESS)
        return
    version = held and held.manifest_id
    if version != logged["billing_table"]:
        what = f"the table holds {version}, the event log has {logged['billing_table']}"
        yield Difference(export, month, what)
    path = resources.lake.path(export.name, month)
    footer = read_record(path)
    if held is not None and not held.is_same(footer):
        has = footer and f"{footer.manifest_id} with {footer.totals}"
        what = f"{path} has {has or 'no whole month'}, the table {version} with {held.totals}"
        yield Difference(export, month, what)
    if footer is not None and footer.manifest_id != logged["parquet"]:
        what = f"{path} has {footer.manifest_id}, the event log {logged['parquet']}"
        yield Difference(export, month, what)
    if footer is not None and resources.warehouse is not None:
        file = month_file(export, month, resources.lake, resources.database.duckdb)
        yield from _of_warehouse(export, file, logged, resources.warehouse)


def _of_warehouse(
    export: Export, file: MonthFile, logged: dict[str, str | None], warehouse: Warehouse
) -> Iterator[Difference]:
    held, name = warehouse.held_version(file), warehouse.full_name(file.table)
    version = held and held.manifest_id
    if version is not None and version != logged["warehouse_table"]:
        what = f"{name} holds {version}, the event log has {logged['warehouse_table']}"
        yield Difference(export, file.month, what)
    if logged["warehouse_table"] is not None and not file.footer.is_same(held):
        has = held and f"{held.manifest_id} with {held.totals}"
        what = f"{name} has {has or 'no whole month'}, {file.path} {file.footer.totals}"
        yield Difference(export, file.month, what, Repair.REPROCESS)


def _table(
    export: Export, month: BillingMonth, database: BillingDatabase
) -> tuple[Load | None, Load | None]:
    """What the ledger says that the table holds, and the same if it really does."""
    with database.connect(export.name, month) as connection:
        said = ledger.newest(connection, export.name, month)
        return said, held_version(connection, export.name, month, export.formats)
