"""What differs between the cells of the copies of a month: the checks of `verify --deep`.

Every staged file, Parquet page and cell is read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError, excerpts, first_line
from finops_dagster.cli.differences import Coverage, Differences, LoggedVersions, Repair
from finops_dagster.cli.stored_months import StoredMonth
from finops_dagster.lake import (
    file_has_totals,
    load_from_footer,
    matches_checksum,
    month_relation,
    parquet_relation,
)
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, MonthDigest, month_digest
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile

_COLUMNS_SHOWN = 5


def cell_differences(month: StoredMonth, logged: LoggedVersions, coverage: Coverage) -> Differences:
    """Yield each difference in bytes of staged files or cells of the other copies, with its repair.

    These are differences that `version_differences` does not find; call it too. `logged` are the
    versions in the event log. The cells of the bill are compared only if table and Parquet file
    have the same version; what is not compared is counted in `coverage.skipped`. The charges are
    derived again and compared with their file. Raises the errors of `version_differences`, and
    duckdb.OutOfMemoryException.
    """
    yield from _bill_differences(month, logged, coverage)
    yield from _charges_differences(month)


def _bill_differences(
    month: StoredMonth, logged: LoggedVersions, coverage: Coverage
) -> Differences:
    """Read every staged file and compare every column of table, Parquet file and warehouse.

    The columns are compared only if table and Parquet file have the same version.
    """
    staged_damage = month.staged_month.find_damage()
    if staged_damage is None:
        coverage.skipped["staged files, which were deleted or are not all downloaded yet"] += 1
    for problem in staged_damage or ():
        yield problem, Repair.FETCH
    with month.connect() as connection:
        load = month.verified_load(connection)
    if load is None and month.is_only_in_lake:
        skipped = "" if coverage.warehouse is None else f"{coverage.warehouse} and of "
        coverage.skipped[f"cells of {skipped}the table, which this machine does not have"] += 1
        yield from _lake_differences(month)
        return
    if load is None or not load.is_same_version(month.lake_file.version()):
        coverage.skipped["cells, as table and Parquet file have different versions"] += 1
        return
    file, warehouse_copy = month.bill_month_file, _Copy("no warehouse")
    if month.stored_months.warehouse is not None and logged["warehouse_table"] is not None:
        warehouse_copy = _warehouse_copy(file, month.stored_months.warehouse, coverage)
    # DuckDB's own hash is fastest; a warehouse can compute MD5 or sums only. The table and the
    # Parquet file need the kinds of both comparisons.
    kinds = [copy_digest.kind for copy_digest in warehouse_copy.digests]
    if kinds != [DigestKind.MD5]:
        kinds = list(dict.fromkeys([DigestKind.HASH, *kinds]))
    lake_copy = _lake_copy(file, kinds)
    with file.duckdb.open(month.database_path, read_only=True) as connection:
        is_unchanged = matches_checksum(load, file.lake_file)
        digests = _digests(connection, month_relation(load), file, kinds)
    table_copy = _Copy(f"table {load.table}", digests)
    yield from _copy_differences(table_copy, lake_copy, warehouse_copy, is_unchanged=is_unchanged)


def _lake_differences(month: StoredMonth) -> Differences:
    """Read the month's file, which has no table to compare it with."""
    file, export = month.lake_file, month.export
    load = load_from_footer(file, export.name, month.month, export.table_name)
    if load is None:
        return
    with month.stored_months.database.duckdb.open_in_memory() as connection:
        prepare_casts(connection)
        if not file_has_totals(connection, load, file, month.formats):
            yield f"{file.location} does not have the totals of its record", Repair.REPROCESS


def _charges_differences(month: StoredMonth) -> Differences:
    """Derive the charges again, and compare every column of their file with them.

    A file that `version_differences` reports is not read.
    """
    if month.charges_record is None or month.focus_derivation.up_to_date_record() is None:
        return
    path = month.focus_lake_file.location
    try:
        columns = month.focus_derivation.differing_columns()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        yield f"{path} cannot be read: {first_line(error)}", Repair.REPROCESS
        return
    if columns:
        names = _names_text(columns)
        yield f"{path} differs in {names} from the charges of its bill", Repair.REPROCESS


