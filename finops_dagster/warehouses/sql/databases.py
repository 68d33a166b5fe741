"""What of two databases SQLAlchemy does not know: making text of a column, and SQLite's amounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any, ClassVar

import sqlalchemy as sa

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.tables.digest import DATE
from finops_dagster.warehouses.column_types import ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.postgresql.expressions import AMOUNT_OF_TEXT, TIME_AS_TEXT
from finops_dagster.warehouses.sql.address import check_destination, database_url
from finops_dagster.warehouses.sql.dialect import (
    MAP_TO_JSON,
    MONEY_MAP_TO_JSON,
    SQLALCHEMY_TYPES,
    SqlDialect,
)
from finops_dagster.warehouses.sql.settings import SqlSettings


class PostgresDialect(SqlDialect):
    """A PostgreSQL that makes text of a time in a transaction."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        **SqlDialect.types,
        SqlType.MONEY: ColumnType.of(SqlType.MONEY, from_text=AMOUNT_OF_TEXT),
        SqlType.TIME: ColumnType.of(
            SqlType.TIME,
            TIME_AS_TEXT,
            from_text="{0}::timestamptz",
            duckdb_cast="CAST({0} AS TIMESTAMPTZ)",
        ),
    }


class _TextType(sa.types.UserDefinedType[str]):
    """A text whose name says what it holds; SQLite takes every name that has TEXT in it."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


_DECLARED_NAMES = {
    SqlType.MONEY: "DECIMAL_TEXT",
    SqlType.TEXT_MAP: "TEXT_MAP",
    SqlType.MONEY_MAP: "DECIMAL_TEXT_MAP",
}
_DATA_TYPES = {
    **{name: kind for kind, name in _DECLARED_NAMES.items()},
    "DATETIME": SqlType.TIME,
    "TIMESTAMP": SqlType.TIME,
    DATE: DATE,
    "VARCHAR": SqlType.TEXT,
    "TEXT": SqlType.TEXT,
}


class SqliteDialect(SqlDialect):
    """SQLite, which has no decimals: amounts are text there, and their sums are added here."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        **SqlDialect.types,
        SqlType.MONEY: ColumnType.of(
            SqlType.MONEY,
            from_text="exact_amount({0})",
            duckdb_cast="rtrim(rtrim(CAST({0} AS VARCHAR), '0'), '.')",
        ),
        SqlType.TIME: ColumnType.of(
            SqlType.TIME,
            "rtrim(rtrim(replace({0}, ' ', 'T'), '0'), '.') || 'Z'",
            duckdb_cast="CAST({0} AS TIMESTAMPTZ)",
        ),
        SqlType.TEXT_MAP: ColumnType.of(SqlType.TEXT_MAP, "{0}", duckdb_cast=MAP_TO_JSON),
        SqlType.MONEY_MAP: ColumnType.of(SqlType.MONEY_MAP, duckdb_cast=MONEY_MAP_TO_JSON),
    }
    ordered_types = (SqlType.TIME,)
    sqlalchemy_types: ClassVar[Mapping[str, sa.types.TypeEngine[Any]]] = {
        **SQLALCHEMY_TYPES,
        **{kind: _TextType(name) for kind, name in _DECLARED_NAMES.items()},
    }

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        with super().connect(write=write):
            driver: Any = self._connection.connection.driver_connection
            driver.create_aggregate("exact_sum", 1, _ExactSum)
            driver.create_function("exact_amount", 1, _exact_amount, deterministic=True)
            yield

    @property
    def _schema(self) -> None:
        return None  # the dataset is the file

    def qualified(self, table: str) -> Sql:
        return self.quoted(table)

    def date_literal(self, day: date) -> Sql:
        return Sql(f"'{day}'")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        return Sql(f"'{timestamp:%Y-%m-%d %H:%M:%S.%f}'")

    def sum_expression(self, cell: Sql) -> Sql:
        return Sql(f"exact_sum({cell})")

    def columns(self, table: str) -> dict[str, str]:
        """Return what the types were declared to be."""
        found = self.query(f"PRAGMA table_info({self.quoted(table)})")
        return {row[1]: _DATA_TYPES.get(row[2], row[2]) for row in found}

    def stored_type(self, table: str, name: str, given: str) -> str:
        """What dlt made of amounts and maps it declared as TEXT."""
        kind = super().stored_type(table, name, given)
        may_be_given = kind == SqlType.TEXT and given in _DECLARED_NAMES
        by_dlt = "SELECT 1 FROM sqlite_master WHERE name = '_dlt_version'"
        return given if may_be_given and self.query(by_dlt) else kind

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        altered = f"ALTER TABLE {self.qualified(table)}"
        for name, kind in columns.items():
            column, free = self.quoted(name), self.quoted(f"{name}_as_text")
            cell = self.types[kind].to_text.format(column)
            self.query(f"{altered} ADD COLUMN {free} TEXT")
            self.query(f"UPDATE {self.qualified(table)} SET {free} = {cell}")
            self.query(f"{altered} DROP COLUMN {column}")
            self.query(f"{altered} RENAME COLUMN {free} TO {column}")


class _ExactSum:
    """The sum of amounts that are text."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, amount: str | None) -> None:
        if amount is not None:
            with localcontext(prec=100):
                self._sum = (self._sum or Decimal(0)) + Decimal(amount)

    def finalize(self) -> str | None:
        return None if self._sum is None else f"{self._sum:f}"


def _exact_amount(text: str | None) -> str | None:
    try:
        return None if text is None or not Decimal(text).is_finite() else text
    except InvalidOperation:
        return None


DATABASES: Mapping[str, type[SqlDialect]] = {
    "postgresql": PostgresDialect,
    "sqlite": SqliteDialect,
}
"""By SQLAlchemy's name of the kind of database."""


def dialect_factory(settings: SqlSettings) -> Callable[[], Dialect]:
    """Return what gives the dialect of the database for a session. Raises SettingsError where it
    cannot replace a month."""
    check_destination(settings)

    def opened() -> Dialect:
        with suppress(sa.exc.ArgumentError):  # of a URL, which connecting explains
            backend = database_url(settings).get_backend_name()
            return DATABASES.get(backend, SqlDialect)(settings)
        return SqlDialect(settings)

    return opened
