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
from finops_dagster.tables.files import read_files
from finops_dagster.tables.parquet_files import parquet_file

MOMENT = datetime(2024, 1, 31, 23, 30)


def read(tmp_path: Path, values: list[Any], arrow: pa.DataType, sql_type: SqlType) -> list[Any]:
    """What the values become as the type, through a file; the other columns are in its way."""
    table = pa.table({"other": pa.nulls(len(values)), "x": pa.array(values, arrow)})
    pq.write_table(table, tmp_path / "x.parquet")
    files = parquet_file(tmp_path / "x.parquet")
    with closing(duckdb.connect()) as connection:
        prepare_casts(connection)
        sql = f"SELECT {files.cell('x', sql_type)} FROM {files.scan()}"
        return [row[0] for row in connection.execute(sql).fetchall()]


@pytest.mark.parametrize(
    ("values", "arrow"),
    [
        ([29.27, None], pa.float64()),
        (["29.27", None], pa.string()),
        (["29.27", None], pa.large_string()),
        ([b"29.27", None], pa.binary()),
        (["29.27", None], pa.dictionary(pa.int32(), pa.string())),
        ([Decimal("29.27"), None], pa.decimal128(9, 2)),
        ([Decimal("29.27"), None], pa.decimal128(38, 20)),
    ],
    ids=str,
)
def test_amounts(tmp_path: Path, values: list[Any], arrow: pa.DataType) -> None:
    assert read(tmp_path, values, arrow, SqlType.MONEY) == [Decimal("29.27"), None]


def test_a_decimal_with_more_decimals_than_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(duckdb.ConversionException):
        read(tmp_path, [Decimal("1E-20")], pa.decimal128(38, 20), SqlType.MONEY)


def test_whole_numbers_and_single_precision(tmp_path: Path) -> None:
    assert read(tmp_path, [2**62], pa.int64(), SqlType.MONEY) == [2**62]
    assert read(tmp_path, [0.1], pa.float32(), SqlType.MONEY) == [Decimal("0.1")]


@pytest.mark.parametrize(
    ("values", "arrow"),
    [
        ([MOMENT], pa.timestamp("ms")),
        ([MOMENT], pa.timestamp("ns")),
        ([MOMENT.replace(tzinfo=UTC)], pa.timestamp("us", "UTC")),
        (["2024-01-31T23:30:00.000Z"], pa.string()),
        (["2024-02-01T00:30:00+01:00"], pa.string()),
    ],
    ids=str,
)
def test_times(tmp_path: Path, values: list[Any], arrow: pa.DataType) -> None:
    assert read(tmp_path, values, arrow, SqlType.TIME) == [MOMENT]


def test_days(tmp_path: Path) -> None:
    days = read(tmp_path, [date(2024, 1, 31)], pa.date32(), SqlType.TIME)
    assert days == [datetime(2024, 1, 31)]


TAGS = pa.map_(pa.string(), pa.string())
AMOUNTS = pa.map_(pa.string(), pa.float64())


@pytest.mark.parametrize(
    ("value", "arrow", "sql_type", "expected"),
    [
        ({"a": "1"}, TAGS, SqlType.TEXT_MAP, {"a": "1"}),
        ('{"a": "1"}', pa.string(), SqlType.TEXT_MAP, {"a": "1"}),
        ({"a": "1"}, pa.struct([("a", pa.string())]), SqlType.TEXT_MAP, {"a": "1"}),
        ({"a": 0.1}, AMOUNTS, SqlType.MONEY_MAP, {"a": Decimal("0.1")}),
        ('{"a": 0.1}', pa.string(), SqlType.MONEY_MAP, {"a": Decimal("0.1")}),
        ({"a": "0.1"}, TAGS, SqlType.MONEY_MAP, {"a": Decimal("0.1")}),
        ({}, TAGS, SqlType.TEXT_MAP, {}),
        (None, AMOUNTS, SqlType.MONEY_MAP, None),
    ],
)
def test_maps(
    tmp_path: Path, value: Any, arrow: pa.DataType, sql_type: SqlType, expected: Any
) -> None:
    values = [
        list(value.items()) if isinstance(value, dict) and arrow in (TAGS, AMOUNTS) else value
    ]
    assert read(tmp_path, values, arrow, sql_type) == [expected]


@pytest.mark.parametrize(
    ("value", "arrow", "expected"),
    [
        ("text", pa.string(), "text"),
        (0.25, pa.float64(), "0.25"),
        (True, pa.bool_(), "true"),
        ([("a", "1")], TAGS, '{"a":"1"}'),
        ([1, 2], pa.list_(pa.int32()), "[1,2]"),
    ],
)
def test_text_is_what_anything_can_become(
    tmp_path: Path, value: Any, arrow: pa.DataType, expected: str
) -> None:
    assert read(tmp_path, [value], arrow, SqlType.TEXT) == [expected]


def test_files_of_different_types_are_read_apart(tmp_path: Path) -> None:
    for name, values in {"a": [0.5], "b": ["0.5"], "c": [0.25]}.items():
        pq.write_table(pa.table({"x": values}), tmp_path / name)
    groups = read_files([tmp_path / name for name in "abc"], aws_formats("flat")["focus"])
    assert [[path.name for path in group.paths] for group in groups] == [["a", "c"], ["b"]]
