"""The totals and the digests of a month in a warehouse, computed by SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from finops_dagster.warehouses.base_dialect import BaseDialect
from finops_dagster.warehouses.month_file import MonthFile

_COLUMNS_A_QUERY = 400


def measured_columns(file: MonthFile) -> list[str]:
    """Return the columns that the table must have for `measured_totals`."""
    currency = file.currency_column if file.footer.totals.costs is not None else None
    optional = filter(None, [currency, file.billing_period_column])
    return [*file.money_columns, *optional, file.month_column]


def measured_totals(dialect: BaseDialect, file: MonthFile, table: str) -> MeasuredTotals:
    """Measure the month in a table, by one statement: its totals and its misdated rows.

    The file gives the month and its columns; `sums` and `costs` are measured if its footer has
    them. Misdated rows are stored under this month, but their billing period is another one. Raises
    BillError if a measured column is missing, or if the database adds amounts as floats.
    """
    by_currency = file.currency_column and file.footer.totals.costs is not None
    currency = (
        dialect.column_expression(table, str(file.currency_column), SqlType.TEXT)
        if by_currency
        else Sql("NULL")
    )
    is_misdated = Sql("0")
    if file.billing_period_column:
        period = dialect.column_expression(table, file.billing_period_column, SqlType.TIME)
        begin, end = (
            dialect.timestamp_literal(datetime.combine(month.first_day, time(), UTC))
            for month in (file.month, file.month.next)
        )
        is_misdated = Sql(f"CASE WHEN {period} < {begin} OR {period} >= {end} THEN 1 ELSE 0 END")
    sums = [
        dialect.sum_expression(dialect.column_expression(table, name, SqlType.MONEY))
        for name in file.money_columns
    ]
    rows = dialect.query(
        f"SELECT {', '.join([currency, Sql('COUNT(*)'), Sql(f'SUM({is_misdated})'), *sums])} "
        f"FROM {dialect.table_sql(table)} WHERE {dialect.month_condition(file)}"
        + (f" GROUP BY {currency}" if by_currency else "")
    )
    return _add_currencies(file, rows)


def warehouse_digest(dialect: BaseDialect, file: MonthFile) -> MonthDigest:
    """Return the digests of the month's rows in the file's table.

    They are of the file's columns that the dialect's `digest_kind`, MD5 or SUMS, compares. They
    equal those that `month_digest` returns of the same cells. Raises BillError if the table lacks
    such a column.
    """
    types = compared_columns(file.data_types, dialect.digest_kind)
    cells = {
        name: dialect.column_expression(file.table, name, data_type)
        for name, data_type in types.items()
    }
    digests: dict[str, ColumnDigest] = {}
    for names in column_groups(
        [name for name in types if types[name] not in MAPS], _COLUMNS_A_QUERY
    ):
        digests |= _digest_columns(dialect, file, {name: cells[name] for name in names}, types)
    # A map takes a query of its own, since its entries become rows.
    for name in (name for name in types if types[name] in MAPS):
        digests |= _digest_map(dialect, file, name, cells[name], types[name])
    return MonthDigest(dialect.digest_kind, digests)


def _digest_columns(
    dialect: BaseDialect, file: MonthFile, cells: Mapping[str, Sql], types: Mapping[str, str]
) -> dict[str, ColumnDigest]:
    table, condition = dialect.table_sql(file.table), dialect.month_condition(file)
    numbers = {
        name: Sql(
            dialect.md5_number.format(dialect.column_types[types[name]].digest_text.format(cell))
        )
        for name, cell in cells.items()
    }
    pairs = ", ".join(
        f"COUNT({cell}), {dialect.sum_expression(numbers[name])}" for name, cell in cells.items()
    )
    (row,) = dialect.query(f"SELECT {pairs} FROM {table} WHERE {condition}")
    return digests_from_row(list(cells), [number_from_database(value) for value in row])


def _digest_map(
    dialect: BaseDialect, file: MonthFile, name: str, cell: Sql, data_type: str
) -> dict[str, ColumnDigest]:
    table, condition = dialect.table_sql(file.table), dialect.month_condition(file)
    ((count,),) = dialect.query(f"SELECT COUNT({cell}) FROM {table} WHERE {condition}")
    value = dialect.column_types[map_value_type(data_type)].digest_text.format("entry.value")
    text = Sql(f"entry.key || CHR({BETWEEN_KEY_AND_VALUE}) || {value}")
    total = dialect.sum_expression(Sql(dialect.md5_number.format(text)))
    entries = dialect.map_entries.format(cell)
    ((entries_total,),) = dialect.query(f"SELECT {total} FROM {table}, {entries} WHERE {condition}")
    return digests_from_row([name], [count, number_from_database(entries_total)])


def number_from_database(value: object) -> Decimal:
    """Return the Decimal of what a database returned for a sum or a count: a number or a text.

    None is 0. Raises BillError for a float, which is not exact.
    """
    if isinstance(value, float):
        raise BillError(
            "the database adds amounts as floats, which are not exact; name a database with an "
            "exact DECIMAL or NUMERIC type in [database.sql]"
        )
    return Decimal(str(value)) if value is not None else Decimal(0)


def _add_currencies(file: MonthFile, groups: Sequence[Sequence[Any]]) -> MeasuredTotals:
    """Return the totals over all currencies.

    Each group is a tuple: currency, number of rows, number of misdated rows, then the sum of each
    money column.
    """
    recorded = file.footer.totals
    sums = {
        name: exact_sum(number_from_database(group[position]) for group in groups)
        for position, name in enumerate(file.money_columns, 3)
    }
    costs = None
    if file.currency_column and file.cost_column and recorded.costs is not None:
        position = 3 + file.money_columns.index(file.cost_column)
        costs = {group[0] or "": number_from_database(group[position]) for group in groups}
    totals = Totals(
        sum(int(group[1]) for group in groups),
        sums.get(file.cost_column or "", Decimal(0)),
        None if recorded.sums is None else {n: sums[n] for n in recorded.sums if n in sums},
        costs,
    )
    return MeasuredTotals(totals, sum(int(group[2] or 0) for group in groups))
