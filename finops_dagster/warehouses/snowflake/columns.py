"""A bill's columns in Snowflake: their names, their types, and what those become over months."""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

from finops_dagster.billing.columns import Sql, name_within, quoted
from finops_dagster.billing.errors import BillError

_LONGEST_NAME = 255


class ColumnType(StrEnum):
    """The types of a bill's columns; a map is an OBJECT, of amounts too, which are fixed-point
    numbers of 38 digits there as well."""

    MONEY = "NUMBER(38,18)"
    TIME = "TIMESTAMP_NTZ"
    DATE = "DATE"
    TEXT = "VARCHAR"
    MAP = "OBJECT"


# What DuckDB makes of them, and nothing is lost.
_AS_TEXT = {
    ColumnType.MONEY: "{0}::VARCHAR",
    ColumnType.TIME: "REGEXP_REPLACE(TO_VARCHAR({0}::TIMESTAMP_NTZ, "
    "'YYYY-MM-DD\"T\"HH24:MI:SS.FF6'), '[.]?0+$', '') || 'Z'",
    ColumnType.DATE: "{0}::VARCHAR",
    ColumnType.MAP: "TO_JSON({0})",
}
_MAY_BECOME_TEXT = {ColumnType.TIME, ColumnType.MAP, ColumnType.TEXT}


def in_capitals(name: str) -> str:
    """The name that a person may write without quotes; one that is too long for Snowflake ends in
    a hash of the whole."""
    return name_within(_LONGEST_NAME, name).upper()


def identifier(name: str) -> Sql:
    """The name `in_capitals`, in quotes, for it may be a word of SQL."""
    return quoted(in_capitals(name))


def in_quotes(text: str) -> Sql:
    """A text as a literal of Snowflake's, in which a backslash escapes."""
    return Sql("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")


def type_of(field: pa.Field) -> ColumnType:
    """The type of a column of the lake's file."""
    if pa.types.is_map(field.type):
        return ColumnType.MAP
    if pa.types.is_decimal(field.type):
        return ColumnType.MONEY
    if pa.types.is_timestamp(field.type):
        return ColumnType.TIME
    if pa.types.is_date(field.type):
        return ColumnType.DATE
    return ColumnType.TEXT


def type_named(name: str) -> ColumnType | str:
    """What Snowflake's own name of a type is to a bill: `VARCHAR(16777216)` is text, and a VARIANT
    takes maps as an OBJECT does. One that a bill does not have stays its name."""
    plain = name if name.startswith("NUMBER") else name.partition("(")[0]
    known = {**{str(kind): kind for kind in ColumnType}, "VARIANT": ColumnType.MAP}
    return known.get(plain, name)


def type_kept(name: str, table: str, held: ColumnType | str, given: ColumnType) -> ColumnType:
    """The type of a column whose months give it different ones: text takes anything, amounts stay
    amounts, and a time or a map becomes text. Raises BillError."""
    if held in (given, ColumnType.TEXT):
        return ColumnType(held)
    if {held, given} <= _MAY_BECOME_TEXT:
        return ColumnType.TEXT
    raise BillError(
        f"column {name} of {table} is {held}, the month's is {given}; give the export another "
        "table or change it"
    )


def as_text(cell: Sql, kind: ColumnType | str) -> Sql:
    """The text of a cell, as SQL."""
    return Sql(_AS_TEXT[ColumnType(kind)].format(cell))
