"""The export's table in DuckDB, in which a month is replaced whole or not at all."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

import duckdb

from finops_dagster.billing.columns import Sql, SqlType, column_names, quoted
from finops_dagster.billing.errors import BillError, CellInvalid
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import Measured, Totals, exact_sum, reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.base import Format, is_money
from finops_dagster.tables import ledger
from finops_dagster.tables.bill_files import BillFiles
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.files import explained, types_given
from finops_dagster.tables.ledger import Load
from finops_dagster.tables.parquet_text import time_as_text
from finops_dagster.tables.rounding import NumberColumn, count_cells_to_round

# Each of more would copy the list of all columns, which DuckDB keeps until the transaction ends:
# 4,000 at once take 5 GB, outside of its limit.
_ADDED_ONE_BY_ONE = 500
# What a column's values become when the column becomes text: nothing of them is lost.
_AS_TEXT = {
    SqlType.TIME: time_as_text(Sql("{0}")),
    SqlType.TEXT_MAP: "CAST(to_json({0}) AS VARCHAR)",
}


class Measurable(Protocol):
    """What names the columns that a month is measured by: a format, or a month's own file."""

    @property
    def cost(self) -> str | None:
        """The column that the month's total is the sum of."""
        ...

    @property
    def billing_period(self) -> str | None:
        """The column that says to which billing month a row belongs."""
        ...

    @property
    def currency(self) -> str | None:
        """The column that names the currency of the cost."""
        ...


@dataclass(frozen=True)
class Target:
    """A column of the table and the header it comes from; `type` is the table's, `given` the
    version's own."""

    header: str
    name: str
    type: SqlType
    given: SqlType


@contextmanager
def replacing_month(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    manifest: Manifest,
    files: Sequence[BillFiles],
    vendor: Format,
    names_elsewhere: Mapping[str, str] | None = None,
    *,
    round_money: bool = False,
) -> Iterator[tuple[Load, list[str]]]:
    """Replace the month in one transaction: its rows, new columns, names, and the ledger's row.

    The block runs before the commit and sees the new month; it is given the load as the ledger has
    it, and the warnings of columns whose type is not what this version gives. What was written is
    measured before, and reconciled with `load.totals`, which were counted in the files. On any
    error, also of the block, the month stays as it was. `names_elsewhere` are column names that
    headers were given outside of this database; with `round_money`, amounts of more than 18
    decimals are rounded as quantities are.
    """
    other = ledger.other_load_in(connection, load)
    if other is not None and other[0] != load.export:
        raise BillError(
            f"table {load.table} already holds months of the export {other[0]!r}; "
            f"give {load.export!r} a table of its own"
        )
    if other is not None:
        raise BillError(
            f"table {load.table} holds months of {load.export} in the format {other[1]}, and "
            f"{load.month} comes in {load.format}, whose columns are others; give the export that "
            "is delivered now another name and table"
        )
    prepare_casts(connection)
    started = time.monotonic()
    targets: list[Target] = []
    rounded: set[str] = set()
    try:
        targets = _targets(connection, load, manifest, files, vendor, names_elsewhere or {})
        with ExitStack() as stack:

            def replaced() -> tuple[Load, list[str]]:
                rows = _replacing_rows(connection, load, files, vendor, targets, rounded, started)
                return stack.enter_context(rows)

            try:
                done = replaced()
            except duckdb.ConversionException:
                # Whether that was a number of more decimals, only a second look at the files tells;
                # months without any, which are nearly all, need none.
                rounded = _may_be_rounded(targets, vendor, round_money=round_money)
                done = replaced()
            yield done
    except duckdb.Error as error:
        raise refused(connection, error, load.table, load.month, files, targets, rounded) from error


@contextmanager
def _replacing_rows(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    files: Sequence[BillFiles],
    vendor: Format,
    targets: Sequence[Target],
    rounded: Collection[str],
    started: float,
) -> Iterator[tuple[Load, list[str]]]:
    """Replace the rows in one transaction, of which the block is the last part."""
    money = [
        target.name
        for target in targets
        if target.type is SqlType.MONEY and is_money(vendor, vendor.column(target.header))
    ]
    numbers = [
        NumberColumn(
            target.header,
            target.name,
            target.type,
            is_money=is_money(vendor, vendor.column(target.header)),
            is_rounded=target.header in rounded,
        )
        for target in targets
        if target.type.is_money
    ]
    load = replace(load, rounded=count_cells_to_round(connection, files, numbers))
    with transaction(connection):
        warnings = write_month(
            connection, load.table, load.month, load.manifest_id, files, targets, rounded
        )
        measured = measure(connection, quoted(load.table), load.month, vendor, money)
        reconcile(f"table {load.table}", *_comparable(load.totals, measured, targets, vendor))
        load = replace(load, totals=measured.totals)
        names = {target.header: target.name for target in targets}
        ledger.record_export(connection, load, vendor.vendor, names)
        ledger.record(connection, load, time.monotonic() - started)
        yield load, warnings


