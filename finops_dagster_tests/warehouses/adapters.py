"""Adapters of the suite: a running warehouse of each kind, read by the vendor's client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, ClassVar, cast

import pytest

from finops_dagster.billing.columns import quoted
from finops_dagster.warehouses import DIALECTS
from finops_dagster_tests.project import Project

# Each name is a module of this folder with `running_adapter()`, and a parameter of the tests, as in
# `test_first_load[bigquery]`. Two adapters may be of one backend.
ADAPTERS = (
    "bigquery",
    "duckdb",
    "snowflake",
    "sql_sqlite",
    "sqlite",
    "postgresql",
)

Row = tuple[Any, ...]


class Adapter(ABC):
    """A running warehouse, read by the vendor's client and not by the project's code.

    Methods take and return tables by their name in the settings, columns by their name in the lake.
    """

    backend: str
    """The name in WAREHOUSES."""
    settings: dict[str, Any]
    """The settings of `[database.<backend>]`."""
    environment: ClassVar[dict[str, str]] = {}
    """Passwords, and TESTS_DIALECT where the dialect is the tests' own."""
    reconciles_before_commit = True
    """Whether a month is reconciled before readers see it."""
    keeps_null_maps = True
    """Whether a NULL map differs from a map without keys."""
    docs_section: str
    """The section of docs/warehouses.md whose queries it can run, or empty."""

    @abstractmethod
    def query(self, sql: str) -> list[Row]:
        """Run a statement in the server's SQL, and return its rows."""

    @abstractmethod
    def reset(self) -> None:
        """Delete every table of the database or schema."""

    @abstractmethod
    def tables(self) -> set[str]:
        """Return the names of all tables, without partitions."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Return {column: the server's type}."""

    def create_table(self, table: str, columns: dict[str, str]) -> None:
        """Create a table of {column: the server's type}, as a user would."""
        definitions = ", ".join(map(" ".join, columns.items()))
        self.query(f"CREATE TABLE {self.quoted_name(table)} ({definitions})")

    def quoted_name(self, name: str) -> str:
        """Return a name as an identifier."""
        return quoted(name)

    def month_condition(self, month: str) -> str:
        """Return the SQL condition for the rows of a month such as '2024-01'."""
        return f"billing_month = DATE '{month}-01'"

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        """Return the rows of one month as `sorted_rows`: money as Decimal, maps as dict."""
        types = self.columns(table)
        cells = ", ".join(self.cell(name, types[name]) for name in columns)
        rows = self.query(
            f"SELECT {cells} FROM {self.quoted_name(table)} WHERE {self.month_condition(month)}"
        )
        native_types = [types[name] for name in columns]
        return sorted_rows([list(map(self.value, row, native_types)) for row in rows])

    def cell(self, column: str, _native_type: str) -> str:
        """Return the SQL expression that reads a column."""
        return quoted(column)

    def value(self, value: Any, _native_type: str) -> Any:
        """Convert a cell of the client to the value that the lake's file has."""
        return value

    def ledger(self, table: str) -> list[tuple[Any, ...]]:
        """Return billing_period, manifest_id, row_count, state and error_message, oldest first."""
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {self.quoted_name(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def delete_rows(self, table: str, month: str) -> None:
        """Delete the month's rows, and leave the ledger unchanged."""
        self.query(f"DELETE FROM {self.quoted_name(table)} WHERE {self.month_condition(month)}")


def running_adapter(name: str) -> AbstractContextManager[Adapter]:
    """Start the server of one of ADAPTERS for the block, which gets its adapter."""
    module = import_module(f"{__package__}.{name}")
    return cast("AbstractContextManager[Adapter]", module.running_adapter())


def install(adapter: Adapter, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty the warehouse, and set it as the project's backend."""
    for name, value in adapter.environment.items():
        monkeypatch.setenv(name, value)
    dialect = adapter.environment.get("TESTS_DIALECT", DIALECTS[adapter.backend])
    monkeypatch.setitem(DIALECTS, adapter.backend, dialect)
    adapter.reset()
    project.database = {
        "backend": adapter.backend,
        "duckdb": {},
        adapter.backend: dict(adapter.settings),
    }


def sorted_rows(rows: Iterable[Sequence[Any]]) -> list[Row]:
    """Return rows as the suite compares them: times naive in UTC, NULL before any value."""
    return sorted((tuple(map(_naive, row)) for row in rows), key=_sort_key)


def _naive(value: Any) -> Any:
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC).replace(tzinfo=None) if aware else value


def _sort_key(row: Row) -> list[tuple[bool, Any]]:
    return [
        (value is not None, sorted(value) if isinstance(value, dict) else value) for value in row
    ]
