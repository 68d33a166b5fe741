"""Adapters of the suite: a running warehouse of each kind, and a client of its own."""

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

# Each is a module of this folder with `running_adapter()`, and an id of tests:
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
    """A running warehouse, read by its own client and not by the project's code.

    Tables have the names of the settings, columns those of the lake's files.
    """

    backend: str
    """The name in WAREHOUSES."""
    settings: dict[str, Any]
    """The settings of `[database.<backend>]`."""
    environment: ClassVar[dict[str, str]] = {}
    """Passwords, and TESTS_DIALECT where the dialect is the tests' own."""
    reconciles_before_commit = True
    """Whether readers never see a month that does not reconcile."""
    keeps_null_maps = True
    """Whether a NULL map differs from a map without keys."""
    docs_section: str
    """The section of docs/warehouses.md whose queries it can run, or empty."""

    @abstractmethod
    def query(self, sql: str) -> list[Row]:
        """Run a statement of the server's own SQL."""

    @abstractmethod
    def reset(self) -> None:
        """Empty the database or schema, or delete it."""

    @abstractmethod
    def tables(self) -> set[str]:
        """Return the names of all tables, without partitions."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Return the server's type of each column."""

    def create_table(self, table: str, columns: dict[str, str]) -> None:
        """Create a table with the server's own types, as a user would."""
        definitions = ", ".join(map(" ".join, columns.items()))
        self.query(f"CREATE TABLE {self.quoted_name(table)} ({definitions})")

    def quoted_name(self, name: str) -> str:
        """Return a name as an identifier."""
        return quoted(name)

    def month_condition(self, month: str) -> str:
        """Return the condition that selects the rows of a month such as '2024-01'."""
        return f"billing_month = DATE '{month}-01'"

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        """Return the rows of one month as `sorted_rows`: money as Decimal, maps as dict."""
        types = self.columns(table)
        cells = ", ".join(self.cell(name, types[name]) for name in columns)
        rows = self.query(
            f"SELECT {cells} FROM {self.quoted_name(table)} WHERE {self.month_condition(month)}"
        )
        kinds = [types[name] for name in columns]
        return sorted_rows([list(map(self.value, row, kinds)) for row in rows])

    def cell(self, column: str, _kind: str) -> str:
        """Return a column as an expression."""
        return quoted(column)

    def value(self, value: Any, _kind: str) -> Any:
        """Return the client's value of a cell as the lake's file has it."""
        return value

    def ledger(self, table: str) -> list[tuple[Any, ...]]:
        """Return billing_period, manifest_id, row_count, state and error_message, oldest first."""
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {self.quoted_name(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def delete_rows(self, table: str, month: str) -> None:
        """Delete the month's rows by hand, without a change of the ledger."""
        self.query(f"DELETE FROM {self.quoted_name(table)} WHERE {self.month_condition(month)}")


def running_adapter(name: str) -> AbstractContextManager[Adapter]:
    """Start the server of one of ADAPTERS, and stop it at the end of the block."""
    module = import_module(f"{__package__}.{name}")
    return cast("AbstractContextManager[Adapter]", module.running_adapter())


def install(adapter: Adapter, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty the warehouse, and make it the last stage of the project."""
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
    return sorted((tuple(map(_naive, row)) for row in rows), key=_sorts_as)


def _naive(value: Any) -> Any:
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC).replace(tzinfo=None) if aware else value


def _sorts_as(row: Row) -> list[tuple[bool, Any]]:
    return [
        (value is not None, sorted(value) if isinstance(value, dict) else value) for value in row
    ]
