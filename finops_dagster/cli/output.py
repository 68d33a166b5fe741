"""Output of the commands: tables for a terminal, JSON for programs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cached_property
from itertools import chain
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
NOTHING_LOADED = "nothing is loaded yet; run finops aws run-pipeline, or that of another vendor"
NO_MONTHS = "no months found; finops config discover SOURCE lists the exports of a store"
_GAP = "  "
# The minimum width of a column: cells of up to 16 characters stay on one line. Longer cells take up
# to 3 lines, of 40 characters at most; still longer ones take more lines. A word of up to 24 (a
# setting, a service, a version) is never broken.
_NEVER_FOLDED, _LINES_OF_A_CELL, _WIDE_ENOUGH = 16, 3, 40
_NEVER_BROKEN = 24
# The least that is shown of a text that is cut, and the least width of a name beside its value.
_LEAST_OF_A_CUT_CELL, _NARROWEST_NAME = 20, 8
# Larger whole numbers are rounded by JavaScript, jq and others, which read them as doubles.
_LARGEST_JSON_NUMBER = 2**53


class _TooLong(Enum):
    """What happens to a cell that is wider than its column."""

    FOLD = "its lines stand below each other"
    CUT = "it ends in an ellipsis"
    KEEP = "it is never too long, because the column is not narrowed"


@dataclass(frozen=True)
class _Column:
    """A column of a table, whose cells are text that is safe to print."""

    heading: str
    cells: Sequence[str]
    is_numeric: bool = False
    too_long: _TooLong = _TooLong.FOLD

    @classmethod
    def of(cls, heading: str, values: Sequence[Any], as_text: Callable[[Any], str]) -> _Column:
        """Return a column of values as text; numeric if all that are not None are numbers."""
        filled = [value for value in values if value is not None]
        is_numeric = bool(filled) and all(map(is_number, filled))
        # A part of a number looks like another number.
        too_long = _TooLong.KEEP if is_numeric else _TooLong.FOLD
        return cls(shortened(heading), list(map(as_text, values)), is_numeric, too_long)

    @cached_property
    def full_width(self) -> int:
        """The width at which neither the heading nor a cell is folded or cut."""
        return max(map(cell_len, (self.heading, *self.cells)))

    @cached_property
    def cells_width(self) -> int:
        """The width at which no cell is folded or cut; the heading may be folded."""
        return max(map(cell_len, self.cells), default=0)

    @cached_property
    def minimum_width(self) -> int:
        """The width at which every cell is folded or cut as far as it stays readable."""
        width = {
            _TooLong.FOLD: _minimum_width,
            _TooLong.CUT: lambda cell: min(cell_len(cell), _LEAST_OF_A_CUT_CELL),
            _TooLong.KEEP: cell_len,
        }[self.too_long]
        words = map(_minimum_width, _words_of_heading(self.heading))
        return max(chain(words, map(width, self.cells)), default=1)

    @cached_property
    def usual_width(self) -> int:
        """The width at which only cells of more than 40 characters are folded or cut."""
        if self.too_long is _TooLong.KEEP:
            return self.minimum_width
        return min(self.full_width, _WIDE_ENOUGH)

    def lines(self, cell: str, width: int) -> list[str]:
        """Return the lines of a cell, folded or cut as `too_long` says, and padded to `width`."""
        lines = [cell]
        if cell_len(cell) > width and self.too_long is _TooLong.FOLD:
            folded = Text(cell).wrap(console(), width, overflow="fold")
            lines = [line.plain.strip() for line in folded]
        elif cell_len(cell) > width and self.too_long is _TooLong.CUT:
            lines = [set_cell_size(cell, width - 1) + "…"]
        blanks = [" " * (width - cell_len(line)) for line in lines]
        if self.is_numeric:
            return [blank + line for blank, line in zip(blanks, lines, strict=True)]
        return [line + blank for blank, line in zip(blanks, lines, strict=True)]


def print_rows(
    rows: Sequence[Row], *, as_json: bool, empty: str, headings: Headings | None = None
) -> None:
    """Print rows that have the same keys, as a table or as JSON.

    A table has the columns of `headings`, by default all keys. If it is too wide even with folded
    cells, each row is printed as a list of its values that are not empty. Without rows, the table
    is the line `empty`, or nothing if that is empty. JSON has all keys, and is `[]` without rows.
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


def exit_with_problems(problems: Sequence[str]) -> NoReturn:
    """Print the problems to standard error, and exit with 1 if there are any, else with 0."""
    for problem in problems:
        print_error(problem)
    raise typer.Exit(bool(problems))


