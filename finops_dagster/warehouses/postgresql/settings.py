"""The settings of the PostgreSQL warehouse."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finops_dagster.settings_table import SettingsTable


class PostgreSQLSettings(SettingsTable):
    """A schema of a database.

    The password comes from POSTGRESQL_PASSWORD, or from where libpq finds it. `host` may be the
    folder of a Unix socket. A load waits at most `lock_wait_seconds` for readers of the table, but
    without a limit for other loads of the month.
    """

    host: str = "localhost"
    port: int = Field(default=5432, ge=1, le=65535)
    database: str
    schema_name: str = Field(default="finops", alias="schema", min_length=1)
    user: str
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    lock_wait_seconds: int = Field(default=60, ge=1)
