"""`finops query`: run one SELECT over the Parquet files, in a DuckDB in memory."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import duckdb
from rich.cells import cell_len

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, count_text, escaped, excerpt
from finops_dagster.cli.output import Row, json_value, print_query_result
from finops_dagster.cli.query_command import OutputFormat
from finops_dagster.cli.relations import open_bill_relations
from finops_dagster.focus.named_questions import named_questions
from finops_dagster.reports.replacing_file import replacing_file
from finops_dagster.settings import Settings
from finops_dagster.terminal import print_error, print_line

_ROWS_SHOWN, _ROWS_AT_ONCE = 200, 1000
_FILE_HINT = "; if the query is correct, a Parquet file is damaged: run finops state verify --deep"
_ALL_OF_IT = "use --format csv or json for all"
_VIEW = Sql("finops_query")
_COPY_OPTIONS = {
    "csv": Sql("FORMAT csv, HEADER"),
    "parquet": Sql("FORMAT parquet, COMPRESSION zstd"),
}


class QueryInvalid(BillError):
    """DuckDB refuses the query.

    `sql_lines` has the line of SQL that the error is about, and a line whose `^` points into it; it
    is empty if DuckDB names no line.
    """

    def __init__(self, message: str, sql_lines: Sequence[str]) -> None:
        super().__init__(message)
        self.sql_lines = sql_lines


def read_sql(source: str) -> str:
    """Return the SQL in a file, or in standard input if `source` is `-`. Raises BillError."""
    name = "standard input" if source == "-" else source
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BillError(f"{name} cannot be read: {error.strerror}; name a file of SQL") from error
    except UnicodeDecodeError as error:
        raise BillError(f"{name} is not in UTF-8; convert it to UTF-8") from error


def question_rows() -> list[Row]:
    """Return a row for each named question of docs/focus.md: `name`, and `question`, its text."""
    return [
        {"name": question.name, "question": question.text}
        for question in named_questions().values()
    ]


def question_sql(name: str) -> str:
    """Return the SQL of a named question. Raises BillError for an unknown name."""
    questions = named_questions()
    if name not in questions:
        raise BillError(
            f"there is no question {excerpt(name)}; choose one of these: {', '.join(questions)}"
        )
    return questions[name].sql


def run_query(
    settings: Settings, sql: str, output_format: OutputFormat, out: Path | None, as_of: date | None
) -> None:
    """Run one SELECT, and print its rows, or write them to the file `out`, which is replaced.

    `table` prints at most 200 rows, and ignores `out`; standard error says what is left out. Every
    other format has all rows, exactly; only JSON keeps the result in memory, within DuckDB's limit.
    `parquet` needs `out`. `as_of` reads the versions of the end of that day in UTC, None the
    newest. Raises QueryInvalid if DuckDB refuses the query, also for a damaged file, and BillError
    for anything other than one SELECT, a version that the lake no longer has, too little memory, or
    a full disk.
    """
    with open_bill_relations(settings, as_of) as (connection, names):
        try:
            # Other statements could write files, such as COPY and ATTACH.
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise BillError(
                    "the query is not one SELECT, and was not run; write a single SELECT statement"
                )
            query = _Query(connection, statements[0])
            if output_format == "table":
                query.print_table()
            elif out is not None:
                with replacing_file(out) as part:
                    rows = query.write(output_format, part)
                print_line(f"{out}: {count_text(rows, 'row')}")
            elif output_format == "json":
                query.write_json(sys.stdout)
            else:
                query.print_csv(settings.database.duckdb.temp_dir)
        except duckdb.Error as error:
            if problem := memory_or_disk_problem(error):
                raise BillError(problem) from error
            raise _query_invalid(error, names) from error


@dataclass(frozen=True)
class _Query:
    """One SELECT, which has not run yet, and the connection in which it runs."""

    connection: duckdb.DuckDBPyConnection
    statement: duckdb.Statement

    def print_table(self) -> None:
        """Print the first rows, and say on standard error what is left out."""
        names = self._execute()
        rows = self.connection.fetchmany(_ROWS_SHOWN + 1)
        if not rows:
            print_line("no rows")
            return
        columns_hidden, cells_cut = print_query_result(names, rows[:_ROWS_SHOWN])
        if columns_hidden:
            columns = f"{columns_hidden} of {len(names)} columns"
            print_error(f"not shown: {columns}; select fewer, or {_ALL_OF_IT}")
        if cells_cut:
            print_error(f"cut, with an ellipsis: {count_text(cells_cut, 'cell')}; {_ALL_OF_IT}")
        if len(rows) > _ROWS_SHOWN:
            print_error(f"only the first {_ROWS_SHOWN} rows are shown; {_ALL_OF_IT}")

    def print_csv(self, temp_dir: Path | None) -> None:
        """Print the rows as CSV, escaped on a terminal; DuckDB writes a file in `temp_dir` first.

        None is the temporary folder of the system.
        """
        with TemporaryDirectory(dir=temp_dir) as folder:
            file = Path(folder) / "rows.csv"
            self.write("csv", file)
            with file.open(encoding="utf-8", newline="\n") as lines:
                if sys.stdout.isatty():
                    sys.stdout.writelines(_escaped_csv(lines))
                else:
                    shutil.copyfileobj(lines, sys.stdout)
        sys.stdout.flush()

    def write(self, output_format: OutputFormat, file: Path) -> int:
        """Write the rows to a file as csv, json or parquet, and return their number.

        Standard error says which columns got another name, as several had the same.
        """
        if output_format == "json":
            with file.open("w", encoding="ascii") as stream:
                return self.write_json(stream)
        relation = self.connection.sql(self.statement)
        relation.create_view(_VIEW)
        described = self.connection.execute(Sql(f"DESCRIBE FROM {_VIEW}")).fetchall()
        _report_renamed(relation.columns, [name for name, *_ in described])
        cells = Sql(", ").join(
            _in_parquet(name, sql_type) if output_format == "parquet" else quoted(name)
            for name, sql_type, *_ in described
        )
        target, options = literal(str(file)), _COPY_OPTIONS[output_format]
        copied = self.connection.execute(
            Sql(f"COPY (SELECT {cells} FROM {_VIEW}) TO {target} ({options})")
        )
        ((rows,),) = copied.fetchall()
        assert isinstance(rows, int)
        return rows

    def write_json(self, stream: IO[str]) -> int:
        """Write the rows as an array of objects, and return their number.

        Columns with the same name are renamed as by `write`.
        """
        names = self._execute()
        keys = _unique_names(names)
        _report_renamed(names, keys)
        quoted_keys, rows = list(map(json.dumps, keys)), 0
        for row in chain.from_iterable(iter(lambda: self.connection.fetchmany(_ROWS_AT_ONCE), [])):
            cells = ",\n    ".join(map("{}: {}".format, quoted_keys, map(_json_text, row)))
            stream.write(f"{',' if rows else '['}\n  {{\n    {cells}\n  }}")
            rows += 1
        stream.write("\n]\n" if rows else "[]\n")
        stream.flush()
        return rows

    def _execute(self) -> list[str]:
        """Run the query, and return the names of its columns, which may repeat."""
        return [name for name, *_ in self.connection.execute(self.statement).description or []]


def _escaped_csv(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of CSV with cells escaped; a line end within a cell is escaped too."""
    is_quoted = False
    for line in lines:
        is_quoted ^= line.count('"') % 2 == 1
        yield escaped(line) if is_quoted else escaped(line.removesuffix("\n")) + "\n"


