"""What every kind of bill file is to the table: headers, and the SQL that reads their cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, literal
from finops_dagster.tables.parquet_text import is_plain_text, plain_type, text_of


@dataclass(frozen=True)
class Target:
    """A column of the table and the header it comes from; `type` is the table's, `given` the
    version's own, `counted_as` the name under which its money was counted. Where it `is_rounded`,
    numbers of more than 18 decimals are; doubles are in every column."""

    header: str
    name: str
    type: SqlType
    given: SqlType
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

    def alone(self, path: Path) -> Self:
        """Return one of the files."""
        return replace(self, paths=(path,))

    @abstractmethod
    def scan(self) -> Sql:
        """Return a table expression with the columns `c0`, `c1` and so on."""

    @abstractmethod
    def place(self, record: int) -> str:
        """Say where the data record of this number, counted from 1, stands in the only file."""

    def cell(self, header: str, sql_type: SqlType, *, rounded: bool = False) -> Sql:
        """Return the SQL that reads a column as its type, exactly or with an error; what the file's
        own type does not give, as its text would be read from CSV. Where `rounded`, more than 18
        decimals of a number are no error but rounded, half to even. A float counts as the shortest
        decimal text that gives it back, which is what was rounded to it: 29.27, not
        29.26999999999999957."""
        raw, own, text = self._raw(header), self._type(header), self._text(header)
        how = Sql("rounded" if rounded or self.has_doubles(header) else "exact")
        texts = _text_map(own, raw) if pa.types.is_map(own) else Sql(f"text_map({text})")
        match sql_type:
            case SqlType.MONEY if pa.types.is_integer(own) or _has_at_most_18_decimals(own):
                return Sql(f"CAST({raw} AS DECIMAL(38,18))")
            case SqlType.MONEY:
                return Sql(f"{how}_decimal({text})")
            case SqlType.TIME if pa.types.is_date(own) or _is_within_microseconds(own):
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

    def own_type(self, header: str) -> SqlType | None:
        """Return the type that the file itself gives the column, where it gives any."""
        own = self._type(header)
        if pa.types.is_floating(own) or pa.types.is_decimal(own) or pa.types.is_integer(own):
            return SqlType.MONEY
        if pa.types.is_timestamp(own) or pa.types.is_date(own):
            return SqlType.TIME
        if pa.types.is_map(own):
            is_money = pa.types.is_floating(own.item_type) or pa.types.is_decimal(own.item_type)
            return SqlType.MONEY_MAP if is_money else SqlType.TEXT_MAP
        return None if pa.types.is_null(own) else SqlType.TEXT

    def finer(self, header: str, sql_type: SqlType) -> Sql:
        """Return the SQL of the list of the numbers in a cell that have more than 18 decimals, as
        text; NULL where there are none."""
        raw, own, text = self._raw(header), self._type(header), self._text(header)
        if sql_type is SqlType.MONEY_MAP:
            return Sql(f"finer_in_map({raw if pa.types.is_map(own) else f'TRY(text_map({text}))'})")
        return Sql(f"finer_double({raw})" if pa.types.is_floating(own) else f"finer({text})")

    def has_doubles(self, header: str) -> bool:
        """Return whether the column's numbers are binary, also as values of a map or fields, which
        are rounded in every column: their shortest decimals are long without anybody having meant
        them."""
        own = self._type(header)
        if pa.types.is_map(own):
            return bool(pa.types.is_floating(own.item_type))
        fields = own if pa.types.is_struct(own) else ()
        return any(pa.types.is_floating(one) for one in (own, *(field.type for field in fields)))

    def _raw(self, header: str) -> Sql:
        position = self.positions[header]
        return Sql(f"c{position}")

    def _type(self, header: str) -> pa.DataType:
        return plain_type(self.types[self.positions[header]])

    def _text(self, header: str) -> Sql:
        own = self._type(header)
        text = text_of(own, self._raw(header))
        if not self.null_words or not is_plain_text(own):
            return text
        nulls = ", ".join(literal(word) for word in self.null_words)
        return Sql(f"CASE WHEN {text} NOT IN ({nulls}) THEN {text} END")


def _text_map(own: pa.MapType, raw: Sql) -> Sql:
    """A map of texts. DuckDB reads keys that come twice as they are, and then finds only one."""
    if is_plain_text(plain_type(own.key_type)) and is_plain_text(plain_type(own.item_type)):
        return Sql(f"map_of_unique_keys({raw})")
    key, value = text_of(own.key_type, Sql("entry.key")), text_of(own.item_type, Sql("entry.value"))
    pairs = Sql(f"lambda entry: {{'key': {key}, 'value': {value}}}")
    return Sql(f"map_from_entries(list_transform(map_entries({raw}), {pairs}))")


def _has_at_most_18_decimals(own: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(own) and own.scale <= 18)


def _is_within_microseconds(own: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(own) and own.unit != "ns")
