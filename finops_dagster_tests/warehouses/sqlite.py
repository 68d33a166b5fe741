"""The suite's SQLite by the tests' own dialect, which takes the place of DuckDB's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from finops_dagster_tests.warehouses import sqlite_dialect
from finops_dagster_tests.warehouses.sql_sqlite import SQLite


class TestsOwnSQLite(SQLite):
    """One file, named by DuckDB's `warehouse_path`."""

    __test__ = False
    backend = "duckdb"
    environment = {"TESTS_DIALECT": f"{sqlite_dialect.__name__}:SQLite.factory"}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"warehouse_path": str(self.path)}


@contextmanager
def running_adapter() -> Iterator[TestsOwnSQLite]:
    """Provide a database in a folder of its own."""
    with TemporaryDirectory() as folder:
        yield TestsOwnSQLite(Path(folder))
