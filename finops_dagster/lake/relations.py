"""The rows of a month in SQL: in its file, and in its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, file_literal, literal, quoted
from finops_dagster.billing.version import Load


def parquet_relation(path: Path) -> Sql:
    """Return what follows FROM to read a month's Parquet file; `billing_month` is a DATE."""
    # Otherwise DuckDB would take billing_month from the folder's name, as text.
    return Sql(f"read_parquet({file_literal(path)}, hive_partitioning = false)")


def row_group_reader(file: pa.NativeFile, columns: Sequence[str] | None) -> pa.RecordBatchReader:
    """Return a reader of some columns of a Parquet file, with one row group at a time in memory.

    None reads all columns. Only one query can read it.
    """
    parquet = pq.ParquetFile(file, pre_buffer=True)
    names = parquet.schema_arrow.names if columns is None else columns

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(parquet.num_row_groups):
            yield from parquet.read_row_group(number, names).to_batches()

    schema = pa.schema([parquet.schema_arrow.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, batches())


def month_relation(load: Load) -> Sql:
    """Return what follows FROM to read all rows of the load's month in its table.

    Rows of other versions are among them, if there are any. The text ends with a WHERE clause, so
    add further conditions with AND.
    """
    first_day = Sql(f"DATE {literal(str(load.month.first_day))}")
    return Sql(f"{quoted(load.table)} WHERE billing_month = {first_day}")
