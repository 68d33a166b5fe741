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
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from finops_dagster.billing.errors import shortened
from finops_dagster.billing.money import decimal_text
from finops_dagster.terminal import console, print_error, print_line

Row = dict[str, Any]
OnProblem = Callable[[str], None]
# What a table shows of a row: under each heading the value of a key, or what is made of the row.
Columns = Mapping[str, str | Callable[[Row], Any]]
_GAP = "  "
_NEVER_FOLDED, _LINES_OF_A_CELL, _WIDE_ENOUGH = 16, 3, 40
_NEVER_BROKEN = 24  # of a word: a setting's name, a service, a version
# Above it JavaScript, jq and others round whole numbers.
_LARGEST_JSON_NUMBER = 2**53


@dataclass(frozen=True)
class _Column:
    """A column with its cells as text that is safe to print."""

    name: str
    cells: Sequence[str]
    is_numeric: bool = False

    @classmethod
    def of(cls, name: str, values: Sequence[Any], as_text: Callable[[Any], str]) -> _Column:
        known = [value for value in values if value is not None]
        is_numeric = bool(known) and all(map(is_number, known))
        return cls(shortened(name), list(map(as_text, values)), is_numeric)

    @cached_property
    def natural(self) -> int:
        """Its width with no cell folded."""
        return max(map(cell_len, (self.name, *self.cells)))

    @cached_property
    def narrowest(self) -> int:
        """Its width with each cell folded as far as one can read it."""
        return max(map(_narrowest, (*self.name.split(), *self.cells)), default=1)

    def folded(self, cell: str, width: int) -> list[str]:
        """Return the lines of a cell, each as wide as the column."""
        lines = [cell]
        if cell_len(cell) > width:
            folded = Text(cell).wrap(console(), width, overflow="fold")
            lines = [line.plain.strip() for line in folded]
        if self.is_numeric:
            return [" " * (width - cell_len(line)) + line for line in lines]
        return [set_cell_size(line, width) for line in lines]


def show(rows: Sequence[Row], *, as_json: bool, empty: str, columns: Columns | None = None) -> None:
    """Print rows with the same keys, or `empty` where there are none: as a table where one fits the
    terminal, else one row below the other. A table has `columns`; JSON has all that is known."""
    if as_json:
        print_json(rows)
    elif not rows:
        print_line(empty)
    else:
        shown = [
            _Column.of(
                heading(name),
                [row[of] if isinstance(of, str) else of(row) for row in rows],
                text,
            )
            for name, of in (columns or {name: name for name in rows[0]}).items()
        ]
        (_print_table if _fit(shown) else _print_records)(shown)


def named(keys: str) -> Columns:
    """Return columns that are headed like their keys."""
    return {key: key for key in keys.split()}


def exit_with(problems: Sequence[str]) -> NoReturn:
    """Print the problems, and exit with 1 where there are any."""
    for problem in problems:
        print_error(problem)
    raise typer.Exit(bool(problems))


