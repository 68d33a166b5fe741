"""The suite's DuckDB: a file in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from finops_dagster_tests.warehouses.adapters import Adapter, Row


class DuckDB(Adapter):
    """The tables of one file."""

    backend = "duckdb"
    docs_section = "DuckDB"

    def __init__(self, path: Path) -> None:
        self.settings = {"warehouse_path": str(path)}
        self._path = path

    def query(self, sql: str) -> list[Row]:
        with duckdb.connect(str(self._path)) as connection:
            return connection.execute(sql).fetchall()

    def reset(self) -> None:
        self._path.unlink(missing_ok=True)

    def tables(self) -> set[str]:
        return {name for (name,) in self.query("SELECT table_name FROM duckdb_tables()")}

    def columns(self, table: str) -> dict[str, str]:
        return {
            name: native_type
            for name, native_type, *_ in self.query(f"DESCRIBE {self.quoted_name(table)}")
        }


@contextmanager
def running_adapter() -> Iterator[DuckDB]:
    """Provide a file of its own."""
    with TemporaryDirectory() as folder:
        yield DuckDB(Path(folder) / "warehouse.duckdb")
