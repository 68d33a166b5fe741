"""`finops query`: run one SELECT over the Parquet files, in a DuckDB in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from typing import Any

import duckdb

from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.cli.output import print_json, show_query_result
from finops_dagster.reports.relations import create_relations
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import print_error, print_line

_ROWS_SHOWN = 200
_FILE_HINT = "; if the query is correct, a Parquet file is damaged: run finops state verify --deep"


def print_query(settings: Settings, sql: str, *, as_json: bool) -> None:
    """Run one SELECT and print its rows: all as JSON, the first ones as a table.

    The table has 200 rows at most. What it leaves out is said on standard error. Raises BillError.
    """
    names, rows = _run(settings, sql, None if as_json else _ROWS_SHOWN + 1)
    if as_json:
        keys = _unique_names(names)
        for name, key in zip(names, keys, strict=True):
            if name != key:
                print_error(
                    f"several columns are named {name}; the key of one of them is {key}; to choose "
                    "the keys, rename the columns with AS"
                )
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    elif not rows:
        print_line("no rows")
    else:
        if left_out := show_query_result(names, rows[:_ROWS_SHOWN]):
            columns = f"{left_out} of {len(names)} columns"
            print_error(f"not shown: {columns}; select fewer, or use --json for all")
        if len(rows) > _ROWS_SHOWN:
            print_error(f"only the first {_ROWS_SHOWN} rows are shown; use --json for all")


def _unique_names(names: Sequence[str]) -> list[str]:
    """Return distinct names for the columns, numbered as DuckDB does in a table: a, a_1."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(1))
        taken = {*unique, *names} if name in unique else set[str]()
        unique.append(next(key for key in chain([name], numbered) if key not in taken))
    return unique


def _run(
    settings: Settings, sql: str, limit: int | None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SELECT, and return the names of its columns, which may repeat, and its rows.

    `limit` is the largest number of rows to return; None returns all.
    """
    with DuckDB.of(settings.database.duckdb).scratch() as connection:
        # DuckDB shows times in the zone of the machine; the answer should be the same everywhere.
        connection.execute("SET TimeZone = 'UTC'")
        tables: list[str] = []
        try:
            tables = create_relations(
                connection, settings.storage.parquet_dir, settings.exports, settings.accounts
            )
            # Other statements could write files, such as COPY and ATTACH.
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise BillError(
                    "the query is not one SELECT, and was not run; write a single SELECT statement"
                )
            result = connection.execute(statements[0])
            names = [column[0] for column in result.description or []]
            return names, result.fetchall() if limit is None else result.fetchmany(limit)
        except duckdb.Error as error:
            message = first_line(error)
            if message.startswith("Catalog Error: Table"):
                empty = "" if len(tables) > 1 else ", as no month is loaded"
                message += f" The tables are: {', '.join(tables)}{empty}"
            # For a damaged Parquet file Thrift raises an error without a class or the file's name.
            elif type(error) is duckdb.Error or isinstance(
                error, duckdb.InvalidInputException | duckdb.IOException
            ):
                message += _FILE_HINT
            raise BillError(message) from error
