"""pyarrow counts the files and DuckDB loads them: an error of either one fails the month."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from finops_dagster.billing.errors import ReconciliationError
from finops_dagster.billing.money import Totals
from finops_dagster.tables import casts, ledger
from finops_dagster.tables.bill_files import BillFiles
from finops_dagster.tables.count import FileCounter
from finops_dagster.tables.csv_files import CsvFiles
from finops_dagster_tests.cur import HEADERS, csv_bytes, line_item
from finops_dagster_tests.hostile.reading import MONTH, Reader

COST, BLENDED, NET = (f"lineItem/{name}Cost" for name in ("Unblended", "Blended", "NetUnblended"))
CURRENCY = "lineItem/CurrencyCode"
Inject = Callable[[pytest.MonkeyPatch], None]


def bill(*rows: dict[str, str]) -> bytes:
    headers = (*HEADERS, BLENDED, NET, CURRENCY)
    return csv_bytes([line_item(str(MONTH)) | row for row in rows], headers)


BILL = bill(
    {COST: "1.5", BLENDED: "0.000000000000000001", NET: " 4.0E-7", CURRENCY: "USD"},
    {COST: "2.5", BLENDED: "", NET: "1", CURRENCY: "EUR"},
    {COST: "", BLENDED: "0", NET: "", CURRENCY: ""},
)


def test_both_readers_sum_every_money_column_and_currency(reader: Reader) -> None:
    assert reader.load(BILL) == Totals(3, Decimal(4))
    newest = ledger.newest_load(reader.connection, "acme", MONTH)
    assert newest is not None
    assert newest.totals.sums == {
        "lineitem_unblendedcost": Decimal(4),
        "lineitem_blendedcost": Decimal("1e-18"),
        "lineitem_netunblendedcost": Decimal("1.0000004"),
    }
    assert newest.totals.costs == {"USD": Decimal("1.5"), "EUR": Decimal("2.5")}


def a_cast_that_rounds(patch: pytest.MonkeyPatch) -> None:
    rounds = (
        "CREATE OR REPLACE TEMP MACRO exact_decimal(cell) AS "
        "CAST(round(CAST(cell AS DECIMAL(38,18)), 15) AS DECIMAL(38,18));"
    )
    patch.setattr(casts, "_NUMBERS", casts._NUMBERS + rounds)


def a_column_loaded_from_its_neighbour(patch: pytest.MonkeyPatch) -> None:
    def swapped(files: BillFiles) -> dict[str, int]:
        positions = {header: number for number, header in enumerate(files.headers)}
        return positions | {BLENDED: positions[NET], NET: positions[BLENDED]}

    patch.setattr(BillFiles, "positions", property(swapped))


def a_load_that_skips_a_row(patch: pytest.MonkeyPatch) -> None:
    scan = CsvFiles.rows_sql
    patch.setattr(CsvFiles, "rows_sql", lambda files: f"(FROM {scan(files)} OFFSET 1)")


def a_count_that_skips_a_row(patch: pytest.MonkeyPatch) -> None:
    batches = FileCounter.csv_batches

    def without_first(*arguments: Any) -> Iterator[dict[int, Any]]:
        for batch in batches(*arguments):
            yield {number: column.slice(1) for number, column in batch.items()}

    patch.setattr(FileCounter, "csv_batches", without_first)


def a_count_of_the_neighbour(patch: pytest.MonkeyPatch) -> None:
    batches = FileCounter.csv_batches
    cost, blended = HEADERS.index(COST), len(HEADERS)

    def swapped(*arguments: Any) -> Iterator[dict[int, Any]]:
        for batch in batches(*arguments):
            yield batch | {blended: batch[cost]}

    patch.setattr(FileCounter, "csv_batches", swapped)


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        (a_cast_that_rounds, "0 in the column lineitem_blendedcost, but the vendor's files have"),
        (
            a_column_loaded_from_its_neighbour,
            "1.0000004 in the column lineitem_blendedcost, but the vendor's files have "
            "0.000000000000000001; ",
        ),
        (a_load_that_skips_a_row, "2 rows, 2.5, but the vendor's files have 3 rows, 4; "),
        (a_count_that_skips_a_row, "3 rows, 4, but the vendor's files have 2 rows, 2.5; "),
        (
            a_count_of_the_neighbour,
            "0.000000000000000001 in the column lineitem_blendedcost, but the vendor's files have "
            "4; ",
        ),
    ],
)
def test_a_fault_of_either_reader_fails_the_month(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, inject: Inject, message: str
) -> None:
    loaded_bill = bill({COST: "7", CURRENCY: "USD"})
    assert reader.load(loaded_bill) == Totals(1, Decimal(7))
    inject(monkeypatch)
    refused = reader.load(BILL, keep=True)
    assert isinstance(refused, ReconciliationError)
    assert f"table bill has {message}" in str(refused)
    monkeypatch.undo()
    assert reader.connection.sql("SELECT lineitem_unblendedcost FROM bill").fetchall() == [(7,)]


def test_swapped_currencies_fail_the_month(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    sums_by_currency = FileCounter.sums_by_currency

    def exchanged(*arguments: Any) -> dict[str, Decimal]:
        costs = sums_by_currency(*arguments)
        return {"USD": costs["EUR"], "EUR": costs["USD"]}

    monkeypatch.setattr(FileCounter, "sums_by_currency", exchanged)
    refused = reader.load(BILL)
    assert "2.5 in the currency EUR, but the vendor's files have 1.5; " in str(refused)


def test_a_rounded_quantity_changes_no_sum_of_money(
    reader: Reader,
) -> None:
    headers, fine = (*HEADERS, "lineItem/UsageAmount"), "0.1234567890123456789"
    row = line_item(str(MONTH)) | {COST: "1", "lineItem/UsageAmount": fine}
    assert reader.load(csv_bytes([row], headers)) == Totals(1, Decimal(1))
    newest = ledger.newest_load(reader.connection, "acme", MONTH)
    assert newest is not None
    assert newest.totals.sums == {"lineitem_unblendedcost": Decimal(1)}


@pytest.mark.parametrize("length", [1, 700_000, 1_100_000])
def test_quoted_line_ends_and_long_rows_are_read_across_blocks(reader: Reader, length: int) -> None:
    text = ("a\n" * length)[:length]
    rows = [{COST: "1", "lineItem/LineItemDescription": text} for _ in range(5)]
    assert reader.load(bill(*rows)) == Totals(5, Decimal(5))
