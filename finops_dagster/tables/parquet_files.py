"""Parquet files as DuckDB sees them, and what it would not read exactly: written anew as text, or
refused.

DuckDB reads decimals of more than 38 digits as doubles and 16-bit floats as 32-bit ones, which have
other shortest decimals; of the times of INT96 it cuts what is finer than a microsecond.
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
_MOST_DIGITS = 38
_ROWS_A_BATCH = 16_384


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

    def row_location(self, record: int) -> str:
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
        raise FileInvalid(f"{path}: the schema has the column {excerpt(twice)} twice")
    for field in schema:
        if _type_for_duckdb(field.type) != field.type:
            raise FileInvalid(
                f"{path}: the column {excerpt(field.name)} is {field.type}, which is not read "
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


class ParquetInvalid(Exception):
    """The file holds what cannot be kept exactly; says what."""


def _type_for_duckdb(own: pa.DataType) -> pa.DataType:
    """Return the type, with text for what within it DuckDB would read otherwise."""
    plain = plain_type(own)
    is_wide = pa.types.is_decimal(plain) and plain.precision > _MOST_DIGITS
    if is_wide or pa.types.is_float16(plain):
        return pa.string()
    inside = _fields_within(plain)
    changed = [_field_for_duckdb(field) for field in inside]
    if changed == inside:
        return own
    if pa.types.is_struct(plain):
        return pa.struct(changed)
    if pa.types.is_map(plain):
        return pa.map_(_type_for_duckdb(plain.key_type), _type_for_duckdb(plain.item_type))
    return pa.list_(*changed)


def make_exact(path: Path) -> bool:
    """Write the file anew where DuckDB would not read it exactly, and return whether that was so.

    Raises ParquetInvalid for a time that is finer than a microsecond.
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
    """A few rows at a time; all row groups at once would keep what has been read."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_ROWS_A_BATCH, row_groups=[group], columns=columns)


def _require_microseconds(path: Path, cut: pq.ParquetFile) -> None:
    """Compare what INT96 holds with the microseconds that `cut`, the same file, reads of it."""
    leaves = (cut.schema.column(number) for number in range(len(cut.schema.names)))
    columns = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    if not columns:
        return
    rows = 0
    with pq.ParquetFile(path) as whole:
        for exact, coarse in zip(_batches(whole, columns), _batches(cut, columns), strict=True):
            for name, nanoseconds, microseconds in zip(
                exact.schema.names, exact.columns, coarse.columns, strict=True
            ):
                # Both overflow alike in far years.
                is_finer = _times_within(nanoseconds) != _times_within(microseconds) * 1000
                if is_finer.any():
                    is_flat = pa.types.is_timestamp(nanoseconds.type)
                    row = f"row {rows + int(is_finer.argmax()) + 1}, " if is_flat else ""
                    raise ParquetInvalid(
                        f'{row}column "{excerpt(name)[1:-1]}": a time of INT96 is finer than a '
                        f"microsecond and cannot be kept exactly as {SqlType.TIME}"
                    )
            rows += exact.num_rows


def _times_within(column: pa.Array) -> np.ndarray:
    """Return the times as numbers, of a nested column those of all rows after one another."""
    if pa.types.is_timestamp(column.type):
        times: np.ndarray = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return times
    if pa.types.is_map(column.type):
        inside = [column.keys, column.items]
    else:
        inside = column.flatten() if pa.types.is_struct(column.type) else [column.flatten()]
    return np.concatenate([_times_within(part) for part in inside])
