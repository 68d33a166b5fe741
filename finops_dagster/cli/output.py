"""Output of the commands: tables for a terminal, JSON for programs."""

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
"""One row of output: a row of a table, an object in JSON."""
Headings = Mapping[str, str | Callable[[Row], Any]]
"""The headings of a table, each with the row's key or the function that returns the cell."""
OnProblem = Callable[[str], None]
"""A function that takes a line about an export or a month that failed."""
_GAP = "  "
# The minimum width of a column: cells of up to 16 characters stay on one line. Longer cells take up
# to 3 lines, of 40 characters at most; still longer ones take more lines. A word of up to 24 (a
# setting, a service, a version) is never broken.
_NEVER_FOLDED, _LINES_OF_A_CELL, _WIDE_ENOUGH = 16, 3, 40
_NEVER_BROKEN = 24
# Larger whole numbers are rounded by JavaScript, jq and others, which read them as doubles.
_LARGEST_JSON_NUMBER = 2**53


@dataclass(frozen=True)
class _Column:
    """A column of a table, whose cells are text that is safe to print."""

    heading: str
    cells: Sequence[str]
    is_numeric: bool = False

    @classmethod
    def of(cls, heading: str, values: Sequence[Any], as_text: Callable[[Any], str]) -> _Column:
        known = [value for value in values if value is not None]
        is_numeric = bool(known) and all(map(is_number, known))
        return cls(shortened(heading), list(map(as_text, values)), is_numeric)

    @cached_property
    def full_width(self) -> int:
        """The width at which no cell is folded."""
        return max(map(cell_len, (self.heading, *self.cells)))

    @cached_property
    def minimum_width(self) -> int:
        """The width at which every cell is folded as far as it stays readable."""
        return max(map(_minimum_width, (*self.heading.split(), *self.cells)), default=1)

    def folded(self, cell: str, width: int) -> list[str]:
        """Return the lines of a cell, each padded to `width`."""
        lines = [cell]
        if cell_len(cell) > width:
            folded = Text(cell).wrap(console(), width, overflow="fold")
            lines = [line.plain.strip() for line in folded]
        if self.is_numeric:
            return [" " * (width - cell_len(line)) + line for line in lines]
        return [set_cell_size(line, width) for line in lines]


def show(
    rows: Sequence[Row], *, as_json: bool, empty: str, headings: Headings | None = None
) -> None:
    """Print rows that have the same keys, as a table or as JSON.

    A table has the columns of `headings`, or all keys. If it is too wide even with folded cells,
    each row is printed as a list of its filled values. Without rows the line `empty` is printed, if
    it has text. JSON has all keys, and is `[]` without rows.
    """
    if as_json:
        print_json(rows)
    elif not rows:
        if empty:
            print_line(empty)
    else:
        columns = [
            _Column.of(
                heading_text(name),
                [
                    row[key_or_function]
                    if isinstance(key_or_function, str)
                    else key_or_function(row)
                    for row in rows
                ],
                value_text,
            )
            for name, key_or_function in (headings or {name: name for name in rows[0]}).items()
        ]
        (_print_table if _fit(columns) else _print_records)(columns)


def key_headings(keys: str) -> Headings:
    """Return headings for these space-separated keys; each heading is its key."""
    return {key: key for key in keys.split()}


def exit_with(problems: Sequence[str]) -> NoReturn:
    """Print the problems to standard error, and exit with 1 if there are any, else with 0."""
    for problem in problems:
        print_error(problem)
    raise typer.Exit(bool(problems))


