"""The key figures of a report: the cost of the month shown first, in its first currency."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from finops_dagster.reports.document import Document, exact_amount


@dataclass(frozen=True)
class Headline:
    """The key figures of the month that a report shows first, with exact costs.

    `previous` is the billed cost of the month before; None if the report does not have that month.
    """

    month: str
    state: str
    currency: str
    billed: Decimal
    effective: Decimal
    previous: Decimal | None

    @classmethod
    def of(cls, document: Document) -> Self | None:
        """Return the headline of a document; None if it has no months or no currencies."""
        month = document["month"]
        if month is None or not document["currencies"]:
            return None
        return cls(
            document["months"][month],
            document["month_states"][month],
            document["currencies"][0],
            _sum(document, "billed", month),
            _sum(document, "effective", month),
            _sum(document, "billed", month - 1) if month else None,
        )

    def __str__(self) -> str:
        change = ""
        if self.previous is not None:
            change = f", {self.billed - self.previous:+,.2f} against the month before"
        return f"{self.month} ({self.state}): {self.billed:,.2f} {self.currency} billed{change}"


def _sum(document: Document, column: str, month: int) -> Decimal:
    costs = document["costs"]
    keys = zip(costs["month"], costs["currency"], costs[column], strict=True)
    units = sum(int(amount) for m, currency, amount in keys if (m, currency) == (month, 0))
    return exact_amount(document, units)


def costs_by_month(document: Document) -> list[tuple[str, dict[str, Decimal]]]:
    """Return the billed costs of a document's months by currency, the oldest month first.

    Months and currencies without costs are left out.
    """
    costs = document["costs"]
    units: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for month, currency, amount in zip(
        costs["month"], costs["currency"], costs["billed"], strict=True
    ):
        units[month][currency] += int(amount)
    return [
        (
            document["months"][month],
            {
                document["currencies"][currency]: exact_amount(document, sum_)
                for currency, sum_ in units[month].items()
            },
        )
        for month in sorted(units)
    ]
