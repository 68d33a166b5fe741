"""Parquet files as DuckDB sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, file_literal
from finops_dagster.billing.errors import FileInvalid, first_line, shown
from finops_dagster.tables.bill_files import BillFiles, plain_type
from finops_dagster.tables.parquet_rewrite import type_for_duckdb

PARQUET_MAGIC = b"PAR1"


class ParquetFiles(BillFiles):
    """Files with the same columns of the same types."""

    def scan(self) -> Sql:
        """One column a header, of the file's own type."""
        paths = ", ".join(file_literal(path) for path in self.paths)
        columns = ", ".join(f"c{position}" for position in range(len(self.headers)))
        return Sql(
            f"read_parquet([{paths}], hive_partitioning = false, binary_as_string = true) "
            f"AS files({columns})"
        )

    def place(self, record: int) -> str:
        """Parquet has no lines."""
        return f"row {record}"


def parquet_file(path: Path, null_words: tuple[str, ...] = ()) -> ParquetFiles:
    """Read the schema of a file. Raises FileInvalid."""
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
    return ParquetFiles(tuple(schema.names), tuple(schema.types), (path,), null_words)


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
