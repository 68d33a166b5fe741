"""Rows that are not CSV or are far too long: refused with their line, or loaded exactly."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from finops_dagster.billing.money import Totals
from finops_dagster_tests.cur import csv_bytes, line_item, line_items
from finops_dagster_tests.hostile.reading import Reader, read_by_python

BILL = csv_bytes(line_items("2024-01", "1", "2"))
FIRST_LINE, SECOND_LINE = BILL.splitlines(keepends=True)[:2]
REFUSED = {
    "a short row": (BILL + b"abc,1\n", "line 4: the row has 2 columns where the header has 7"),
    "a long row": (BILL + SECOND_LINE[:-1] + b",2\n", "line 4: the row has 8 columns"),
    "a quote never closed": (BILL + b'"' + SECOND_LINE, "line 4: a quoted value is not closed"),
    "bytes that are not UTF-8": (
        BILL.replace(b"AmazonEC2", b"Gr\xf6\xdfe", 1),
        "line 2: the bytes",
    ),
    "the header twice": (FIRST_LINE + BILL, "'lineItem/UnblendedCost' cannot be kept exactly"),
    "nothing but NUL bytes at the end": (BILL + b"\0" * 100, "line 4: the row has 1 columns"),
    "two kinds of line ends": (BILL.replace(b"\n", b"\r\n", 1), "another line end than the header"),
    "no header": (BILL.partition(b"\n")[2], "no column gives lineitem_unblendedcost"),
    "an empty line for a header": (b"\n" + BILL, "the first line is empty"),
    "UTF-16": (BILL.decode().encode("utf-16"), "the header cannot be read: "),
    "a Parquet file's first bytes": (b"PAR1" + BILL, "not a complete Parquet file: "),
    "gzip within gzip": (b"\x1f\x8b\x08", "the header cannot be read: "),
    "every byte": (bytes(range(256)) * 9, "no column gives lineitem_unblendedcost"),
}
LOADED = {
    "an empty line between two rows": BILL.replace(b"\nabc", b"\n\nabc", 2),
    "a comma at the end of a row": BILL[:-1] + b",\n",
    "old line ends": BILL.replace(b"\n", b"\r"),
    "a NUL byte in a text": BILL.replace(b"AmazonEC2", b"Amazon\0EC2"),
    "quotes in the middle of a text": BILL.replace(b"AmazonEC2", b'Ama"zon"EC2'),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_is_not_valid_csv_is_refused(reader: Reader, body: bytes, message: str) -> None:
    assert message in reader.refusal(BILL, body)


@pytest.mark.parametrize("body", LOADED.values(), ids=LOADED.keys())
def test_unusual_csv_is_loaded_exactly(reader: Reader, body: bytes) -> None:
    assert reader.load(body) == read_by_python(body) == Totals(2, 3)


def test_a_cell_of_10_megabytes_is_kept(reader: Reader) -> None:
    text = "two\nlines, " * 1_000_000
    row = line_item("2024-01", lineItem__LineItemDescription=text)
    assert reader.load(csv_bytes([row, *line_items("2024-01", "2")])) == Totals(2, 3)
    stored = reader.connection.execute("SELECT max(lineitem_lineitemdescription) FROM bill")
    assert stored.fetchone() == (text,)


def test_a_row_of_more_than_16_megabytes_is_refused(reader: Reader) -> None:
    row = line_item("2024-01", lineItem__LineItemDescription="x" * 17_000_000)
    message = reader.refusal(csv_bytes([*line_items("2024-01", "1"), row]))
    assert "line 3: the row is longer than 16,777,216 bytes" in message


def test_short_rows_take_little_memory_though_long_ones_are_allowed(tmp_path: Path) -> None:
    parts = [gzip.compress(BILL)] * 4
    with Reader.below(tmp_path, memory_limit="200MB") as reader:
        assert reader.load(*parts) == Totals(8, 12)


def test_an_amount_of_a_megabyte_is_refused_and_shortened_in_the_error(reader: Reader) -> None:
    message = reader.refusal(csv_bytes(line_items("2024-01", "1" * 1_000_000)))
    assert "1...1" in message
