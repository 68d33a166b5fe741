"""The suite's Snowflake: fakesnow behind the project's test server, read by Snowflake's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
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
from finops_dagster_tests.warehouses.adapters import Adapter, Row

# Names are in capitals in Snowflake; these tables have capitals in the settings too.
_AS_IN_SETTINGS = {"ORDER": "Order", "ORDER_LOADS": "Order_loads"}


class Snowflake(Adapter):
    """One schema, `finops.billing`."""

    backend = "snowflake"
    environment = {"SNOWFLAKE_PASSWORD": PASSWORD}  # noqa: RUF012
    docs_section = "Snowflake"

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
        described = self.query(f"DESCRIBE TABLE {self.quoted_name(table)}")
        return {row[0].lower(): row[1] for row in described}

    def quoted_name(self, name: str) -> str:
        return f'"{name.upper()}"'

    def cell(self, column: str, native_type: str) -> str:
        # fakesnow returns a NULL time as 1970.
        return self.quoted_name(column) + (
            "::VARCHAR" if native_type.startswith("TIMESTAMP") else ""
        )

    def value(self, value: Any, native_type: str) -> Any:
        if value is not None and native_type in ("OBJECT", "VARIANT"):
            return json.loads(value, parse_float=Decimal)
        if value is not None and native_type.startswith("TIMESTAMP"):
            return datetime.fromisoformat(value)
        return value

    def query(self, sql: str) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]


@contextmanager
def running_adapter() -> Iterator[Snowflake]:
    """Provide a server of its own."""
    with snowflake_server() as server:
        yield Snowflake(server)
