"""Amounts, texts, ids and currencies as real bills have them."""

from __future__ import annotations

import gzip
from decimal import Decimal

import pytest

from finops_dagster_tests.cur import HEADERS, csv_bytes, line_item, line_items
from finops_dagster_tests.project import Project

COST = "lineitem_unblendedcost"


@pytest.mark.parametrize(
    "costs",
    [
        ("0.0000008", "0.000000000000000001", "-0.004", "12345678.123456789012345678"),
        ("4.0E-7", "1e2", "-2.50E-3", "10E-18"),
    ],
    ids=["sub-cent", "exponents"],
)
def test_amounts_keep_every_digit(project: Project, costs: tuple[str, ...]) -> None:
    """AWS writes costs far below a cent, some with an exponent, and ids with leading zeros."""
    project.deliver(*costs)
    project.load()
    assert project.column(COST) == sorted(Decimal(cost) for cost in costs)
    assert project.parquet_totals() == (4, sum(Decimal(cost) for cost in costs))
    assert project.column("bill_payeraccountid") == 4 * ["001234567890"], "leading zeros are lost"


BODY = csv_bytes(line_items("2024-01", "1"))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        *(
            (
                line_items("2024-01", "1", cost),
                f"line 3, column \"lineItem/UnblendedCost\": '{cost}'",
            )
            for cost in ("0.1234567890123456789", "1.5E-18", "1E-19")
        ),
        (BODY.replace(b"AmazonEC2", b"Gr\xf6\xdfe"), "line 2: the bytes are not UTF-8"),
        (BODY + b"a,b,c\n", "line 3: the row has 3 columns where the header has 7"),
        (BODY + b"a,b,c,d,e,f,1,h\n", "line 3: the row has 8 columns where the header has 7"),
        (BODY + b'a,b,c,d,e,"f,1\n', "line 3: a quoted value is not closed"),
    ],
    ids="decimals exponent tiny latin-1 short long open-quote".split(),
)
def test_a_cell_that_cannot_be_kept_exactly_fails_with_file_and_line(
    project: Project, part: bytes | list[dict[str, str]], reason: str
) -> None:
    body = gzip.compress(part) if isinstance(part, bytes) else part
    project.deliver(line_items("2024-01", "1"), body)
    assert f"acme-cur-00002.csv.gz, {reason}" in project.materialize().error


@pytest.mark.parametrize(
    "text", ["a, b", 'say "hi"', "two\nlines", "two\r\nlines", "Größe 東京 🎉", "NULL", "'; --"]
)
def test_commas_quotes_line_ends_and_unicode_are_kept(project: Project, text: str) -> None:
    """Descriptions and tags are free text, which customers and marketplace sellers write."""
    row = line_item("2024-01", lineItem__LineItemDescription=text)
    project.deliver([row, *line_items("2024-01", "2")])
    project.load()
    assert text in project.column("lineitem_lineitemdescription")
    assert project.totals() == (2, 3)


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
def test_crlf_and_byte_order_marks_are_not_data(project: Project, change) -> None:
    """Tools that copy or edit a bill add them."""
    body = change(csv_bytes(line_items("2024-01", "1", "2")))
    project.deliver(gzip.compress(body))
    project.load()
    assert project.column("identity_lineitemid") == ["abc", "abc"]
    assert project.totals() == (2, 3)


def test_a_month_in_two_currencies_names_both_and_fails_the_check_one_currency(
    project: Project,
) -> None:
    """Amounts of two currencies have no common total; AWS in China bills in CNY."""
    headers = (*HEADERS, "lineItem/CurrencyCode")
    rows = [
        line_item("2024-01", lineItem__CurrencyCode=currency, lineItem__UnblendedCost=cost)
        for currency, cost in [("CNY", "7"), ("USD", "1"), ("CNY", "0.5")]
    ]
    project.deliver(rows[::2], headers=headers)
    run = project.load()
    assert run.metadata("billing_table")["currency"] == "CNY"
    assert run.checks()["billing_table.one_currency"] is True
    project.deliver(rows, headers=headers, version="v2")
    run = project.load()
    assert run.metadata("billing_table")["currency"] == "CNY, USD"
    assert run.checks()["billing_table.one_currency"] is False
