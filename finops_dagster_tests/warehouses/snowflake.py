"""The suite's Snowflake: fakesnow behind the project's own server, asked by Snowflake's client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import snowflake.connector

from finops_dagster_tests.servers.snowflake import (
    ACCOUNT,
    DATABASE,
    PASSWORD,
    USER,
    WAREHOUSE,
    SnowflakeServer,
    snowflake_server,
)
from finops_dagster_tests.warehouses.adapters import Row, in_order

# Every name is in capitals there; these tables of the suite are not in small letters here.
_AS_IN_SETTINGS = {"ORDER": "Order", "ORDER_LOADS": "Order_loads"}


class Snowflake:
    """One schema, `finops.billing`."""

    backend = "snowflake"
    environment = {"SNOWFLAKE_PASSWORD": PASSWORD}  # noqa: RUF012
    reconciles_before_commit = True
    keeps_null_maps = True
    section = "Snowflake"

    def __init__(self, server: SnowflakeServer) -> None:
        self.server = server
        self.settings = {
            "account": ACCOUNT,
            "user": USER,
            "warehouse": WAREHOUSE,
            "database": DATABASE,
            "schema": "billing",
            "host": "127.0.0.1",
            "port": server.port,
            "protocol": "http",
        }
        self._connection = snowflake.connector.connect(
            account=ACCOUNT,
            user=USER,
            password=PASSWORD,
            database=DATABASE,
            schema="billing",
            host="127.0.0.1",
            port=server.fakesnow_port,
            protocol="http",
            network_timeout=1,
        )

    def reset(self) -> None:
        self.server.forget()
        for statement in ("DROP SCHEMA billing CASCADE", "CREATE SCHEMA billing"):
            self.query(statement)

    def tables(self) -> set[str]:
        names = [row[1] for row in self.query("SHOW TABLES")]
        return {_AS_IN_SETTINGS.get(name, name.lower()) for name in names}

    def columns(self, table: str) -> dict[str, str]:
        return {row[0].lower(): row[1] for row in self.query(f"DESCRIBE TABLE {_named(table)}")}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        types = self.columns(table)
        cells = ", ".join(
            # fakesnow gives a NULL time as 1970
            f"{_named(name)}::VARCHAR" if types[name].startswith("TIMESTAMP") else _named(name)
            for name in columns
        )
        found = self.query(
            f"SELECT {cells} FROM {_named(table)} WHERE billing_month = '{month}-01'::DATE"
        )
        kinds = [types[name] for name in columns]
        return in_order(map(_value, row, kinds) for row in found)

    def ledger(self, table: str) -> list[Any]:
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {_named(table + '_loads')} ORDER BY load_timestamp"
        )

    def take_out(self, table: str, month: str) -> None:
        first_day = date.fromisoformat(f"{month}-01")
        self.query(f"DELETE FROM {_named(table)} WHERE billing_month = '{first_day}'::DATE")

    def make(self, table: str, columns: dict[str, str]) -> None:
        self.query(f"CREATE TABLE {table} ({', '.join(map(' '.join, columns.items()))})")

    def query(self, sql: str) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]


@contextmanager
def started() -> Iterator[Snowflake]:
    """A server of its own."""
    with snowflake_server() as server:
        yield Snowflake(server)


def _named(name: str) -> str:
    return f'"{name.upper()}"'


def _value(value: Any, kind: str) -> Any:
    if value is not None and kind in ("OBJECT", "VARIANT"):
        return json.loads(value, parse_float=Decimal)
    if value is not None and kind.startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    return value
