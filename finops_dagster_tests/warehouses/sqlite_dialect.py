"""A dialect that only the tests know: SQLite by the standard library."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DATE
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.duckdb.settings import DuckDBSettings
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.schema_change import SchemaChange


class SQLite(Dialect):
    """One file, named by `warehouse_path`. Amounts, times and maps are text."""

    column_types = {  # noqa: RUF012
        SqlType.TEXT: ColumnType.of("TEXT"),
        SqlType.MONEY: ColumnType.of(
            "DECIMAL_TEXT",
            from_text="exact_amount({0})",
            duckdb_cast="rtrim(rtrim(CAST({0} AS VARCHAR), '0'), '.')",
        ),
        SqlType.TIME: ColumnType.of(
            "TIME_TEXT",
            "rtrim(rtrim(replace({0}, ' ', 'T'), '0'), '.') || 'Z'",
            duckdb_cast="strftime({0}, '%Y-%m-%d %H:%M:%S.%f')",
        ),
        SqlType.TEXT_MAP: ColumnType.of(
            "TEXT_MAP", "{0}", duckdb_cast="CAST(to_json({0}) AS VARCHAR)"
        ),
        SqlType.MONEY_MAP: ColumnType.of(
            "DECIMAL_TEXT_MAP",
            duckdb_cast="CAST(to_json(CAST({0} AS MAP(VARCHAR, VARCHAR))) AS VARCHAR)",
        ),
        DATE: ColumnType.of("DATE", duckdb_cast="CAST({0} AS VARCHAR)"),
        COUNT: ColumnType.of("INTEGER"),
    }
    _settings: DuckDBSettings

    @property
    def location(self) -> str:
        return f"SQLite {self._settings.warehouse_path}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        path = str(self._settings.warehouse_path)
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.create_aggregate("exact_sum", 1, _ExactSum)
            connection.create_function("exact_amount", 1, _amount)
            self._connection = connection
            yield

    def translate_error(self, error: Exception) -> Exception | None:
        if not isinstance(error, sqlite3.Error):
            return None
        error_class = WarehouseUnavailable if "locked" in str(error) else BillError
        return error_class(f"{self.location}: {error}")

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def full_name(self, table: str) -> str:
        return f"main.{table}"

    def read_columns(self, table: str) -> dict[str, str]:
        return {row[1]: row[2] for row in self.query(f"PRAGMA table_info({quoted(table)})")}

    def placeholder(self, number: int) -> Sql:
        return Sql(f"?{int(number)}")

    def date_literal(self, day: date) -> Sql:
        return Sql(f"'{day}'")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        return Sql(f"'{timestamp:%Y-%m-%d %H:%M:%S.%f}'")

    def sum_expression(self, cell: Sql) -> Sql:
        return Sql(f"exact_sum({cell})")

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Insert the file into a temporary table of this connection."""
        target_types = {name: change.target_types[name] for name in file.data_types}
        cells = ", ".join(
            self.column_types[data_type].duckdb_cast.format(quoted(n))
            for n, data_type in target_types.items()
        )
        names = list(map(quoted, target_types))
        self.query(f"CREATE TEMP TABLE incoming ({', '.join(names)})")
        with file.duckdb.open_in_memory() as duckdb, self.transaction(file):
            rows = duckdb.execute(f"SELECT {cells} FROM ({file.select_sql(target_types)})")
            insert = f"INSERT INTO incoming VALUES ({', '.join('?' * len(names))})"
            while batch := rows.fetchmany(10_000):
                self._connection.executemany(insert, batch)
        return Sql("incoming")

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        self.query("BEGIN IMMEDIATE")  # a transaction that begins with a read does not wait
        try:
            yield
        except BaseException:
            self.query("ROLLBACK")
            raise
        self.query("COMMIT")

    def create_view(self, view: str, query: Sql) -> None:
        self.query(f"DROP VIEW IF EXISTS {self.table_sql(view)}")
        self.query(f"CREATE VIEW {self.table_sql(view)} AS {query}")

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        for name, data_type in columns.items():
            column, cell = quoted(name), self.column_types[data_type].to_text.format(quoted(name))
            self.query(f"ALTER TABLE {quoted(table)} ADD COLUMN as_text TEXT")
            self.query(f"UPDATE {quoted(table)} SET as_text = {cell}")
            self.query(f"ALTER TABLE {quoted(table)} DROP COLUMN {column}")
            self.query(f"ALTER TABLE {quoted(table)} RENAME COLUMN as_text TO {column}")


class _ExactSum:
    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, amount: str | None) -> None:
        if amount is not None:
            with localcontext(prec=100):
                self._sum = (self._sum or Decimal(0)) + Decimal(amount)

    def finalize(self) -> str | None:
        return None if self._sum is None else f"{self._sum:f}"


def _amount(text: str | None) -> str | None:
    try:
        return text and str(Decimal(text))
    except InvalidOperation:
        return None
