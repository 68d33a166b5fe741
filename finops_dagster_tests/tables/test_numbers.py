"""What counts as a number, and how it is rounded, compared with Python's Decimal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finops_dagster.tables.amounts import NotExact, exact_amounts
from finops_dagster.tables.casts import prepare_casts

NUMBER = re.compile(r"[\t-\r ]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?[\t-\r ]*", re.ASCII)
LAST_DECIMAL = Decimal("1e-18")
LIMIT = Decimal(10) ** 20

numbers = st.from_regex(NUMBER, fullmatch=True)
# Close to half of the last decimal, where rounding goes one way or the other.
nearly_halves = st.builds(
    lambda sign, whole, digits, tail: f"{sign}{whole}.{digits:018}{tail}",
    st.sampled_from(["", "-"]),
    st.integers(0, 10**20 - 1),
    st.integers(0, 10**18 - 1),
    st.sampled_from(["5", "50", "5000", "49999", "50001", "4", "6"]),
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(duckdb.connect()) as connection:
        prepare_casts(connection)
        yield connection


def read(
    connection: duckdb.DuckDBPyConnection, cells: list[str]
) -> list[tuple[str, Decimal | None, Decimal | None, bool]]:
    """Return each cell with its exact and its rounded amount, and whether they differ."""
    table = pa.table({"cell": pa.array(cells, pa.string())})
    connection.register("cells", table)
    return connection.execute(
        "SELECT cell, TRY(exact_decimal(cell)), TRY(rounded_decimal(cell)), "
        "number_to_round(cell) = [cell] FROM cells"
    ).fetchall()


def by_python(cell: str) -> tuple[Decimal | None, Decimal | None, bool]:
    """Return the same of one cell, by the grammar and Decimal alone."""
    if not NUMBER.fullmatch(cell):
        return None, None, False
    with localcontext(prec=3000):
        number = Decimal(cell)
        rounded = number.quantize(LAST_DECIMAL, ROUND_HALF_EVEN)
    fits = abs(rounded) < LIMIT
    exact = rounded if fits and rounded == number else None
    return exact, rounded if fits else None, rounded != number


def test_every_short_text_is_read_as_python_reads_it(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    cells = [""]
    for length in range(4):
        cells += [cell + more for cell in cells if len(cell) == length for more in "19.-eE_ ,"]
    for cell, exact, rounded, is_changed in read(connection, cells):
        assert (exact, rounded, bool(is_changed)) == by_python(cell), cell


@given(cells=st.lists(numbers | nearly_halves, min_size=3, max_size=8))
def test_numbers_are_exact_or_rounded_half_to_even(
    connection: duckdb.DuckDBPyConnection, cells: list[str]
) -> None:
    for cell, exact, rounded, is_changed in read(connection, cells):
        assert (exact, rounded, bool(is_changed)) == by_python(cell), cell


@given(cell=numbers | nearly_halves | st.text("19.-eE_ ,\t", max_size=8), rounds=st.booleans())
@example(cell="17014118346046923174.0000000000000000006", rounds=True)  # beyond 127 bits
def test_pyarrow_reads_the_same_amount_or_refuses_it(cell: str, rounds: bool) -> None:
    exact, rounded, is_changed = by_python(cell)
    expected = rounded if rounds else exact
    try:
        amounts, is_rounded = exact_amounts(pa.array([cell]), rounds)
    except NotExact:
        assert expected is None
        return
    # pyarrow reads some numbers that are too large as others; DuckDB refuses their cells.
    if expected is not None or not NUMBER.fullmatch(cell) or is_changed:
        assert amounts.to_pylist() == [expected]
        assert (is_rounded is not None and is_rounded[0].as_py()) == is_changed


@given(amount=st.floats(-1e3, 1e3) | st.floats(-1e-2, 1e-2) | st.floats(-1e-12, 1e-12))
def test_a_double_is_rounded_where_its_shortest_text_has_more_than_18_decimals(
    connection: duckdb.DuckDBPyConnection, amount: float
) -> None:
    rows = connection.execute(
        "SELECT rounded_decimal(CAST(x AS VARCHAR)), double_to_round(x) IS NOT NULL "
        "FROM (SELECT ?::DOUBLE AS x)",
        [amount],
    ).fetchall()
    assert rows == [by_python(repr(amount))[1:]]


def test_the_change_by_rounding_is_exact(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    cells = ["5E-19", "15E-19", "-15E-19", "1." + "3" * 46, "-0." + "7" * 30, "25.5E-19"]
    for cell in cells:
        (changed,) = connection.execute("SELECT rounding_change(?)", [cell]).fetchone() or ()
        with localcontext(prec=100):
            rounded = Decimal(cell).quantize(LAST_DECIMAL, ROUND_HALF_EVEN)
            assert changed * LAST_DECIMAL == rounded - Decimal(cell), cell
