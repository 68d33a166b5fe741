"""A Parquet column is read exactly, whatever type its writer gave it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.files import read_headers
from finops_dagster.tables.parquet_files import parquet_file

AMOUNT, MOMENT = Decimal("29.27"), datetime(2024, 1, 31, 23, 30)
TAGS, AMOUNTS = (pa.map_(pa.string(), of) for of in (pa.string(), pa.float64()))
READ = {
    SqlType.MONEY: [
        (29.27, pa.float64(), AMOUNT),
        (0.1, pa.float32(), Decimal("0.1")),
        ("29.27", pa.string(), AMOUNT),
        ("29.27", pa.large_string(), AMOUNT),
        (b"29.27", pa.binary(), AMOUNT),
        ("29.27", pa.dictionary(pa.int32(), pa.string()), AMOUNT),
        (AMOUNT, pa.decimal128(9, 2), AMOUNT),
        (AMOUNT, pa.decimal128(38, 20), AMOUNT),
        (2**62, pa.int64(), 2**62),
    ],
    SqlType.TIME: [
        (MOMENT, pa.timestamp("ms"), MOMENT),
        (MOMENT, pa.timestamp("ns"), MOMENT),
        (MOMENT.replace(tzinfo=UTC), pa.timestamp("us", "UTC"), MOMENT),
        ("2024-01-31T23:30:00.000Z", pa.string(), MOMENT),
        ("2024-02-01T00:30:00+01:00", pa.string(), MOMENT),
        (date(2024, 1, 31), pa.date32(), datetime(2024, 1, 31)),
    ],
    SqlType.TEXT_MAP: [
        ([("a", "1")], TAGS, {"a": "1"}),
        ('{"a": "1"}', pa.string(), {"a": "1"}),
        ({"a": "1"}, pa.struct([("a", pa.string())]), {"a": "1"}),
        ([], TAGS, {}),
    ],
    SqlType.MONEY_MAP: [
        ([("a", 0.1)], AMOUNTS, {"a": Decimal("0.1")}),
        ('{"a": 0.1}', pa.string(), {"a": Decimal("0.1")}),
        ([("a", "0.1")], TAGS, {"a": Decimal("0.1")}),
    ],
    SqlType.TEXT: [
        ("text", pa.string(), "text"),
        (0.25, pa.float64(), "0.25"),
        (True, pa.bool_(), "true"),
        ([("a", "1")], TAGS, '{"a":"1"}'),
        ([1, 2], pa.list_(pa.int32()), "[1,2]"),
    ],
}


def read(tmp_path: Path, values: list[Any], arrow: pa.DataType, sql_type: SqlType) -> list[Any]:
    """Write values to a Parquet file, behind another column, and read them as a SQL type."""
    table = pa.table({"other": pa.nulls(len(values)), "x": pa.array(values, arrow)})
    pq.write_table(table, tmp_path / "x.parquet")
    files = parquet_file(tmp_path / "x.parquet")
    with closing(duckdb.connect()) as connection:
        prepare_casts(connection)
        sql = f"SELECT {files.column_sql('x', sql_type)} FROM {files.rows_sql()}"
        return [row[0] for row in connection.execute(sql).fetchall()]


@pytest.mark.parametrize(
    ("sql_type", "value", "arrow", "expected"),
    [(sql_type, *row) for sql_type, rows in READ.items() for row in rows],
    ids=str,
)
def test_a_value_of_any_type_is_read_exactly(
    tmp_path: Path, sql_type: SqlType, value: Any, arrow: pa.DataType, expected: Any
) -> None:
    assert read(tmp_path, [value, None], arrow, sql_type) == [expected, None]


def test_a_decimal_with_more_than_18_decimals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(duckdb.ConversionException):
        read(tmp_path, [Decimal("1E-20")], pa.decimal128(38, 20), SqlType.MONEY)


def test_files_whose_types_differ_are_read_separately(tmp_path: Path) -> None:
    for name, values in {"a": [0.5], "b": ["0.5"], "c": [0.25]}.items():
        pq.write_table(pa.table({"x": values}), tmp_path / name)
    groups = read_headers([tmp_path / name for name in "abc"], aws_formats("flat")["focus"])
    assert [[path.name for path in group.paths] for group in groups] == [["a", "c"], ["b"]]
