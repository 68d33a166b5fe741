"""Fuzzed bills and amounts: refused in one line, or loaded with the total that Python counts."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from finops_dagster.billing.errors import BillError, CellInvalid
from finops_dagster_tests.cur import HEADERS, csv_bytes, line_item, line_items
from finops_dagster_tests.hostile.reading import Reader, one_line, read_by_python

_BILL = csv_bytes(
    [
        *line_items("2024-01", "1", "-0.000000000000000001", "2.50E-3", "1234567890.123456789"),
        line_item("2024-01", lineItem__LineItemDescription='two\r\nlines,"quoted"'),
    ]
)
BILLS = [
    _BILL,
    _BILL.replace(b"\n", b"\r\n"),
    b"\xef\xbb\xbf" + _BILL,
    csv_bytes(line_items("2024-01", "1", "2"), ("resourceTags/a,\nb", *HEADERS)),
    b'"' + b'","'.join(name.encode() for name in HEADERS) + b'"\n' + _BILL.partition(b"\n")[2],
]
PIECES = [
    *(b'"', b'""', b",", b",,", b"\n", b"\r\n", b"\r", b"\n\n", b'"\n', b'",', b'\n"'),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b" ", b"\t", b"\\", b"#", b";", b"'"),
    *(b"_", b".", b"-", b"+", b"e", b"E-18", b"e9", b"0", b"1", b"9" * 20, b"0." + b"1" * 19),
    *(b"NaN", b"Infinity", b"1e400", b"NULL", b"2024-02-01T00:00:00Z", b"lineItem/UnblendedCost"),
]

_EDGE = re.compile(rb'[,"\r\n]')


@st.composite
def fuzzed_bills(draw: st.DrawFn) -> bytes:
    """Draw a bill with some bytes cut, repeated, or overwritten, mostly at the ends of cells."""
    body = draw(st.sampled_from(BILLS))
    for _ in range(draw(st.integers(1, 4))):
        rows = body.find(b"\nabc") if draw(st.integers(0, 3)) else 0
        edges = [match.start() for match in _EDGE.finditer(body, max(rows, 0))] or [0]
        start = draw(st.sampled_from(edges)) + draw(st.sampled_from([0, 0, 1, 1, 2, 5]))
        end = start + draw(st.sampled_from([0, 0, 0, 1, 2, 10, 100]))
        piece = draw(st.sampled_from([*PIECES, b"", body[start:end] * 2]))
        body = body[:start] + piece + body[end:]
    return body


def assert_refused_or_exact(reader: Reader, body: bytes) -> None:
    # DuckDB skips blanks around a quoted value, which no standard defines.
    assume(b' "' not in body and b'" ' not in body)
    outcome = reader.load(body)
    if isinstance(outcome, BillError):
        one_line(outcome)
    else:
        assert outcome == read_by_python(body)


@pytest.mark.parametrize("bill", BILLS)
def test_the_bills_before_fuzzing_can_be_loaded(reader: Reader, bill: bytes) -> None:
    assert reader.load(bill) == read_by_python(bill)


@pytest.mark.thorough
@given(body=fuzzed_bills())
def test_a_fuzzed_bill_is_refused_or_loaded_exactly(reader: Reader, body: bytes) -> None:
    assert_refused_or_exact(reader, body)


amounts = st.decimals(allow_nan=False, allow_infinity=False).map(str) | st.text(
    "0123456789" * 3 + ".eE+-_ \t\n,", min_size=1, max_size=45
)


@pytest.mark.thorough
@given(cell=amounts)
@example("0.1234567890123456789 ")
@example("0.123_456_789_012_345_678_9")
@example("15e-1_9")
def test_an_amount_is_refused_or_kept_exactly(reader: Reader, cell: str) -> None:
    body = csv_bytes(line_items("2024-01", cell))
    outcome = reader.load(body)
    if isinstance(outcome, CellInvalid):
        assert 'line 2, column "lineItem/UnblendedCost"' in one_line(outcome)
    else:
        assert outcome == read_by_python(body)
