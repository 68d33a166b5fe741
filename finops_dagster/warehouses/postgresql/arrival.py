"""What a month's rows become on their way into PostgreSQL, and which tags have no room there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.warehouses.base import MonthFile

if TYPE_CHECKING:
    from finops_dagster.warehouses.dialect import Dialect

OVERFLOW = "resource_tags_overflow"
# PostgreSQL takes 1,600 columns; a hundred are left for those that the vendor may yet add.
_MOST_COLUMNS = 1_500
_CELLS_A_BATCH = 1_000_000
# What a socket holds: ADBC writes on while the server reads the last of it. From 200 kB on they
# take turns, and a load takes a third longer.
_BYTES_AT_ONCE = 128 * 1024


def overflow_of(dialect: Dialect, file: MonthFile, *, all_tags: bool) -> tuple[str, ...]:
    """Return the columns of tags that are keys of OVERFLOW instead.

    A column stays one, and so does a key: from the first tag on that has no room, every tag that
    is new has none. `all_tags` begins that now.
    """
    held = dialect.columns(file.table)
    names = [name for name in file.schema.names if dialect.name(name) not in held]
    tags = [name for name in names if name in set(file.free_text)]
    beyond = len(held) + len(names) - _MOST_COLUMNS
    if all_tags or OVERFLOW in held:
        beyond = len(tags)
    elif beyond > 0:
        beyond += 1  # the overflow is a column too
    return tuple(tags[max(0, len(tags) - max(0, beyond)) :])


@dataclass(frozen=True)
class Arrival:
    """The columns of a month's file, of which `overflow` are keys in one JSONB column."""

    schema: pa.Schema
    overflow: tuple[str, ...]
    name: Callable[[str], str]

    def warnings(self) -> list[str]:
        """Return which tags are no columns."""
        if not self.overflow:
            return []
        some = ", ".join(islice(self.overflow, 3))
        more = ", ..." if len(self.overflow) > 3 else ""
        return [
            f"{len(self.overflow)} columns of tags have no room in a table of PostgreSQL and are "
            f"keys of {OVERFLOW}: {some}{more}"
        ]

    def streams(self, file: MonthFile) -> Iterator[pa.RecordBatchReader]:
        """Yield the file's rows as ADBC takes them for these columns, a few at a time, of which the
        next are read while the last are sent. Raises BillError for a file that cannot be read."""
        tables = self._read(file)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(next, tables, None)
            while (rows := ahead.result()) is not None:
                ahead = reader.submit(next, tables, None)
                at_once = max(1, rows.num_rows * _BYTES_AT_ONCE // rows.nbytes)
                yield rows.to_reader(max_chunksize=at_once)

    def _read(self, file: MonthFile) -> Iterator[pa.Table]:
        rows = max(1, _CELLS_A_BATCH // len(self.schema))
        try:
            with pq.ParquetFile(file.path) as parquet, file.duckdb.scratch() as connection:
                connection.execute("SET arrow_lossless_conversion = true")  # JSON is told as JSON
                for group in range(parquet.num_row_groups):  # all at once it keeps what it has read
                    for batch in parquet.iter_batches(rows, row_groups=[group]):
                        yield self._taken(connection, pa.Table.from_batches([batch]))
        except (pa.ArrowException, OSError) as error:
            raise BillError(f"{file.path} cannot be read: {first_line(error)}") from error

    def _taken(self, connection: DuckDBPyConnection, rows: pa.Table) -> pa.Table:
        as_json = self._as_json()
        if as_json:
            made = ", ".join(f"{cell} AS {quoted(name)}" for name, cell in as_json.items())
            json = connection.from_arrow(rows).project(made).to_arrow_table()
        columns = {}
        for field in self.schema:
            if field.name in self.overflow:
                continue
            column = json[field.name] if field.name in as_json else rows[field.name]
            if pa.types.is_timestamp(field.type):
                column = column.cast(pa.timestamp("us", "UTC"))
            columns[self.name(field.name)] = column
        if self.overflow:
            columns[OVERFLOW] = json[OVERFLOW]
        return pa.table(columns)

    def _as_json(self) -> dict[str, Sql]:
        """Return the columns that are JSON in the table, as DuckDB makes them: decimals to the
        digit."""
        maps = (field.name for field in self.schema if pa.types.is_map(field.type))
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