def _comparable(
    counted: Totals, measured: Measured, targets: Sequence[Target], vendor: Format
) -> tuple[Totals, Measured]:
    """Both sides with the sums of the columns that are money in this version and in the table, by
    the names that their headers ask for: the table has some of them under names with a hash."""
    if counted.sums is None or measured.totals.sums is None:
        return counted, measured
    amounts: dict[str, list[Decimal]] = defaultdict(list)
    for name, header in {t.name: t.header for t in targets if t.given is t.type}.items():
        if name in measured.totals.sums:
            asked = name if name in counted.sums else vendor.column(header)
            amounts[asked].append(measured.totals.sums[name])
    of_text = {vendor.column(t.header) for t in targets if t.given is not t.type}
    sums = {name: amount for name, amount in counted.sums.items() if name not in of_text}
    in_table = {name: exact_sum(of_name) for name, of_name in amounts.items()}
    totals = replace(measured.totals, sums=in_table)
    return replace(counted, sums=sums), replace(measured, totals=totals)


def _may_be_rounded(targets: Sequence[Target], vendor: Format, *, round_money: bool) -> set[str]:
    """The headers of numbers that are no money, or of all numbers."""
    return {
        target.header
        for target in targets
        if target.type.is_money
        and (round_money or not is_money(vendor, vendor.column(target.header)))
    }


def write_month(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    month: BillingMonth,
    manifest_id: str,
    files: Sequence[BillFiles],
    targets: Sequence[Target],
    rounded: Collection[str] = (),
) -> list[str]:
    """Within a transaction: make room for the columns, and replace the month's rows by those of the
    files, where numbers of the `rounded` headers may have more than 18 decimals. Returns the
    warnings of what the types came to."""
    warnings = _widen(connection, table, month, targets)
    connection.execute(f"DELETE FROM {quoted(table)} WHERE billing_month = ?", [month.first_day])
    for group in files:
        present = [target for target in targets if target.header in group]
        names = ", ".join(quoted(target.name) for target in present)
        cells = ", ".join(
            group.cell(target.header, target.type, rounded=target.header in rounded)
            for target in present
        )
        connection.execute(
            f"INSERT INTO {quoted(table)} (billing_month, manifest_id, {names}) "
            f"SELECT ?, ?, {cells} FROM {group.scan()}",
            [month.first_day, manifest_id],
        )
    return warnings


def refused(
    connection: duckdb.DuckDBPyConnection,
    error: duckdb.Error,
    table: str,
    month: BillingMonth,
    files: Sequence[BillFiles],
    targets: Sequence[Target],
    rounded: Collection[str] = (),
) -> Exception:
    """Why DuckDB did not take the files, asked when the transaction is over: which cell, and since
    when its column is of another type than this version's."""
    types = {target.header: target.type for target in targets}
    reason = explained(connection, error, files, types, rounded)
    for target in targets:
        if (
            isinstance(reason, CellInvalid)
            and reason.header == target.header
            and target.given != target.type
        ):
            since = _first_month(connection, table, target.name)
            return CellInvalid(
                reason.header,
                f"{reason}; column {target.name} is {target.type} since {since}, and {month} "
                f"gives {target.given}",
            )
    return reason


def _targets(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    manifest: Manifest,
    files: Sequence[BillFiles],
    vendor: Format,
    names_elsewhere: Mapping[str, str],
) -> list[Target]:
    """The column of the table for every header of the version, by name and by type."""
    types = types_given(files, vendor, manifest.columns)
    known = {**names_elsewhere, **ledger.column_names(connection, load.table)}
    existing = types_by_lower_name(connection, load.table)
    targets = []
    for header, name in column_names(types, known, vendor).items():
        if vendor.column(header) == vendor.cost != name:
            raise BillError(
                f"{load.export} has the column {name} for what would be {vendor.cost} now: "
                "column_names was changed; change it back, or give the export another name and "
                "table"
            )
        given = types[header]
        kept = type_kept(
            connection, load.table, load.month, name, existing.get(name.lower()), given
        )
        targets.append(Target(header, name, kept, given))
    return targets


def type_kept(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    month: BillingMonth,
    name: str,
    existing: str | None,
    given: SqlType,
) -> SqlType:
    """The type of a column whose months give it different ones: text takes anything, amounts stay
    amounts, and what is neither becomes text, for nothing of it is lost there."""
    if existing is None:
        return given
    try:
        held = SqlType(existing)
    except ValueError:
        raise BillError(
            f"column {name} of table {table} has become {existing}; a bill's column is "
            f"{', '.join(SqlType)}: change it back, or give the export another name and table"
        ) from None
    if held in (given, SqlType.TEXT) or held.is_money:
        return held
    if given.is_money:
        raise BillError(
            f"column {name} of table {table} is {held} since "
            f"{_first_month(connection, table, name)}, but {month} gives {given}, and "
            "amounts are never kept as text; give the export another name and table"
        )
    return SqlType.TEXT


