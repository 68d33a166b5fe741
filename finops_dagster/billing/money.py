"""Exact money: what a cell of text may become, and how much a month is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from finops_dagster.billing.errors import ReconciliationError

# A cell is kept exactly or refused. DuckDB's own cast rounds the 19th decimal away in silence, and
# AWS writes exponents (4.0E-7), so the decimals of a long or exponential cell are counted first,
# where it is a plain number: DuckDB also takes 0.1_5 and blanks.
# What refuses is a cast that must fail: error() is volatile, and TRY takes nothing volatile.
# DuckDB's cast to TIMESTAMP drops an offset such as +01:00; through TIMESTAMPTZ it is honoured. It
# also takes "infinity", years of five digits or before Christ, and drops what is finer than a
# microsecond.
# JSON numbers would pass through a double; in quotes they stay the text that the vendor wrote.
CELL_MACROS = r"""
CREATE OR REPLACE TEMP MACRO decimals_of(cell) AS
    length(regexp_extract(cell, '\.(\d*?)0*(?:[eE]|$)', 1))
    - coalesce(TRY_CAST(nullif(regexp_extract(cell, '[eE]([+-]?\d+)', 1), '') AS INTEGER), 0);
CREATE OR REPLACE TEMP MACRO exact_decimal(cell) AS CASE
    WHEN strlen(cell) <= 19 AND NOT contains(cell, 'E') AND NOT contains(cell, 'e')
        THEN CAST(cell AS DECIMAL(38,18))
    WHEN cell IS NULL THEN NULL
    WHEN regexp_full_match(cell, '[+-]?\d*\.?\d*([eE][+-]?\d{1,3})?') AND decimals_of(cell) <= 18
        THEN CAST(cell AS DECIMAL(38,18))
    ELSE CAST('not exactly: ' || cell AS DECIMAL(38,18)) END;
CREATE OR REPLACE TEMP MACRO utc_timestamp(cell) AS CASE
    WHEN cell[5] <> '-' OR cell < '0001' OR contains(cell, '(')
        OR (contains(cell, '.') AND regexp_matches(cell, '\.\d{6}\d*[1-9]'))
        THEN CAST('not exactly: ' || cell AS TIMESTAMP)
    ELSE CAST(CAST(cell AS TIMESTAMPTZ) AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO text_map(cell) AS
    CAST(CAST(cell AS JSON) AS MAP(VARCHAR, VARCHAR));
CREATE OR REPLACE TEMP MACRO money_map(cell) AS map_from_entries(list_transform(
    map_entries(text_map(
        regexp_replace(cell, '([^\\]"\s*:\s*)(-?\d[\d.eE+-]*)', '\1"\2"', 'g'))),
    lambda entry: {'key': entry.key, 'value': exact_decimal(entry.value)}));
CREATE OR REPLACE TEMP MACRO decimal_of_double(amount) AS
    CAST(CAST(amount AS VARCHAR) AS DECIMAL(38,18));
"""


@dataclass(frozen=True)
class Totals:
    """How much one month is: `rows` line items and their unblended `cost`, to the last digit."""

    rows: int
    cost: Decimal

    @classmethod
    def of(cls, row: tuple[Any, ...] | None) -> Totals:
        """From a result row `count(*), sum(cost)`; the sum of no rows is 0."""
        rows, cost = row if row is not None else (0, None)
        return cls(rows, Decimal(0) if cost is None else cost)

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {plain(self.cost)}"


@dataclass(frozen=True)
class Measured:
    """What a stage really holds: its totals, and the rows that say they are of another month."""

    totals: Totals
    foreign_rows: int


RECONCILES = "reconciles"
ROWS_BELONG = "rows_belong_to_month"


def reconcile(
    where: str,
    counted: Totals,
    measured: Measured,
    what_now: str = "the month was left as it was",
) -> None:
    """Hold what `where` contains against what was counted in the files, to the last digit.

    Raises ReconciliationError, which names the check and both sides.
    """
    if measured.totals != counted:
        raise ReconciliationError(
            RECONCILES,
            f"{where} has {measured.totals}, but the vendor's files have {counted}; {what_now}",
        )
    if measured.foreign_rows:
        raise ReconciliationError(
            ROWS_BELONG,
            f"{measured.foreign_rows:,} rows of {where} say that they belong to another billing "
            f"month; {what_now}",
        )


def plain(amount: Decimal) -> str:
    """The amount without exponent and without trailing zeros: `20.5`, `0.0000004`, `0`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
