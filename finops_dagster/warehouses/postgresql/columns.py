"""What a month's columns become in PostgreSQL: their names and types, and what has no room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, name_within, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.tables.database import DuckDB
from finops_dagster.warehouses.base import MonthFile

# As format_type() says them.
MONEY = Sql("numeric(38,18)")
TIME = Sql("timestamp with time zone")
DATE = Sql("date")
TEXT = Sql("text")
MAP = Sql("jsonb")

OVERFLOW = "resource_tags_overflow"
# PostgreSQL takes 1,600 columns; a hundred are left for those that the vendor may yet add.
_MOST_COLUMNS = 1_500
_CELLS_A_BATCH = 1_000_000

# Values of a column whose months differ in its type. Text that is no exact amount is an error, as
# it is in DuckDB, where a cast would round it; so is NaN, which PostgreSQL takes for an amount.
CASTS = {
    (TIME, TEXT): "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', "
    "'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'",
    (MAP, TEXT): "pg_temp.map_as_text({0})",
    (MONEY, TEXT): "{0}::text",
    (TEXT, MONEY): "CASE WHEN scale(trim_scale({0}::numeric)) <= 18 THEN {0}::numeric "
    "ELSE ('no amount of 18 decimals: ' || {0})::numeric END",
    (TEXT, MAP): "{0}::jsonb",
}
READ_AS = {**CASTS, (TEXT, TIME): "{0}::timestamptz"}
"""The same of a column that is only read."""
# jsonb's own text has spaces, which DuckDB's has not.
MAP_AS_TEXT = """
CREATE OR REPLACE FUNCTION pg_temp.map_as_text(map jsonb) RETURNS text LANGUAGE sql STRICT AS $$
    SELECT '{' || coalesce(string_agg(to_json(key)::text || ':' || value::text, ','), '') || '}'
    FROM jsonb_each(map)
$$"""


def within_limit(name: str) -> str:
    """A name as PostgreSQL can hold it, which would cut off in silence what is over 63 bytes."""
    return name_within(63, name)


@dataclass(frozen=True)
class Arrival:
    """The columns of a month's file, of which `overflow` are keys in one JSONB column."""

    schema: pa.Schema
    overflow: tuple[str, ...]

    @property
    def columns(self) -> dict[str, Sql]:
        """Name and type of each column in the table."""
        kept = {within_limit(field.name): type_of(field) for field in self._kept}
        return {**kept, OVERFLOW: MAP} if self.overflow else kept

    @property
    def cut(self) -> dict[str, str]:
        """The whole name of each column whose name is cut."""
        names = {within_limit(field.name): field.name for field in self._kept}
        return {held: whole for held, whole in names.items() if held != whole}

    @property
    def amounts(self) -> set[str]:
        """The columns that hold amounts, maps of amounts among them."""
        maps = (field for field in self._kept if pa.types.is_map(field.type))
        of_money = {within_limit(m.name) for m in maps if pa.types.is_decimal(m.type.item_type)}
        return of_money | {name for name, kind in self.columns.items() if kind == MONEY}

    def warnings(self) -> list[str]:
        """Which tags are no columns."""
        if not self.overflow:
            return []
        some = ", ".join(islice(self.overflow, 3))
        more = ", ..." if len(self.overflow) > 3 else ""
        return [
            f"{len(self.overflow)} columns of tags have no room in a table of PostgreSQL and are "
            f"keys of {OVERFLOW}: {some}{more}"
        ]

    def batches(self, path: Path, duckdb: DuckDB) -> Iterator[pa.Table]:
        """The file's rows as ADBC takes them for these columns, a few at a time, of which the next
        are read while the last are sent. Raises BillError for a file that cannot be read."""
        tables = self._read(path, duckdb)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(next, tables, None)
            while (rows := ahead.result()) is not None:
                ahead = reader.submit(next, tables, None)
                yield rows

    def _read(self, path: Path, duckdb: DuckDB) -> Iterator[pa.Table]:
        rows = max(1, _CELLS_A_BATCH // len(self.schema))
        try:
            with pq.ParquetFile(path) as parquet, duckdb.scratch() as connection:
                connection.execute("SET arrow_lossless_conversion = true")  # JSON is told as JSON
                for group in range(parquet.num_row_groups):  # all at once it keeps what it has read
                    for batch in parquet.iter_batches(rows, row_groups=[group]):
                        yield self._taken(connection, pa.Table.from_batches([batch]))
        except (pa.ArrowException, OSError) as error:
            raise BillError(f"{path} cannot be read: {first_line(error)}") from error

    @property
    def _kept(self) -> list[pa.Field]:
        return [field for field in self.schema if field.name not in set(self.overflow)]

    def _taken(self, connection: DuckDBPyConnection, rows: pa.Table) -> pa.Table:
        as_json = self._as_json()
        if as_json:
            made = ", ".join(f"{cell} AS {quoted(name)}" for name, cell in as_json.items())
            json = connection.from_arrow(rows).project(made).to_arrow_table()
        columns = {}
        for field in self._kept:
            column = json[field.name] if field.name in as_json else rows[field.name]
            if pa.types.is_timestamp(field.type):
                column = column.cast(pa.timestamp("us", "UTC"))
            columns[within_limit(field.name)] = column
        if self.overflow:
            columns[OVERFLOW] = json[OVERFLOW]
        return pa.table(columns)

    def _as_json(self) -> dict[str, Sql]:
        """The columns that are JSON in the table, as DuckDB makes them: decimals to the digit."""
        maps = (field.name for field in self._kept if pa.types.is_map(field.type))
        as_json = {name: Sql(f"to_json({quoted(name)})") for name in maps}
        if self.overflow:
            pairs = ", ".join(
                f"{{'key': {literal(name)}, 'value': {quoted(name)}}}" for name in self.overflow
            )
            has_value = "lambda pair: pair.value IS NOT NULL"
            tags = f"map_from_entries(list_filter([{pairs}], {has_value}))"
            none = f"coalesce({', '.join(map(quoted, self.overflow))}) IS NULL"
            as_json[OVERFLOW] = Sql(f"CASE WHEN {none} THEN NULL ELSE to_json({tags}) END")
        return as_json


def arrival_of(file: MonthFile, held: Mapping[str, str], all_tags_overflow: bool) -> Arrival:
    """The file's columns beside those that the table holds.

    A column stays one, and so does a key: from the first tag on that has no room, every tag that
    is new has none. `all_tags_overflow` begins that now.
    """
    names = [name for name in file.schema.names if within_limit(name) not in held]
    tags = [name for name in names if name in set(file.free_text)]
    beyond = len(held) + len(names) - _MOST_COLUMNS
    if all_tags_overflow or OVERFLOW in held:
        beyond = len(tags)
    elif beyond > 0:
        beyond += 1  # the overflow is a column too
    return Arrival(file.schema, tuple(tags[max(0, len(tags) - max(0, beyond)) :]))


def type_of(field: pa.Field) -> Sql:
    if pa.types.is_map(field.type):
        return MAP
    if pa.types.is_decimal(field.type):
        return MONEY
    if pa.types.is_timestamp(field.type):
        return TIME
    return DATE if pa.types.is_date(field.type) else TEXT
