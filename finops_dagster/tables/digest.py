"""Digests of a month's columns, by which two copies of it are compared cell by cell.

The digest of a column is how many cells have a value, and the sum of a hash of each: the order of
rows does not matter, and copies are compared without moving a row. `md5_text` says what
another engine than DuckDB must do to come to the same MD5.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

import duckdb
import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, quoted

DATE = "DATE"
MAPS = (SqlType.TEXT_MAP, SqlType.MONEY_MAP)
HEX_DIGITS = 15
"""So many of an MD5's hexadecimal digits are the number that is summed: as many as a signed integer
of 64 bits holds."""
BETWEEN_KEY_AND_VALUE = 31
"""The character between an entry's key and its value."""
# A statement keeps some 100 kB for each column and thread.
_COLUMNS_AT_ONCE = 200

# What another type of column becomes to be compared; a text that is none of them becomes NULL.
_PARSED = {
    SqlType.MONEY: "TRY(exact_decimal({0}))",
    SqlType.TIME: "TRY(utc_timestamp({0}))",
    SqlType.TEXT_MAP: "TRY(text_map({0}))",
    SqlType.MONEY_MAP: "TRY(exact_map(text_map({0})))",
}


class DigestKind(StrEnum):
    """How columns are compared."""

    HASH = "hash"
    """DuckDB's own hash of each cell: ten times as fast as MD5, and the same in DuckDB alone."""
    MD5 = "MD5"
    """The MD5 of each cell's text, the same in every engine."""
    SUMS = "sums"
    """The sums of the columns of money, and nothing of the others."""


@dataclass(frozen=True)
class ColumnDigest:
    """How many cells have a value, and the sum of their hashes, or of their amounts."""

    values: int
    total: int | Decimal


@dataclass(frozen=True)
class MonthDigest:
    """The digests of a month's columns by their names in the lake; a column without any value is as
    good as none."""

    kind: DigestKind
    columns: Mapping[str, ColumnDigest]

    def differing_columns(self, other: MonthDigest) -> list[str]:
        """Return the names of the columns that are not the same in both."""
        names, nothing = {**self.columns, **other.columns}, ColumnDigest(0, 0)
        ours, theirs = self.columns, other.columns
        return [name for name in names if ours.get(name, nothing) != theirs.get(name, nothing)]


def column_type(arrow: pa.DataType) -> str:
    """Return the type of a column of the lake's file, as DuckDB names it."""
    if pa.types.is_map(arrow):
        is_money = pa.types.is_decimal(arrow.item_type)
        return SqlType.MONEY_MAP if is_money else SqlType.TEXT_MAP
    if pa.types.is_decimal(arrow):
        return SqlType.MONEY
    if pa.types.is_timestamp(arrow):
        return SqlType.TIME
    return DATE if pa.types.is_date(arrow) else SqlType.TEXT


def compared_columns(types: Mapping[str, str], kind: DigestKind) -> dict[str, str]:
    """Return the columns that are compared, with their types."""
    if kind != DigestKind.SUMS:
        return dict(types)
    return {name: of_type for name, of_type in types.items() if of_type == SqlType.MONEY}


def column_groups(columns: Collection[str], most: int) -> Iterator[Sequence[str]]:
    """Yield the columns in groups that one statement can take."""
    names = list(columns)
    for start in range(0, len(names), most):
        yield names[start : start + most]


def month_digest(
    connection: duckdb.DuckDBPyConnection, rows: Sql, types: Mapping[str, str], kind: DigestKind
) -> MonthDigest:
    """Return the digest of `rows`, what follows FROM, each column compared as one of `types`; a
    column without a type there is compared as what it is. Reads every cell. Raises duckdb.Error."""
    own = {
        name: of_type
        for name, of_type, *_ in connection.execute(f"DESCRIBE FROM {rows}").fetchall()
    }
    wanted = compared_columns(
        {name: types.get(name, of_type) for name, of_type in own.items()}, kind
    )
    cells = {name: _cell(name, own[name], of_type) for name, of_type in wanted.items()}
    found: dict[str, ColumnDigest] = {}
    for names in column_groups(wanted, _COLUMNS_AT_ONCE):
        pairs = ", ".join(f"count({cells[n]}), {_total(cells[n], wanted[n], kind)}" for n in names)
        (row,) = connection.execute(f"SELECT {pairs} FROM {rows}").fetchall()
        found |= digests_from_row(names, row)
    return MonthDigest(kind, found)


def digests_from_row(names: Sequence[str], row: Sequence[Any]) -> dict[str, ColumnDigest]:
    """Return the digests of columns from a row that has two numbers of each: how many cells have a
    value, and the sum, which is NULL where there is nothing to add."""
    pairs = zip(row[::2], row[1::2], strict=True)
    return {
        name: ColumnDigest(values, (total or 0) if values else 0)
        for name, (values, total) in zip(names, pairs, strict=True)
    }


def _cell(name: str, own: str, wanted: str) -> Sql:
    cell = quoted(name)
    if own == wanted:
        return cell
    if wanted == DATE:
        return Sql(f"TRY_CAST({cell} AS DATE)")
    if own == SqlType.TEXT and wanted in _PARSED:
        return Sql(_PARSED[SqlType(wanted)].format(cell))
    return Sql(f"TRY_CAST({cell} AS {SqlType(wanted)})")


def _total(cell: Sql, of_type: str, kind: DigestKind) -> Sql:
    match kind:
        case DigestKind.SUMS:
            return Sql(f"sum({cell})")
        case DigestKind.HASH:
            # NULL has a hash too; to leave it out would take twenty times as long.
            return Sql(f"sum(hash({cell}))")
        case DigestKind.MD5 if of_type in MAPS:
            value = md5_text(Sql("entry.value"), map_value_type(of_type))
            entry = _number(Sql(f"entry.key || chr({BETWEEN_KEY_AND_VALUE}) || {value}"))
            entries = Sql(f"list_transform(map_entries({cell}), lambda entry: {entry})")
            return Sql(f"sum(list_sum({entries}))")
        case DigestKind.MD5:
            return Sql(f"sum({_number(md5_text(cell, of_type))})")


def md5_text(cell: Sql, of_type: str) -> Sql:
    """Return the SQL of the text of which the MD5 is taken: an amount with 18 decimals, a day as
    2024-01-31, a time as the number of its microseconds since 1970, a text as it is, in UTF-8. Of a
    map it is a text for each entry that has a value: key, `BETWEEN_KEY_AND_VALUE`, value."""
    if of_type == SqlType.TIME:
        return Sql(f"CAST(epoch_us({cell}) AS VARCHAR)")
    return cell if of_type == SqlType.TEXT else Sql(f"CAST({cell} AS VARCHAR)")


def map_value_type(of_map: str) -> SqlType:
    """Return the type of a map's values."""
    return SqlType.MONEY if of_map == SqlType.MONEY_MAP else SqlType.TEXT


def _number(text: Sql) -> Sql:
    return Sql(f"CAST('0x' || md5({text})[1:{HEX_DIGITS}] AS BIGINT)")
