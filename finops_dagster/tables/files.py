"""The vendor's files of a month, whatever their kind: how much they hold, and what is wrong."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import SqlType, literal
from finops_dagster.billing.errors import CellInvalid, FileInvalid, first_line, listed, shown
from finops_dagster.billing.manifest import Column
from finops_dagster.sources.base import Format
from finops_dagster.tables.bill_files import BillFiles
from finops_dagster.tables.csv_files import csv_files, malformed_row
from finops_dagster.tables.parquet_files import MAGIC, parquet_files


def read_files(paths: Sequence[Path], vendor: Format) -> list[BillFiles]:
    """Look into each file, at its first bytes and not at its name, and group what is alike.

    Files of no bytes are legal (vendors empty surplus ones) and are left out. Raises FileInvalid.
    """
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        with path.open("rb") as file:
            first_bytes = file.read(4)
        if first_bytes:
            kinds["parquet" if first_bytes == MAGIC else "csv"].append(path)
    return [
        *parquet_files(kinds["parquet"], ("", *vendor.null_words)),
        *csv_files(kinds["csv"], vendor.null_words, vendor.time_format),
    ]


def types_given(
    files: Sequence[BillFiles], vendor: Format, columns: Sequence[Column]
) -> dict[str, SqlType]:
    """Return the type of each header of the version: what is known of the column, or else the word
    of the manifest, whose `columns` may be more than those of the files, or else of the file."""
    declared = {vendor.column(column.header): column.type for column in columns}
    headers = dict.fromkeys(header for group in files for header in group.headers)
    in_files = {vendor.column(header) for header in headers}
    headers |= dict.fromkeys(
        column.header for column in columns if vendor.column(column.header) not in in_files
    )
    return {
        header: vendor.sql_type(header, declared.get(vendor.column(header)))
        or next(
            filter(None, (group.own_type(header) for group in files if header in group)),
            SqlType.TEXT,
        )
        for header in headers
    }


def explained(
    connection: duckdb.DuckDBPyConnection,
    error: duckdb.Error,
    files: Sequence[BillFiles],
    types: Mapping[str, SqlType],
    rounded: Collection[str],
) -> Exception:
    """Turn what DuckDB says of a scan into one line with file, line, column and value. The headers
    that are `rounded` may have more than 18 decimals."""
    malformed = malformed_row(error)
    if malformed is not None:
        return malformed
    if isinstance(error, duckdb.IOException):
        return FileInvalid(_unreadable(connection, files) or first_line(error))
    if not isinstance(error, duckdb.ConversionException | duckdb.InvalidInputException):
        return error
    if "Invalid string encoding" in str(error):
        return _not_utf8(connection, files) or error
    connection.execute("SET preserve_insertion_order = true")
    for group in files:
        for path in group.paths:
            found = _first_bad_cell(connection, group.alone(path), types, rounded)
            if found is not None:
                return found
    return error


def _unreadable(connection: duckdb.DuckDBPyConnection, files: Sequence[BillFiles]) -> str | None:
    """Which file it is that DuckDB cannot read to its end, and why."""
    for group in files:
        for path in group.paths:
            try:
                connection.execute(f"SELECT count(*) FROM {group.alone(path).scan()}")
            except duckdb.Error as error:
                reason = first_line(error)
                return reason if str(path) in reason else f"{path}: {reason}"
    return None


def _not_utf8(
    connection: duckdb.DuckDBPyConnection, files: Sequence[BillFiles]
) -> CellInvalid | None:
    """The first column of a Parquet file with bytes that are no text."""
    for group in files:
        for file in map(group.alone, group.paths):
            for header in file.headers:
                try:
                    cell = file.cell(header, SqlType.TEXT)
                    connection.execute(f"SELECT max(strlen({cell})) FROM {file.scan()}")
                except duckdb.InvalidInputException as error:
                    value = re.search(r'value "(.*)" is not valid', str(error))
                    return CellInvalid(
                        header,
                        f'{file.paths[0]}, column "{listed([header], 1)}": '
                        f"{shown(value[1]) if value else 'a value'} is not UTF-8",
                    )
    return None


def _first_bad_cell(
    connection: duckdb.DuckDBPyConnection,
    file: BillFiles,
    types: Mapping[str, SqlType],
    rounded: Collection[str],
) -> CellInvalid | None:
    """Look through one file for the first cell that is not of its column's type."""
    typed = {h: t for h, t in types.items() if h in file and t is not SqlType.TEXT}
    texts = {header: file.cell(header, SqlType.TEXT) for header in typed}
    is_bad = {
        header: f"{texts[header]} IS NOT NULL "
        f"AND TRY({file.cell(header, sql_type, rounded=header in rounded)}) IS NULL"
        for header, sql_type in typed.items()
    }
    which = " ".join(f"WHEN {test} THEN {literal(header)}" for header, test in is_bad.items())
    value = " ".join(f"WHEN {test} THEN {texts[header]}" for header, test in is_bad.items())
    is_finer = " ".join(
        f"WHEN {test} THEN TRY({file.cell(header, typed[header], rounded=True)}) IS NOT NULL"
        for header, test in is_bad.items()
    )
    if not is_bad:
        return None
    found = connection.execute(
        f"SELECT row_number() OVER () AS record, CASE {which} END AS header, CASE {value} END, "
        f"CASE {is_finer} END FROM {file.scan()} QUALIFY header IS NOT NULL LIMIT 1"
    ).fetchone()
    if found is None:
        return None
    record, header, cell, can_be_rounded = found
    advice = '; set decimals = "round" for the export to round such amounts to 18 decimals'
    return CellInvalid(
        header,
        f'{file.paths[0]}, {file.place(record)}, column "{listed([header], 1)}": {shown(cell)} '
        f"cannot be kept exactly as {types[header]}{advice if can_be_rounded else ''}",
    )