def print_query_result(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> tuple[int, int]:
    """Print the rows of a query, at least one; return how many columns are left out and cells cut.

    One row is printed with all its columns, and no cell is cut. Several rows are printed with the
    first and the last columns that fit the terminal, each row in one line.
    """
    columns = [
        _query_column(name, values)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    if len(rows) == 1:
        uncut = [replace(column, too_long=_TooLong.KEEP) for column in columns]
        (_print_table if _fit(uncut) else _print_records)(uncut)
        return 0, 0
    if _fit(columns):
        return 0, _print_table(columns)
    shown = _first_and_last(columns)
    return len(columns) - len(shown) + 1, _print_table(shown)


def _query_column(name: str, values: Sequence[Any]) -> _Column:
    """Return a column of a query's result; amounts in it have the same number of decimals."""
    column = _Column.of(name, values, cell_text)
    if column.is_numeric and any(isinstance(value, Decimal) for value in values):
        decimals = max(len(cell.partition(".")[2]) for cell in column.cells)
        cells = [
            f"{value:.{decimals}f}" if isinstance(value, Decimal) else cell
            for value, cell in zip(values, column.cells, strict=True)
        ]
        return replace(column, cells=cells)
    is_text = any(isinstance(value, str | bytes | list | dict) for value in values)
    return replace(column, too_long=_TooLong.CUT if is_text else _TooLong.KEEP)


def _first_and_last(columns: Sequence[_Column]) -> list[_Column]:
    """Return the first and the last columns that fit the terminal, with a column of ellipses."""
    ellipsis = _Column("…", ["…"] * len(columns[0].cells))
    for count in range(len(columns) - 1, 0, -1):
        first, last = (count + 1) // 2, len(columns) - count // 2
        shown = [*columns[:first], ellipsis, *columns[last:]]
        if sum(column.usual_width for column in shown) <= _available_width(shown):
            break
    return shown


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print JSON in ASCII with exact values, see `json_value`; in one line if `indent` is None."""
    print(json.dumps(json_value(document), indent=indent), flush=True)  # noqa: T201


def json_value(value: Any) -> Any:
    """Return a value, or all values within it, as JSON types that no reader rounds.

    Decimals, integers beyond 2^53 or -2^53, NaN and infinity become text; other floats stay. Dates
    and times become ISO 8601 text; a datetime without a zone is in UTC. Tuples and sets become
    lists, and keys text. Bytes become text in DuckDB's notation, and a value of any other type
    becomes `str(value)`.
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

    An amount is a Decimal, and is rounded to two decimals. A time is shown in UTC, to the second;
    one without a zone is in UTC already. None becomes an empty text, a float is not rounded, and
    text is escaped and shortened.
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
        names = [_Column("", [column.heading]) for column in filled]
        numbers = [cell_len(column.cells[row]) for column in filled if column.is_numeric]
        available = _available_width(["name", "value"])
        room = max(available - max(numbers, default=0), _NARROWEST_NAME)
        width = min(max(name.full_width for name in names), _WIDE_ENOUGH, room)
        if row:
            print_line("")
        for name, column in zip(names, filled, strict=True):
            too_long = _TooLong.KEEP if column.is_numeric else _TooLong.FOLD
            value = _Column("", [column.cells[row]], too_long=too_long)
            _print_rows([name, value], [width, max(available - width, 1)])


def _print_table(columns: Sequence[_Column]) -> int:
    """Print the columns below their headings, and return the number of cells that are cut."""
    widths = _widths(columns)
    _print_header(columns, widths)
    console().print("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)), soft_wrap=True)
    _print_rows(columns, widths)
    return sum(
        cell_len(cell) > width
        for column, width in zip(columns, widths, strict=True)
        if column.too_long is _TooLong.CUT
        for cell in column.cells
    )


def _print_header(columns: Sequence[_Column], widths: Sequence[int]) -> None:
    folded = [
        _folded_heading(column.heading, width)
        for column, width in zip(columns, widths, strict=True)
    ]
    height = max(map(len, folded))
    rows = [
        _Column("", lines + [""] * (height - len(lines)), column.is_numeric)
        for column, lines in zip(columns, folded, strict=True)
    ]
    _print_rows(rows, widths, style="bold")


def _words_of_heading(heading: str) -> list[str]:
    """Return the parts of a heading that may stand on lines of their own: `Billing`, `Currency`."""
    return re.split(r"(?<=[a-z])(?=[A-Z])|(?<=_)| +", heading)


def _folded_heading(heading: str, width: int) -> list[str]:
    """Return the lines of a heading; only one that is too long is folded."""
    lines = [""]
    for word in re.split(r"(?<=[a-z])(?=[A-Z])|(?<=_)|(?<= )", heading):
        if cell_len(f"{lines[-1]}{word}".rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _print_rows(columns: Sequence[_Column], widths: Sequence[int], style: str = "") -> None:
    # rich's own Table takes ten times as long.
    lines = []
    for row in zip(*(column.cells for column in columns), strict=True):
        cells = [
            column.lines(cell, width)
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


def _available_width(columns: Sequence[object]) -> int:
    return console().width - len(_GAP) * (len(columns) - 1)


def _widths(columns: Sequence[_Column]) -> list[int]:
    """Return the width of each column: the widest are narrowed until all fit the terminal.

    Headings are folded before cells.
    """
    widths = [column.full_width for column in columns]
    for _ in range(sum(widths) - _available_width(columns)):
        narrowable = [
            (widths[i] > column.cells_width, widths[i], i)
            for i, column in enumerate(columns)
            if widths[i] > column.minimum_width
        ]
        if narrowable:
            widths[max(narrowable)[2]] -= 1
    return widths


def _minimum_width(text: str) -> int:
    length = cell_len(text)
    if length <= _NEVER_FOLDED:
        return length
    words = [cell_len(word) for word in text.split()]
    longest = max((word for word in words if word <= _NEVER_BROKEN), default=0)
    return min(_WIDE_ENOUGH, max(_NEVER_FOLDED, longest, math.ceil(length / _LINES_OF_A_CELL)))
