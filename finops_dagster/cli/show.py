"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from finops_dagster.billing.money import plain

_LOG_WIDTH = 200
_NUMBERS = (int, float, Decimal)


def show(rows: Sequence[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows with the same keys; `empty` is said where there are none."""
    if as_json:
        print(json.dumps(rows, indent=2, default=text))  # noqa: T201  # what a program reads
        return
    console = Console(width=None if sys.stdout.isatty() else _LOG_WIDTH)
    if not rows:
        console.print(empty)
        return
    table = Table()
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        is_number = all(isinstance(value, _NUMBERS) for value in values)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text(value) for value in row.values()))
    console.print(table)


def text(value: Any) -> str:
    """A value for a person: whole numbers with commas, amounts without trailing zeros."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain(value) if isinstance(value, Decimal) else str(value)
