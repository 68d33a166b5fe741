"""The totals and the digest of a month in a warehouse, by SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import MeasuredTotals, Totals, exact_sum
from finops_dagster.tables.digest import (
    BETWEEN_KEY_AND_VALUE,
    MAPS,
    ColumnDigest,
    MonthDigest,
    column_groups,
    compared_columns,
    digests_from_row,
    map_value_type,
)
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster.warehouses.session import Session

_COLUMNS_A_DIGEST = 400


def measure(session: Session, file: MonthFile, table: str) -> MeasuredTotals:
    """Count the month in a table by one statement: its rows, those of another billing period,
    and the sum of every column of money, by currency where that is known."""
    by_currency = file.currency_column and file.footer.totals.costs is not None
    group = (
        session.column_expression(table, str(file.currency_column), SqlType.TEXT)
        if by_currency
        else Sql("NULL")
    )
    foreign = Sql("0")
    if file.period_column:
        period = session.column_expression(table, file.period_column, SqlType.TIME)
        begin, end = (
            session.timestamp_literal(datetime.combine(month.first_day, time(), UTC))
            for month in (file.month, file.month.next)
        )
        foreign = Sql(f"CASE WHEN {period} < {begin} OR {period} >= {end} THEN 1 ELSE 0 END")
    sums = [
        session.sum_expression(session.column_expression(table, name, SqlType.MONEY))
        for name in file.money_columns
    ]
    rows = session.query(
        f"SELECT {', '.join([group, Sql('COUNT(*)'), Sql(f'SUM({foreign})'), *sums])} "
        f"FROM {session.qualified(table)} WHERE {session.month_condition(file)}"
        + (f" GROUP BY {group}" if by_currency else "")
    )
    return _measured_groups(file, rows)


def warehouse_digest(session: Session, file: MonthFile) -> MonthDigest:
    """Return the digest of each of the file's columns in the table: of MD5s the same as in
    DuckDB. A map takes a query of its own, in which its entries are rows. Raises BillError."""
    types = compared_columns(file.types, session.digest_kind)
    cells = {
        name: session.column_expression(file.table, name, of_type)
        for name, of_type in types.items()
    }
    where = Sql(f"WHERE {session.month_condition(file)}")
    table, found = session.qualified(file.table), dict[str, ColumnDigest]()
    plain = [name for name in types if types[name] not in MAPS]
    for names in column_groups(plain, _COLUMNS_A_DIGEST):
        numbers = {
            n: Sql(session.md5_number.format(session.types[types[n]].digest_text.format(cells[n])))
            for n in names
        }
        counted = ", ".join(
            f"COUNT({cells[n]}), {session.sum_expression(numbers[n])}" for n in names
        )
        (row,) = session.query(f"SELECT {counted} FROM {table} {where}")
        found |= digests_from_row(names, [exact_amount(number) for number in row])
    for name in (name for name in types if types[name] in MAPS):
        ((values,),) = session.query(f"SELECT COUNT({cells[name]}) FROM {table} {where}")
        value = session.types[map_value_type(types[name])].digest_text.format("entry.value")
        text = Sql(f"entry.key || CHR({BETWEEN_KEY_AND_VALUE}) || {value}")
        entries = session.map_entries.format(cells[name])
        ((total,),) = session.query(
            f"SELECT {session.sum_expression(Sql(session.md5_number.format(text)))} "
            f"FROM {table}, {entries} {where}"
        )
        found |= digests_from_row([name], [values, exact_amount(total)])
    return MonthDigest(session.digest_kind, found)


def exact_amount(amount: object) -> Decimal:
    """Return an amount as the database gives it, 0 where there is none. Raises BillError."""
    if isinstance(amount, float):
        raise BillError("it adds amounts as floats, and amounts are exact")
    return Decimal(str(amount)) if amount is not None else Decimal(0)


def _measured_groups(file: MonthFile, groups: Sequence[Sequence[Any]]) -> MeasuredTotals:
    """Return the sum of what was measured by currency."""
    known = file.footer.totals
    sums = {
        name: exact_sum(exact_amount(group[place]) for group in groups)
        for place, name in enumerate(file.money_columns, 3)
    }
    costs = None
    if file.currency_column and file.cost_column and known.costs is not None:
        place = 3 + file.money_columns.index(file.cost_column)
        costs = {group[0] or "": exact_amount(group[place]) for group in groups}
    totals = Totals(
        sum(int(group[1]) for group in groups),
        sums.get(file.cost_column or "", Decimal(0)),
        None if known.sums is None else {n: sums[n] for n in known.sums if n in sums},
        costs,
    )
    return MeasuredTotals(totals, sum(int(group[2] or 0) for group in groups))
