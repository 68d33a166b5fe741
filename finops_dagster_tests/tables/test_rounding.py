"""Numbers with more than 18 decimals are rounded and counted alike in every form."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.money import RoundedColumn
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.csv_files import csv_file
from finops_dagster.tables.parquet_files import parquet_file
from finops_dagster.tables.rounding import rounded_columns

# The shortest texts of doubles; four of them have more than 18 decimals.
CELLS = ["12.34e-18", "-2.5e-18", "1.5e-18", "29.27", "4e-07", "1e-20"]
ROUNDED = ["12e-18", "-2e-18", "2e-18", "29.27", "4e-7", "0"]
CHANGED = sum(
    Decimal(rounded) - Decimal(cell) for rounded, cell in zip(ROUNDED, CELLS, strict=True)
)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(duckdb.connect()) as connection:
        prepare_casts(connection)
        yield connection


def written(folder: Path, values: list[Any], of_type: pa.DataType | None = None) -> BillFiles:
    """Write values as a column of Parquet, or of CSV where they have no type."""
    if of_type is not None:
        pq.write_table(pa.table({"x": pa.array(values, of_type)}), folder / "x.parquet")
        return parquet_file(folder / "x.parquet")
    with (folder / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["other", "x"], *(["", cell] for cell in values)])
    files = csv_file(folder / "x.csv")
    assert files
    return files


def target(
    sql_type: SqlType = SqlType.MONEY, *, is_money: bool = True, is_rounded: bool = True
) -> ColumnMapping:
    return ColumnMapping("x", "amount", sql_type, sql_type, "x", is_money, is_rounded)


def map_of(value: pa.DataType) -> pa.DataType:
    return pa.map_(pa.string(), value)


DECIMAL = pa.decimal128(38, 20)
IN_NUMBERS: dict[str, tuple[Callable[[str], Any], pa.DataType | None]] = {
    "csv": (str, None),
    "text": (str, pa.string()),
    "decimals": (Decimal, DECIMAL),
    "doubles": (float, pa.float64()),
}
IN_MAPS: dict[str, tuple[Callable[[str], Any], pa.DataType | None]] = {
    "json of csv": (lambda cell: f'{{"a": {cell}, "b": 1}}', None),
    "json": (lambda cell: json.dumps({"a": cell}), pa.string()),
    "map of text": (lambda cell: [("a", cell)], map_of(pa.string())),
    "map of decimals": (lambda cell: [("a", Decimal(cell))], map_of(DECIMAL)),
    "map of doubles": (lambda cell: [("a", float(cell))], map_of(pa.float64())),
}
FORMS = [(SqlType.MONEY, *form) for form in IN_NUMBERS.values()]
FORMS += [(SqlType.MONEY_MAP, *form) for form in IN_MAPS.values()]
every_form = pytest.mark.parametrize(
    ("sql_type", "spelt", "of_type"), FORMS, ids=[*IN_NUMBERS, *IN_MAPS]
)


@every_form
def test_numbers_are_rounded_and_counted_alike_in_every_form(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    sql_type: SqlType,
    spelt: Callable[[str], Any],
    of_type: pa.DataType | None,
) -> None:
    files = written(tmp_path, [spelt(cell) for cell in CELLS], of_type)
    cell = files.column_sql("x", sql_type, rounded=True)
    rounded = connection.execute(f"SELECT {cell} FROM {files.rows_sql()}").fetchall()
    numbers = [value["a"] if isinstance(value, dict) else value for (value,) in rounded]
    assert numbers == [Decimal(number) for number in ROUNDED]
    counted = rounded_columns(connection, [files], [target(sql_type)])
    assert counted == (RoundedColumn("amount", 4, CHANGED),)


@every_form
def test_only_doubles_are_rounded_where_rounding_is_not_set(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    sql_type: SqlType,
    spelt: Callable[[str], Any],
    of_type: pa.DataType | None,
) -> None:
    files = written(tmp_path, [spelt(cell) for cell in CELLS], of_type)
    counted = rounded_columns(connection, [files], [target(sql_type, is_rounded=False)])
    read = f"SELECT {files.column_sql('x', sql_type)} FROM {files.rows_sql()}"
    if "double" in str(of_type):
        assert counted == (RoundedColumn("amount", 4, CHANGED),)
        assert len(connection.execute(read).fetchall()) == len(CELLS)
    else:
        assert counted == ()
        with pytest.raises(duckdb.ConversionException):
            connection.execute(read).fetchall()


def test_the_counted_change_is_exact_for_any_number_of_decimals(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    cells = ["1." + "3" * 60, "-2." + "7" * 50, "0." + "1" * 40, "5", "", "none"]
    counted = rounded_columns(connection, [written(tmp_path, cells)], [target()])
    with localcontext(prec=100):
        changed = Decimal("-" + "3" * 42 + "e-60") - Decimal("2" * 31 + "3e-50")
        changed -= Decimal("1" * 22 + "e-40")
    assert counted == (RoundedColumn("amount", 3, changed),)


def test_for_a_quantity_only_the_rounded_cells_are_counted(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    files = written(tmp_path, CELLS)
    counted = rounded_columns(connection, [files], [target(is_money=False)])
    assert counted == (RoundedColumn("amount", 4, None),)


def test_single_precision_is_rounded_by_its_own_shortest_text(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    files = written(tmp_path, [29.27, 0.1, 1e-7, 1.2345e-16], pa.float32())
    counted = rounded_columns(connection, [files], [target(is_rounded=False)])
    assert counted == (RoundedColumn("amount", 1, Decimal("-0.45e-18")),)