def _warehouse_copy(file: MonthFile, warehouse: Warehouse, coverage: Coverage) -> _Copy:
    table = warehouse.full_name(file.table)
    try:
        warehouse_digest = warehouse.digest(file)
    except BillError as error:
        return _Copy(table, problem=str(error))
    if warehouse_digest.kind == DigestKind.SUMS:
        coverage.skipped[
            f"columns of {coverage.warehouse}, except the sums of its money columns"
        ] += 1
    return _Copy(table, [warehouse_digest])


def _lake_copy(file: MonthFile, kinds: Collection[DigestKind]) -> _Copy:
    try:
        with file.duckdb.open_in_memory() as connection:
            digests = _digests(connection, parquet_relation(file.local_path()), file, kinds)
            return _Copy(file.location, digests)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        return _Copy(file.location, problem=first_line(error))


def _digests(
    connection: duckdb.DuckDBPyConnection,
    rows: Sql,
    file: MonthFile,
    kinds: Collection[DigestKind],
) -> list[MonthDigest]:
    prepare_casts(connection)
    return [month_digest(connection, rows, file.data_types, kind) for kind in kinds]


@dataclass(frozen=True)
class _Copy:
    """A copy of a month: its digests, at most one of each kind, or why it cannot be read."""

    name: str
    digests: list[MonthDigest] = field(default_factory=list)
    problem: str | None = None

    def differing_columns(self, other: _Copy) -> list[str]:
        """Return the columns that differ, by the first kind of digest that both copies have.

        Empty also if they have no kind in common, as if one of them cannot be read.
        """
        for digest in self.digests:
            for other_digest in other.digests:
                if digest.kind == other_digest.kind:
                    return digest.differing_columns(other_digest)
        return []


def _copy_differences(
    table: _Copy, lake: _Copy, warehouse: _Copy, *, is_unchanged: bool | None
) -> Differences:
    """Yield how the copies differ, with the repair.

    If only the Parquet file is wrong, it is written again from the table; otherwise the month is
    reprocessed from the vendor's files. `is_unchanged` says whether the Parquet file still has the
    checksum that the ledger recorded; None if the ledger has no checksum.
    """
    table_and_lake = table.differing_columns(lake)
    warehouse_and_table = warehouse.differing_columns(table)
    warehouse_and_lake = warehouse.differing_columns(lake)
    # If two of the three copies agree, the third is wrong.
    is_lake_alone = bool(warehouse_and_lake) and not warehouse_and_table
    is_lake_wrong = lake.problem or is_unchanged is False or is_lake_alone
    repair = Repair.RUN if is_lake_wrong and not warehouse_and_table else Repair.REPROCESS
    if lake.problem:
        yield f"{lake.name} cannot be read: {lake.problem}", repair
    elif table_and_lake:
        evidence = "; the file is unchanged" if is_unchanged else ""
        if is_unchanged is False:
            evidence = "; the file was changed"
        elif bool(warehouse_and_table) != bool(warehouse_and_lake):
            agreeing = "file" if warehouse_and_table else "table"
            evidence = f"; {warehouse.name} agrees with the {agreeing}"
        names = _names_text(table_and_lake)
        yield f"{lake.name} and {table.name} differ in {names}{evidence}", repair
    elif is_unchanged is False:
        yield f"{lake.name} was changed, though its cells are the same", repair
    if warehouse.problem:
        yield f"{warehouse.name} cannot be compared: {warehouse.problem}", Repair.REPROCESS
    elif warehouse_and_table and (warehouse_and_lake or lake.problem):
        names = _names_text(warehouse_and_table)
        yield f"{warehouse.name} and {table.name} differ in {names}", repair


def _names_text(columns: list[str]) -> str:
    return excerpts(columns, _COLUMNS_SHOWN)
