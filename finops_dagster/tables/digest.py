"""Digests of a month's columns, to compare two copies of the month.

The digest of a column is the number of its values and the sum of their hashes. So the order of
rows does not matter, and no rows are copied. `md5_text` defines the text that other engines than
DuckDB must hash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import duckdb

from finops_dagster.billing.columns import Sql, SqlType, quoted

if TYPE_CHECKING:
    import pyarrow as pa

DATE = "DATE"
"""The type of `billing_month`; all other columns have a SqlType."""
MAPS = (SqlType.TEXT_MAP, SqlType.MONEY_MAP)
HEX_DIGITS = 15
"""The number of an MD5's first hexadecimal digits that are summed; they fit a 64-bit integer."""
BETWEEN_KEY_AND_VALUE = 31
"""The code of the character between the key and the value of a map's entry."""
# DuckDB keeps some 100 kB for each column and thread of a statement.
_COLUMNS_PER_STATEMENT = 200

# How a text column is compared with one of another type; a text that cannot be cast becomes NULL.
_TEXT_CASTS = {
    SqlType.MONEY: "TRY(exact_decimal({0}))",
    SqlType.TIME: "TRY(utc_timestamp({0}))",
    SqlType.TEXT_MAP: "TRY(text_map({0}))",
    SqlType.MONEY_MAP: "TRY(exact_map(text_map({0})))",
}


class DigestKind(StrEnum):
    """What the digest of a column sums."""

    HASH = "hash"
    """DuckDB's hash of each cell: ten times as fast as MD5, but known to DuckDB alone."""
    MD5 = "MD5"
    """The MD5 of each cell's text, the same in every engine."""
    SUMS = "sums"
    """The numbers of columns of type MONEY; other columns have no digest."""


@dataclass(frozen=True)
class ColumnDigest:
    """The digest of a column; the sum depends on the DigestKind."""

    value_count: int
    """The number of cells with a value, that is, not NULL."""
    total: int | Decimal
    """The sum of the cells' hashes or numbers; of HASH, NULL has a hash too. 0 without values."""


@dataclass(frozen=True)
class MonthDigest:
    """The digests of a month's columns by name; a column without values may be missing."""

    kind: DigestKind
    columns: Mapping[str, ColumnDigest]

    def differing_columns(self, other: MonthDigest) -> list[str]:
        """Return the columns with different digests; a missing column counts as one of no values.

        Both must be of the same kind.
        """
        empty = ColumnDigest(0, 0)
        return [
            name
            for name in {**self.columns, **other.columns}
            if self.columns.get(name, empty) != other.columns.get(name, empty)
        ]


def lake_type(arrow: pa.DataType) -> str:
    """Return the type of a column in a month's Parquet file: a SqlType, or DATE; a list is TEXT."""
    import pyarrow as pa

    if pa.types.is_map(arrow):
        is_money = pa.types.is_decimal(arrow.item_type)
        return SqlType.MONEY_MAP if is_money else SqlType.TEXT_MAP
    if pa.types.is_decimal(arrow):
        return SqlType.MONEY
    if pa.types.is_timestamp(arrow):
        return SqlType.TIME
    return DATE if pa.types.is_date(arrow) else SqlType.TEXT


def compared_columns(types: Mapping[str, str], kind: DigestKind) -> dict[str, str]:
    """Return the columns that have a digest of this kind, with their types, in the same order.

    Those are all, or for SUMS the ones of type MONEY.
    """
    if kind != DigestKind.SUMS:
        return dict(types)
    return {name: sql_type for name, sql_type in types.items() if sql_type == SqlType.MONEY}


