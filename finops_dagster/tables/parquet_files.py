"""Parquet files as DuckDB reads them; values that it reads inexactly are rewritten or refused.

DuckDB reads decimals of more than 38 digits as doubles, and 16-bit floats as 32-bit ones, whose
shortest decimals are others: both are rewritten as text. It cuts INT96 times at the microsecond:
finer ones are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, SqlType, file_literal
from finops_dagster.billing.errors import FileInvalid, excerpt, first_line
from finops_dagster.tables.bill_files import BillFiles, plain_type

PARQUET_MAGIC = b"PAR1"
"""The first and the last bytes of a Parquet file."""
_MOST_DIGITS = 38
_DOWNLOAD_ADVICE = "run finops state reprocess for the month, which downloads it again"
_BATCH_ROWS = 16_384


class ParquetFiles(BillFiles):
    """Parquet files with the same columns and types."""

    def all_rows_sql(self) -> Sql:
        """Return what follows FROM to read all rows; `c0`, `c1` and so on have the files' types."""
        paths = ", ".join(file_literal(path) for path in self.paths)
        columns = ", ".join(f"c{position}" for position in range(len(self.headers)))
        return Sql(
            f"read_parquet([{paths}], hive_partitioning = false, binary_as_string = true) "
            f"AS files({columns})"
        )

    def row_location(self, record: int) -> str:
        """Return the number of the row, such as `row 3`; Parquet has no lines."""
        return f"row {record}"


def parquet_file(path: Path, null_words: tuple[str, ...] = ()) -> ParquetFiles:
    """Read the schema of a Parquet file, and return the file; no rows are read.

    `null_words` are those of BillFiles. Raises FileInvalid if the file cannot be read, if a name
    occurs twice, or for a type that DuckDB does not read exactly, which `make_exact` rewrites.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise FileInvalid(
            f"{path}: not a complete Parquet file: {first_line(error)}; {_DOWNLOAD_ADVICE}"
        ) from error
    repeated = _repeated_name(schema)
    if repeated:
        raise FileInvalid(
            f"{path}: the schema has the column {excerpt(repeated)} twice; the vendor must deliver "
            "the file again"
        )
    for field in schema:
        if _type_for_duckdb(field.type) != field.type:
            raise FileInvalid(
                f"{path}: the column {excerpt(field.name)} has the type {field.type}, which DuckDB "
                f"does not read exactly; a download rewrites such columns: {_DOWNLOAD_ADVICE}"
            )
    return ParquetFiles(tuple(schema.names), tuple(schema.types), (path,), null_words)


def _repeated_name(fields: Iterable[pa.Field]) -> str | None:
    """Return the first name that two columns, or two fields of one column, have; None if none."""
    fields = list(fields)
    counts = Counter(field.name for field in fields)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    nested = [(field.name, _repeated_name(_nested_fields(field.type))) for field in fields]
    return repeated or next((f"{column}.{name}" for column, name in nested if name), None)


def _nested_fields(arrow: pa.DataType) -> list[pa.Field]:
    arrow = plain_type(arrow)
    return [arrow.field(number) for number in range(arrow.num_fields)]


class ParquetInvalid(Exception):
    """A Parquet file has a value that cannot be kept exactly; the message names no file."""


def _type_for_duckdb(arrow: pa.DataType) -> pa.DataType:
    """Return the type, with text in the place of each type that DuckDB would not read exactly."""
    plain = plain_type(arrow)
    is_wide = pa.types.is_decimal(plain) and plain.precision > _MOST_DIGITS
    if is_wide or pa.types.is_float16(plain):
        return pa.string()
    fields = _nested_fields(plain)
    changed = [_field_for_duckdb(field) for field in fields]
    if changed == fields:
        return arrow
    if pa.types.is_struct(plain):
        return pa.struct(changed)
    if pa.types.is_map(plain):
        return pa.map_(_type_for_duckdb(plain.key_type), _type_for_duckdb(plain.item_type))
    return pa.list_(*changed)


def make_exact(path: Path) -> bool:
    """Rewrite a file in place if DuckDB would not read it exactly; return whether it did so.

    Types that DuckDB reads inexactly become text. All rows are read if a column is rewritten, or
    has INT96 times. Raises ParquetInvalid for an INT96 time that is finer than a microsecond, and
    errors of pyarrow for a file that cannot be read. On an error the file stays as it is.
    """
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
        _require_microseconds(path, file)
        schema = pa.schema([_field_for_duckdb(field) for field in file.schema_arrow])
        if schema == file.schema_arrow:
            return False
        part = path.with_name(f"{path.name}.exact")
        try:
            with pq.ParquetWriter(part, schema, compression="zstd") as writer:
                for batch in _batches(file):
                    writer.write_batch(batch.cast(schema))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return True


def _field_for_duckdb(field: pa.Field) -> pa.Field:
    return field.with_type(_type_for_duckdb(field.type))


def _batches(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    # One row group after another: iterating over all of them would keep those already read.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns)


def _require_microseconds(path: Path, in_microseconds: pq.ParquetFile) -> None:
    """Raise ParquetInvalid for an INT96 time finer than a microsecond.

    `in_microseconds` is the same file, opened to read INT96 as microseconds.
    """
    schema = in_microseconds.schema
    leaves = (schema.column(number) for number in range(len(schema.names)))
    columns = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    if not columns:
        return
    rows = 0
    with pq.ParquetFile(path) as in_nanoseconds:
        batches = zip(
            _batches(in_nanoseconds, columns), _batches(in_microseconds, columns), strict=True
        )
        for exact, coarse in batches:
            for name, nanoseconds, microseconds in zip(
                exact.schema.names, exact.columns, coarse.columns, strict=True
            ):
                # In years far from now both numbers overflow, and alike.
                is_finer = _times(nanoseconds) != _times(microseconds) * 1000
                if is_finer.any():
                    is_flat = pa.types.is_timestamp(nanoseconds.type)
                    row = f"row {rows + int(is_finer.argmax()) + 1}, " if is_flat else ""
                    raise ParquetInvalid(
                        f'{row}column "{excerpt(name)[1:-1]}": the INT96 time is finer than a '
                        f"microsecond and cannot be kept exactly as {SqlType.TIME}; the vendor "
                        "must deliver the file again, with times in microseconds"
                    )
            rows += exact.num_rows


def _times(column: pa.Array) -> np.ndarray:
    """Return the times as integers; for a nested column, those of all its fields and rows."""
    if pa.types.is_timestamp(column.type):
        times: np.ndarray = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return times
    if pa.types.is_map(column.type):
        parts = [column.keys, column.items]
    else:
        parts = column.flatten() if pa.types.is_struct(column.type) else [column.flatten()]
    return np.concatenate([_times(part) for part in parts])
