"""The billing table in DuckDB: its columns, and the totals that are measured in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.money import MeasuredTotals, Totals, exact_sum
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger

# DuckDB copies the list of all columns for each column that is added, and keeps the copies until
# the transaction ends: 4,000 new columns would take 5 GB, which memory_limit does not count.
_MOST_ADDED_ONE_BY_ONE = 500


def verified_load(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth,
    formats: Mapping[str, Format],
) -> Load | None:
    """Return the month's load in the ledger, with the totals measured in the table.

    None if there is no load, or if `verified_totals` returns None. `formats` are by name, and must
    have the load's.
    """
    load = ledger.newest_load(connection, export, month)
    totals = load and verified_totals(connection, load, formats[load.format])
    return replace(load, totals=totals) if load and totals else None


def verified_totals(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format
) -> Totals | None:
    """Return the totals measured in the table; None if they differ from those of the load.

    Also None if there is no table, or if rows are misdated: their billing period is another month.
    The version ids of the rows are not compared. All rows of the month are read.
    """
    if "manifest_id" not in table_columns(connection, load.table):
        return None
    measured = measure_month(
        connection, quoted(load.table), load.month, bill_format, load.totals.sums
    )
    differs = measured.misdated_rows or measured.totals.first_difference(load.totals)
    return None if differs else measured.totals


def measure_month(
    connection: duckdb.DuckDBPyConnection,
    relation: Sql,
    month: BillingMonth,
    bill_format: Format,
    sum_columns: Iterable[str] | None,
) -> MeasuredTotals:
    """Return the totals of a month's rows, and how many are misdated or have no billing period.

    `relation` is what follows FROM to read a table or file with the billing table's columns; the
    rows with the month as their `billing_month` are measured. Sums are measured of those
    `sum_columns` that it has; with None, the totals have no sums. Raises duckdb.Error if it cannot
    be read.
    """
    present = {row[0] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}

    def column_or(name: str | None, absent: str) -> Sql:
        return quoted(name) if name in present and name is not None else Sql(absent)

    names = [name for name in sum_columns or () if name in present]
    sums = "".join(f", sum({quoted(name)})" for name in names)
    # A file of another month has rows whose own period is that month.
    period = column_or(bill_format.billing_period, "NULL::DATE")
    month_of_row = Sql(f"date_trunc('month', {period})")
    misdated = Sql(f"{month_of_row} <> billing_month")
    groups = connection.execute(
        f"SELECT coalesce({column_or(bill_format.currency, 'NULL')}, ''), count(*), "
        f"count(*) FILTER ({misdated}), min({month_of_row}) FILTER ({misdated}), "
        f"count(*) FILTER ({period} IS NULL), "
        f"sum({column_or(bill_format.cost, 'NULL::DECIMAL(38,18)')}){sums} "
        f"FROM {relation} WHERE billing_month = ? GROUP BY 1",
        [month.first_day],
    ).fetchall()
    result_columns = zip(*groups, strict=True) if groups else [()] * (6 + len(names))
    currencies, row_counts, misdated_counts, periods, undated_counts, *amounts = result_columns
    costs, *sums_by_currency = amounts
    totals = Totals(
        sum(row_counts),
        exact_sum(costs),
        None
        if sum_columns is None
        else dict(zip(names, map(exact_sum, sums_by_currency), strict=True)),
        {name: cost for name, cost in zip(currencies, costs, strict=True) if cost is not None},
    )
    earliest = min(filter(None, periods), default=None)
    return MeasuredTotals(
        totals,
        sum(misdated_counts),
        earliest and BillingMonth.of(earliest),
        sum(undated_counts),
    )


def table_columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return {column: DuckDB's type} in the table's order; empty if there is no table."""
    # To describe the table is far faster than duckdb_columns(), which lists the whole database.
    # Of a missing one that would be an error, which ends the caller's transaction.
    exists = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'main' AND lower(table_name) = lower(?)",
        [table],
    ).fetchall()
    if not exists:
        return {}
    described = connection.execute(f"DESCRIBE main.{quoted(table)}").fetchall()
    return {name: sql_type for name, sql_type, *_ in described}


def add_columns(
    connection: duckdb.DuckDBPyConnection, table: str, types: Mapping[str, Sql]
) -> None:
    """Add columns to a table, NULL in all its rows; more than 500 by copying the table.

    `types` are by name. Call it in a transaction: the copy takes several statements.
    """
    name_sql, copy_sql = quoted(table), quoted(f"{table}__wider")
    if len(types) <= _MOST_ADDED_ONE_BY_ONE:
        for name, sql_type in types.items():
            connection.execute(f"ALTER TABLE {name_sql} ADD COLUMN {quoted(name)} {sql_type}")
        return
    nulls = ", ".join(f"NULL::{sql_type} AS {quoted(name)}" for name, sql_type in types.items())
    connection.execute(f"CREATE TABLE {copy_sql} AS SELECT *, {nulls} FROM {name_sql}")
    connection.execute(f"DROP TABLE {name_sql}")
    connection.execute(f"ALTER TABLE {copy_sql} RENAME TO {name_sql}")
