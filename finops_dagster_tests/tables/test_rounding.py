"""Numbers of more than 18 decimals are rounded and counted alike, whatever they are written in."""

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
from finops_dagster.tables.bill_files import BillFiles, Target
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.csv_files import csv_file
from finops_dagster.tables.parquet_files import parquet_file
from finops_dagster.tables.rounding import count_cells_to_round

# Doubles with these shortest texts; four have more than 18 decimals.
CELLS = ["12.34e-18", "-2.5e-18", "1.5e-18", "29.27", "4e-07", "1e-20"]
ROUNDED = ["12e-18", "-2e-18", "2e-18", "29.27", "4e-7", "0"]
CHANGED = sum(Decimal(kept) - Decimal(cell) for kept, cell in zip(ROUNDED, CELLS, strict=True))


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(duckdb.connect()) as connection:
        prepare_casts(connection)
        yield connection


def csv_of(folder: Path, cells: list[str]) -> BillFiles:
    with (folder / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["other", "x"], *(["", cell] for cell in cells)])
    files = csv_file(folder / "x.csv")
    assert files
    return files


def parquet_of(folder: Path, values: list[Any], of_type: pa.DataType) -> BillFiles:
    pq.write_table(pa.table({"x": pa.array(values, of_type)}), folder / "x.parquet")
    return parquet_file(folder / "x.parquet")


def target(name: str, sql_type: SqlType, *, is_money: bool, is_rounded: bool) -> Target:
    return Target("x", name, sql_type, sql_type, name, is_money, is_rounded)


def in_csv(folder: Path) -> BillFiles:
    return csv_of(folder, CELLS)


def in_text(folder: Path) -> BillFiles:
    return parquet_of(folder, CELLS, pa.string())


def in_decimals(folder: Path) -> BillFiles:
    return parquet_of(folder, [Decimal(cell) for cell in CELLS], pa.decimal128(38, 20))


def in_doubles(folder: Path) -> BillFiles:
    return parquet_of(folder, [float(cell) for cell in CELLS], pa.float64())


def in_json_of_csv(folder: Path) -> BillFiles:
    return csv_of(folder, [f'{{"a": {cell}, "b": 1}}' for cell in CELLS])


def in_json(folder: Path) -> BillFiles:
    return parquet_of(folder, [json.dumps({"a": cell}) for cell in CELLS], pa.string())


def in_map_of_text(folder: Path) -> BillFiles:
    return parquet_of(folder, [[("a", cell)] for cell in CELLS], pa.map_(pa.string(), pa.string()))


def in_map_of_decimals(folder: Path) -> BillFiles:
    of_type = pa.map_(pa.string(), pa.decimal128(38, 20))
    return parquet_of(folder, [[("a", Decimal(cell))] for cell in CELLS], of_type)


def in_map_of_doubles(folder: Path) -> BillFiles:
    of_type = pa.map_(pa.string(), pa.float64())
    return parquet_of(folder, [[("a", float(cell))] for cell in CELLS], of_type)


NUMBERS = [in_csv, in_text, in_decimals, in_doubles]
MAPS = [in_json_of_csv, in_json, in_map_of_text, in_map_of_decimals, in_map_of_doubles]
DOUBLES = (in_doubles, in_map_of_doubles)
FORMS = [(write, SqlType.MONEY) for write in NUMBERS] + [(m, SqlType.MONEY_MAP) for m in MAPS]


@pytest.mark.parametrize(("write", "sql_type"), FORMS, ids=[write.__name__ for write, _ in FORMS])
def test_the_same_numbers_are_rounded_and_counted_alike(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    write: Callable[[Path], BillFiles],
    sql_type: SqlType,
) -> None:
    files = write(tmp_path)
    cell = files.cell("x", sql_type, rounded=True)
    kept = connection.execute(f"SELECT {cell} FROM {files.scan()}").fetchall()
    numbers = [value["a"] if isinstance(value, dict) else value for (value,) in kept]
    assert numbers == [Decimal(number) for number in ROUNDED]
    column = target("amount", sql_type, is_money=True, is_rounded=True)
    counted = count_cells_to_round(connection, [files], [column])
    assert counted == (RoundedColumn("amount", 4, CHANGED),)


@pytest.mark.parametrize(("write", "sql_type"), FORMS, ids=[write.__name__ for write, _ in FORMS])
def test_where_nothing_is_rounded_only_doubles_are(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    write: Callable[[Path], BillFiles],
    sql_type: SqlType,
) -> None:
    files = write(tmp_path)
    column = target("amount", sql_type, is_money=True, is_rounded=False)
    counted = count_cells_to_round(connection, [files], [column])
    read = f"SELECT {files.cell('x', sql_type)} FROM {files.scan()}"
    if write in DOUBLES:
        assert counted == (RoundedColumn("amount", 4, CHANGED),)
        assert len(connection.execute(read).fetchall()) == len(CELLS)
    else:
        assert counted == ()
        with pytest.raises(duckdb.ConversionException):
            connection.execute(read).fetchall()


def test_the_sum_is_exact_however_many_decimals_there_are(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    files = csv_of(tmp_path, ["1." + "3" * 60, "-2." + "7" * 50, "0." + "1" * 40, "5", "", "none"])
    column = target("amount", SqlType.MONEY, is_money=True, is_rounded=True)
    counted = count_cells_to_round(connection, [files], [column])
    with localcontext(prec=100):
        changed = Decimal("-" + "3" * 42 + "e-60") - Decimal("2" * 31 + "3e-50")
        changed -= Decimal("1" * 22 + "e-40")
    assert counted == (RoundedColumn("amount", 3, changed),)


def test_of_a_quantity_only_the_number_of_cells_is_counted(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    column = target("quantity", SqlType.MONEY, is_money=False, is_rounded=True)
    counted = count_cells_to_round(connection, [in_csv(tmp_path)], [column])
    assert counted == (RoundedColumn("quantity", 4, None),)


def test_single_precision_is_counted_by_its_own_shortest_text(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    files = parquet_of(tmp_path, [29.27, 0.1, 1e-7, 1.2345e-16], pa.float32())
    column = target("amount", SqlType.MONEY, is_money=True, is_rounded=False)
    counted = count_cells_to_round(connection, [files], [column])
    assert counted == (RoundedColumn("amount", 1, Decimal("-0.45e-18")),)
