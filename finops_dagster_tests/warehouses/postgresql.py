"""The suite's PostgreSQL: a real server on a Unix socket, asked by psycopg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from json import loads
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal
from psycopg.types.json import set_json_loads

from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.warehouses.adapters import Row, in_order

PASSWORD = "it's \\ geheim"


class PostgreSQL:
    """A database whose owner loads into its schema `finops`, looked at by the administrator."""

    backend = "postgresql"
    environment: dict[str, str] = {"POSTGRESQL_PASSWORD": PASSWORD}  # noqa: RUF012
    reconciles_before_commit = True
    keeps_null_maps = True
    section = "PostgreSQL"

    def __init__(self, server: PostgreSQLServer) -> None:
        self.settings = {
            "host": server.host,
            "database": "acme",
            "user": "loader",
            "lock_wait_seconds": 2,
        }
        with server.connect() as connection:
            loader = SQL("CREATE USER loader PASSWORD {}").format(Literal(PASSWORD))
            connection.execute(loader)
            connection.execute("CREATE DATABASE acme OWNER loader")
        self.connection = server.connect("acme", options="-c client_min_messages=warning")
        set_json_loads(partial(loads, parse_float=Decimal), self.connection)

    def reset(self) -> None:
        self.query("DROP SCHEMA IF EXISTS finops CASCADE")

    def query(self, sql: str, *parameters: object) -> list[Row]:
        """The rows of a statement, where it has some."""
        cursor = self.connection.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def make(self, table: str, columns: dict[str, str]) -> None:
        self.query("CREATE SCHEMA finops AUTHORIZATION loader")
        self.query(
            f"CREATE TABLE finops.{table} ({', '.join(map(' '.join, columns.items()))}) "
            "PARTITION BY LIST (billing_month)"
        )
        self.query(f"ALTER TABLE finops.{table} OWNER TO loader")

    def tables(self) -> set[str]:
        found = self.query(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('finops') "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        return {name for (name,) in found}

    def columns(self, table: str) -> dict[str, str]:
        return {whole: kind for _, whole, kind in self._columns(table)}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        names = {whole: name for name, whole, _ in self._columns(table)}
        query = SQL("SELECT {} FROM {} WHERE billing_month = {}").format(
            SQL(", ").join(Identifier(names[column]) for column in columns),
            Identifier("finops", table),
            Literal(f"{month}-01"),
        )
        return in_order(self._execute(query).fetchall())

    def ledger(self, table: str) -> list[Any]:
        query = SQL(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            "FROM {} ORDER BY load_timestamp"
        )
        return self._execute(query.format(Identifier("finops", f"{table}_loads"))).fetchall()

    def take_out(self, table: str, month: str) -> None:
        query = SQL("DELETE FROM {} WHERE billing_month = {}")
        self._execute(query.format(Identifier("finops", table), Literal(f"{month}-01")))

    def _columns(self, table: str) -> list[Row]:
        """Name, whole name where that is a cut one, and type."""
        return self.query(
            "SELECT attname, coalesce(col_description(attrelid, attnum), attname), "
            "format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum",
            f'finops."{table}"',
        )

    def _execute(self, query: Composed) -> psycopg.Cursor[Row]:
        return self.connection.execute(query)


@contextmanager
def started() -> Iterator[PostgreSQL]:
    """A server of its own."""
    with PostgreSQLServer() as server:
        adapter = PostgreSQL(server)
        with adapter.connection:
            yield adapter
