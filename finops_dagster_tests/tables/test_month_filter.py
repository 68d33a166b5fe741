"""Of files that hold rows of several months, both readers take the rows of one."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.errors import BillError, CellInvalid
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster.tables import ledger
from finops_dagster.tables.count import count_month
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.files import read_headers
from finops_dagster.tables.load import MonthLoader

FORMAT = FocusFilesFormat()
JANUARY, FEBRUARY = BillingMonth(2026, 1), BillingMonth(2026, 2)
HEADERS = "BillingPeriodStart,BilledCost,BillingCurrency,UsageQuantity,x_Note"


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        ledger.create_tables(connection)
        yield connection


@pytest.fixture
def load_month(
    connection: duckdb.DuckDBPyConnection,
) -> Callable[[Sequence[Path], BillingMonth], Load]:
    def load(paths: Sequence[Path], month: BillingMonth) -> Load:
        files = read_headers(paths, FORMAT, dict.fromkeys(paths, month))
        counted, _ = count_month(files, FORMAT, (), DuckDB(), round_money=True)
        version = Load("v1", counted, export="oracle", month=month, table="bill")
        loader = MonthLoader(connection, version, FORMAT)
        with loader.replacing_month(files, (), round_money=True) as (loaded, _):
            return loaded

    return load


def csv_file(path: Path, *rows: str, gzipped: bool = False) -> Path:
    body = "\n".join([HEADERS, *rows, ""]).encode()
    path.write_bytes(gzip.compress(body) if gzipped else body)
    return path


@pytest.mark.parametrize("gzipped", [False, True])
def test_rows_sums_currencies_and_rounded_numbers_are_those_of_the_month(
    tmp_path: Path, load_month: Any, connection: duckdb.DuckDBPyConnection, gzipped: bool
) -> None:
    rows = [
        "2026-01-01T00:00Z,1.5,USD,1,a",
        "2026-02-01T00:00Z,100,EUR,0.1234567890123456789,b",
        '2026-01-15 00:00:00,2e-1,EUR,2,"two\nlines"',
        "2026-02-01T00:30:00+01:00,4,USD,1,still January in UTC",
        "2026-02-28,0.0000000000000000019,USD,1,c",
    ]
    paths = [csv_file(tmp_path / "a", *rows, gzipped=gzipped)]
    january, february = load_month(paths, JANUARY), load_month(paths, FEBRUARY)
    assert january.totals == Totals(3, Decimal("5.7"))
    assert january.totals.costs == {"USD": Decimal("5.5"), "EUR": Decimal("0.2")}
    assert january.rounded == ()
    assert february.totals == Totals(2, Decimal("100.000000000000000002"))
    assert {column.name: column.cells for column in february.rounded or ()} == {
        "billedcost": 1,
        "usagequantity": 1,
    }
    stored = connection.execute(
        "SELECT billing_month::TEXT, count(*), sum(billedcost) FROM bill GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert stored == [
        ("2026-01-01", 3, Decimal("5.7")),
        ("2026-02-01", 2, Decimal("100.000000000000000002")),
    ]


_CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    "periods",
    [
        pa.array([date(2026, 1, 1), date(2026, 2, 1)]),
        pa.array([datetime(2026, 1, 1), datetime(2026, 2, 1)], pa.timestamp("ns")),
        pa.array([datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]),
        pa.array(
            [datetime(2026, 2, 1, 0, 30, tzinfo=_CET), datetime(2026, 2, 1, 1, tzinfo=_CET)],
            pa.timestamp("us", "+01:00"),
        ),
        pa.array(["2026-01-01", "2026-02-01"]).dictionary_encode(),
    ],
    ids=["dates", "nanoseconds", "utc", "offset", "dictionary"],
)
def test_parquet_is_filtered_by_every_type_of_period(
    tmp_path: Path, load_month: Any, periods: pa.Array
) -> None:
    costs = pa.array([Decimal("1.25"), Decimal("2.50")])
    table = pa.table({"BillingPeriodStart": periods, "BilledCost": costs})
    pq.write_table(table, tmp_path / "a")
    assert load_month([tmp_path / "a"], JANUARY).totals == Totals(1, Decimal("1.25"))
    assert load_month([tmp_path / "a"], FEBRUARY).totals == Totals(1, Decimal("2.5"))


def test_a_bad_cell_is_refused_in_its_own_month_alone_with_its_line(
    tmp_path: Path, load_month: Any
) -> None:
    rows = ("2026-01-01,1,USD,1,a", "2026-02-01,one,USD,1,b", "2026-01-01,2,USD,1,c")
    paths = [csv_file(tmp_path / "a.csv", *rows)]
    assert load_month(paths, JANUARY).totals == Totals(2, Decimal(3))
    with pytest.raises(CellInvalid, match=r"a\.csv, line 3, column \"BilledCost\": 'one' cannot"):
        load_month(paths, FEBRUARY)


def test_only_the_files_with_other_months_are_filtered(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    shared = csv_file(tmp_path / "a", "2026-01-01,1,USD,1,a", "2026-02-01,2,USD,1,b")
    own = csv_file(tmp_path / "b", "2026-01-01,4,USD,1,a", "2026-02-01,8,USD,1,not expected")
    files = read_headers([shared, own], FORMAT, {shared: JANUARY})
    counted, _ = count_month(files, FORMAT, (), DuckDB())
    assert counted == Totals(3, Decimal(13))
    loader = MonthLoader(
        connection, Load("v1", counted, export="o", month=JANUARY, table="bill"), FORMAT
    )
    with (
        pytest.raises(BillError, match="1 row of another billing month"),
        loader.replacing_month(files, ()),
    ):
        pass
