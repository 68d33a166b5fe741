"""What the suite asks of a warehouse besides the chain: a server, and a look into its tables."""

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

# Each is a file of its name in this folder, with `running_adapter()`, and the id of its tests:
# `test_first_load[bigquery]`. Two of them may be one backend, as two databases of one kind are.
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
    """A running warehouse of one kind, looked at by its own client and not by the project's code.

    Tables are named as in the settings, columns as in the lake's files.
    """

    backend: str
    """The name in WAREHOUSES."""
    settings: dict[str, Any]
    """Its `[database.<backend>]` table."""
    environment: ClassVar[dict[str, str]] = {}
    """Passwords and the like; and TESTS_DIALECT, where its dialect is the tests' own."""
    reconciles_before_commit = True
    """Whether a month that does not reconcile is never seen, not even until the next load."""
    keeps_null_maps = True
    """Whether a map that is NULL is another thing than a map without keys."""
    docs_section: str
    """Its section of docs/warehouses.md whose queries it can run, or nothing."""

    @abstractmethod
    def query(self, sql: str) -> list[Row]:
        """Run a statement of the server's own SQL."""

    @abstractmethod
    def reset(self) -> None:
        """Leave an empty database or schema, or none."""

    @abstractmethod
    def tables(self) -> set[str]:
        """The tables that are there; the partitions of one are no tables."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Name and type of each column, the type as the server names it."""

    def create_table(self, table: str, columns: dict[str, str]) -> None:
        """Make a table as a person would, with the server's own types."""
        definitions = ", ".join(map(" ".join, columns.items()))
        self.query(f"CREATE TABLE {self.quoted_name(table)} ({definitions})")

    def quoted_name(self, name: str) -> str:
        """A table's name in SQL."""
        return quoted(name)

    def of_month(self, month: str) -> str:
        """The condition that a row is of '2024-01'."""
        return f"billing_month = DATE '{month}-01'"

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        """The rows of one month, `sorted_rows`: money as Decimal, maps as dict."""
        types = self.columns(table)
        cells = ", ".join(self.cell(name, types[name]) for name in columns)
        found = self.query(
            f"SELECT {cells} FROM {self.quoted_name(table)} WHERE {self.of_month(month)}"
        )
        kinds = [types[name] for name in columns]
        return sorted_rows([list(map(self.value, row, kinds)) for row in found])

    def cell(self, column: str, _kind: str) -> str:
        """A column in SQL."""
        return quoted(column)

    def value(self, value: Any, _kind: str) -> Any:
        """What the client gives for a cell of the type, as what it is."""
        return value

    def ledger(self, table: str) -> list[tuple[Any, ...]]:
        """billing_period, manifest_id, row_count, state, error_message; the oldest first."""
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {self.quoted_name(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def delete_rows(self, table: str, month: str) -> None:
        """Delete the month's rows as a person would, who tells the ledger nothing."""
        self.query(f"DELETE FROM {self.quoted_name(table)} WHERE {self.of_month(month)}")


def running_adapter(name: str) -> AbstractContextManager[Adapter]:
    """Start the server of one of ADAPTERS; it ends with the block."""
    module = import_module(f"{__package__}.{name}")
    return cast("AbstractContextManager[Adapter]", module.running_adapter())


def install(adapter: Adapter, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the project's chain end in the warehouse, emptied before."""
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
    """The rows as the suite compares them: times naive in UTC, NULL before any value."""
    return sorted((tuple(map(_naive, row)) for row in rows), key=_sorts_as)


def _naive(value: Any) -> Any:
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC).replace(tzinfo=None) if aware else value


def _sorts_as(row: Row) -> list[tuple[bool, Any]]:
    return [
        (value is not None, sorted(value) if isinstance(value, dict) else value) for value in row
    ]
