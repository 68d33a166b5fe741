"""The suite's SQLite, by SQLAlchemy and by the dialect that only the tests know: one file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finops_dagster.billing.columns import quoted
from finops_dagster_tests.warehouses.adapters import Row, in_order


class SQLite:
    """The dataset `finops` beside `acme.db`, which is a file of its own."""

    backend = "sql"
    reconciles_before_commit = True
    keeps_null_maps = True
    section = ""

    def __init__(self, folder: Path) -> None:
        self.environment: dict[str, str] = {}
        self.settings = {
            "destination": "sqlalchemy",
            "credentials": f"sqlite:///{folder / 'acme.db'}",
        }
        self._folder = folder
        self.path = folder / "acme__finops.db"

    def reset(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()

    def tables(self) -> set[str]:
        """Without those that SQLite keeps for itself."""
        found = self.query("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found if not name.startswith(("_dlt_", "sqlite_"))}

    def columns(self, table: str) -> dict[str, str]:
        return {row[1]: row[2] for row in self.query(f"PRAGMA table_info({quoted(table)})")}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        # What dlt made of amounts it declared as TEXT.
        by_dlt = "_dlt_version" in {
            name for (name,) in self.query("SELECT name FROM sqlite_master")
        }
        kinds = {
            name: "DECIMAL_TEXT" if by_dlt and name.endswith("cost") else kind
            for name, kind in self.columns(table).items()
        }
        names = ", ".join(map(quoted, columns))
        found = self.query(
            f"SELECT {names} FROM {quoted(table)} WHERE billing_month = '{month}-01'"
        )
        return in_order(
            [_value(kinds[name], cell) for name, cell in zip(columns, row, strict=True)]
            for row in found
        )

    def ledger(self, table: str) -> list[Any]:
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM {quoted(f'{table}_loads')} ORDER BY load_timestamp"
        )

    def take_out(self, table: str, month: str) -> None:
        self.query(f"DELETE FROM {quoted(table)} WHERE billing_month = '{month}-01'")

    def make(self, table: str, columns: dict[str, str]) -> None:
        self.query(f"CREATE TABLE {quoted(table)} ({', '.join(map(' '.join, columns.items()))})")

    def query(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(sql).fetchall()


@contextmanager
def started() -> Iterator[SQLite]:
    """A folder of its own."""
    with TemporaryDirectory() as folder:
        yield SQLite(Path(folder))


def _value(kind: str, cell: Any) -> Any:
    """What SQLite keeps as text, as what it is."""
    if cell is None:
        return None
    if kind.endswith("_MAP"):
        value = Decimal if kind.startswith("DECIMAL") else str
        return {key: one and value(one) for key, one in json.loads(cell).items()}
    read = {
        "DECIMAL_TEXT": Decimal,
        "DATE": date.fromisoformat,
        "DATETIME": datetime.fromisoformat,
        "TIME_TEXT": datetime.fromisoformat,
    }
    return read.get(kind, str)(cell)
