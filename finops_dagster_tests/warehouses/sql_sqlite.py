"""The suite's SQLite by SQLAlchemy, a file in a temporary folder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finops_dagster_tests.warehouses.adapters import Adapter, Row


class SQLite(Adapter):
    """The dataset `finops` beside `acme.db`, which is a file of its own."""

    backend = "sql"
    docs_section = ""

    def __init__(self, folder: Path) -> None:
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
        """Return the names of all tables but SQLite's own."""
        tables = self.query("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in tables if not name.startswith(("_dlt_", "sqlite_"))}

    def columns(self, table: str) -> dict[str, str]:
        """Return the declared type of each column; dlt declared amounts as TEXT."""
        by_dlt = self.query("SELECT 1 FROM sqlite_master WHERE name = '_dlt_version'")
        return {
            name: "DECIMAL_TEXT" if by_dlt and name.endswith("cost") else native_type
            for _, name, native_type, *_ in self.query(
                f"PRAGMA table_info({self.quoted_name(table)})"
            )
        }

    def month_condition(self, month: str) -> str:
        return f"billing_month = '{month}-01'"

    def value(self, value: Any, native_type: str) -> Any:
        """Return a text of SQLite as a value of its declared type."""
        if value is None:
            return None
        if native_type.endswith("_MAP"):
            read = Decimal if native_type.startswith("DECIMAL") else str
            return {key: text and read(text) for key, text in json.loads(value).items()}
        readers = {
            "DECIMAL_TEXT": Decimal,
            "DATE": date.fromisoformat,
            "DATETIME": datetime.fromisoformat,
            "TIME_TEXT": datetime.fromisoformat,
        }
        return readers.get(native_type, str)(value)

    def query(self, sql: str) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(sql).fetchall()


@contextmanager
def running_adapter() -> Iterator[SQLite]:
    """Provide a database in a folder of its own."""
    with TemporaryDirectory() as folder:
        yield SQLite(Path(folder))
