"""What every kind of bill file is to the table: headers, and the SQL that reads their cells."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa
from pyarrow import types as kinds

from finops_dagster.billing.columns import Sql, SqlType, literal


@dataclass(frozen=True)
class ColumnMapping:
    """A column of the table and the header it comes from; `type` is the table's, `given` the
    version's own, `counted_as` the name under which its money was counted. Where it `is_rounded`,
    numbers of more than 18 decimals are; doubles are in every column."""

    header: str
    name: str
    table_type: SqlType
    version_type: SqlType
    counted_as: str
    is_money: bool
    is_rounded: bool = False


@dataclass(frozen=True)
class BillFiles(ABC):
    """Files of a month that are read as one: the same kind, with the same columns.

    A column is read by its position under a name of our own: DuckDB would rename the second of
    `user:team`, `user:Team` by order of appearance. `types` are the files' own, in the order of the
    `headers`; null is that of a column which has none, as in CSV. `null_words` are what the vendor
    writes for no value, beside nothing at all; `time_format` is how it writes times in text, where
    not as ISO 8601.
    """

    headers: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    paths: tuple[Path, ...]
    null_words: tuple[str, ...] = ()
    time_format: str | None = None

    @cached_property
    def positions(self) -> dict[str, int]:
        """The place of each header in the file."""
        return {header: position for position, header in enumerate(self.headers)}

    def __contains__(self, header: str) -> bool:
        return header in self.positions

    def for_file(self, path: Path) -> Self:
        """Return one of the files."""
        return replace(self, paths=(path,))

    @abstractmethod
    def scan(self) -> Sql:
        """Return a table expression with the columns `c0`, `c1` and so on."""

    @abstractmethod
    def row_location(self, record: int) -> str:
        """Say where the data record of this number, counted from 1, stands in the only file."""

    def column_sql(self, header: str, sql_type: SqlType, *, rounded: bool = False) -> Sql:
        """Return the SQL that reads a column as its type, exactly or with an error; what the file's
        own type does not give, as its text would be read from CSV. Where `rounded`, more than 18
        decimals of a number are no error but rounded, half to even. A float counts as the shortest
        decimal text that gives it back, which is what was rounded to it: 29.27, not
        29.26999999999999957."""
        raw, own, text = self._raw(header), self._type(header), self._text(header)
        how = Sql("rounded" if rounded or self.has_doubles(header) else "exact")
        texts = _text_map(own, raw) if kinds.is_map(own) else Sql(f"text_map({text})")
        is_exact = kinds.is_integer(own) or (kinds.is_decimal(own) and own.scale <= 18)
        is_time = kinds.is_date(own) or (kinds.is_timestamp(own) and own.unit != "ns")
        match sql_type:
            case SqlType.MONEY if is_exact:
                return Sql(f"CAST({raw} AS DECIMAL(38,18))")
            case SqlType.MONEY:
                return Sql(f"{how}_decimal({text})")
            case SqlType.TIME if is_time:
                return Sql(f"time_of_calendar({raw})")
            case SqlType.TIME if self.time_format:
                return Sql(f"strptime({text}, {literal(self.time_format)})")
            case SqlType.TIME:
                return Sql(f"utc_timestamp({text})")
            case SqlType.TEXT:
                return text
            case SqlType.TEXT_MAP:
                return texts
            case SqlType.MONEY_MAP:
                return Sql(f"{how}_map({texts})")

    def file_type(self, header: str) -> SqlType | None:
        """Return the type that the file itself gives the column, where it gives any."""
        own = self._type(header)
        if kinds.is_floating(own) or kinds.is_decimal(own) or kinds.is_integer(own):
            return SqlType.MONEY
        if kinds.is_timestamp(own) or kinds.is_date(own):
            return SqlType.TIME
        if kinds.is_map(own):
            is_money = kinds.is_floating(own.item_type) or kinds.is_decimal(own.item_type)
            return SqlType.MONEY_MAP if is_money else SqlType.TEXT_MAP
        return None if kinds.is_null(own) else SqlType.TEXT

    def numbers_to_round(self, header: str, sql_type: SqlType) -> Sql:
        """Return the SQL of the list of the numbers in a cell that have more than 18 decimals, as
        text; NULL where there are none."""
        raw, own, text = self._raw(header), self._type(header), self._text(header)
        if sql_type is SqlType.MONEY_MAP:
            return Sql(f"finer_in_map({raw if kinds.is_map(own) else f'TRY(text_map({text}))'})")
        return Sql(f"finer_double({raw})" if kinds.is_floating(own) else f"finer({text})")

    def has_doubles(self, header: str) -> bool:
        """Return whether the column's numbers are binary, also as values of a map or fields, which
        are rounded in every column: their shortest decimals are long without anybody having meant
        them."""
        own = self._type(header)
        fields = [field.type for field in own] if kinds.is_struct(own) else [own]
        return any(map(kinds.is_floating, [own.item_type] if kinds.is_map(own) else fields))

    def _raw(self, header: str) -> Sql:
        position = self.positions[header]
        return Sql(f"c{position}")

    def _type(self, header: str) -> pa.DataType:
        return plain_type(self.types[self.positions[header]])

    def _text(self, header: str) -> Sql:
        own = self._type(header)
        text = _text_of(own, self._raw(header))
        if not self.null_words or not _is_plain_text(own):
            return text
        nulls = ", ".join(literal(word) for word in self.null_words)
        return Sql(f"CASE WHEN {text} NOT IN ({nulls}) THEN {text} END")


def _text_map(own: pa.MapType, raw: Sql) -> Sql:
    """A map of texts. DuckDB reads keys that come twice as they are, and then finds only one."""
    if _is_plain_text(plain_type(own.key_type)) and _is_plain_text(plain_type(own.item_type)):
        return Sql(f"map_of_unique_keys({raw})")
    key = _text_of(own.key_type, Sql("entry.key"))
    pair = Sql(f"{{'key': {key}, 'value': {_text_of(own.item_type, Sql('entry.value'))}}}")
    return Sql(f"map_from_entries(list_transform(map_entries({raw}), lambda entry: {pair}))")


def plain_type(own: pa.DataType) -> pa.DataType:
    """Return the type in which DuckDB reads the values: a dictionary is how they are stored, and
    an extension of Arrow's is a name for the type beneath it."""
    if kinds.is_dictionary(own):
        return plain_type(own.value_type)
    if isinstance(own, pa.BaseExtensionType) and not isinstance(own, pa.JsonType | pa.UuidType):
        return plain_type(own.storage_type)
    return own


