"""The month's Parquet files as DuckDB sees them; AWS writes amounts as doubles and tags as maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, SqlType, file_literal, literal
from finops_dagster.billing.errors import FileInvalid, first_line, shown
from finops_dagster.tables.bill_files import BillFiles
from finops_dagster.tables.parquet_rewrite import type_for_duckdb
from finops_dagster.tables.parquet_text import is_plain_text, plain_type, text_of

MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetFiles(BillFiles):
    """Files with the same columns of the same types; `types` are those of `headers`, in order, and
    a text that is one of `null_words` is no value."""

    types: tuple[pa.DataType, ...]
    null_words: tuple[str, ...] = ()

    def scan(self) -> Sql:
        """One column a header, of the file's own type."""
        paths = ", ".join(file_literal(path) for path in self.paths)
        columns = ", ".join(f"c{position}" for position in range(len(self.headers)))
        return Sql(
            f"read_parquet([{paths}], hive_partitioning = false, binary_as_string = true) "
            f"AS files({columns})"
        )

    def cell(self, header: str, sql_type: SqlType, *, rounded: bool = False) -> Sql:
        """The value, read as its type; what the file's own type does not give, as its text would be
        read from CSV. A float counts as the shortest decimal text that gives it back, which is what
        the vendor rounded to it: 29.27, not 29.26999999999999957."""
        how = Sql("rounded" if rounded or self.has_doubles(header) else "exact")
        raw, own = self._raw(header), self._type(header)
        match sql_type:
            case SqlType.MONEY if _is_within_18_decimals(own):
                return Sql(f"CAST({raw} AS DECIMAL(38,18))")
            case SqlType.MONEY:
                return Sql(f"{how}_decimal({self._text(header)})")
            case SqlType.TIME if _is_within_microseconds(own):
                return Sql(f"time_of_calendar({raw})")
            case SqlType.TIME:
                return Sql(f"utc_timestamp({self._text(header)})")
            case SqlType.TEXT:
                return self._text(header)
            case SqlType.TEXT_MAP if pa.types.is_map(own):
                return _text_map(own, raw)
            case SqlType.TEXT_MAP:
                return Sql(f"text_map({self._text(header)})")
            case SqlType.MONEY_MAP if pa.types.is_map(own):
                return Sql(f"{how}_map({_text_map(own, raw)})")
            case SqlType.MONEY_MAP:
                return Sql(f"{how}_map(text_map({self._text(header)}))")

    def own_type(self, header: str) -> SqlType | None:
        """What the file says of itself; a column of nothing but nulls can have any type."""
        own = self._type(header)
        if pa.types.is_floating(own) or pa.types.is_decimal(own) or pa.types.is_integer(own):
            return SqlType.MONEY
        if pa.types.is_timestamp(own) or pa.types.is_date(own):
            return SqlType.TIME
        if pa.types.is_map(own):
            amounts = pa.types.is_floating(own.item_type) or pa.types.is_decimal(own.item_type)
            return SqlType.MONEY_MAP if amounts else SqlType.TEXT_MAP
        return None if pa.types.is_null(own) else SqlType.TEXT

    def finer(self, header: str, sql_type: SqlType) -> Sql:
        """The value's text, where its type can have so many decimals at all."""
        raw, own = self._raw(header), self._type(header)
        if sql_type is SqlType.MONEY_MAP and pa.types.is_map(own):
            return Sql(f"finer_in_map({raw})")
        if sql_type is SqlType.MONEY_MAP:
            return Sql(f"finer_in_map(TRY(text_map({self._text(header)})))")
        if pa.types.is_floating(own):
            return Sql(f"finer_double({raw})")
        return Sql(f"finer({self._text(header)})")

    def has_doubles(self, header: str) -> bool:
        """As the column itself, as the values of a map, or as fields."""
        own = self._type(header)
        if pa.types.is_map(own):
            return bool(pa.types.is_floating(own.item_type))
        if pa.types.is_struct(own):
            return any(pa.types.is_floating(field.type) for field in own)
        return bool(pa.types.is_floating(own))

    def place(self, record: int) -> str:
        """Parquet has no lines."""
        return f"row {record}"

    def _raw(self, header: str) -> Sql:
        position = self.positions[header]
        return Sql(f"c{position}")

    def _type(self, header: str) -> pa.DataType:
        return plain_type(self.types[self.positions[header]])

    def _text(self, header: str) -> Sql:
        raw, own = self._raw(header), self._type(header)
        text = text_of(own, raw)
        if not self.null_words or not is_plain_text(own):
            return text
        nulls = ", ".join(literal(word) for word in self.null_words)
        return Sql(f"CASE WHEN {text} NOT IN ({nulls}) THEN {text} END")


def parquet_files(paths: Sequence[Path], null_words: tuple[str, ...] = ()) -> list[ParquetFiles]:
    """Read the schema of each file and put files with the same one together. Raises FileInvalid."""
    groups: dict[tuple[tuple[str, ...], tuple[pa.DataType, ...]], list[Path]] = {}
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise FileInvalid(f"{path}: no whole Parquet file: {first_line(error)}") from error
        twice = _name_twice(schema)
        if twice:
            raise FileInvalid(f"{path}: the schema has the column {shown(twice)} twice")
        for field in schema:
            if type_for_duckdb(field.type) != field.type:
                raise FileInvalid(
                    f"{path}: the column {shown(field.name)} is {field.type}, which is not read "
                    "exactly as it is; download the month's files again"
                )
        groups.setdefault((tuple(schema.names), tuple(schema.types)), []).append(path)
    return [
        ParquetFiles(names, tuple(group), types, null_words)
        for (names, types), group in groups.items()
    ]


def _name_twice(fields: Iterable[pa.Field]) -> str | None:
    """The first name that comes twice among columns, or among the fields of one of them."""
    fields = list(fields)
    names = Counter(field.name for field in fields)
    twice = next((name for name, count in names.items() if count > 1), None)
    inside = (_name_twice(_fields_within(field.type)) for field in fields)
    within = ((field.name, name) for field, name in zip(fields, inside, strict=True) if name)
    return twice or next((".".join(names) for names in within), None)


def _fields_within(own: pa.DataType) -> list[pa.Field]:
    own = plain_type(own)
    return [own.field(number) for number in range(own.num_fields)]


def _text_map(own: pa.MapType, raw: Sql) -> Sql:
    """A map of texts. DuckDB reads keys that come twice as they are, and then finds only one."""
    if is_plain_text(plain_type(own.key_type)) and is_plain_text(plain_type(own.item_type)):
        return Sql(f"map_of_unique_keys({raw})")
    key, value = text_of(own.key_type, Sql("entry.key")), text_of(own.item_type, Sql("entry.value"))
    pairs = Sql(f"lambda entry: {{'key': {key}, 'value': {value}}}")
    return Sql(f"map_from_entries(list_transform(map_entries({raw}), {pairs}))")


def _is_within_18_decimals(own: pa.DataType) -> bool:
    return bool(pa.types.is_integer(own) or (pa.types.is_decimal(own) and own.scale <= 18))


def _is_within_microseconds(own: pa.DataType) -> bool:
    return bool(pa.types.is_date(own) or (pa.types.is_timestamp(own) and own.unit != "ns"))
