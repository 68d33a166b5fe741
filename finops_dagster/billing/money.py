"""Exact money: how much a month is, and what of it was rounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

from finops_dagster.billing.errors import ReconciliationError


@dataclass(frozen=True)
class Totals:
    """How much one month is, to the last digit: `rows` line items and their headline `cost`, over
    all currencies."""

    rows: int
    cost: Decimal
    sums: Mapping[str, Decimal] | None = field(default=None, compare=False)
    """The sum of each money column by its name in the table; None of what was recorded before they
    were kept."""
    costs: Mapping[str, Decimal] | None = field(default=None, compare=False)
    """The headline cost by currency; None of what was recorded before it was kept."""

    @classmethod
    def of(cls, row: tuple[Any, ...] | None) -> Totals:
        """From a result row `count(*), sum(cost)`; the sum of no rows is 0."""
        rows, cost = row if row is not None else (0, None)
        return cls(rows, Decimal(0) if cost is None else cost)

    def difference(self, other: Totals) -> tuple[str, str] | None:
        """Return what differs, as each side has it; None where all that both know is equal."""
        if (self.rows, self.cost) != (other.rows, other.cost):
            return str(self), str(other)
        for what, amounts, other_amounts in (
            ("column", self.sums, other.sums),
            ("currency", self.costs, other.costs),
        ):
            if amounts is not None and other_amounts is not None:
                for name in sorted({**amounts, **other_amounts}):
                    amount, other_amount = (
                        amounts.get(name, Decimal(0)),
                        other_amounts.get(name, Decimal(0)),
                    )
                    if amount != other_amount:
                        shown = f"in the {what} {name or '(none)'}"
                        return f"{decimal_text(amount)} {shown}", decimal_text(other_amount)
        return None

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {decimal_text(self.cost)}"


@dataclass(frozen=True)
class RoundedColumn:
    """How many cells of a column had more than 18 decimals and were rounded, half to even; in a
    money column also by how much in all, to the last digit: what is kept minus what was written."""

    name: str
    cells: int
    amount: Decimal | None = None

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> RoundedColumn:
        """Return what `row` was made of."""
        amount = row["amount"]
        return cls(row["name"], row["cells"], None if amount is None else Decimal(amount))

    def row(self) -> dict[str, Any]:
        """Return it as the ledger and the lake's files keep it: no DECIMAL has so many decimals."""
        amount = None if self.amount is None else decimal_text(self.amount)
        return {"name": self.name, "cells": self.cells, "amount": amount}


@dataclass(frozen=True)
class MeasuredTotals:
    """What a stage really holds: its totals, and the rows that say they are of another month."""

    totals: Totals
    rows_outside_month: int


# As many as a sum of more rows than any month has can have.
_SUM_DIGITS = 76


def reconcile(
    location: str,
    counted: Totals,
    measured: MeasuredTotals,
    advice: str = "the month was left as it was",
) -> None:
    """Hold what `location` contains against what was counted in the files, to the last digit: rows,
    headline cost, and where both sides know them every money column and the cost by currency.

    Raises ReconciliationError, which names both sides.
    """
    difference = measured.totals.difference(counted)
    if difference is not None:
        has, files_have = difference
        raise ReconciliationError(
            f"{location} has {has}, but the vendor's files have {files_have}; {advice}"
        )
    if measured.rows_outside_month:
        raise ReconciliationError(
            f"{measured.rows_outside_month:,} rows of {location} say that they belong to another "
            f"billing month; {advice}",
        )


def exact_sum(amounts: Iterable[Decimal | None]) -> Decimal:
    """Add amounts to the last digit; Python's own context would keep 28. None adds nothing."""
    with localcontext(prec=_SUM_DIGITS):
        return sum((amount for amount in amounts if amount is not None), Decimal(0))


def decimal_text(amount: Decimal) -> str:
    """The amount without exponent and without trailing zeros: `20.5`, `0.0000004`, `0`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
