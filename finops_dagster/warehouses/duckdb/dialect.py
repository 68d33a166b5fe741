"""DuckDB: a database file, which is open only while a month is read or replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.tables.bill_files import AS_TEXT
from finops_dagster.tables.billing_table import add_columns, table_columns
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import DATE, MAPS, DigestKind, MonthDigest, month_digest
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.duckdb.settings import DuckDBSettings
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster.warehouses.schema_change import SchemaChange, refuse_inexact_text


class DuckDBDialect(Dialect):
    """One database file with the tables of all exports; the setting `warehouse_path` names it.

    A month, its new columns and its row in the ledger are one transaction.
    """

    column_types: ClassVar[Mapping[str, ColumnType]] = {
        SqlType.TEXT: ColumnType.of(SqlType.TEXT),
        SqlType.MONEY: ColumnType.of(SqlType.MONEY, from_text="TRY(exact_decimal({0}))"),
        SqlType.TIME: ColumnType.of(
            SqlType.TIME, AS_TEXT[SqlType.TIME], from_text="TRY(utc_timestamp({0}))"
        ),
        **{data_type: ColumnType.of(data_type, AS_TEXT[data_type]) for data_type in MAPS},
        **{data_type: ColumnType.of(data_type) for data_type in (DATE, COUNT)},
    }
    digest_kind = DigestKind.HASH
    accepts_text_as_number = True

    def __init__(self, settings: DuckDBSettings) -> None:
        super().__init__(settings)
        self._path = Path(settings.warehouse_path or "")
        self._connection: duckdb.DuckDBPyConnection

    @property
    def location(self) -> str:
        missing = "" if self._path.is_file() else ", which the first load creates"
        return f"DuckDB {self._path}{missing}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        """Open the database file until the block ends; `write` creates a missing one.

        Without `write`, a missing file is read as an empty database. Waits for other processes up
        to `lock_wait_seconds`.
        """
        database = DuckDB.with_limits(self._settings)
        with (
            database.open(self._path, read_only=not write, preserve_insertion_order=False)
            if write or self._path.is_file()
            else database.open_in_memory()
        ) as self._connection:
            prepare_casts(self._connection)
            yield

    def translate_error(self, error: Exception) -> Exception | None:
        if not isinstance(error, duckdb.Error) or isinstance(error, duckdb.OutOfMemoryException):
            return None
        advice = "check the file, its disk, and [database.duckdb]"
        return BillError(f"{self._path}: {first_line(error)}; {advice}")

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values or None).fetchall()

    def full_name(self, table: str) -> str:
        """Return `acme.table` for the file `acme.duckdb`, as DuckDB names a database it opens."""
        return f"{self._path.stem}.{table}"

    def read_columns(self, table: str) -> dict[str, str]:
        return table_columns(self._connection, table)

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Check the texts of the Parquet file, and return a SELECT of it; nothing is loaded yet.

        Raises BillError for a text that cannot be stored exactly in a column of numbers.
        """
        refuse_inexact_text(self, self._connection, file, change)
        return Sql(f"({file.select_sql(change.target_types)})")

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        types = {name: self.column_types[data_type].native for name, data_type in columns.items()}
        add_columns(self._connection, table, types)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests of the month's rows, by DuckDB's own hash.

        They are of all columns of the table, also of those that the file lacks. A column that only
        the file has is left out.
        """
        rows = Sql(f"{self.table_sql(file.table)} WHERE {self.month_condition(file)}")
        return month_digest(self._connection, rows, file.data_types, self.digest_kind)
