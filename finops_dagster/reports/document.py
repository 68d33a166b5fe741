"""The document of a report: what the page and the files are made from.

Amounts are whole numbers: the amount times 10^`scale`, so that sums stay exact. A table is a
dictionary of columns that have the same length. In the columns of INDEXES, a row has the position
of a value in the list of that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, Final

Document = dict[str, Any]
"""A report as JSON types: amounts from 2^53 on are text, as most readers would round them."""
EXACT: Final = Context(prec=76)
"""Keeps all digits of an amount: twice as many as a column of DuckDB has."""

TABLES: Final[Mapping[str, Sequence[str]]] = {
    "costs": "month currency account service billed effective".split(),
    "region_costs": "month currency account region billed effective".split(),
    "day_costs": "month currency account day billed effective".split(),
    "kinds": "month currency account kind billed effective".split(),
    "savings": "month currency account list contracted effective".split(),
    "commitments": "month currency account id type used unused ends".split(),
    "tags": "month currency account tagged untagged".split(),
    "tag_keys": "currency account key tagged".split(),
    "untagged_resources": "currency account service resource effective".split(),
    "resources": "month currency account service resource detail billed effective".split(),
}
"""The tables of amounts, and their columns.

Each charge of the months is once in `costs`, once in `region_costs` and once in `kinds`. The three
newest months are also in `day_costs`, by the day on which the charge begins. `tag_keys`,
`untagged_resources` and `resources` are of the month that is shown first, `resources` also of the
one before.
"""
AMOUNTS: Final = frozenset("billed effective list contracted used unused tagged untagged".split())
"""The columns of tables that have amounts."""
INDEXES: Final[Mapping[str, str]] = {
    "month": "months",
    "currency": "currencies",
    "account": "accounts",
    "service": "services",
    "region": "regions",
}
"""The columns of tables that have positions in a list, and the list of each."""
KINDS: Final = (
    "Usage", "Purchase", "Credit", "Refund", "Tax", "Support", "Marketplace", "Adjustment",
)  # fmt: skip
"""What a charge is; each is of one kind, so that kinds add up to the bill."""


def exact_amount(document: Document, units: int | str) -> Decimal:
    """Return an amount of the document as a decimal; `units` is its whole number, or its text."""
    return Decimal(units).scaleb(-document["scale"], EXACT)


def empty_document() -> Document:
    """Return a document without a month, with all its keys."""
    lists = (
        "currencies months providers categories owners accounts services regions restatements "
        "versions month_states budgets anomalies"
    )
    return {
        "project": "",
        "made_at": "",
        "scale": 0,
        "month": None,
        **{name: [] for name in lists.split()},
        **{table: {column: [] for column in columns} for table, columns in TABLES.items()},
        "left_out": dict.fromkeys(("accounts", "services", "regions", "resources"), 0),
    }
