"""`finops state verify`: whether event log, ledger, table, Parquet file and warehouse agree on a
month; with --deep, whether every staged file, Parquet page and cell is as it was; what repairs it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError, LedgerDamaged, excerpts, first_line
from finops_dagster.billing.version import Load, Version
from finops_dagster.cli.history import open_history
from finops_dagster.cli.month_runs import run_months
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Row
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.lake import (
    load_from_footer,
    matches_checksum,
    parquet_relation,
    read_footer,
    restore_load,
    table_rows,
)
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, MonthDigest, month_digest
from finops_dagster.terminal import console
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile

_LOOKED_AT = "event log, ledger, footers of Parquet files, rows and cost of DuckDB tables"
_LOOKED_AT_DEEP = (
    "event log, ledger, every byte of staged files and Parquet files, every column of Parquet "
    "files and DuckDB tables"
)
_COLUMNS_SHOWN = 5


class Repair(Enum):
    """The command that makes a month whole again, from the least to the most that is done."""

    RUN = "finops {vendor} run-pipeline {only}"
    """What differs from the stage before it is made again."""
    FETCH = "finops {vendor} extract-billing {only} --force"
    REPROCESS = "finops state reprocess {export} {month}"
    LEDGER = "finops state verify --mend"
    """Make the ledger again from the data, and see then."""

    @classmethod
    def of(cls, several: Collection[Repair]) -> Repair:
        """Return the one that does for several differences of a month."""
        if {cls.RUN, cls.FETCH} <= set(several):
            return cls.REPROCESS
        return max(several, key=list(cls).index)


Found = Iterator[tuple[str, Repair]]
"""What differs, and what repairs it."""
Logged = dict[str, str | None]
"""The version that Dagster has of each stage."""


@dataclass
class Coverage:
    """The months that were looked at, `deep` or not, and what was passed over."""

    is_deep: bool = False
    warehouse: str | None = None
    """The warehouse's backend, where there is one."""
    months: int = 0
    without_data: Counter[str] = field(default_factory=Counter)
    """By export, how many months nothing is recorded of."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """By what was not looked at, in how many months."""

    def lines(self) -> Iterator[str]:
        """Yield what a person should know of it, a line each."""
        looked_at = _LOOKED_AT_DEEP if self.is_deep else _LOOKED_AT
        if self.warehouse is not None:
            looked_at += f", and of {self.warehouse}"
        yield f"looked at {_counted(self.months)}: {looked_at}"
        if not self.is_deep:
            yield "not looked at: cells, pages of Parquet files, staged files; --deep reads all"
        for what, months in self.passed_over.items():
            yield f"not looked at in {_counted(months)}: {what}"
        if exports := [f"{_counted(n)} of {export}" for export, n in (+self.without_data).items()]:
            yield f"without data: {', '.join(exports)}"


def _counted(months: int) -> str:
    return f"{months:,} month{'' if months == 1 else 's'}"


def verify(
    settings: Settings, selection: Selection, *, deep: bool
) -> tuple[list[tuple[StoredMonth, str, Repair]], Coverage]:
    """Return what differs in which month, and what was looked at to find it. `deep` reads
    everything."""
    has_warehouse = settings.database.has_warehouse
    coverage = Coverage(deep, settings.database.backend if has_warehouse else None)
    found: list[tuple[StoredMonth, str, Repair]] = []
    with console(stderr=True).status("") as status:
        for month, logged in _months(settings, selection, coverage):
            status.update(f"reading {month}")
            try:
                found.extend((month, *one) for one in _differences(month, logged))
                if deep:
                    found.extend((month, *one) for one in _damage(month, logged, coverage))
            except LedgerDamaged as error:
                found.append((month, str(error), Repair.LEDGER))
            except BillError as error:  # a database that is damaged hides no other month
                found.append((month, str(error), Repair.RUN))
    return found, coverage


def as_row(month: StoredMonth, what: str, repair: Repair) -> Row:
    """Return a difference as a person reads it."""
    export, name = month.key
    only = f"--export {export} --start-date {name} --end-date {name}"
    vendor = month.export.vendor
    command = repair.value.format(vendor=vendor, export=export, month=name, only=only)
    return {"export": export, "month": name, "what_differs": what, "mend": command}


def mend(
    settings: Settings, selection: Selection, say: Callable[[str], None], *, deep: bool
) -> bool:
    """Make the ledger again where the data proves itself, then repair the months that still differ;
    return whether all went well."""
    for month, _ in _months(settings, selection, Coverage()):
        with suppress(BillError):  # a database that cannot be opened is said by what follows
            if restored := _restored(month):
                say(f"{month}  the ledger has {restored.manifest_id} again")
    repairs: dict[tuple[str, str], list[Repair]] = defaultdict(list)
    for month, _, repair in verify(settings, selection, deep=deep)[0]:
        repairs[month.key].append(repair)
    ended_well = True
    for (export, name), several in repairs.items():
        repair, only = Repair.of(several), Selection(None, export, name, name)
        until = "staged_files" if repair == Repair.FETCH else None
        force = repair in (Repair.FETCH, Repair.REPROCESS)
        ended_well &= run_months(settings, only, until, force=force)
    return ended_well


def _restored(month: StoredMonth) -> Load | None:
    """Write into the ledger what the Parquet file proves and the ledger does not have."""
    with month.connect(mend=True) as connection:
        if month.verified_load(connection) is not None:
            return None
        load = load_from_footer(
            month.parquet_path, month.export.name, month.month, month.export.table_name
        )
        if load is None:
            return None
        bill_format = month.formats[load.format]
        return load if restore_load(connection, load, bill_format, month.parquet_path) else None


def _months(
    settings: Settings, selection: Selection, coverage: Coverage
) -> Iterator[tuple[StoredMonth, Logged]]:
    """Yield the months of which anything is recorded, with the version that Dagster has of each
    stage."""
    with open_history() as history:
        for export, months in groupby(
            StoredMonths(settings).months(selection), lambda month: month.key[0]
        ):
            of_export = list(months)
            last = history.materializations(export, {str(one.month) for one in of_export})
            for month in of_export:
                made = {stage: last[stage].get(str(month.month)) for stage in STAGES}
                if any(made.values()) or month.parquet_path.exists():
                    coverage.months += 1
                    yield (
                        month,
                        {stage: one.version if one else None for stage, one in made.items()},
                    )
                else:
                    coverage.without_data[export] += 1


def _differences(month: StoredMonth, logged: Logged) -> Found:
    """Compare what is recorded of the month, and rows and cost of table and warehouse."""
    with month.connect() as connection:
        recorded = ledger.newest_load(connection, month.export.name, month.month)
        loaded = month.verified_load(connection)
    if recorded is not None and loaded is None:
        what = f"the ledger has {recorded.manifest_id}, but the table does not hold its rows"
        yield what, Repair.REPROCESS
        return
    version = loaded and loaded.manifest_id
    if version != logged["billing_table"]:
        what = f"the table holds {version}, the event log has {logged['billing_table']}"
        yield what, Repair.RUN
    footer = read_footer(month.parquet_path)
    if loaded is not None and not loaded.is_same(footer):
        what = f"{month.parquet_path} has {_of(footer)}, the table {version} with {loaded.totals}"
        yield what, Repair.RUN
    if footer is not None:
        if footer.manifest_id != logged["parquet"]:
            what = (
                f"{month.parquet_path} has {footer.manifest_id}, the event log {logged['parquet']}"
            )
            yield what, Repair.RUN
        if month.stores.warehouse is not None:
            yield from _of_warehouse(
                month.month_file, logged["warehouse_table"], month.stores.warehouse
            )


def _of_warehouse(file: MonthFile, logged: str | None, warehouse: Warehouse) -> Found:
    loaded, name = warehouse.verified_version(file), warehouse.full_name(file.table)
    if loaded is not None and loaded.manifest_id != logged:
        yield f"{name} holds {loaded.manifest_id}, the event log has {logged}", Repair.RUN
    if logged is not None and not file.footer.is_same(loaded):
        what = f"{name} has {_of(loaded)}, {file.path} {file.footer.totals}"
        yield what, Repair.REPROCESS


def _of(version: Version | None) -> str:
    return f"{version.manifest_id} with {version.totals}" if version else "no whole month"


def _damage(month: StoredMonth, logged: Logged, coverage: Coverage) -> Found:
    """Read all that is kept of the month, and yield what is damaged. The warehouse is read where it
    should hold the month, and cells are compared where table and Parquet file are one version."""
    staged = month.staging.damage()
    if staged is None:
        coverage.passed_over["staged files, which are not kept, or not all fetched yet"] += 1
    for what in staged or ():
        yield what, Repair.FETCH
    with month.connect() as connection:
        load = month.verified_load(connection)
    if load is None or not load.is_same(read_footer(month.parquet_path)):
        coverage.passed_over["cells, as table and Parquet file are not of one version"] += 1
        return
    file, warehouse = month.month_file, _Copy("no warehouse")
    if month.stores.warehouse is not None and logged["warehouse_table"] is not None:
        warehouse = _in_warehouse(file, month.stores.warehouse, coverage)
    # Table and Parquet file are compared with each other, and with the warehouse.
    kinds = [one.kind for one in warehouse.digests]
    if kinds != [DigestKind.MD5]:
        kinds = list(dict.fromkeys([DigestKind.HASH, *kinds]))
    lake = _in_lake(file, kinds)
    with file.duckdb.open(month.database_path, read_only=True) as connection:
        is_intact = matches_checksum(load, file.path)
        table = _Copy(f"table {load.table}", _digests(connection, table_rows(load), file, kinds))
    yield from _differing(table, lake, warehouse, is_intact=is_intact)


def _in_warehouse(file: MonthFile, warehouse: Warehouse, coverage: Coverage) -> _Copy:
    name = warehouse.full_name(file.table)
    try:
        found = warehouse.digest(file)
    except BillError as error:
        return _Copy(name, problem=str(error))
    if found.kind == DigestKind.SUMS:
        what = f"columns of {coverage.warehouse} but those of money, of which the sums are compared"
        coverage.passed_over[what] += 1
    return _Copy(name, [found])


def _in_lake(file: MonthFile, kinds: Collection[DigestKind]) -> _Copy:
    try:
        with file.duckdb.scratch() as connection:
            digests = _digests(connection, parquet_relation(file.path), file, kinds)
            return _Copy(str(file.path), digests)
    except duckdb.Error as error:
        return _Copy(str(file.path), problem=first_line(error))


def _digests(
    connection: duckdb.DuckDBPyConnection,
    rows: Sql,
    file: MonthFile,
    kinds: Collection[DigestKind],
) -> list[MonthDigest]:
    prepare_casts(connection)
    return [month_digest(connection, rows, file.types, kind) for kind in kinds]


@dataclass(frozen=True)
class _Copy:
    """A month as one of three places holds it: digests of one kind or more, or the reason why it
    cannot be read."""

    name: str
    digests: list[MonthDigest] = field(default_factory=list)
    problem: str | None = None

    def differing_columns(self, other: _Copy) -> list[str]:
        """Return the columns that are not the same in both, by the first kind that both have;
        nothing where one of them cannot be read."""
        for ours in self.digests:
            for theirs in other.digests:
                if ours.kind == theirs.kind:
                    return ours.differing_columns(theirs)
        return []


def _differing(table: _Copy, lake: _Copy, warehouse: _Copy, *, is_intact: bool | None) -> Found:
    """What is wrong, and what repairs it. A Parquet file is written again from the table where it
    alone is wrong; all else is done again from the vendor's files. `is_intact` is whether the file
    is the one that was written from the table, as far as the ledger knows."""
    columns = table.differing_columns(lake)
    against_table, against_lake = (
        warehouse.differing_columns(table),
        warehouse.differing_columns(lake),
    )
    is_lake_wrong = lake.problem or is_intact is False or (against_lake and not against_table)
    repair = Repair.RUN if is_lake_wrong and not against_table else Repair.REPROCESS
    if lake.problem:
        yield f"{lake.name} cannot be read: {lake.problem}", repair
    elif columns:
        which = "; the file is as it was written" if is_intact else ""
        if is_intact is False:
            which = "; the file is not as it was written"
        elif bool(against_table) != bool(against_lake):
            which = f"; {warehouse.name} agrees with the {'file' if against_table else 'table'}"
        yield f"{lake.name} and {table.name} differ in {_shown(columns)}{which}", repair
    elif is_intact is False:
        yield f"{lake.name} is not as it was written, though its cells are", repair
    if warehouse.problem:
        yield f"{warehouse.name} cannot be compared: {warehouse.problem}", Repair.REPROCESS
    elif against_table and (against_lake or lake.problem):
        yield f"{warehouse.name} and {table.name} differ in {_shown(against_table)}", repair


def _shown(columns: list[str]) -> str:
    return excerpts(columns, _COLUMNS_SHOWN)
