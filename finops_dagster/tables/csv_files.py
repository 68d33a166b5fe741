"""CSV files, plain or gzipped, as DuckDB reads them."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa

from finops_dagster.billing.columns import Sql, file_literal, literal
from finops_dagster.billing.errors import FileInvalid, excerpt
from finops_dagster.tables.bill_files import BillFiles

GZIP_MAGIC = b"\x1f\x8b"
BOM = "\ufeff"
# Also the size of DuckDB's buffers, which it would make 16 times as large.
_LONGEST_ROW = 16 * 1024 * 1024
# After a blank, DuckDB begins a quoted value and Python reads on as unquoted. A header that is not
# strict RFC 4180 is refused, so that both read the same names.
_RFC_4180 = re.compile(r'(?:(?:"(?:[^"]|"")*"|[^",\r\n]*)(?:,|\r?\n|\r|\Z))*')
_ADVICE = "the vendor must deliver the file again"
_ESCAPED_LINE_ENDS = {"\n": r"\n", "\r\n": r"\r\n", "\r": r"\r"}


@dataclass(frozen=True)
class CsvFiles(BillFiles):
    """CSV files with the same header line, compression and line end."""

    line_end: str = "\n"
    gzipped: bool = False

    def all_rows_sql(self) -> Sql:
        """Return what follows FROM to read all rows; `c0`, `c1` and so on are VARCHAR."""
        columns = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(len(self.headers)))
        paths = ", ".join(file_literal(path) for path in self.paths)
        nulls = ", ".join(literal(word) for word in ("", *self.null_words))
        compression = "gzip" if self.gzipped else "none"
        return Sql(
            f"read_csv([{paths}], columns = {{{columns}}}, auto_detect = false, header = true, "
            f"delim = ',', quote = '\"', escape = '\"', nullstr = [{nulls}], "
            f"compression = '{compression}', max_line_size = {_LONGEST_ROW}, "
            f"buffer_size = {_LONGEST_ROW}, "
            f"new_line = {literal(_ESCAPED_LINE_ENDS[self.line_end])})"
        )

    def row_location(self, record: int) -> str:
        """Return the line on which the row begins, such as `line 3`; line ends in quotes count."""
        with open_text(self.paths[0], self.gzipped) as text, suppress(csv.Error):
            reader = csv.reader(text)
            for number, _ in enumerate(reader, 1):
                if number == record:
                    return f"line {reader.line_num + 1}"
        return f"line {record + 1}"

    def _raw(self, header: str) -> Sql:
        raw = super()._raw(header)
        # Some writers put a second byte order mark before the first row.
        return Sql(f"nullif(ltrim({raw}, '{BOM}'), '')") if raw == "c0" else raw


def csv_file(path: Path, null_words: tuple[str, ...] = ()) -> CsvFiles | None:
    """Read the header of a CSV file, and return the file; None if the file is empty.

    A gzip file that inflates to no bytes is empty too: vendors empty the surplus files of an older
    version. The first bytes decide whether it is gzipped. `null_words` are those of BillFiles.
    Raises FileInvalid if the header cannot be read, or has a name twice.
    """
    with path.open("rb") as file:
        gzipped = file.read(2) == GZIP_MAGIC
    header, line_end = _read_header(path, gzipped)
    types = (pa.null(),) * len(header)
    files = CsvFiles(header, types, (path,), null_words, line_end=line_end, gzipped=gzipped)
    return files if header else None


def time_format_of(file: CsvFiles, headers: Sequence[str], formats: Sequence[str]) -> str | None:
    """Return the first of the strptime `formats` that fits the first time in the file.

    That is the first cell with a value in the columns `headers`, row by row. None if no format
    fits, so that the time must be ISO 8601, or if no cell has a value.
    """
    positions = [file.positions[header] for header in headers]
    empty = {"", *file.null_words}
    # DuckDB reports errors of the file later, with their lines.
    with (
        open_text(file.paths[0], file.gzipped) as text,
        suppress(csv.Error, EOFError, gzip.BadGzipFile, zlib.error),
    ):
        rows = csv.reader(text)
        next(rows, None)
        cells = (row[n].lstrip(BOM) for row in rows for n in positions if n < len(row))
        first = next((cell for cell in cells if cell not in empty), "")
        for time_format in formats:
            with suppress(ValueError):
                datetime.strptime(first, time_format)
                return time_format
    return None


def _read_header(path: Path, gzipped: bool) -> tuple[tuple[str, ...], str]:
    """Return the names in the first record, and its line end. Raises FileInvalid.

    A file of no bytes, or of a byte order mark alone, has no names.
    """
    # Without the line end, DuckDB guesses it from the first one in the file, which may be in
    # quotes, and then finds no rows.
    lines: list[str] = []
    try:
        with open_text(path, gzipped) as text:
            header = tuple(next(csv.reader(_lines(text, lines), strict=True), ()))
            "".join(header).encode()
    except UnicodeEncodeError as error:
        raise FileInvalid(
            f"{path}: the header cannot be read: its bytes are not UTF-8; {_ADVICE}"
        ) from error
    except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileInvalid(f"{path}: the header cannot be read: {error}; {_ADVICE}") from error
    if not _RFC_4180.fullmatch("".join(lines)):
        raise FileInvalid(
            f"{path}: the header cannot be read: a quote is inside an unquoted name; {_ADVICE}"
        )
    if any(lines) and not header:
        raise FileInvalid(
            f"{path}: the first line is empty, and the header must be there; {_ADVICE}"
        )
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise FileInvalid(
            f"{path}: the header has the column {excerpt(repeated[0])} twice; {_ADVICE}"
        )
    last = lines[-1] if lines else ""
    return header, last[len(last.rstrip("\r\n")) :] or "\n"


def _lines(text: IO[str], lines: list[str]) -> Iterator[str]:
    """Yield the lines of a text without its byte order mark, and append each to `lines`.

    Raises csv.Error when the lines that were read are together longer than a row may be.
    """
    characters_left = _LONGEST_ROW
    while line := text.readline(characters_left + 1):
        characters_left -= len(line)
        if characters_left < 0:
            raise csv.Error(f"it is longer than {_LONGEST_ROW:,} characters")
        lines.append(line if lines else line.lstrip(BOM))
        yield lines[-1]


def open_text(path: Path, gzipped: bool) -> IO[str]:
    """Open a file for reading as UTF-8 text, with its line ends; the caller closes it.

    Bytes that are not UTF-8 become surrogates, without an error.
    """
    if gzipped:
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8", errors="surrogateescape", newline="")


def malformed_row_error(error: duckdb.Error) -> FileInvalid | None:
    """Return the error to raise for DuckDB's error about a malformed row; None for other errors.

    Its message names the file, and the line if DuckDB names one.
    """
    text = str(error)
    file = re.search(r"^\s*file = (.*)$", text, re.MULTILINE)
    name = file[1] if file else "a file"
    if "invalid state" in text:
        return FileInvalid(
            f"{name}: a line has another line end than the header (LF, CRLF or CR), or a quote is "
            f"inside an unquoted value; {_ADVICE}"
        )
    line = re.search(r"CSV Error on Line: (\d+)", text)
    if line is None or "Error when converting" in text:
        return None
    return FileInvalid(f"{name}, line {line[1]}: {_reason(text)}; {_ADVICE}")


def _reason(text: str) -> str:
    if "Maximum line size" in text:
        return f"the row is longer than {_LONGEST_ROW:,} bytes, the longest that can be read"
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
