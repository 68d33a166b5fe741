"""The vendor's files of one kind, and the SQL that casts their cells to the table's types."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, literal
from finops_dagster.billing.months import BillingMonth


@dataclass(frozen=True)
class ColumnMapping:
    """A header of the vendor's files and the column of the billing table that it fills."""

    header: str
    name: str
    table_type: SqlType
    """The type that the column has in the table after this load."""
    version_type: SqlType
    """The type that the version being loaded gives the column."""
    counted_as: str
    """The column's name in the counted sums.

    It differs from `name` if two headers would have the same name: `name` then ends in a hash.
    """
    is_money: bool
    """Whether the column is a money column; other numbers are quantities."""
    is_rounded: bool = False
    """Whether numbers of more than 18 decimals are rounded. Doubles always are."""


@dataclass(frozen=True)
class MonthFilter:
    """Selects a month's rows in files with rows of several months.

    `header` is that of the start of the billing period. A row without one is not selected.
    """

    header: str
    month: BillingMonth


@dataclass(frozen=True)
class BillFiles(ABC):
    """Files of one kind with the same headers and types.

    Its SQL is for a connection that has the macros and the time zone of `prepare_casts`.

    A column is read by its position, as `c0`, `c1` and so on: of two headers that differ in case
    alone, `user:team` and `user:Team`, DuckDB would rename the second.
    """

    headers: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    """The type of each header in the files; null where they have none, as CSV."""
    paths: tuple[Path, ...]
    null_words: tuple[str, ...] = ()
    """The words that mean NULL; in CSV the empty cell means it too."""
    time_format: str | None = None
    """The strptime format of times in text; None for ISO 8601."""
    month_filter: MonthFilter | None = field(default=None, kw_only=True)
    """Selects the rows that are read; None for all."""

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of each header in the files, from 0."""
        return {header: position for position, header in enumerate(self.headers)}

    def __contains__(self, header: str) -> bool:
        return header in self.positions

    def for_file(self, path: Path) -> Self:
        """Return a copy of this object that has only the file at `path`, one of `paths`."""
        return replace(self, paths=(path,))

    @abstractmethod
    def all_rows_sql(self) -> Sql:
        """Return what follows FROM to read all rows; the columns are `c0`, `c1` and so on."""

    def rows_sql(self) -> Sql:
        """Return what follows FROM to read the rows that the month filter selects.

        Without a filter, all rows. The columns are those of `all_rows_sql`.
        """
        if self.month_filter is None:
            return self.all_rows_sql()
        return Sql(f"(SELECT * FROM {self.all_rows_sql()} WHERE {self.month_condition_sql()})")

    def month_condition_sql(self) -> Sql:
        """Return the condition for the rows that the month filter selects; `true` without one.

        It is for a query of `all_rows_sql`.
        """
        if self.month_filter is None:
            return Sql("true")
        period = self.column_sql(self.month_filter.header, SqlType.TIME)
        first_day = literal(str(self.month_filter.month.first_day))
        return Sql(f"date_trunc('month', {period}) = DATE {first_day}")

    @abstractmethod
    def row_location(self, record: int) -> str:
        """Return where a row is in the file, for messages, such as `line 3`.

        `record` is the row's number in `all_rows_sql`, from 1. There must be only one file.
        """

    def column_sql(self, header: str, sql_type: SqlType, *, rounded: bool = False) -> Sql:
        """Return the SQL that casts a column's cells to a type; an inexact cast fails the query.

        It is for a query of `rows_sql` or `all_rows_sql`. Raises KeyError if the files lack the
        header.

        With `rounded`, a number of more than 18 decimals is rounded, half to even, and does not
        fail. A double becomes the shortest decimal that reads back as the same double: 29.27, not
        29.26999999999999957. It is always rounded to 18 decimals.
        """
        raw, arrow, text = self._raw(header), self._type(header), self._text(header)
        prefix = Sql("rounded" if rounded or self.has_doubles(header) else "exact")
        text_map = _text_map(arrow, raw) if pa.types.is_map(arrow) else Sql(f"text_map({text})")
        is_exact = pa.types.is_integer(arrow) or (pa.types.is_decimal(arrow) and arrow.scale <= 18)
        # DuckDB's cast would cut the nanoseconds, which the text keeps.
        is_time = pa.types.is_date(arrow) or (pa.types.is_timestamp(arrow) and arrow.unit != "ns")
        match sql_type:
            case SqlType.MONEY if is_exact:
                return Sql(f"CAST({raw} AS DECIMAL(38,18))")
            case SqlType.MONEY:
                return Sql(f"{prefix}_decimal({text})")
            case SqlType.TIME if is_time:
                return Sql(f"calendar_timestamp({raw})")
            case SqlType.TIME if self.time_format:
                return Sql(f"formatted_timestamp({text}, {literal(self.time_format)})")
            case SqlType.TIME:
                return Sql(f"utc_timestamp({text})")
            case SqlType.TEXT:
                return text
            case SqlType.TEXT_MAP:
                return text_map
            case SqlType.MONEY_MAP:
                return Sql(f"{prefix}_map({text_map})")

    def file_type(self, header: str) -> SqlType | None:
        """Return the column's type in the files; None if it has none, as in CSV.

        Numbers of all types are MONEY. A map is MONEY_MAP if its values are doubles or decimals,
        and else TEXT_MAP, also with integers. Types that no SqlType has are TEXT. Raises KeyError
        if the files lack the header.
        """
        arrow = self._type(header)
        if pa.types.is_floating(arrow) or pa.types.is_decimal(arrow) or pa.types.is_integer(arrow):
            return SqlType.MONEY
        if pa.types.is_timestamp(arrow) or pa.types.is_date(arrow):
            return SqlType.TIME
        if pa.types.is_map(arrow):
            is_money = pa.types.is_floating(arrow.item_type) or pa.types.is_decimal(arrow.item_type)
            return SqlType.MONEY_MAP if is_money else SqlType.TEXT_MAP
        return None if pa.types.is_null(arrow) else SqlType.TEXT

    def numbers_to_round_sql(self, header: str, sql_type: SqlType) -> Sql:
        """Return the SQL for a list of a cell's numbers with more than 18 decimals, as texts.

        The list is NULL if there are none. `sql_type` is MONEY or MONEY_MAP.
        """
        raw, arrow, text = self._raw(header), self._type(header), self._text(header)
        if sql_type is SqlType.MONEY_MAP:
            numbers = raw if pa.types.is_map(arrow) else f"TRY(text_map({text}))"
            return Sql(f"numbers_to_round_in_map({numbers})")
        is_double = pa.types.is_floating(arrow)
        return Sql(f"double_to_round({raw})" if is_double else f"number_to_round({text})")

    def has_doubles(self, header: str) -> bool:
        """Return whether the column has doubles: itself, as a map's values or in a struct's fields.

        Those in lists, or nested deeper, do not count. CSV has none.
        """
        # The text of a double can have more than 18 decimals, which the vendor never wrote.
        arrow = self._type(header)
        fields = [field.type for field in arrow] if pa.types.is_struct(arrow) else [arrow]
        return any(
            map(pa.types.is_floating, [arrow.item_type] if pa.types.is_map(arrow) else fields)
        )

    def _raw(self, header: str) -> Sql:
        position = self.positions[header]
        return Sql(f"c{position}")

    def _type(self, header: str) -> pa.DataType:
        return plain_type(self.types[self.positions[header]])

    def _text(self, header: str) -> Sql:
        arrow = self._type(header)
        text = _text_sql(arrow, self._raw(header))
        if not self.null_words or not _is_plain_text(arrow):
            return text
        nulls = ", ".join(literal(word) for word in self.null_words)
        return Sql(f"CASE WHEN {text} NOT IN ({nulls}) THEN {text} END")


def _text_map(arrow: pa.MapType, raw: Sql) -> Sql:
    if _is_plain_text(plain_type(arrow.key_type)) and _is_plain_text(plain_type(arrow.item_type)):
        # DuckDB accepts a key that occurs twice, and then finds only one of its values.
        return Sql(f"map_of_unique_keys({raw})")
    key = _text_sql(arrow.key_type, Sql("entry.key"))
    pair = Sql(f"{{'key': {key}, 'value': {_text_sql(arrow.item_type, Sql('entry.value'))}}}")
    return Sql(f"map_from_entries(list_transform(map_entries({raw}), lambda entry: {pair}))")


def plain_type(arrow: pa.DataType) -> pa.DataType:
    """Return the type of the values, without dictionary encoding or an Arrow extension.

    The extensions JSON and UUID stay, which DuckDB has as types.
    """
    if pa.types.is_dictionary(arrow):
        return plain_type(arrow.value_type)
    # DuckDB reads JSON and UUIDs as types of its own.
    if isinstance(arrow, pa.BaseExtensionType) and not isinstance(arrow, pa.JsonType | pa.UuidType):
        return plain_type(arrow.storage_type)
    return arrow


def _is_plain_text(arrow: pa.DataType) -> bool:
    # `all_rows_sql` has DuckDB read bytes as text.
    type_names = "string large_string string_view binary large_binary binary_view fixed_size_binary"
    return any(getattr(pa.types, f"is_{name}")(arrow) for name in type_names.split())


def _text_sql(arrow: pa.DataType, raw: Sql) -> Sql:
    """Return the SQL for a value's text: JSON if it is nested, else as DuckDB writes it."""
    arrow = plain_type(arrow)
    if pa.types.is_nested(arrow):
        return _nested_json(arrow, raw, 0)
    if pa.types.is_timestamp(arrow):
        return _time_as_text(raw)
    text = Sql(f"CAST({raw} AS VARCHAR)")
    if pa.types.is_decimal(arrow) and arrow.precision == arrow.scale:
        # DuckDB writes `.5`, which is no number in JSON.
        return Sql(f"regexp_replace({text}, '^(-?)[.]', '\\10.')")
    return text


