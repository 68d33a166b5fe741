"""The suite's PostgreSQL: a real server on a Unix socket, read by psycopg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from json import loads

from psycopg.sql import SQL, Literal
from psycopg.types.json import set_json_loads

from finops_dagster.billing.columns import quoted
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.warehouses.adapters import Adapter, Row, sorted_rows

PASSWORD = "it's \\ geheim"


class PostgreSQL(Adapter):
    """A database whose owner loads into its schema `finops`, and whose administrator reads it."""

    backend = "postgresql"
    environment = {"POSTGRESQL_PASSWORD": PASSWORD}  # noqa: RUF012
    docs_section = "PostgreSQL"

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
        """Run a statement and return its rows, if it has any."""
        cursor = self.connection.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def create_table(self, table: str, columns: dict[str, str]) -> None:
        self.query("CREATE SCHEMA finops AUTHORIZATION loader")
        self.query(
            f"CREATE TABLE finops.{table} ({', '.join(map(' '.join, columns.items()))}) "
            "PARTITION BY LIST (billing_month)"
        )
        self.query(f"ALTER TABLE finops.{table} OWNER TO loader")

    def tables(self) -> set[str]:
        rows = self.query(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('finops') "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        return {name for (name,) in rows}

    def columns(self, table: str) -> dict[str, str]:
        return {whole: native_type for whole, (_, native_type) in self._columns(table).items()}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        names = self._columns(table)
        cells = ", ".join(quoted(names[column][0]) for column in columns)
        select = (
            f"SELECT {cells} FROM {self.quoted_name(table)} WHERE {self.month_condition(month)}"
        )
        return sorted_rows(self.query(select))

    def quoted_name(self, name: str) -> str:
        return f"finops.{quoted(name)}"

    def _columns(self, table: str) -> dict[str, tuple[str, str]]:
        """Return the stored name and the type of each column by its unshortened name."""
        rows = self.query(
            "SELECT coalesce(col_description(attrelid, attnum), attname), attname, "
            "format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum",
            self.quoted_name(table),
        )
        return {whole: (name, native_type) for whole, name, native_type in rows}


@contextmanager
def running_adapter() -> Iterator[PostgreSQL]:
    """Provide a server of its own."""
    with PostgreSQLServer() as server:
        adapter = PostgreSQL(server)
        with adapter.connection:
            yield adapter