def _widen(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    month: BillingMonth,
    targets: Sequence[Target],
) -> list[str]:
    """Make the table, the columns that this version is the first to have, and text of those that
    can no longer be what they were; the warnings of what the types came to."""
    existing = types_by_lower_name(connection, table)
    new = {t.name: t.type for t in targets if t.name.lower() not in existing}
    definitions = [Sql(f"{quoted(name)} {SqlType(of_type)}") for name, of_type in new.items()]
    if not existing:
        defined = ", ".join(["billing_month DATE", "manifest_id VARCHAR", *definitions])
        connection.execute(f"CREATE TABLE {quoted(table)} ({defined})")
    elif len(new) > _ADDED_ONE_BY_ONE:
        _rebuild(connection, table, new)
    else:
        for definition in definitions:
            connection.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {definition}")
    warnings = []
    for target in {target.name: target for target in targets}.values():
        held = existing.get(target.name.lower(), target.type)
        if held != target.type:
            as_text = _AS_TEXT[SqlType(held)].format(quoted(target.name))
            connection.execute(
                f"ALTER TABLE {quoted(table)} ALTER {quoted(target.name)} "
                f"TYPE VARCHAR USING {as_text}"
            )
            warnings.append(
                f"{target.name} was {held}, {month} gives {target.given}: it is text now"
            )
        elif target.given != target.type:
            warnings.append(f"{target.name} stays {target.type}, {month} gives {target.given}")
    return warnings


def _rebuild(connection: duckdb.DuckDBPyConnection, table: str, new: Mapping[str, SqlType]) -> None:
    """Give the table many columns by copying it."""
    wider = f"{table}__wider"
    nothing = ", ".join(f"NULL::{SqlType(of_type)} AS {quoted(n)}" for n, of_type in new.items())
    connection.execute(f"CREATE TABLE {quoted(wider)} AS SELECT *, {nothing} FROM {quoted(table)}")
    connection.execute(f"DROP TABLE {quoted(table)}")
    connection.execute(f"ALTER TABLE {quoted(wider)} RENAME TO {quoted(table)}")


def _first_month(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> str:
    """The first month in which the column has a value."""
    row = connection.execute(
        f"SELECT strftime(min(billing_month), '%Y-%m') FROM {quoted(table)} "
        f"WHERE {quoted(column)} IS NOT NULL"
    ).fetchone()
    return "an earlier month" if row is None or row[0] is None else str(row[0])


def held_version(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth,
    formats: Mapping[str, Format],
) -> Load | None:
    """The version that the ledger says is loaded, if the table really holds its rows and cost."""
    load = ledger.loaded(connection, export, month)
    if load is None or not columns(connection, load.table):
        return None
    measured = measure(
        connection, quoted(load.table), month, formats[load.format], load.totals.sums
    )
    has_all = not measured.foreign_rows and measured.totals.differing(load.totals) is None
    return load if has_all else None


def measure(
    connection: duckdb.DuckDBPyConnection,
    relation: Sql,
    month: BillingMonth,
    by: Measurable,
    money: Iterable[str] | None,
) -> Measured:
    """Count the month in a relation that has the table's columns, a table or its Parquet file:
    rows, headline cost in all and by currency, and the sum of each column of `money`."""
    present = {row[0] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}

    def column(name: str | None, absent: str) -> Sql:
        return quoted(name) if name in present and name is not None else Sql(absent)

    names = [name for name in money or () if name in present]
    sums = "".join(f", sum({quoted(name)})" for name in names)
    period = column(by.billing_period, "NULL::DATE")
    groups = connection.execute(
        f"SELECT coalesce({column(by.currency, 'NULL')}, ''), count(*), "
        f"count(*) FILTER (date_trunc('month', {period}) <> billing_month), "
        f"sum({column(by.cost, 'NULL::DECIMAL(38,18)')}){sums} "
        f"FROM {relation} WHERE billing_month = ? GROUP BY 1",
        [month.first_day],
    ).fetchall()
    by_column = zip(*groups, strict=True) if groups else [()] * (4 + len(names))
    currencies, rows, foreign_rows, *amounts = by_column
    costs, *of_columns = amounts
    totals = Totals(
        sum(rows),
        exact_sum(costs),
        None if money is None else dict(zip(names, map(exact_sum, of_columns), strict=True)),
        {name: cost for name, cost in zip(currencies, costs, strict=True) if cost is not None},
    )
    return Measured(totals, sum(foreign_rows))


def columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Name and type of each column, in the table's order; empty where there is no table."""
    return dict(
        connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE schema_name = 'main' AND lower(table_name) = lower(?) ORDER BY column_index",
            [table],
        ).fetchall()
    )


def types_by_lower_name(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """The type of each column by its name in lower case: DuckDB tells no names apart by case."""
    return {name.lower(): of_type for name, of_type in columns(connection, table).items()}


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
