"""The suite's DuckDB by way of dlt: a file in a folder that ends with the tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from finops_dagster.billing.columns import quoted
from finops_dagster_tests.warehouses.adapters import Row, in_order
from finops_dagster_tests.warehouses.sql_sqlite import described, map_of


class DuckDBByDlt:
    """The dataset `finops` of one file."""

    backend = "sql"
    environment: dict[str, str] = {}  # noqa: RUF012
    reconciles_before_commit = True
    keeps_null_maps = True

    def __init__(self, path: Path) -> None:
        self.settings = {"destination": "duckdb", "credentials": str(path)}
        self._path = path

    def reset(self) -> None:
        self._path.unlink(missing_ok=True)

    def tables(self) -> set[str]:
        """Without those that dlt keeps for itself."""
        found = self._query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'finops'")
        return {name for (name,) in found if not name.startswith("_dlt_")}

    def columns(self, table: str) -> dict[str, str]:
        return {name: kind for name, kind, *_ in self._query(f"DESCRIBE finops.{quoted(table)}")}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        kinds = described(self._query, table, "finops")
        names = ", ".join(map(quoted, columns))
        found = self._query(
            f"SELECT {names} FROM finops.{quoted(table)} WHERE billing_month = '{month}-01'"
        )
        return in_order(
            [
                map_of(kinds[name], cell) if cell and kinds[name].startswith("MAP") else cell
                for name, cell in zip(columns, row, strict=True)
            ]
            for row in found
        )

    def ledger(self, table: str) -> list[Any]:
        return self._query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM finops.{quoted(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def take_out(self, table: str, month: str) -> None:
        self._query(f"DELETE FROM finops.{quoted(table)} WHERE billing_month = '{month}-01'")

    def _query(self, sql: str) -> list[Row]:
        with duckdb.connect(str(self._path)) as connection:
            return connection.execute(sql).fetchall()


@contextmanager
def started() -> Iterator[DuckDBByDlt]:
    """A file of its own."""
    with TemporaryDirectory() as folder:
        yield DuckDBByDlt(Path(folder) / "acme.duckdb")
