"""The suite's DuckDB: a file in a folder that ends with the tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from finops_dagster.billing.columns import quoted
from finops_dagster_tests.warehouses.adapters import Row, in_order


class DuckDB:
    """The tables of one file."""

    backend = "duckdb"
    environment: dict[str, str] = {}  # noqa: RUF012
    reconciles_before_commit = True
    keeps_null_maps = True
    section = "DuckDB"

    def __init__(self, path: Path) -> None:
        self.settings = {"warehouse_path": str(path)}
        self._path = path

    def reset(self) -> None:
        self._path.unlink(missing_ok=True)

    def tables(self) -> set[str]:
        return {name for (name,) in self.query("SELECT table_name FROM duckdb_tables()")}

    def columns(self, table: str) -> dict[str, str]:
        return {name: kind for name, kind, *_ in self.query(f"DESCRIBE {quoted(table)}")}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        names = ", ".join(map(quoted, columns))
        where = f"WHERE billing_month = '{month}-01'"
        return in_order(self.query(f"SELECT {names} FROM {quoted(table)} {where}"))

    def ledger(self, table: str) -> list[Any]:
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {quoted(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def take_out(self, table: str, month: str) -> None:
        self.query(f"DELETE FROM {quoted(table)} WHERE billing_month = '{month}-01'")

    def make(self, table: str, columns: dict[str, str]) -> None:
        self.query(f"CREATE TABLE {quoted(table)} ({', '.join(map(' '.join, columns.items()))})")

    def query(self, sql: str) -> list[Row]:
        with duckdb.connect(str(self._path)) as connection:
            return connection.execute(sql).fetchall()


@contextmanager
def started() -> Iterator[DuckDB]:
    """A file of its own."""
    with TemporaryDirectory() as folder:
        yield DuckDB(Path(folder) / "warehouse.duckdb")
