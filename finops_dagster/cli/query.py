"""`finops query`: run one SELECT over the Parquet files, in a DuckDB in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, count
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql, files_literal, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.cli.output import print_json, show_query_result
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake
from finops_dagster.settings import Settings
from finops_dagster.tables.bill_files import AS_TEXT
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
            tables = _create_views(connection, settings)
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
                message += f" The tables are: {', '.join(tables) or 'none, as no month is loaded'}"
            # For a damaged Parquet file Thrift raises an error without a class or the file's name.
            elif type(error) is duckdb.Error or isinstance(
                error, duckdb.InvalidInputException | duckdb.IOException
            ):
                message += _FILE_HINT
            raise BillError(message) from error


def _create_views(connection: duckdb.DuckDBPyConnection, settings: Settings) -> list[str]:
    """Create the views and return their names: one for each export that has Parquet files.

    The view `focus` has the charges of all exports.
    """
    tables, charges = list[str](), list[Sql]()
    focus = focus_lake(Lake(settings.storage.parquet_dir)).root
    for export in settings.exports:
        folder = settings.storage.parquet_dir / export.name
        if any(folder.glob("billing_month=*/*.parquet")):
            files = files_literal(folder, "billing_month=*/*.parquet")
            # Months may differ in their columns. The files have billing_month as a DATE, which the
            # name of the folder would replace by text.
            connection.execute(
                f"CREATE VIEW {quoted(export.table_name)} AS FROM read_parquet({files}, "
                "union_by_name = true, hive_partitioning = false)"
            )
            tables.append(export.table_name)
        if any((focus / export.name).glob("billing_month=*/*.parquet")):
            charges.append(files_literal(focus / export.name, "billing_month=*/*.parquet"))
    if charges:
        _create_focus_view(connection, charges)
        tables.append("focus")
    return tables


def _create_focus_view(connection: duckdb.DuckDBPyConnection, files: Sequence[Sql]) -> None:
    """Create the view `focus` of the charges in the files of each export.

    A vendor's own column that has other types in two exports is text.
    """
    options = Sql("union_by_name = true, hive_partitioning = false")
    relations = [Sql(f"read_parquet({of_export}, {options})") for of_export in files]
    columns = [
        {
            name: sql_type
            for name, sql_type, *_ in connection.execute(f"DESCRIBE FROM {r}").fetchall()
        }
        for r in relations
    ]
    types: dict[str, set[str]] = defaultdict(set)
    for name, sql_type in chain.from_iterable(map(dict.items, columns)):
        types[name.lower()].add(sql_type)

    def cell(name: str, sql_type: str) -> Sql:
        if len(types[name.lower()]) == 1:
            return quoted(name)
        as_text = AS_TEXT.get(sql_type, Sql("CAST({0} AS VARCHAR)"))
        return Sql(f"{as_text.format(quoted(name))} AS {quoted(name)}")

    selects = Sql(" UNION ALL BY NAME ").join(
        Sql(f"SELECT {', '.join(cell(*column) for column in of_export.items())} FROM {relation}")
        for of_export, relation in zip(columns, relations, strict=True)
    )
    connection.execute(f"CREATE VIEW focus AS {selects}")