def _is_plain_text(own: pa.DataType) -> bool:
    """Return whether the values are text or bytes, which DuckDB reads as text."""
    texts = "string large_string string_view binary large_binary binary_view fixed_size_binary"
    return any(getattr(kinds, f"is_{kind}")(own) for kind in texts.split())


def _text_of(own: pa.DataType, raw: Sql) -> Sql:
    """Return the SQL of a value's text: a time by `time_as_text`, a list, a struct or a map in
    JSON, and anything else as DuckDB writes it."""
    own = plain_type(own)
    if kinds.is_nested(own):
        return _json_of_nested(own, raw, 0)
    if kinds.is_timestamp(own):
        return time_as_text(raw)
    text = Sql(f"CAST({raw} AS VARCHAR)")
    if kinds.is_decimal(own) and own.precision == own.scale:  # `.5`, which is no number in JSON
        return Sql(f"regexp_replace({text}, '^(-?)[.]', '\\10.')")
    return text


def time_as_text(raw: Sql) -> Sql:
    """Return the SQL of a TIMESTAMP's text: `2024-01-31T23:30:00.25Z`, with the decimals that it
    has. One with a time zone is in UTC, as `SET TimeZone = 'UTC'` says."""
    return Sql(f"replace(split_part(CAST({raw} AS VARCHAR), '+', 1), ' ', 'T') || 'Z'")


# What a column's values become when the column becomes text: nothing of them is lost.
AS_TEXT: Mapping[str, Sql] = {
    SqlType.TIME: time_as_text(Sql("{0}")),
    SqlType.TEXT_MAP: Sql("CAST(to_json({0}) AS VARCHAR)"),
    SqlType.MONEY_MAP: Sql("CAST(to_json({0}) AS VARCHAR)"),
}


def _json_of(own: pa.DataType, raw: Sql, depth: int) -> Sql:
    """`to_json` of DuckDB writes 32-bit floats as doubles, and renames fields of one spelling."""
    own = plain_type(own)
    if kinds.is_nested(own):
        return _json_of_nested(own, raw, depth)
    text = _text_of(own, raw)
    in_quotes = Sql(f"CAST(to_json({text}) AS VARCHAR)")
    if kinds.is_floating(own):  # JSON has no NaN
        return Sql(f"CASE WHEN isfinite({raw}) THEN {text} ELSE {in_quotes} END")
    is_bare = kinds.is_boolean(own) or kinds.is_integer(own) or kinds.is_decimal(own)
    return text if is_bare or isinstance(own, pa.JsonType) else in_quotes


def _json_of_nested(own: pa.DataType, raw: Sql, depth: int) -> Sql:
    item = Sql(f"item{int(depth)}")
    if kinds.is_struct(own):
        fields = " || ',' || ".join(
            f"{literal(json.dumps(field.name, ensure_ascii=False))} || ':' || "
            f"{_or_null(_json_of(field.type, Sql(f'struct_extract_at({raw}, {int(n)})'), depth))}"
            for n, field in enumerate(own, 1)
        )
        return Sql(f"CASE WHEN {raw} IS NOT NULL THEN '{{' || {fields} || '}}' END")
    if kinds.is_map(own):
        key = _text_of(own.key_type, Sql(f"{item}.key"))
        value = _or_null(_json_of(own.item_type, Sql(f"{item}.value"), depth + 1))
        items = Sql(f"map_entries({raw})")
        element, begin, end = Sql(f"to_json({key}) || ':' || {value}"), Sql("{"), Sql("}")
    else:
        element = _or_null(_json_of(own.value_type, item, depth + 1))
        items, begin, end = raw, Sql("["), Sql("]")
    elements = Sql(f"list_transform({items}, lambda {item}: {element})")
    return Sql(f"'{begin}' || array_to_string({elements}, ',') || '{end}'")


def _or_null(json_text: Sql) -> Sql:
    return Sql(f"coalesce({json_text}, 'null')")
