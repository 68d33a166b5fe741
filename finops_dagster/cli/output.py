"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from typing import Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table

from finops_dagster.billing.errors import for_people
from finops_dagster.billing.money import plain
from finops_dagster.terminal import complain, console, say

Row = dict[str, Any]
# What a table shows of a row: under each heading the value of a key, or what is made of the row.
Columns = Mapping[str, str | Callable[[Row], Any]]
_GAP = 2
_NEVER_FOLDED, _LINES_OF_A_CELL, _WIDE_ENOUGH = 16, 3, 40
_NEVER_BROKEN = 24  # of a word: a setting's name, a service, a version
_NUMBERS = (int, float, Decimal)
# Above it JavaScript, jq and others round whole numbers.
_LARGEST_JSON_NUMBER = 2**53


@dataclass(frozen=True)
class _Column:
    """A column with its cells as text that is safe to print."""

    name: str
    cells: Sequence[str]
    is_numeric: bool

    @cached_property
    def natural(self) -> int:
        """Its width with no cell folded."""
        return max(map(cell_len, (self.name, *self.cells)))

    @cached_property
    def narrowest(self) -> int:
        """Its width with each cell folded as far as one can read it."""
        return max(map(_narrowest, (*self.name.split(), *self.cells)), default=1)


def show(rows: Sequence[Row], *, as_json: bool, empty: str, columns: Columns | None = None) -> None:
    """Print rows with the same keys, or `empty` where there are none: as a table where one fits the
    terminal, else one row below the other. A table has `columns`; JSON has all that is known."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        say(empty)
        return
    shown = []
    for name, of in (columns or {name: name for name in rows[0]}).items():
        values = [row[of] if isinstance(of, str) else of(row) for row in rows]
        shown.append(_Column(heading(name), [text(one) for one in values], _is_numeric(values)))
    (_print_table if _fit(shown) else _print_records)(shown)


def named(keys: str) -> Columns:
    """Return columns that are headed like their keys."""
    return {key: key for key in keys.split()}


def exit_with(problems: Sequence[str]) -> NoReturn:
    """Print the problems, and exit with 1 where there are any."""
    for problem in problems:
        complain(problem)
    raise typer.Exit(bool(problems))


def show_answer(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
    """Print what a query found, every cell as it is: of one row every column, of several the first
    and the last columns that fit the terminal. Return how many are not shown."""
    columns = [
        _Column(for_people(name), [cell_text(value) for value in values], _is_numeric(values))
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    if _fit(columns):
        _print_table(columns)
        return 0
    if len(rows) == 1:
        _print_records(columns)
        return 0
    for count in range(len(columns) - 1, 0, -1):
        shown = _first_and_last(columns, count)
        if count == 1 or sum(min(one.natural, _WIDE_ENOUGH) for one in shown) <= _room(shown):
            break
    _print_table(shown)
    return len(columns) - count


def _first_and_last(columns: Sequence[_Column], count: int) -> list[_Column]:
    """Return `count` of the columns, and one that stands for those between them."""
    first = (count + 1) // 2
    left_out = _Column("…", ["…"] * len(columns[0].cells), is_numeric=False)
    return [*columns[:first], left_out, *columns[len(columns) - (count - first) :]]


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print for a program, in ASCII, every value exact, as `exact` says."""
    print(json.dumps(exact(document), indent=indent), flush=True)  # noqa: T201


def exact(value: Any) -> Any:
    """Return what JSON has for a value, such that no reader rounds it: amounts, and whole numbers
    above 2^53, are text; times are ISO 8601 with their zone, which is UTC where they have none."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else cell_text(key): exact(v) for key, v in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [exact(one) for one in value]
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST_JSON_NUMBER else str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _exact_text(value)


def _exact_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        with_zone = value if value.tzinfo else value.replace(tzinfo=UTC)
        return with_zone.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):  # as DuckDB writes it
        return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02X}" for b in value)
    return str(value)


def cell_text(value: Any) -> str:
    """Return a cell of an answer for a person: as it is, NULL apart from empty text."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return for_people(value)
    json_value = exact(value)
    is_text = isinstance(json_value, str)
    return for_people(json_value if is_text else json.dumps(json_value, ensure_ascii=False))


def text(value: Any) -> str:
    """Return a value for a person: numbers with commas, amounts rounded to two decimals."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    return for_people(str(value))


def heading(name: str) -> str:
    """Return the name of a key for a person."""
    return for_people(name.replace("_", " "))


def _print_records(columns: Sequence[_Column]) -> None:
    """Print a line a value, and a blank line between two rows; what is empty is left out."""
    for row in range(len(columns[0].cells)):
        if row:
            say("")
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(overflow="fold", max_width=_WIDE_ENOUGH)
        grid.add_column(overflow="fold")
        for column in columns:
            if column.cells[row]:
                grid.add_row(column.name, column.cells[row])
        console().print(grid)


def _print_table(columns: Sequence[_Column]) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column, width in zip(columns, _widths(columns), strict=True):
        table.add_column(
            column.name,
            justify="right" if column.is_numeric else "left",
            overflow="fold",
            width=width,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    console().print(table)


def _fit(columns: Sequence[_Column]) -> bool:
    """Whether a table of them fits the terminal with no cell folded over more lines than one can
    read."""
    return sum(column.narrowest for column in columns) <= _room(columns)


def _room(columns: Sequence[_Column]) -> int:
    return console().width - _GAP * (len(columns) - 1)


def _widths(columns: Sequence[_Column]) -> list[int]:
    """Return how wide each column is: the widest are narrowed until all fit."""
    widths = [column.natural for column in columns]
    excess = sum(widths) - _room(columns)
    for _ in range(excess):
        foldable = [i for i, column in enumerate(columns) if widths[i] > column.narrowest]
        if not foldable:
            break
        widths[max(foldable, key=lambda one: widths[one])] -= 1
    return widths


def _narrowest(value: str) -> int:
    length = cell_len(value)
    if length <= _NEVER_FOLDED:
        return length
    words = [cell_len(word) for word in value.split()]
    longest = max((word for word in words if word <= _NEVER_BROKEN), default=0)
    return min(_WIDE_ENOUGH, max(_NEVER_FOLDED, longest, math.ceil(length / _LINES_OF_A_CELL)))


def _is_numeric(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, _NUMBERS) and not isinstance(value, bool) for value in known
    )