def column_groups(columns: Collection[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the columns in groups of at most `size`."""
    names = list(columns)
    for start in range(0, len(names), size):
        yield names[start : start + size]


def month_digest(
    connection: duckdb.DuckDBPyConnection, relation: Sql, types: Mapping[str, str], kind: DigestKind
) -> MonthDigest:
    """Return the digests of a month's columns.

    They are of the relation's columns that `kind` compares, and all cells of these are read.
    `relation` is what follows FROM. A column is cast to its type in `types` first, if it has one
    there; a cell that cannot be cast counts as NULL. The connection needs the macros of
    `prepare_casts`. Raises duckdb.Error.
    """
    described = connection.execute(f"DESCRIBE FROM {relation}").fetchall()
    stored_types = {name: sql_type for name, sql_type, *_ in described}
    target_types = {name: types.get(name, sql_type) for name, sql_type in stored_types.items()}
    target_types = compared_columns(target_types, kind)
    cells = {
        name: _cell(name, stored_types[name], sql_type) for name, sql_type in target_types.items()
    }
    digests: dict[str, ColumnDigest] = {}
    for names in column_groups(target_types, _COLUMNS_PER_STATEMENT):
        pairs = ", ".join(
            f"count({cells[n]}), {_total(cells[n], target_types[n], kind)}" for n in names
        )
        (row,) = connection.execute(f"SELECT {pairs} FROM {relation}").fetchall()
        digests |= digests_from_row(names, row)
    return MonthDigest(kind, digests)


def digests_from_row(names: Sequence[str], row: Sequence[Any]) -> dict[str, ColumnDigest]:
    """Return the digests of columns from a result row: the count of values and the sum for each.

    `names` have the order of the row. A sum may be NULL if its column has no values.
    """
    pairs = zip(row[::2], row[1::2], strict=True)
    return {
        name: ColumnDigest(value_count, (total or 0) if value_count else 0)
        for name, (value_count, total) in zip(names, pairs, strict=True)
    }


def _cell(name: str, stored_type: str, target_type: str) -> Sql:
    cell = quoted(name)
    if stored_type == target_type:
        return cell
    if target_type == DATE:
        return Sql(f"TRY_CAST({cell} AS DATE)")
    if stored_type == SqlType.TEXT and target_type in _TEXT_CASTS:
        return Sql(_TEXT_CASTS[SqlType(target_type)].format(cell))
    return Sql(f"TRY_CAST({cell} AS {SqlType(target_type)})")


def _total(cell: Sql, sql_type: str, kind: DigestKind) -> Sql:
    match kind:
        case DigestKind.SUMS:
            return Sql(f"sum({cell})")
        case DigestKind.HASH:
            # NULL has a hash too. To leave it out would take twenty times as long.
            return Sql(f"sum(hash({cell}))")
        case DigestKind.MD5 if sql_type in MAPS:
            value = md5_text(Sql("entry.value"), map_value_type(sql_type))
            entry = _number(Sql(f"entry.key || chr({BETWEEN_KEY_AND_VALUE}) || {value}"))
            entries = Sql(f"list_transform(map_entries({cell}), lambda entry: {entry})")
            return Sql(f"sum(list_sum({entries}))")
        case DigestKind.MD5:
            return Sql(f"sum({_number(md5_text(cell, sql_type))})")


def md5_text(cell: Sql, sql_type: str) -> Sql:
    """Return DuckDB's SQL for the text of a value that an MD5 digest hashes; not for maps.

    The text of an amount has 18 decimals, a day is `2024-01-31`, a time is the number of
    microseconds since 1970, and a text is itself. The callers build the text of each entry of a
    map: its key, the character `BETWEEN_KEY_AND_VALUE`, and the text of its value.
    """
    if sql_type == SqlType.TIME:
        return Sql(f"CAST(epoch_us({cell}) AS VARCHAR)")
    return cell if sql_type == SqlType.TEXT else Sql(f"CAST({cell} AS VARCHAR)")


def map_value_type(map_type: str) -> SqlType:
    """Return the type of a map's values: MONEY for MONEY_MAP, and else TEXT."""
    return SqlType.MONEY if map_type == SqlType.MONEY_MAP else SqlType.TEXT


def _number(text: Sql) -> Sql:
    return Sql(f"CAST('0x' || md5({text})[1:{HEX_DIGITS}] AS BIGINT)")
