"""The month's CSV files as DuckDB sees them, and what is said when one of them is wrong."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import duckdb

from finops_dagster.billing.columns import SqlType, literal, quoted
from finops_dagster.billing.errors import BillError, CellInvalid, FileInvalid, first_line
from finops_dagster.billing.money import Totals

_BOM = "\ufeff"


@dataclass(frozen=True)
class CsvFiles:
    """Files with one and the same header line, in one and the same compression.

    A header is matched by its exact text, and columns are then read by position under names of our
    own: DuckDB would rename the second of `user:team`, `user:Team` by order of appearance.
    """

    header: tuple[str, ...]
    gzipped: bool
    paths: tuple[Path, ...]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {header: position for position, header in enumerate(self.header)}

    def __contains__(self, header: str) -> bool:
        return header in self._positions

    def scan(self) -> str:
        """A table expression: one VARCHAR column a header, named by `cell`."""
        columns = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(len(self.header)))
        paths = ", ".join(literal(str(path)) for path in self.paths)
        compression = "gzip" if self.gzipped else "none"
        return (
            f"read_csv([{paths}], columns = {{{columns}}}, auto_detect = false, header = true, "
            f"delim = ',', quote = '\"', escape = '\"', compression = '{compression}', "
            "max_line_size = 16777216)"
        )

    def cell(self, header: str, sql_type: SqlType) -> str:
        """The SQL that reads a column as its type, exactly or with an error."""
        position = self._positions[header]
        raw = f"c{position}"
        if position == 0:
            raw = f"ltrim({raw}, '{_BOM}')"  # some writers put a second BOM before the first row
        match sql_type:
            case SqlType.MONEY:
                return f"exact_decimal({raw})"
            case SqlType.TIME:
                return f"utc_timestamp({raw})"
            case SqlType.TEXT:
                return raw


def group_by_header(paths: Sequence[Path]) -> list[CsvFiles]:
    """Read the header of each file and put files with the same one together.

    Files of no bytes are legal (AWS empties surplus chunks) and are left out.
    """
    groups: dict[tuple[tuple[str, ...], bool], list[Path]] = {}
    for path in paths:
        header, gzipped = read_header(path)
        if header:
            groups.setdefault((header, gzipped), []).append(path)
    return [CsvFiles(header, gzipped, tuple(group)) for (header, gzipped), group in groups.items()]


def read_header(path: Path) -> tuple[tuple[str, ...], bool]:
    """The file's header and whether the file is gzipped. Raises FileInvalid."""
    gzipped = is_gzipped(path)
    try:
        with _open_text(path, gzipped) as text:
            header = tuple(next(csv.reader(text), ()))
            "".join(header).encode()
    except (UnicodeEncodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
        raise FileInvalid(f"{path}: the header cannot be read: {error}") from error
    header = tuple(
        name.lstrip(_BOM) if not position else name for position, name in enumerate(header)
    )
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise FileInvalid(f"{path}: the header has the column {twice[0]!r} twice")
    return header, gzipped


def is_gzipped(path: Path) -> bool:
    """Whether the bytes, not the name, say gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def count_text(
    connection: duckdb.DuckDBPyConnection, files: Sequence[CsvFiles], cost_header: str
) -> Totals:
    """Count the line items and sum their cost, straight from the text of the files.

    Every later stage is held against these totals. Raises FileInvalid and CellInvalid.
    """
    cells = []
    for group in files:
        if cost_header not in group:
            raise FileInvalid(f"{group.paths[0]}: the header has no column {cost_header!r}")
        cells.append(f"SELECT {group.cell(cost_header, SqlType.MONEY)} AS cost FROM {group.scan()}")
    if not cells:
        return Totals.of(None)
    try:
        return Totals.of(
            connection.execute(
                f"SELECT count(*), sum(cost) FROM ({' UNION ALL '.join(cells)})"
            ).fetchone()
        )
    except duckdb.Error as error:
        raise explained(connection, error, files, {cost_header: SqlType.MONEY}) from error


def explained(
    connection: duckdb.DuckDBPyConnection,
    error: duckdb.Error,
    files: Sequence[CsvFiles],
    types: dict[str, SqlType],
) -> Exception:
    """Turn what DuckDB says of a CSV scan into one line with file, line, column and value."""
    text = str(error)
    structural = re.search(r"CSV Error on Line: (\d+)", text)
    if structural and "Error when converting" not in text:
        file = re.search(r"^\s*file = (.*)$", text, re.MULTILINE)
        reason = _structural_reason(text)
        return FileInvalid(f"{file[1] if file else 'a file'}, line {structural[1]}: {reason}")
    if isinstance(error, duckdb.IOException):
        return FileInvalid(first_line(error))
    if not isinstance(error, duckdb.ConversionException | duckdb.InvalidInputException):
        return error
    for group in files:
        for path in group.paths:
            found = _first_bad_cell(
                connection, CsvFiles(group.header, group.gzipped, (path,)), types
            )
            if found is not None:
                return found
    return error


def _structural_reason(text: str) -> str:
    expected = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if expected:
        return f"the row has {expected[2]} columns where the header has {expected[1]}"
    if "unterminated quote" in text:
        return "a quoted value is not closed"
    if "unicode" in text:
        return "the bytes are not UTF-8"
    lines = [
        line for line in text.splitlines()[1:] if line and not line.startswith("Original Line")
    ]
    return lines[0] if lines else text.splitlines()[0]


def _first_bad_cell(
    connection: duckdb.DuckDBPyConnection, file: CsvFiles, types: dict[str, SqlType]
) -> BillError | None:
    """Look through one file for the first cell that is not of its column's type."""
    tests = {
        header: f"is_bad_{'decimal' if sql_type is SqlType.MONEY else 'timestamp'}"
        f"({file.cell(header, SqlType.TEXT)})"
        for header, sql_type in types.items()
        if sql_type is not SqlType.TEXT and header in file
    }
    which = " ".join(f"WHEN {test} THEN {literal(header)}" for header, test in tests.items())
    value = " ".join(
        f"WHEN {test} THEN {file.cell(header, SqlType.TEXT)}" for header, test in tests.items()
    )
    connection.execute("SET preserve_insertion_order = true")
    found = connection.execute(
        f"SELECT row_number() OVER () AS record, CASE {which} END AS header, CASE {value} END "
        f"FROM {file.scan()} QUALIFY header IS NOT NULL LIMIT 1"
    ).fetchone()
    if found is None:
        return None
    record, header, cell = found
    return CellInvalid(
        f"{file.paths[0]}, line {_line_of(file, record)}, column {quoted(header)}: {cell[:80]!r} "
        f"cannot be kept exactly as {types[header]}"
    )


def _line_of(file: CsvFiles, record: int) -> int:
    """The line on which the data record begins; quoted newlines make it more than its number."""
    with _open_text(file.paths[0], file.gzipped) as text, suppress(csv.Error):
        reader = csv.reader(text)
        for number, _ in enumerate(reader, 1):
            if number == record:
                return reader.line_num + 1
    return record + 1


def _open_text(path: Path, gzipped: bool) -> IO[str]:
    """The file as text; bytes that are not UTF-8 come as surrogates, for DuckDB to complain of."""
    if gzipped:
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8", errors="surrogateescape", newline="")
