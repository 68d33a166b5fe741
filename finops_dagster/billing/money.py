"""The exact totals of a month, their reconciliation, and counts of rounded numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

from finops_dagster.billing.errors import ReconciliationError, count_text
from finops_dagster.billing.months import BillingMonth


@dataclass(frozen=True)
class Totals:
    """The exact totals of one month: its rows and its headline cost over all currencies.

    `==` compares rows and cost alone; `first_difference` compares all.
    """

    rows: int
    cost: Decimal
    sums: Mapping[str, Decimal] | None = field(default=None, compare=False)
    """The sum of each money column; None in records of releases that did not store it."""
    costs: Mapping[str, Decimal] | None = field(default=None, compare=False)
    """The headline cost by currency; None in records of releases that did not store it."""

    @classmethod
    def from_result_row(cls, row: tuple[Any, ...] | None) -> Totals:
        """Return the totals of a result row `count(*), sum(cost)`; NULL and no row are 0."""
        rows, cost = row if row is not None else (0, None)
        return cls(rows, Decimal(0) if cost is None else cost)

    def first_difference(self, other: Totals) -> tuple[str, str] | None:
        """Return the first difference as two texts, of these totals and the others; None if equal.

        If rows or cost differ, both texts are like `2 rows, 20.5`. Otherwise the texts are two
        amounts, and the first text also has the name of the column or currency. `sums` and `costs`
        are compared where both sides have them. A column or currency that one side lacks counts
        as 0.
        """
        if (self.rows, self.cost) != (other.rows, other.cost):
            return str(self), str(other)
        for what, amounts, other_amounts in (
            ("column", self.sums, other.sums),
            ("currency", self.costs, other.costs),
        ):
            if amounts is not None and other_amounts is not None:
                for name in sorted({**amounts, **other_amounts}):
                    amount = amounts.get(name, Decimal(0))
                    other_amount = other_amounts.get(name, Decimal(0))
                    if amount != other_amount:
                        shown = f"in the {what} {name or '(none)'}"
                        return f"{decimal_text(amount)} {shown}", decimal_text(other_amount)
        return None

    def __str__(self) -> str:
        return f"{count_text(self.rows, 'row')}, {decimal_text(self.cost)}"


@dataclass(frozen=True)
class RoundedColumn:
    """A column of which `cells` cells were rounded to 18 decimals, half to even.

    `amount` is the stored sum minus the sum in the files, exact; None for quantities and maps.
    """

    name: str
    cells: int
    amount: Decimal | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> RoundedColumn:
        """Return the column of a dict that `to_row` returned."""
        amount = row["amount"]
        return cls(row["name"], row["cells"], None if amount is None else Decimal(amount))

    def to_row(self) -> dict[str, Any]:
        """Return a dict for the ledger and the footers, fit for JSON; `amount` is text or None."""
        amount = None if self.amount is None else decimal_text(self.amount)
        return {"name": self.name, "cells": self.cells, "amount": amount}


@dataclass(frozen=True)
class MeasuredTotals:
    """The totals of the rows that are stored under a month.

    `misdated_rows` is the number of those whose own billing period is another month, and
    `misdated_month` the earliest such month, if it was measured. `undated_rows` is the number of
    rows without a period: only those of a billing table are counted, and they are no error.
    """

    totals: Totals
    misdated_rows: int
    misdated_month: BillingMonth | None = None
    undated_rows: int = 0


# An amount has 38 digits: this is enough for the sum of more rows than any month has.
_SUM_DIGITS = 76


def reconcile(location: str, counted: Totals, measured: MeasuredTotals, advice: str) -> None:
    """Raise ReconciliationError unless the measured totals equal the counted ones, exactly.

    `counted` are of the vendor's files. Compares rows, headline cost, and where both sides have
    them the sums of the money columns and the cost by currency. No row may be misdated. The message
    begins with `location`, the name of what was measured, and ends with `advice`.
    """
    difference = measured.totals.first_difference(counted)
    if difference is not None:
        measured_text, counted_text = difference
        raise ReconciliationError(
            f"{location} has {measured_text}, but the vendor's files have {counted_text}; {advice}"
        )
    if measured.misdated_rows:
        rows = count_text(measured.misdated_rows, "row")
        month = f" ({measured.misdated_month})" if measured.misdated_month else ""
        raise ReconciliationError(
            f"{location} has {rows} of another billing month{month}; {advice}; if it fails again, "
            "ask the vendor for correct files"
        )


def exact_sum(amounts: Iterable[Decimal | None]) -> Decimal:
    """Return the exact sum of amounts; None adds nothing."""
    # With Python's default precision, a sum is rounded to 28 digits.
    with localcontext(prec=_SUM_DIGITS):
        return sum((amount for amount in amounts if amount is not None), Decimal(0))


def decimal_text(amount: Decimal) -> str:
    """Return the amount without exponent and trailing zeros: `20.5`, `0.0000004`, `0`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
