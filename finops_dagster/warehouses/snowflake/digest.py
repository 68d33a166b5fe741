"""The digests of a month's columns in Snowflake, by the same MD5 as in DuckDB."""

from __future__ import annotations

from collections.abc import Mapping

from snowflake.connector import SnowflakeConnection

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import (
    BETWEEN_KEY_AND_VALUE,
    HEX_DIGITS,
    MAPS,
    ColumnDigest,
    digests_of_row,
    groups_of,
    value_type,
)
from finops_dagster.warehouses.base import MonthFile
from finops_dagster.warehouses.snowflake.columns import (
    ColumnType,
    identifier,
    in_capitals,
    type_named,
)
from finops_dagster.warehouses.snowflake.session import rows_of

_COLUMNS_AT_ONCE = 400
# A column that is text in the table, and was none in the file.
_READ_AS = {
    SqlType.MONEY: "TRY_CAST({0} AS NUMBER(38,18))",
    SqlType.TIME: "TRY_CAST({0} AS TIMESTAMP_NTZ)",
    SqlType.TEXT_MAP: "TRY_PARSE_JSON({0})",
    SqlType.MONEY_MAP: "TRY_PARSE_JSON({0})",
}


def digests_of(
    connection: SnowflakeConnection, file: MonthFile, in_table: Mapping[str, str]
) -> dict[str, ColumnDigest]:
    """Return the digest of each of the file's columns, in a table that has the columns `in_table`.
    A map takes a query of its own, in which its entries are rows. Raises BillError."""
    absent = [name for name in file.types if in_capitals(name) not in in_table]
    if absent:
        raise BillError(f"it has no column {', '.join(absent)}")
    types, table, month = file.types, identifier(file.table), file.month.first_day
    cells = {n: _cell(n, types[n], type_named(in_table[in_capitals(n)])) for n in types}
    found: dict[str, ColumnDigest] = {}
    for names in groups_of([n for n in types if types[n] not in MAPS], _COLUMNS_AT_ONCE):
        asked = ", ".join(f"COUNT({cells[n]}), {_total(cells[n], types[n])}" for n in names)
        (row,) = rows_of(connection, f"SELECT {asked} FROM {table} WHERE billing_month = ?", month)
        found |= digests_of_row(names, [int(number or 0) for number in row])
    for name in (n for n in types if types[n] in MAPS):
        ((values,),) = rows_of(
            connection, f"SELECT COUNT({cells[name]}) FROM {table} WHERE billing_month = ?", month
        )
        ((total,),) = rows_of(
            connection,
            f"SELECT {_total_of_entries(types[name])} FROM {table}, "
            f"LATERAL FLATTEN(INPUT => {cells[name]}) AS entry WHERE billing_month = ?",
            month,
        )
        found |= digests_of_row([name], [values, int(total or 0)])
    return found


def _cell(name: str, of_type: str, held: ColumnType | str) -> Sql:
    """The column as the type that the file gives it."""
    column = identifier(name)
    if held == ColumnType.TEXT and of_type in _READ_AS:
        return Sql(_READ_AS[SqlType(of_type)].format(column))
    return column


def _total(cell: Sql, of_type: str) -> Sql:
    return Sql(f"SUM({_number(_text(cell, of_type))})")


def _total_of_entries(of_map: str) -> Sql:
    value = _text(Sql("entry.value"), value_type(of_map))
    text = Sql(f"entry.key || CHR({BETWEEN_KEY_AND_VALUE}) || {value}")
    return Sql(f"SUM({_number(text)})")


def _text(cell: Sql, of_type: str) -> Sql:
    match of_type:
        case SqlType.MONEY:
            return Sql(f"{cell}::{ColumnType.MONEY}::VARCHAR")
        case SqlType.TIME:
            return Sql(f"DATE_PART(EPOCH_MICROSECOND, {cell})::VARCHAR")
        case SqlType.TEXT:
            return Sql(f"{cell}::VARCHAR")
    return Sql(f"TO_VARCHAR({cell}, 'YYYY-MM-DD')")


def _number(text: Sql) -> Sql:
    """X is a hexadecimal digit: docs.snowflake.com, *SQL format models*."""
    model = "X" * HEX_DIGITS
    return Sql(f"TO_NUMBER(SUBSTR(MD5({text}), 1, {HEX_DIGITS}), '{Sql(model)}')")