def show_query_result(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
    """Print the rows of a query, at least one, and return the number of columns left out.

    One row is printed with all its columns. Several rows are printed with the first and the last
    columns that fit the terminal.
    """
    columns = [
        _Column.of(name, values, cell_text)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    if _fit(columns) or len(rows) == 1:
        (_print_table if _fit(columns) else _print_records)(columns)
        return 0
    ellipsis = _Column("…", ["…"] * len(rows))
    for shown_count in range(len(columns) - 1, 0, -1):
        first, last = (shown_count + 1) // 2, len(columns) - shown_count // 2
        shown = [*columns[:first], ellipsis, *columns[last:]]
        width = sum(min(column.full_width, _WIDE_ENOUGH) for column in shown)
        if shown_count == 1 or width <= _available_width(shown):
            break
    _print_table(shown)
    return len(columns) - shown_count


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print JSON in ASCII with exact values, see `json_value`; in one line if `indent` is None."""
    print(json.dumps(json_value(document), indent=indent), flush=True)  # noqa: T201


def json_value(value: Any) -> Any:
    """Return a value as JSON types that no reader rounds.

    Amounts, whole numbers above 2^53, NaN and infinity become text. Times become ISO 8601 with
    their zone; a time without one is in UTC.
    """
    match value:
        case dict():
            return {
                key if isinstance(key, str) else cell_text(key): json_value(item)
                for key, item in value.items()
            }
        case list() | tuple() | set():
            return [json_value(item) for item in value]
        case None | str() | bool():
            return value
        case int() if abs(value) <= _LARGEST_JSON_NUMBER:
            return value
        case float() if math.isfinite(value):
            return value
        case Decimal():
            return decimal_text(value)
        case datetime():
            return _with_zone(value).isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case bytes():  # In DuckDB's notation of a BLOB.
            return "".join(
                chr(byte) if 32 <= byte < 127 and byte != ord("\\") else f"\\x{byte:02X}"
                for byte in value
            )
    return str(value)


def cell_text(value: Any) -> str:
    """Return a cell of a query's result as text: `NULL` for None, other values as in JSON.

    The text is escaped and shortened.
    """
    if value is None:
        return "NULL"
    plain = json_value(value)
    is_text = isinstance(plain, str)
    return shortened(plain if is_text else json.dumps(plain, ensure_ascii=False))


def value_text(value: Any) -> str:
    """Return a value of a row as text for people: `1,234`, `1,234.50` for an amount, `yes`.

    A time is shown in UTC; one without a zone is in UTC already. None becomes empty, a float is
    printed as it is, and text is escaped and shortened.
    """
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
            return f"{_with_zone(value).astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    return shortened(str(value))


def _with_zone(value: datetime) -> datetime:
    # Python takes a time without a zone for local time; the ledger's are in UTC.
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def is_number(value: Any) -> bool:
    """Return whether a value is a number; True and False are not numbers."""
    # To Python, bool is a kind of int.
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def heading_text(name: str) -> str:
    """Return a heading as it is printed: `cost_changed` as "cost changed"."""
    return shortened(name.replace("_", " "))


def _print_records(columns: Sequence[_Column]) -> None:
    """Print one value on each line, and a blank line between two rows; skip empty values."""
    for row in range(len(columns[0].cells)):
        filled = [column for column in columns if column.cells[row]]
        names = _Column("", [column.heading for column in filled])
        values = _Column("", [column.cells[row] for column in filled])
        width = min(names.full_width, _WIDE_ENOUGH)
        if row:
            print_line("")
        _print_rows([names, values], [width, _available_width([names, values]) - width])


def _print_table(columns: Sequence[_Column]) -> None:
    widths = _widths(columns)
    header = [_Column("", [column.heading], column.is_numeric) for column in columns]
    _print_rows(header, widths, style="bold")
    console().print("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)))
    _print_rows(columns, widths)


def _print_rows(columns: Sequence[_Column], widths: Sequence[int], style: str = "") -> None:
    # rich's own Table takes ten times as long.
    lines = []
    for row in zip(*(column.cells for column in columns), strict=True):
        cells = [
            column.folded(cell, width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        blanks = [" " * width for width in widths]
        for line in range(max(map(len, cells))):
            parts = (
                cell[line] if line < len(cell) else blank
                for cell, blank in zip(cells, blanks, strict=True)
            )
            lines.append(_GAP.join(parts).rstrip())
    if style:
        console().print("\n".join(lines), style=style, soft_wrap=True)
    else:
        print("\n".join(lines), flush=True)  # noqa: T201


def _fit(columns: Sequence[_Column]) -> bool:
    return sum(column.minimum_width for column in columns) <= _available_width(columns)


def _available_width(columns: Sequence[_Column]) -> int:
    return console().width - len(_GAP) * (len(columns) - 1)


def _widths(columns: Sequence[_Column]) -> list[int]:
    """Return the width of each column: the widest are narrowed until all fit the terminal."""
    widths = [column.full_width for column in columns]
    for _ in range(sum(widths) - _available_width(columns)):
        foldable = [i for i, column in enumerate(columns) if widths[i] > column.minimum_width]
        if foldable:
            widths[max(foldable, key=widths.__getitem__)] -= 1
    return widths


def _minimum_width(text: str) -> int:
    length = cell_len(text)
    if length <= _NEVER_FOLDED:
        return length
    words = [cell_len(word) for word in text.split()]
    longest = max((word for word in words if word <= _NEVER_BROKEN), default=0)
    return min(_WIDE_ENOUGH, max(_NEVER_FOLDED, longest, math.ceil(length / _LINES_OF_A_CELL)))