def show_answer(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
    """Print what a query found, every cell as it is: of one row every column, of several the first
    and the last columns that fit the terminal. Return how many are not shown."""
    columns = [
        _Column.of(name, values, cell_text)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    if _fit(columns) or len(rows) == 1:
        (_print_table if _fit(columns) else _print_records)(columns)
        return 0
    left_out = _Column("…", ["…"] * len(rows))
    for count in range(len(columns) - 1, 0, -1):
        first, last = (count + 1) // 2, len(columns) - count // 2
        shown = [*columns[:first], left_out, *columns[last:]]
        if count == 1 or sum(min(one.natural, _WIDE_ENOUGH) for one in shown) <= _room(shown):
            break
    _print_table(shown)
    return len(columns) - count


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print for a program, in ASCII, every value exact, as `exact` says."""
    print(json.dumps(exact(document), indent=indent), flush=True)  # noqa: T201


def exact(value: Any) -> Any:
    """Return what JSON has for a value, such that no reader rounds it: amounts, and whole numbers
    above 2^53, are text; times are ISO 8601 with their zone, which is UTC where they have none."""
    match value:
        case dict():
            return {k if isinstance(k, str) else cell_text(k): exact(v) for k, v in value.items()}
        case list() | tuple() | set():
            return [exact(item) for item in value]
        case None | str() | bool():
            return value
        case int() if abs(value) <= _LARGEST_JSON_NUMBER:
            return value
        case float() if math.isfinite(value):
            return value
        case Decimal():
            return decimal_text(value)
        case datetime():
            with_zone = value if value.tzinfo else value.replace(tzinfo=UTC)
            return with_zone.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case bytes():  # as DuckDB writes it
            return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02X}" for b in value)
    return str(value)


def cell_text(value: Any) -> str:
    """Return a cell of an answer for a person: as it is, NULL apart from empty text."""
    if value is None:
        return "NULL"
    json_value = exact(value)
    is_text = isinstance(json_value, str)
    return shortened(json_value if is_text else json.dumps(json_value, ensure_ascii=False))


def text(value: Any) -> str:
    """Return a value for a person: numbers with commas, amounts rounded to two decimals."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case Decimal():
            return f"{value:,.2f}"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    return shortened(str(value))


def is_number(value: Any) -> bool:
    """Whether a column of such values is aligned to the right."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def heading(name: str) -> str:
    """Return the name of a key for a person."""
    return shortened(name.replace("_", " "))


def _print_records(columns: Sequence[_Column]) -> None:
    """Print a line a value, and a blank line between two rows; what is empty is left out."""
    for row in range(len(columns[0].cells)):
        filled = [column for column in columns if column.cells[row]]
        names = _Column("", [column.name for column in filled])
        values = _Column("", [column.cells[row] for column in filled])
        width = min(names.natural, _WIDE_ENOUGH)
        if row:
            print_line("")
        _print_rows([names, values], [width, _room([names, values]) - width])


def _print_table(columns: Sequence[_Column]) -> None:
    widths = _widths(columns)
    header = [_Column("", [column.name], column.is_numeric) for column in columns]
    _print_rows(header, widths, style="bold")
    console().print("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)))
    _print_rows(columns, widths)


def _print_rows(columns: Sequence[_Column], widths: Sequence[int], style: str = "") -> None:
    """Print one row below the other. A table of rich's would take ten times as long."""
    lines = []
    for row in zip(*(column.cells for column in columns), strict=True):
        cells = [one.folded(*at) for one, *at in zip(columns, row, widths, strict=True)]
        blank = [" " * width for width in widths]
        for line in range(max(map(len, cells))):
            parts = (
                cell[line] if line < len(cell) else empty
                for cell, empty in zip(cells, blank, strict=True)
            )
            lines.append(_GAP.join(parts).rstrip())
    if style:
        console().print("\n".join(lines), style=style, soft_wrap=True)
    else:
        print("\n".join(lines), flush=True)  # noqa: T201


def _fit(columns: Sequence[_Column]) -> bool:
    """Whether a table of them fits the terminal with no cell folded over more lines than one can
    read."""
    return sum(column.narrowest for column in columns) <= _room(columns)


def _room(columns: Sequence[_Column]) -> int:
    return console().width - len(_GAP) * (len(columns) - 1)


def _widths(columns: Sequence[_Column]) -> list[int]:
    """Return how wide each column is: the widest are narrowed until all fit."""
    widths = [column.natural for column in columns]
    for _ in range(sum(widths) - _room(columns)):
        foldable = [i for i, column in enumerate(columns) if widths[i] > column.narrowest]
        if foldable:
            widths[max(foldable, key=widths.__getitem__)] -= 1
    return widths


def _narrowest(value: str) -> int:
    length = cell_len(value)
    if length <= _NEVER_FOLDED:
        return length
    words = [cell_len(word) for word in value.split()]
    longest = max((word for word in words if word <= _NEVER_BROKEN), default=0)
    return min(_WIDE_ENOUGH, max(_NEVER_FOLDED, longest, math.ceil(length / _LINES_OF_A_CELL)))
