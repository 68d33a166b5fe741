"""Bar charts in the metadata of the stages: Markdown tables, with bars of block characters.

Dagster's UI shows them in its light and its dark theme, and they can be read aloud and copied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import dagster as dg

from finops_dagster.billing.money import exact_sum
from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.metadata import markdown_table, safe_markdown

_WIDTH, _MAX_CATEGORIES = 20, 12
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def cost_by_month(
    costs: Sequence[tuple[BillingMonth | str, Mapping[str, Decimal]]],
) -> dg.MetadataValue[Any]:
    """Return a Markdown table of costs with bars, a row for each month and currency.

    `costs` has the cost by currency of each month. The largest cost of a currency has the longest
    bar.
    """
    rows = [
        (str(month), currency, cost)
        for month, by_currency in costs
        for currency, cost in sorted(by_currency.items())
    ]
    largest = _largest((currency, cost) for _, currency, cost in rows)
    lines = [
        (month, safe_markdown(currency or "(none)"), bar(cost, largest[currency]), f"{cost:,.2f}")
        for month, currency, cost in rows
    ]
    return markdown_table("| month | currency | | cost |", lines, texts=3)


def cost_by_category(rows: Sequence[tuple[str, str, Decimal, Decimal]]) -> dg.MetadataValue[Any]:
    """Return a Markdown table of the costs by service category, with bars of the effective cost.

    `rows` have currency, category, billed and effective cost. Each currency has its 12 largest
    categories, and the sum of the others.
    """
    by_currency: dict[str, list[tuple[str, Decimal, Decimal]]] = defaultdict(list)
    for currency, category, billed, effective in rows:
        by_currency[currency].append((category, billed, effective))
    lines: list[tuple[str, ...]] = []
    for currency, costs in sorted(by_currency.items()):
        costs.sort(key=lambda row: (-row[2], row[0]))
        shown, rest = costs[:_MAX_CATEGORIES], costs[_MAX_CATEGORIES:]
        named = [
            (safe_markdown(category), billed, effective) for category, billed, effective in shown
        ]
        if rest:
            billed = exact_sum(billed for _, billed, _ in rest)
            effective = exact_sum(effective for _, _, effective in rest)
            named.append((f"{len(rest)} others", billed, effective))
        largest = max(effective for _, _, effective in named)
        lines += [
            (name, safe_markdown(currency), bar(cost, largest), f"{billed:,.2f}", f"{cost:,.2f}")
            for name, billed, cost in named
        ]
    header = "| service category | currency | | billed | effective |"
    return markdown_table(header, lines, texts=3)


def bar(amount: Decimal, largest: Decimal) -> str:
    """Return a bar for an amount: 20 characters for `largest`; empty unless the amount is positive.

    The amount must not be larger than `largest`.
    """
    if amount <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(amount / largest * _WIDTH * 8))
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _largest(costs: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    largest: dict[str, Decimal] = {}
    for currency, cost in costs:
        largest[currency] = max(cost, largest.get(currency, cost))
    return largest