def _time_as_text(raw: Sql) -> Sql:
    """Return the SQL for the text of a time in UTC, such as `2024-01-31T23:30:00.25Z`.

    `raw` is a TIMESTAMP or TIMESTAMPTZ; the connection's time zone must be UTC.
    """
    # DuckDB adds the offset of a TIMESTAMPTZ; `SET TimeZone = 'UTC'` makes it +00.
    return Sql(f"replace(split_part(CAST({raw} AS VARCHAR), '+', 1), ' ', 'T') || 'Z'")


AS_TEXT: Mapping[str, Sql] = {
    SqlType.TIME: _time_as_text(Sql("{0}")),
    SqlType.TEXT_MAP: Sql("CAST(to_json({0}) AS VARCHAR)"),
    SqlType.MONEY_MAP: Sql("CAST(to_json({0}) AS VARCHAR)"),
}
"""The SQL that casts a column of each type to text without loss; `{0}` is the column."""


def _json(arrow: pa.DataType, raw: Sql, depth: int) -> Sql:
    # DuckDB's `to_json` writes 32-bit floats as doubles, and renames fields that differ in case
    # alone.
    arrow = plain_type(arrow)
    if pa.types.is_nested(arrow):
        return _nested_json(arrow, raw, depth)
    text = _text_sql(arrow, raw)
    string = Sql(f"CAST(to_json({text}) AS VARCHAR)")
    if pa.types.is_floating(arrow):  # JSON has no NaN
        return Sql(f"CASE WHEN isfinite({raw}) THEN {text} ELSE {string} END")
    is_bare = pa.types.is_boolean(arrow) or pa.types.is_integer(arrow) or pa.types.is_decimal(arrow)
    return text if is_bare or isinstance(arrow, pa.JsonType) else string


