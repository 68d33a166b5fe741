"""Random Parquet tables of every type, and the same as CSV.

The loaded values are compared with what Python reads; a value that cannot be kept exactly is
refused with file and column.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, time, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import BillError
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping
from finops_dagster.tables.files import read_headers, translated_error
from finops_dagster.tables.parquet_files import ParquetInvalid, make_exact
from finops_dagster_tests.hostile.reading import Reader

_VENDOR = aws_formats("flat")["focus"]
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def _decimal_of(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda n: Decimal(f"{n}E-{scale}"))


def _whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    least = -(2 ** (bits - 1)) if signed else 0
    return st.integers(least, least + 2**bits - 1)


def _moments(unit: str) -> st.SearchStrategy[int]:
    """Return times as their number since 1970, within the range of Parquet.

    Most nanoseconds are whole microseconds, which DuckDB's TIMESTAMP can hold.
    """
    if unit == "ns":
        within = st.integers(-(2**53), 2**53)
        return within.map(lambda n: n * 1000) | within
    first, last = (
        (day - _EPOCH) // _MICROSECOND * 1000 // _UNITS[unit]
        for day in (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))
    )
    return st.integers(first, last)


_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
_WORDS = _TEXTS | st.sampled_from(["", "NULL", "null", "0.1000", '{"a": 1.0}', "-0", "1e5"])
_AMOUNTS = st.decimals(-1000, 1000, places=4).map(str)
_DOUBLES = st.floats() | st.sampled_from([29.27, 0.1, 1e-7, float("nan"), float("inf")])

_SCALARS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): _WORDS | _AMOUNTS,
    pa.large_string(): _WORDS,
    pa.binary(): st.binary(max_size=4) | _AMOUNTS.map(str.encode),
    pa.binary(4): st.binary(min_size=4, max_size=4) | st.just(b"text"),
    pa.dictionary(pa.int32(), pa.string()): _WORDS,
    pa.bool_(): st.booleans(),
    pa.float16(): st.floats(width=16).map(np.float16),
    pa.float32(): st.floats(width=32) | st.just(float(np.float32(29.27))),
    pa.float64(): _DOUBLES,
    pa.uuid(): st.uuids().map(lambda item: item.bytes),
    pa.json_(): st.sampled_from(['{"a": 0.1000}', "[1.0E-7]", '{"a": {"b": [0.10, "x"]}}']),
    pa.date32(): st.dates(),
    pa.time32("ms"): st.integers(0, 86_399_999),
    pa.time64("us"): st.integers(0, 86_399_999_999),
    pa.time64("ns"): st.integers(0, 86_399_999_999_999),
    **{t: _whole(t.bit_width, signed=True) for t in (pa.int8(), pa.int16(), pa.int32())},
    pa.int64(): _whole(64, signed=True),
    pa.uint8(): _whole(8, signed=False),
    pa.uint32(): _whole(32, signed=False),
    pa.uint64(): _whole(64, signed=False),
    **{
        pa.decimal128(precision, scale): _decimal_of(precision, scale)
        for precision, scale in ((4, 2), (18, 18), (38, 0), (38, 18), (38, 20))
    },
    **{
        pa.decimal256(precision, scale): _decimal_of(precision, scale) | _decimal_of(20, scale)
        for precision, scale in ((20, 4), (44, 18), (76, 30))
    },
    **{
        pa.timestamp(unit, zone): _moments(unit)
        for unit in ("ms", "us", "ns")
        for zone in (None, "UTC", "America/New_York")
    },
}


@st.composite
def _columns(draw: st.DrawFn) -> tuple[pa.DataType, list[Any]]:
    """Draw an Arrow type and some of its values."""
    arrow_type, values = draw(st.sampled_from(list(_SCALARS.items())))
    has_kind = pa.types.is_dictionary(arrow_type) or isinstance(arrow_type, pa.BaseExtensionType)
    match 6 if has_kind else draw(st.integers(0, 6)):
        case 0:
            arrow_type, values = pa.list_(arrow_type), st.lists(st.none() | values, max_size=3)
        case 1:
            arrow_type = pa.struct([("a", arrow_type), ("A", pa.string())])
            values = st.fixed_dictionaries({"a": st.none() | values, "A": st.none() | _WORDS})
        case 2:
            pairs = st.tuples(st.sampled_from(["k", "K", "a b", '"']), st.none() | values)
            arrow_type, values = pa.map_(pa.string(), arrow_type), st.lists(pairs, max_size=3)
    return arrow_type, draw(st.lists(st.none() | values, min_size=1, max_size=4))


_WRITERS = st.fixed_dictionaries(
    {
        "version": st.sampled_from(["1.0", "2.4", "2.6"]),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "compression": st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "store_schema": st.booleans(),
        "use_deprecated_int96_timestamps": st.booleans(),
    }
)


class Refused(Exception):
    """The value cannot be kept exactly."""


def _text(arrow_type: pa.DataType, value: Any) -> str:
    """Return the text of a value that is not NULL, as CSV has it."""
    if pa.types.is_timestamp(arrow_type):
        nanoseconds = value * _UNITS[arrow_type.unit]
        moment = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
        text = moment.isoformat(timespec="seconds")
        part = f"{nanoseconds % 10**9:09}".rstrip("0")
        return f"{text}.{part}Z".replace(".Z", "Z")
    if pa.types.is_time(arrow_type):
        nanoseconds = value * _UNITS[arrow_type.unit]
        text = f"{time(*_hms(nanoseconds // 10**9)).isoformat()}.{nanoseconds % 10**9:09}"
        return text.rstrip("0").removesuffix(".")
    if isinstance(arrow_type, pa.UuidType):
        return str(UUID(bytes=value))
    if pa.types.is_boolean(arrow_type):
        return str(value).lower()
    if pa.types.is_date(arrow_type):
        return str(value.isoformat())
    if pa.types.is_floating(arrow_type):
        return str(np.float32(value) if pa.types.is_float32(arrow_type) else float(value))
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Refused from error
    return str(value)


def _hms(seconds: int) -> tuple[int, int, int]:
    return seconds // 3600, seconds // 60 % 60, seconds % 60


def _money(arrow_type: pa.DataType, value: Any) -> Decimal | None:
    """Return the amount, rounded where it is a float. Raises Refused."""
    text = _text(arrow_type, value)
    if text in ("", "NULL"):
        return None
    if not set(text.strip(" \t\n\v\f\r")) <= set("0123456789+-.eE"):
        raise Refused
    try:
        with localcontext(prec=400):
            number = Decimal(text)
            rounded = number.quantize(Decimal("1E-18"))
            fits = abs(rounded) < 10**20
    except (ArithmeticError, ValueError) as error:
        raise Refused from error
    rounds = pa.types.is_float32(arrow_type) or pa.types.is_float64(arrow_type)
    if not fits or (rounded != number and not rounds):
        raise Refused
    return rounded


def _time(arrow_type: pa.DataType, value: Any) -> datetime:
    """Return the time of a value in a column of times. Raises Refused."""
    if pa.types.is_date(arrow_type):
        return datetime(value.year, value.month, value.day)
    nanoseconds = value * _UNITS[arrow_type.unit]
    if nanoseconds % 1000:
        raise Refused
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _loaded(reader: Reader, sql_type: SqlType, files: list[BillFiles]) -> list[Any] | BillError:
    """Return column x as DuckDB loads it, or the error that refuses it."""
    (group,) = files
    connection = reader.connection
    try:
        connection.execute("SET preserve_insertion_order = true")
        connection.execute(f"DROP TABLE IF EXISTS x; CREATE TABLE x (x {sql_type})")
        connection.execute(
            f"INSERT INTO x SELECT {group.column_sql('x', sql_type)} FROM {group.rows_sql()}"
        )
    except duckdb.Error as error:
        target = ColumnMapping("x", "x", sql_type, sql_type, "x", is_money=False)
        reason = translated_error(connection, error, files, [target])
        assert isinstance(reason, BillError), reason
        return reason
    return [row[0] for row in connection.execute("FROM x").fetchall()]


def _expected(sql_type: SqlType, arrow_type: pa.DataType, value: Any) -> Any:
    """Return a value as Python reads it. Raises Refused."""
    if value is None:
        return None
    if sql_type is SqlType.MONEY:
        return _money(arrow_type, value)
    if sql_type is SqlType.TIME:
        return _time(arrow_type, value)
    text = _text(arrow_type, value)
    if _is_number(arrow_type):
        return Decimal(text)
    return None if text in ("", "NULL") else text


def _is_number(arrow_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(arrow_type)
        or pa.types.is_decimal(arrow_type)
        or pa.types.is_integer(arrow_type)
    )


def _alike(read: Any, expected: Any) -> bool:
    """Return whether both are the same, numbers in any spelling."""
    if isinstance(expected, Decimal) and read is not None:
        number = Decimal(read)
        return number.is_nan() if expected.is_nan() else number == expected
    if isinstance(expected, list | tuple):
        return len(read) == len(expected) and all(map(_alike, read, expected))
    return bool(read == expected)


def _as_json(arrow_type: pa.DataType, value: Any) -> Any:
    """Return a nested value as a JSON reader that keeps decimals reads its text."""
    if value is None:
        return None
    if pa.types.is_list(arrow_type):
        return [_as_json(arrow_type.value_type, item) for item in value]
    if pa.types.is_struct(arrow_type):
        return [(field.name, _as_json(field.type, value[field.name])) for field in arrow_type]
    if pa.types.is_map(arrow_type):
        return [(key, _as_json(arrow_type.item_type, item)) for key, item in value]
    if pa.types.is_boolean(arrow_type):
        return value
    text = _text(arrow_type, value)
    return Decimal(text) if _is_number(arrow_type) else text


def _json(text: str | None) -> Any:
    """Return parsed JSON, an object as its pairs."""
    if text is None:
        return None
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=list)


def _write(path: Path, arrow_type: pa.DataType, values: list[Any], writer: dict[str, Any]) -> None:
    array = pa.array(values, arrow_type)
    table = pa.table({"other": pa.nulls(len(values)), "x": array})
    try:
        pq.write_table(table, path, **writer)
    except pa.ArrowInvalid:  # the older versions have no nanoseconds
        pq.write_table(table, path, **{**writer, "version": "2.6"})


@given(column=_columns(), writer=_WRITERS)
def test_parquet_of_any_type_is_loaded_exactly_or_refused_by_name(
    reader: Reader, column: tuple[pa.DataType, list[Any]], writer: dict[str, Any]
) -> None:
    arrow_type, values = column
    path = reader.folder / "x.parquet"
    _write(path, arrow_type, values, writer)
    try:
        make_exact(path)
    except ParquetInvalid as error:
        assert 'column "x"' in str(error)
        assert "INT96" in str(error)
        return
    files = read_headers([path], _VENDOR)
    is_time = pa.types.is_timestamp(arrow_type) or pa.types.is_date(arrow_type)
    is_flat = not pa.types.is_nested(arrow_type)
    types = [SqlType.TEXT, *[SqlType.MONEY] * is_flat, *[SqlType.TIME] * is_time]
    for sql_type in types:
        outcome = _loaded(reader, sql_type, files)
        try:
            if is_flat:
                expected = [_expected(sql_type, arrow_type, value) for value in values]
            else:
                expected = [_as_json(arrow_type, value) for value in values]
        except Refused:
            assert isinstance(outcome, BillError), (sql_type, outcome)
        if isinstance(outcome, BillError):
            assert str(path) in str(outcome)
            assert 'column "x"' in str(outcome)
            with pytest.raises(Refused):
                [
                    _as_json(arrow_type, v) if not is_flat else _expected(sql_type, arrow_type, v)
                    for v in values
                ]
        elif is_flat:
            assert _alike(outcome, expected)
        else:
            assert _alike([_json(text) for text in outcome], expected)


@pytest.mark.thorough
@given(column=_columns())
def test_csv_and_parquet_are_loaded_alike(
    reader: Reader, column: tuple[pa.DataType, list[Any]]
) -> None:
    """Floats are left out, as they have no text of their own."""
    arrow_type, values = column
    if pa.types.is_nested(arrow_type) or pa.types.is_floating(arrow_type):
        return
    try:
        texts = [None if value is None else _text(arrow_type, value) for value in values]
    except Refused:
        return
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerows([("other", "x"), *((".", text) for text in texts)])
    csv_path, parquet_path = reader.folder / "x.csv", reader.folder / "y.parquet"
    csv_path.write_bytes(body.getvalue().encode())
    _write(parquet_path, arrow_type, values, {"version": "2.6"})
    make_exact(parquet_path)
    for sql_type in (
        SqlType.TEXT,
        SqlType.MONEY,
        SqlType.TIME,
        SqlType.TEXT_MAP,
        SqlType.MONEY_MAP,
    ):
        csv_values = _loaded(reader, sql_type, read_headers([csv_path], _VENDOR))
        parquet_values = _loaded(reader, sql_type, read_headers([parquet_path], _VENDOR))
        if isinstance(csv_values, BillError) or isinstance(parquet_values, BillError):
            assert isinstance(csv_values, BillError) and isinstance(parquet_values, BillError), (
                csv_values,
                parquet_values,
            )
            assert 'column "x"' in str(csv_values)
            assert 'column "x"' in str(parquet_values)
        elif sql_type is SqlType.TEXT and _is_number(arrow_type):
            assert _alike(parquet_values, [item and Decimal(item) for item in csv_values])
        else:
            assert csv_values == parquet_values
