"""Damage that only reading everything finds: in staged files, in Parquet files, in single cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError, first_line, listed
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.cli.differences import Coverage, Difference, Repair
from finops_dagster.lake import is_as_written, read_record, relation, table_rows
from finops_dagster.pipeline.build import Resources
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.staging.folder import StagedMonth
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.tables.digest import DigestKind, MonthDigest, digest
from finops_dagster.tables.load import held_version
from finops_dagster.warehouses.base import MonthFile, Warehouse

_COLUMNS_SHOWN = 5


@dataclass(frozen=True)
class Copy:
    """A month as one of three places holds it: digests of one kind or more, or the reason why it
    cannot be read."""

    name: str
    digests: list[MonthDigest] = field(default_factory=list)
    problem: str | None = None

    def differing(self, other: Copy) -> list[str]:
        """Return the columns that are not the same in both, by the first kind that both have;
        nothing where one of them cannot be read."""
        for ours in self.digests:
            for theirs in other.digests:
                if ours.kind == theirs.kind:
                    return ours.differing(theirs)
        return []


def damage(
    export: Export,
    month: BillingMonth,
    resources: Resources,
    coverage: Coverage,
    *,
    in_warehouse: bool,
) -> Iterator[Difference]:
    """Read all that is kept of a month, and yield what is damaged. The warehouse is read where it
    should hold the month, and cells are compared where table and Parquet file are one version."""
    for what in _staged(resources.staging.month(export.name, month), coverage):
        yield Difference(export, month, what, Repair.FETCH)
    with resources.database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.formats)
    footer = read_record(resources.lake.path(export.name, month))
    if load is None or not load.is_same(footer):
        coverage.passed_over["cells, as table and Parquet file are not of one version"] += 1
        return
    file = month_file(export, month, resources.lake, resources.database.duckdb)
    warehouse = Copy("no warehouse")
    if resources.warehouse is not None and in_warehouse:
        warehouse = _in_warehouse(file, resources.warehouse, coverage)
    kinds = _kinds(warehouse)
    lake = _in_lake(file, resources.database, kinds)
    table, is_intact = _in_table(export, file, load, resources.database, kinds)
    for what, repair in _differences(table, lake, warehouse, is_intact=is_intact):
        yield Difference(export, month, what, repair)


def _staged(staged: StagedMonth, coverage: Coverage) -> list[str]:
    damaged = staged.damage()
    if damaged is None:
        coverage.passed_over["staged files, which are not kept, or not all fetched yet"] += 1
    return damaged or []


def _kinds(warehouse: Copy) -> list[DigestKind]:
    """The kinds of digests by which table and Parquet file can be compared with each other and with
    the warehouse."""
    kinds = [one.kind for one in warehouse.digests]
    return kinds if kinds == [DigestKind.MD5] else list(dict.fromkeys([DigestKind.HASH, *kinds]))


def _in_warehouse(file: MonthFile, warehouse: Warehouse, coverage: Coverage) -> Copy:
    name = warehouse.full_name(file.table)
    try:
        found = warehouse.digest(file)
    except BillError as error:
        return Copy(name, problem=str(error))
    if found.kind == DigestKind.SUMS:
        what = f"columns of {coverage.warehouse} but those of money, of which the sums are compared"
        coverage.passed_over[what] += 1
    return Copy(name, [found])


def _in_lake(file: MonthFile, database: BillingDatabase, kinds: Collection[DigestKind]) -> Copy:
    name = str(file.path)
    try:
        with database.duckdb.scratch() as connection:
            prepare_casts(connection)
            return Copy(name, _digests(connection, relation(file.path), file, kinds))
    except duckdb.Error as error:
        return Copy(name, problem=first_line(error))


def _in_table(
    export: Export,
    file: MonthFile,
    load: Load,
    database: BillingDatabase,
    kinds: Collection[DigestKind],
) -> tuple[Copy, bool | None]:
    """The table, and whether the Parquet file is the one that was written from it, as far as the
    ledger knows."""
    path = database.path(export.name, file.month)
    with database.duckdb.open(path, read_only=True) as connection:
        prepare_casts(connection)
        is_intact = is_as_written(load, file.path)
        digests = _digests(connection, table_rows(load), file, kinds)
    return Copy(f"table {load.table}", digests), is_intact


def _digests(
    connection: duckdb.DuckDBPyConnection,
    rows: Sql,
    file: MonthFile,
    kinds: Collection[DigestKind],
) -> list[MonthDigest]:
    return [digest(connection, rows, file.types, kind) for kind in kinds]


def _differences(
    table: Copy, lake: Copy, warehouse: Copy, *, is_intact: bool | None
) -> Iterator[tuple[str, Repair]]:
    """What is wrong, and what repairs it. A Parquet file is written again from the table where it
    alone is wrong; all else is done again from the vendor's files."""
    columns = table.differing(lake)
    against_table, against_lake = warehouse.differing(table), warehouse.differing(lake)
    is_lake_wrong = lake.problem or is_intact is False or (against_lake and not against_table)
    repair = Repair.RUN if is_lake_wrong and not against_table else Repair.REPROCESS
    if lake.problem:
        yield f"{lake.name} cannot be read: {lake.problem}", repair
    elif columns:
        which = _which_is_wrong(against_table, against_lake, warehouse.name, is_intact=is_intact)
        yield f"{lake.name} and {table.name} differ in {_shown(columns)}{which}", repair
    elif is_intact is False:
        yield f"{lake.name} is not as it was written, though its cells are", repair
    if warehouse.problem:
        yield f"{warehouse.name} cannot be compared: {warehouse.problem}", Repair.REPROCESS
    elif against_table and (against_lake or lake.problem):
        yield f"{warehouse.name} and {table.name} differ in {_shown(against_table)}", repair


def _which_is_wrong(
    against_table: list[str], against_lake: list[str], warehouse: str, *, is_intact: bool | None
) -> str:
    """What is known of which of the two was changed."""
    if is_intact is False:
        return "; the file is not as it was written"
    if bool(against_table) != bool(against_lake):
        return f"; {warehouse} agrees with the {'file' if against_table else 'table'}"
    return "; the file is as it was written" if is_intact else ""


def _shown(columns: list[str]) -> str:
    return listed(columns, _COLUMNS_SHOWN)
