"""The suite's SQLite by way of dlt: two files in a folder that ends with the tests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finops_dagster.billing.columns import quoted
from finops_dagster_tests.warehouses.adapters import Row, in_order


class SQLiteByDlt:
    """The dataset `finops` beside `acme.db`, which dlt keeps in a file of its own."""

    backend = "sql"
    environment: dict[str, str] = {}  # noqa: RUF012
    reconciles_before_commit = True
    keeps_null_maps = True

    def __init__(self, folder: Path) -> None:
        self.settings = {
            "destination": "sqlalchemy",
            "credentials": f"sqlite:///{folder / 'acme.db'}",
        }
        self._folder = folder

    def reset(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()

    def tables(self) -> set[str]:
        """Without those that dlt and SQLite keep for themselves."""
        found = self._query("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found if not name.startswith(("_dlt_", "sqlite_"))}

    def columns(self, table: str) -> dict[str, str]:
        return {row[1]: row[2] for row in self._query(f"PRAGMA table_info({quoted(table)})")}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        kinds = described(self._query, table)
        names = ", ".join(map(quoted, columns))
        found = self._query(
            f"SELECT {names} FROM {quoted(table)} WHERE billing_month = '{month}-01'"
        )
        return in_order(
            [_value(kinds[name], cell) for name, cell in zip(columns, row, strict=True)]
            for row in found
        )

    def ledger(self, table: str) -> list[Any]:
        return self._query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {quoted(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def take_out(self, table: str, month: str) -> None:
        self._query(f"DELETE FROM {quoted(table)} WHERE billing_month = '{month}-01'")

    def _query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self._folder / "acme__finops.db")) as connection, connection:
            return connection.execute(sql).fetchall()


@contextmanager
def started() -> Iterator[SQLiteByDlt]:
    """A folder of its own."""
    with TemporaryDirectory() as folder:
        yield SQLiteByDlt(Path(folder))


def described(
    query: Callable[[str], list[Any]], table: str, dataset: str = "main"
) -> dict[str, str]:
    """What dlt noted of each column: text alone does not say whether it holds amounts."""
    ((schema,),) = query(
        f"SELECT schema FROM {dataset}._dlt_version WHERE schema_name = 'finops_{table}' "
        "ORDER BY inserted_at DESC LIMIT 1"
    )
    columns = json.loads(schema)["tables"][table]["columns"]
    return {name: column["description"] for name, column in columns.items()}


def map_of(kind: str, cell: str) -> dict[str, Any]:
    """A map from its JSON, in which amounts are text."""
    found: dict[str, Any] = json.loads(cell)
    if "DECIMAL" not in kind:
        return found
    return {key: value and Decimal(value) for key, value in found.items()}


def _value(kind: str, cell: Any) -> Any:
    """What SQLite keeps as text, as what it is."""
    if cell is None:
        return None
    if kind.startswith("MAP"):
        return map_of(kind, cell)
    read = {
        "DECIMAL(38,18)": Decimal,
        "DATE": date.fromisoformat,
        "TIMESTAMP": datetime.fromisoformat,
    }
    return read.get(kind, str)(cell)
