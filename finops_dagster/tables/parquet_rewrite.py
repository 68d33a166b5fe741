"""What DuckDB would not read exactly of a Parquet file: written anew as text, or refused.

DuckDB reads decimals of more than 38 digits as doubles and 16-bit floats as 32-bit ones, which have
other shortest decimals; of the times of INT96 it cuts what is finer than a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import shown
from finops_dagster.tables.bill_files import plain_type

_MOST_DIGITS = 38
_ROWS_A_BATCH = 16_384


class ParquetInvalid(Exception):
    """The file holds what cannot be kept exactly; says what."""


def type_for_duckdb(own: pa.DataType) -> pa.DataType:
    """Return the type, with text for what within it DuckDB would read otherwise."""
    plain = plain_type(own)
    is_wide = pa.types.is_decimal(plain) and plain.precision > _MOST_DIGITS
    if is_wide or pa.types.is_float16(plain):
        return pa.string()
    inside = [plain.field(number) for number in range(plain.num_fields)]
    changed = [_field_for_duckdb(field) for field in inside]
    if changed == inside:
        return own
    if pa.types.is_struct(plain):
        return pa.struct(changed)
    if pa.types.is_map(plain):
        return pa.map_(type_for_duckdb(plain.key_type), type_for_duckdb(plain.item_type))
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
    return field.with_type(type_for_duckdb(field.type))


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
                        f'{row}column "{shown(name)[1:-1]}": a time of INT96 is finer than a '
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
