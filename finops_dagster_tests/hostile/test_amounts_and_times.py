"""Cells that are almost amounts or times: kept exactly, or refused with line and column."""

from __future__ import annotations

from decimal import Decimal

import pytest

from finops_dagster.billing.errors import CellInvalid
from finops_dagster.billing.money import Totals
from finops_dagster_tests.cur import csv_bytes, line_item, line_items
from finops_dagster_tests.hostile.reading import Reader, one_line

CORRECT_IT = "the vendor must correct it and deliver the file again"
AMOUNTS_KEPT = {
    "1e19": Decimal(10) ** 19,
    "1e-18": Decimal("1e-18"),
    "1E+019": Decimal(10) ** 19,
    "-0.00000000000000000100": Decimal("-1e-18"),
    "99999999999999999999": Decimal(10) ** 20 - 1,
    "0" * 60 + "1": Decimal(1),
    "1." + "0" * 60: Decimal(1),
    " 1 ": Decimal(1),
    "\t 1e2 ": Decimal(100),
    "5.": Decimal(5),
    "+.5": Decimal("0.5"),
    "0E-20": Decimal(0),
    "-0e99999999999": Decimal(0),
    "10E-19": Decimal("1e-18"),
    "100E-20": Decimal("1e-18"),
    "123456789" + "0" * 40 + "E-40": Decimal(123456789),
    "99999999999999999999.999999999999999999": Decimal("99999999999999999999.999999999999999999"),
    "": Decimal(0),
}
AMOUNTS_REFUSED = [
    *("1e400", "1e-99999999999", "NaN", "Infinity", "-inf", "true", "NULL", "$5", "0x10", "1/2"),
    *("9" * 60, "9" * 21, "1e20", "1,5", "1.000,5", "1'000", "--1", "-", "e5", ".", ".e5", "1 0"),
    "99999999999999999999.9999999999999999999",
    # DuckDB's own cast accepts each of these.
    *("1_000", "1_0", "0.123_456_789_012_345_678_9", "15e-1_9", "1.5e-1_8"),
    *("1\0", "0.1234567890123456789\0"),
]
AMOUNTS_ROUNDED = {
    "1e-400": Decimal(0),
    "0." + "1" * 60: Decimal("0." + "1" * 18),
    "0.1234567890123456789 ": Decimal("0.123456789012345679"),
    "0.1234567890123456789\n": Decimal("0.123456789012345679"),
    "5E-19": Decimal(0),
    "15E-19": Decimal("2e-18"),
    "25E-19": Decimal("2e-18"),
    "-25E-19": Decimal("-2e-18"),
    "2500000000000000000000001E-42": Decimal("3e-18"),
    "3.3333333333333335E-4": Decimal("0.000333333333333333"),
    "-0.9999999999999999999": Decimal(-1),
}
TIMES_KEPT = {
    "2024-01-03T04:00:00.123456Z": "2024-01-03 04:00:00.123456",
    "2024-01-03T04:00:00.1234560000Z": "2024-01-03 04:00:00.123456",
    "2024-01-03T04:00:00+25:00": "2024-01-02 03:00:00",
    "2024-01-03T24:00:00Z": "2024-01-04 00:00:00",
}
TIMES_REFUSED = [
    *("infinity", "-infinity", "epoch", "now", "2024", "24:00", "2024-02-30", "2024-01-03T04:60"),
    *("2024-01-03T04:00:00.1234567Z", "99999-01-01", "290000-01-01", "0001-01-01 (BC)"),
    *("-2024-01-03", "0000-01-01", "1e400"),
]


def test_amounts_keep_every_digit(reader: Reader) -> None:
    for number, (cell, amount) in enumerate(AMOUNTS_KEPT.items()):
        assert reader.load(csv_bytes(line_items("2024-01", cell))) == Totals(1, amount), number


def test_a_cell_that_is_not_an_amount_is_refused(reader: Reader) -> None:
    for cell in AMOUNTS_REFUSED:
        error = reader.refusal(csv_bytes(line_items("2024-01", "1", cell)))
        assert 'line 3, column "lineItem/UnblendedCost": ' in error
        assert error.endswith(f" cannot be kept exactly as DECIMAL(38,18); {CORRECT_IT}")


def test_an_amount_with_more_than_18_decimals_is_refused_and_the_error_says_how_to_round(
    reader: Reader,
) -> None:
    for cell in AMOUNTS_ROUNDED:
        error = reader.refusal(csv_bytes(line_items("2024-01", "1", cell)))
        assert error.endswith(
            'cannot be kept exactly as DECIMAL(38,18); set decimals = "round" for the export to '
            "round such amounts to 18 decimals"
        )


@pytest.mark.thorough
def test_rounding_is_half_to_even_and_accepts_no_other_cells(
    reader: Reader,
) -> None:
    for cell, amount in (AMOUNTS_KEPT | AMOUNTS_ROUNDED).items():
        body = csv_bytes(line_items("2024-01", cell))
        assert reader.load(body, round_money=True) == Totals(1, amount), cell
    for cell in AMOUNTS_REFUSED:
        refusal = reader.load(csv_bytes(line_items("2024-01", "1", cell)), round_money=True)
        assert isinstance(refusal, CellInvalid), cell
        assert one_line(refusal).endswith(f" as DECIMAL(38,18); {CORRECT_IT}")


def test_times_are_kept_to_the_microsecond(reader: Reader) -> None:
    for cell, time in TIMES_KEPT.items():
        reader.load(csv_bytes([line_item("2024-01", lineItem__UsageStartDate=cell)]))
        stored = reader.connection.execute("SELECT lineitem_usagestartdate::VARCHAR FROM bill")
        assert stored.fetchall() == [(time,)]


def test_a_cell_that_is_not_a_time_or_is_finer_than_a_microsecond_is_refused(
    reader: Reader,
) -> None:
    for cell in TIMES_REFUSED:
        row = line_item("2024-01", lineItem__UsageStartDate=cell)
        error = reader.refusal(csv_bytes([row]))
        assert f'line 2, column "lineItem/UsageStartDate": {cell!r} cannot be kept' in error


def test_a_total_that_decimal_38_18_cannot_hold_is_refused(reader: Reader) -> None:
    error = reader.refusal(csv_bytes(line_items("2024-01", *["9" * 20] * 3)))
    assert "the sum of lineitem_unblendedcost is more than DECIMAL(38,18) holds" in error
