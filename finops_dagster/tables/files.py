"""Finds the kinds and types of a month's files, and translates DuckDB's errors about them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import SqlType, literal
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import CellInvalid, FileInvalid, excerpt, excerpts, first_line
from finops_dagster.billing.manifest import ListedColumn
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.base import Format
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping, MonthFilter
from finops_dagster.tables.csv_files import (
    CsvFiles,
    csv_file,
    malformed_row_error,
    time_format_of,
)
from finops_dagster.tables.parquet_files import PARQUET_MAGIC, parquet_file

_HEADERS_SHOWN = 10
_CELL_ADVICE = "the vendor must correct it and deliver the file again"


def read_headers(
    paths: Sequence[Path],
    bill_format: Format,
    selected_months: Mapping[Path, BillingMonth] | None = None,
) -> list[BillFiles]:
    """Return the files, grouped by kind, headers and types.

    Only headers and schemas are read here, and CSV files up to the first time if the format has
    `time_formats`. The first bytes of a file decide its kind, as its name may be wrong. Empty files
    are left out: vendors empty the surplus ones of an older version. A file in `selected_months`
    gets a filter for the rows of that month. Raises FileInvalid if a header or schema cannot be
    read or used.
    """
    groups: dict[BillFiles, list[Path]] = defaultdict(list)
    for path in paths:
        with path.open("rb") as stream:
            first_bytes = stream.read(4)
        file: BillFiles | None = None
        if first_bytes == PARQUET_MAGIC:
            file = parquet_file(path, ("", *bill_format.null_words))
        elif first_bytes:
            file = csv_file(path, bill_format.null_words)
            file = file and _with_time_format(file, bill_format)
        if file is not None:
            month = (selected_months or {}).get(path)
            if month is not None:
                header = billing_period_header(file, bill_format)
                file = replace(file, month_filter=MonthFilter(header, month))
            groups[replace(file, paths=())].append(path)
    return [replace(file, paths=tuple(group)) for file, group in groups.items()]


def _with_time_format(file: CsvFiles, bill_format: Format) -> CsvFiles:
    """Return the file with the format of its first time: all others must have the same."""
    if not bill_format.time_formats:
        return file
    types = {header: bill_format.sql_type(header, None) for header in file.headers}
    times = [header for header, sql_type in types.items() if sql_type is SqlType.TIME]
    return replace(file, time_format=time_format_of(file, times, bill_format.time_formats))


def billing_period_header(file: BillFiles, bill_format: Format) -> str:
    """Return the header of the start of the billing period; FileInvalid if there is none."""
    for header in file.headers:
        if bill_format.column(header) == bill_format.billing_period:
            return header
    raise FileInvalid(
        f"{file.paths[0]}: no column gives {bill_format.billing_period}, so its rows are of no "
        "known month; if it is not a file of the export, move it away; it has the columns "
        f"{excerpts(file.headers, _HEADERS_SHOWN)}"
    )


def header_types(
    files: Sequence[BillFiles], bill_format: Format, columns: Sequence[ListedColumn]
) -> dict[str, SqlType]:
    """Return {header: type} for each header of the files and of the manifest, in this version.

    The type is that of `Format.sql_type`, which gets the type in the manifest's `columns`; else
    that of the first files that have one; else text. A header of the manifest is left out if the
    files have its column under another header.
    """
    declared = {bill_format.column(column.header): column.type for column in columns}
    headers = dict.fromkeys(header for group in files for header in group.headers)
    in_files = {bill_format.column(header) for header in headers}
    headers |= dict.fromkeys(
        column.header for column in columns if bill_format.column(column.header) not in in_files
    )
    return {
        header: bill_format.sql_type(header, declared.get(bill_format.column(header)))
        or next(
            filter(None, (group.file_type(header) for group in files if header in group)),
            SqlType.TEXT,
        )
        for header in headers
    }


def translated_error(
    connection: duckdb.DuckDBPyConnection,
    error: duckdb.Error,
    files: Sequence[BillFiles],
    mappings: Sequence[ColumnMapping],
) -> Exception:
    """Return the error to raise for DuckDB's error of a scan, with file, line, column and value.

    It is FileInvalid or CellInvalid, or an OSError if a file cannot be opened. It is `error` itself
    if `memory_or_disk_problem` explains it, such as a full disk of the database, or if nothing
    does. Scans the files again, for which the failed transaction must be over, and may leave the
    connection's `preserve_insertion_order` on.
    """
    if memory_or_disk_problem(error):
        return error
    malformed = malformed_row_error(error)
    if malformed is not None:
        return malformed
    single_files = [group.for_file(path) for group in files for path in group.paths]
    if isinstance(error, duckdb.IOException):
        problems = (_read_problem(connection, file) for file in single_files)
        return next(filter(None, problems), _unreadable(first_line(error)))
    if not isinstance(error, duckdb.ConversionException | duckdb.InvalidInputException):
        return error
    # `_first_bad_cell` numbers the rows in the order of the file.
    connection.execute("SET preserve_insertion_order = true")
    find = _first_bad_text if "Invalid string encoding" in str(error) else _first_bad_cell
    bad_cells = (find(connection, file, mappings) for file in single_files)
    return next(filter(None, bad_cells), error)


def _read_problem(
    connection: duckdb.DuckDBPyConnection, file: BillFiles
) -> OSError | FileInvalid | None:
    """Return why a file cannot be opened, or cannot be read to its end; None if it can."""
    path = file.paths[0]
    try:
        # DuckDB would say of a missing file that none matches its name, and not what to do.
        path.open("rb").close()
        connection.execute(f"SELECT count(*) FROM {file.rows_sql()}")
    except OSError as error:
        return error
    except duckdb.Error as error:
        reason = first_line(error)
        return _unreadable(reason if str(path) in reason else f"{path}: {reason}")
    return None


def _unreadable(reason: str) -> FileInvalid:
    advice = "check the disk: if it is sound, the vendor must deliver the file again"
    return FileInvalid(f"{reason}; {advice}")


def _first_bad_text(
    connection: duckdb.DuckDBPyConnection, file: BillFiles, mappings: Sequence[ColumnMapping]
) -> CellInvalid | None:
    """Return an error for the first column with bytes that are not UTF-8; None if there is none."""
    for header in [mapping.header for mapping in mappings if mapping.header in file]:
        try:
            cell = file.column_sql(header, SqlType.TEXT)
            connection.execute(f"SELECT max(strlen({cell})) FROM {file.rows_sql()}")
        except duckdb.InvalidInputException as error:
            value = re.search(r'value "(.*)" is not valid', str(error))
            return CellInvalid(
                header,
                f'{file.paths[0]}, column "{excerpts([header], 1)}": '
                f"{excerpt(value[1]) if value else 'a value'} is not UTF-8; {_CELL_ADVICE}",
            )
    return None


def _first_bad_cell(
    connection: duckdb.DuckDBPyConnection, file: BillFiles, mappings: Sequence[ColumnMapping]
) -> CellInvalid | None:
    """Return an error for the first cell that cannot be cast to its column's type, or None."""
    typed = {m.header: m for m in mappings if m.header in file and m.table_type is not SqlType.TEXT}
    cases = []
    for header, mapping in typed.items():
        text = file.column_sql(header, SqlType.TEXT)
        cell = file.column_sql(header, mapping.table_type, rounded=mapping.is_rounded)
        rounded = file.column_sql(header, mapping.table_type, rounded=True)
        cases.append(
            f"WHEN {text} IS NOT NULL AND TRY({cell}) IS NULL THEN {{'header': {literal(header)}, "
            f"'text': {text}, 'can_be_rounded': TRY({rounded}) IS NOT NULL}}"
        )
    if not cases:
        return None
    row = connection.execute(
        f"SELECT row_number() OVER () AS record, CASE {' '.join(cases)} END AS bad "
        f"FROM {file.all_rows_sql()} QUALIFY bad IS NOT NULL AND "
        f"coalesce(TRY({file.month_condition_sql()}), true) LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    record, bad = row
    header, advice = bad["header"], ""
    if bad["can_be_rounded"]:
        advice = '; set decimals = "round" for the export to round such amounts to 18 decimals'
    elif typed[header].version_type == typed[header].table_type:
        # Otherwise an earlier month has set the type, and the caller says what to do.
        if typed[header].table_type is SqlType.TIME and file.time_format:
            advice = f"; the first time in the file has the format {file.time_format}"
        advice += f"; {_CELL_ADVICE}"
    return CellInvalid(
        header,
        f'{file.paths[0]}, {file.row_location(record)}, column "{excerpts([header], 1)}": '
        f"{excerpt(bad['text'])} cannot be kept exactly as {typed[header].table_type}{advice}",
    )