def _json_text(cell: Any) -> str:
    """Return a cell as JSON, as `json.dumps(rows, indent=2)` would write it within its row."""
    value = json_value(cell)
    if isinstance(value, dict | list):
        # A line end within a text is escaped in JSON.
        return json.dumps(value, indent=2).replace("\n", "\n    ")
    return json.dumps(value)  # With an indentation it takes ten times as long.


def _in_parquet(name: str, sql_type: str) -> Sql:
    """Return a column as Parquet can have it: an integer of 128 bits becomes a decimal."""
    if sql_type in ("HUGEINT", "UHUGEINT"):
        return Sql(f"CAST({quoted(name)} AS DECIMAL(38, 0)) AS {quoted(name)}")
    return quoted(name)


def _unique_names(names: Sequence[str]) -> list[str]:
    """Return distinct names for the columns, numbered as DuckDB does in a table: a, a_1."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(1))
        taken = {*unique, *names} if name in unique else set[str]()
        unique.append(next(key for key in chain([name], numbered) if key not in taken))
    return unique


def _report_renamed(names: Sequence[str], written: Sequence[str]) -> None:
    for name, key in zip(names, written, strict=True):
        if name != key:
            print_error(
                f"several columns are named {name}; one of them is written as {key}; to choose the "
                "names, rename the columns with AS"
            )


def _query_invalid(error: duckdb.Error, names: Sequence[str]) -> QueryInvalid:
    """Return the error with DuckDB's hints, and with the line of the SQL that it is about."""
    lines = str(error).splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith("LINE ")), len(lines))
    message = " ".join(" ".join(lines[:first]).split())
    if message.startswith("Catalog Error: Table"):
        empty = "" if len(names) > 1 else ", as no month is loaded"
        message += f" The tables are: {', '.join(names)}{empty}"
    # For a damaged Parquet file Thrift raises an error without a class or the file's name.
    elif type(error) is duckdb.Error or isinstance(
        error, duckdb.InvalidInputException | duckdb.IOException
    ):
        message += _FILE_HINT
    else:
        message += "; correct the query"
    sql_lines = [line for line in lines[first:] if line.strip()]
    if any(_VIEW in line for line in sql_lines):  # It is about the statement that writes a file.
        sql_lines = []
    return QueryInvalid(message, _printable(sql_lines))


def _printable(sql_lines: Sequence[str]) -> list[str]:
    """Return the line of SQL with blanks for tabs and the like, and the line with the `^`."""
    if len(sql_lines) != 2:
        return []
    line, marks = sql_lines
    start, width, unprintable = len(marks) - len(marks.lstrip()), 0, 0
    for character in line:
        if width == start and character.isprintable():
            break
        # DuckDB takes such a character for one without width.
        unprintable += not character.isprintable()
        width += cell_len(character) if character.isprintable() else 0
    shown = "".join(character if character.isprintable() else " " for character in line)
    return [shown, " " * unprintable + marks]
