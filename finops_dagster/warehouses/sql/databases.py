"""The dialects of PostgreSQL and SQLite by SQLAlchemy, in which a column can become text."""

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


class SqlalchemyPostgresDialect(SqlDialect):
    """PostgreSQL by SQLAlchemy; the backend `postgresql` has a dialect of its own.

    A column of times becomes text in the transaction that replaces the month.
    """

    column_types: ClassVar[Mapping[str, ColumnType]] = {
        **SqlDialect.column_types,
        SqlType.MONEY: ColumnType.of(SqlType.MONEY, from_text=AMOUNT_OF_TEXT),
        SqlType.TIME: ColumnType.of(
            SqlType.TIME,
            TIME_AS_TEXT,
            from_text="{0}::timestamptz",
            duckdb_cast="CAST({0} AS TIMESTAMPTZ)",
        ),
    }


class _TextType(sa.types.UserDefinedType[str]):
    """A text column with a type name of our own; SQLite takes every name that contains TEXT."""

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
    **{name: data_type for data_type, name in _DECLARED_NAMES.items()},
    "DATETIME": SqlType.TIME,
    "TIMESTAMP": SqlType.TIME,
    DATE: DATE,
    "VARCHAR": SqlType.TEXT,
    "TEXT": SqlType.TEXT,
}


class SqlalchemySqliteDialect(SqlDialect):
    """SQLite: it has no decimals, so amounts are text, and a Python function adds them exactly."""

    column_types: ClassVar[Mapping[str, ColumnType]] = {
        **SqlDialect.column_types,
        SqlType.MONEY: ColumnType.of(
            SqlType.MONEY,
            from_text="amount_or_null({0})",
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
        **{data_type: _TextType(name) for data_type, name in _DECLARED_NAMES.items()},
    }

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        """Connect until the block ends, and define the functions that the SQL of amounts calls."""
        with super().connect(write=write):
            driver: Any = self._connection.connection.driver_connection
            driver.create_aggregate("exact_sum", 1, _ExactSum)
            driver.create_function("amount_or_null", 1, _amount_or_null, deterministic=True)
            yield

    @property
    def _schema(self) -> None:
        return None  # the file itself is the dataset

    def table_sql(self, table: str) -> Sql:
        return self.quoted(table)

    def date_literal(self, day: date) -> Sql:
        return Sql(f"'{day}'")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        return Sql(f"'{timestamp:%Y-%m-%d %H:%M:%S.%f}'")

    def sum_expression(self, cell: Sql) -> Sql:
        return Sql(f"exact_sum({cell})")

    def read_columns(self, table: str) -> dict[str, str]:
        # SQLAlchemy does not know the names of _DECLARED_NAMES.
        rows = self.query(f"PRAGMA table_info({self.quoted(table)})")
        return {name: _DATA_TYPES.get(declared, declared) for _, name, declared, *_ in rows}

    def stored_type(self, table: str, name: str, file_type: str) -> str:
        """Return the data type of a stored column; its native type if no data type matches it.

        Earlier releases declared amounts and maps as TEXT: in their databases, a text column has
        the type `file_type` if that is an amount or a map.
        """
        stored_type = super().stored_type(table, name, file_type)
        # Earlier releases loaded by dlt, which leaves this table.
        is_ambiguous = stored_type == SqlType.TEXT and file_type in _DECLARED_NAMES
        dlt_table = "SELECT 1 FROM sqlite_master WHERE name = '_dlt_version'"
        return file_type if is_ambiguous and self.query(dlt_table) else stored_type

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        # SQLite cannot change the type of a column.
        alter_table = f"ALTER TABLE {self.table_sql(table)}"
        for name, data_type in columns.items():
            column, text_column = self.quoted(name), self.quoted(f"{name}_as_text")
            cell = self.column_types[data_type].to_text.format(column)
            self.query(f"{alter_table} ADD COLUMN {text_column} TEXT")
            self.query(f"UPDATE {self.table_sql(table)} SET {text_column} = {cell}")
            self.query(f"{alter_table} DROP COLUMN {column}")
            self.query(f"{alter_table} RENAME COLUMN {text_column} TO {column}")


class _ExactSum:
    """SQLite's aggregate function `exact_sum`, which adds amounts that are text."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, amount: str | None) -> None:
        if amount is not None:
            with localcontext(prec=100):
                self._sum = (self._sum or Decimal(0)) + Decimal(amount)

    def finalize(self) -> str | None:
        return None if self._sum is None else f"{self._sum:f}"


def _amount_or_null(text: str | None) -> str | None:
    """Return the text if it is a number, else None."""
    try:
        return None if text is None or not Decimal(text).is_finite() else text
    except InvalidOperation:
        return None


DATABASES: Mapping[str, type[SqlDialect]] = {
    "postgresql": SqlalchemyPostgresDialect,
    "sqlite": SqlalchemySqliteDialect,
}
"""The dialects by SQLAlchemy's name of the database; SqlDialect serves all others."""


def dialect_factory(settings: SqlSettings) -> Callable[[], Dialect]:
    """Return a function that makes a new dialect of the database at each call.

    Raises SettingsError for a destination that cannot be used, and for an unknown setting. The
    returned function raises BillError if the settings have no address, or a port that is no number.
    An invalid URL is reported only when the dialect connects.
    """
    check_destination(settings)

    def new_dialect() -> Dialect:
        # An invalid URL is reported when the dialect connects.
        with suppress(sa.exc.ArgumentError):
            backend = database_url(settings).get_backend_name()
            return DATABASES.get(backend, SqlDialect)(settings)
        return SqlDialect(settings)

    return new_dialect