def _nested_json(arrow: pa.DataType, raw: Sql, depth: int) -> Sql:
    item = Sql(f"item{int(depth)}")
    if pa.types.is_struct(arrow):
        fields = " || ',' || ".join(
            f"{literal(json.dumps(field.name, ensure_ascii=False))} || ':' || "
            f"{_or_null(_json(field.type, Sql(f'struct_extract_at({raw}, {int(n)})'), depth))}"
            for n, field in enumerate(arrow, 1)
        )
        return Sql(f"CASE WHEN {raw} IS NOT NULL THEN '{{' || {fields} || '}}' END")
    if pa.types.is_map(arrow):
        key = _text_sql(arrow.key_type, Sql(f"{item}.key"))
        value = _or_null(_json(arrow.item_type, Sql(f"{item}.value"), depth + 1))
        items = Sql(f"map_entries({raw})")
        element, begin, end = Sql(f"to_json({key}) || ':' || {value}"), Sql("{"), Sql("}")
    else:
        element = _or_null(_json(arrow.value_type, item, depth + 1))
        items, begin, end = raw, Sql("["), Sql("]")
    elements = Sql(f"list_transform({items}, lambda {item}: {element})")
    return Sql(f"'{begin}' || array_to_string({elements}, ',') || '{end}'")


def _or_null(json_text: Sql) -> Sql:
    return Sql(f"coalesce({json_text}, 'null')")
