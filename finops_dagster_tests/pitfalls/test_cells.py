"""Numbers, text, ids and currencies as real bills have them."""

from __future__ import annotations

import gzip
from decimal import Decimal

import pytest

from finops_dagster_tests.cur import HEADERS, csv_bytes, deliver, items, line_item
from finops_dagster_tests.project import Project

COST = "lineitem_unblendedcost"


def test_01_sub_cent_rows_are_kept_to_the_last_digit(project: Project) -> None:
    costs = ["0.0000008", "0.000000000000000001", "-0.004", "12345678.123456789012345678"]
    deliver(project.put, "2024-01", [items("2024-01", *costs)])
    project.load("2024-01")
    assert project.column(COST, "2024-01") == sorted(Decimal(cost) for cost in costs)
    assert project.parquet_totals("2024-01") == (4, sum(Decimal(cost) for cost in costs))


def test_02_exponents_are_numbers(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "4.0E-7", "1e2", "-2.50E-3", "10E-18")])
    project.load("2024-01")
    expected = [Decimal("-0.0025"), Decimal("1E-17"), Decimal("4E-7"), Decimal(100)]
    assert project.column(COST, "2024-01") == expected


@pytest.mark.parametrize("cost", ["0.1234567890123456789", "1.5E-18", "1E-19"])
def test_02_more_decimals_than_the_table_has_are_refused_not_rounded(
    project: Project, cost: str
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", cost)])
    error = project.materialize("2024-01").error
    assert "line 3" in error
    assert repr(cost) in error


@pytest.mark.parametrize(
    "text", ["a, b", 'say "hi"', "two\nlines", "two\r\nlines", "Größe 東京 🎉", "NULL", "'; --"]
)
def test_12_commas_quotes_newlines_and_unicode_arrive_as_they_are(
    project: Project, text: str
) -> None:
    row = line_item("2024-01", lineItem__LineItemDescription=text)
    deliver(project.put, "2024-01", [[row, *items("2024-01", "2")]])
    project.load("2024-01")
    assert text in project.column("lineitem_lineitemdescription", "2024-01")
    assert project.totals("2024-01") == (2, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b"\n", b"\r\n"),
        lambda body: body.rstrip(b"\n"),
        lambda body: body + b"\n",
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: b"\xef\xbb\xbf\xef\xbb\xbf" + body,
        lambda body: b"\xef\xbb\xbf" + body.replace(b"\nabc", b"\n\xef\xbb\xbfabc", 1),
    ],
    ids=["crlf", "no-last-newline", "empty-last-line", "bom", "double-bom", "bom-before-first-row"],
)
def test_12_crlf_and_byte_order_marks_are_no_data(project: Project, change) -> None:
    body = change(csv_bytes(items("2024-01", "1", "2")))
    deliver(project.put, "2024-01", [gzip.compress(body)])
    project.load("2024-01")
    assert project.column("identity_lineitemid", "2024-01") == ["abc", "abc"]
    assert project.totals("2024-01") == (2, 3)


def test_12_bytes_that_are_not_utf_8_are_an_error_that_names_the_line(project: Project) -> None:
    body = csv_bytes(items("2024-01", "1", "2")).replace(b"AmazonEC2", b"Gr\xf6\xdfe", 1)
    deliver(project.put, "2024-01", [gzip.compress(body)])
    error = project.materialize("2024-01").error
    assert "line 2: the bytes are not UTF-8" in error


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a,b,c\n", "the row has 3 columns where the header has 7"),
        (b"a,b,c,d,e,f,1,h\n", "the row has 8 columns where the header has 7"),
        (b'a,b,c,d,e,"f,1\n', "a quoted value is not closed"),
    ],
)
def test_12_a_malformed_row_is_an_error_that_names_file_and_line(
    project: Project, row: bytes, reason: str
) -> None:
    body = csv_bytes(items("2024-01", "1")) + row
    deliver(project.put, "2024-01", [items("2024-01", "1"), gzip.compress(body)])
    error = project.materialize("2024-01").error
    assert f"acme-cur-00002.csv.gz, line 3: {reason}" in error


def test_13_leading_zeros_of_account_ids_are_kept(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.load("2024-01")
    assert project.column("bill_payeraccountid", "2024-01") == ["001234567890"]


def test_27_currencies_are_told_apart_and_more_than_one_is_worth_a_look(project: Project) -> None:
    headers = (*HEADERS, "lineItem/CurrencyCode")
    rows = [
        line_item("2024-01", lineItem__CurrencyCode=currency, lineItem__UnblendedCost=cost)
        for currency, cost in [("CNY", "7"), ("USD", "1"), ("CNY", "0.5")]
    ]
    deliver(project.put, "2024-01", [rows[::2]], headers=headers, version="v1")
    outcome = project.materialize("2024-01")
    assert outcome.metadata("billing_table")["currency"] == "CNY"
    assert outcome.checks()["billing_table.one_currency"] is True
    deliver(project.put, "2024-01", [rows], headers=headers, version="v2")
    outcome = project.materialize("2024-01")
    assert outcome.metadata("billing_table")["currency"] == "CNY, USD"
    assert outcome.checks()["billing_table.one_currency"] is False
    assert outcome.success
