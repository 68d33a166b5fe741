"""Whatever is written for an amount: it is refused, or kept as the very number that it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finops_dagster.billing.errors import CellInvalid
from finops_dagster_tests.cur import csv_bytes, items
from finops_dagster_tests.hostile.reading import Reader, one_line, read_by_python

amounts = st.decimals(allow_nan=False, allow_infinity=False).map(str) | st.text(
    "0123456789" * 3 + ".eE+-_ \t\n,", min_size=1, max_size=45
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.below(tmp_path_factory.mktemp("cells")) as reader:
        yield reader


@given(cell=amounts)
@example("0.1234567890123456789 ")
@example("0.123_456_789_012_345_678_9")
@example("15e-1_9")
def test_an_amount_is_refused_or_kept_exactly(reader: Reader, cell: str) -> None:
    reader.forget()
    body = csv_bytes(items("2024-01", cell))
    outcome = reader.load(body)
    if isinstance(outcome, CellInvalid):
        assert 'line 2, column "lineItem/UnblendedCost"' in one_line(outcome)
    else:
        assert outcome == read_by_python(body)
