"""A DuckDB file: open for the moment that a month's replacement takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError, first_line, shown
from finops_dagster.lake import relation
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import DATE, DigestKind, MonthDigest, digest
from finops_dagster.tables.parquet_text import time_as_text
from finops_dagster.warehouses.base import MonthFile
from finops_dagster.warehouses.dialect import COUNT, Change, Dialect, texts
from finops_dagster.warehouses.duckdb import Settings

# Each of more would copy the list of all columns, which DuckDB keeps until the transaction ends:
# 4,000 at once take 5 GB, outside of its limit.
_ADDED_ONE_BY_ONE = 500


class DuckDBDialect(Dialect):
    """One file with the tables of all exports. A month, its new columns and its row in the ledger
    are one transaction."""

    types: ClassVar[Mapping[str, Sql]] = texts({kind: kind for kind in (*SqlType, DATE, COUNT)})
    as_text: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.TIME: time_as_text(Sql("{0}")),
            SqlType.TEXT_MAP: "CAST(to_json({0}) AS VARCHAR)",
            SqlType.MONEY_MAP: "CAST(to_json({0}) AS VARCHAR)",
            SqlType.MONEY: "CAST({0} AS VARCHAR)",
        }
    )
    from_text: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.MONEY: "exact_decimal({0})",
            SqlType.MONEY_MAP: "exact_map(text_map({0}))",
        }
    )
    read_as: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.MONEY: "TRY(exact_decimal({0}))",
            SqlType.TIME: "TRY(utc_timestamp({0}))",
        }
    )
    digest_kind = DigestKind.HASH
    casts = True

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.warehouse_path or "")
        self._duckdb = DuckDB.of(settings)
        self._connection: duckdb.DuckDBPyConnection

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        """Open the file; one that is only read is not made, and holds nothing."""
        is_there = write or self._path.is_file()
        opened = (
            self._duckdb.open(self._path, read_only=not write, preserve_insertion_order=False)
            if is_there
            else self._duckdb.scratch()
        )
        with opened as self._connection:
            prepare_casts(self._connection)
            yield

    def explanation(self, error: Exception) -> Exception | None:
        is_ours = isinstance(error, duckdb.Error)
        return BillError(f"{self._path}: {first_line(error)}") if is_ours else None

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values or None).fetchall()

    def reach(self) -> str:
        made = "" if self._path.is_file() else ", which is made when the first month comes"
        return f"DuckDB {self._path}{made}"

    def full_name(self, table: str) -> str:
        """Return `file.table`, as it is after the file was opened or attached."""
        return f"{self._path.stem}.{table}"

    def columns(self, table: str) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'main' "
                "AND lower(table_name) = lower(?) ORDER BY column_index",
                table,
            )
        )

    def parameter(self, number: int) -> Sql:
        return Sql(f"${int(number)}")

    def load_beside(self, file: MonthFile, change: Change) -> Sql:
        """Return the file itself, which DuckDB reads."""
        for name, given in file.types.items():
            if given == SqlType.TEXT and change.kept[name] in self.from_text:
                self._refuse_other_text(file, name, change.kept[name])
        return relation(file.path)

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        if len(columns) <= _ADDED_ONE_BY_ONE:
            super().add_columns(table, columns)
            return
        wider = self.qualified(f"{table}__wider")
        nothing = ", ".join(
            f"NULL::{self.types[kind]} AS {quoted(name)}" for name, kind in columns.items()
        )
        self.query(f"CREATE TABLE {wider} AS SELECT *, {nothing} FROM {self.qualified(table)}")
        self.query(f"DROP TABLE {self.qualified(table)}")
        self.query(f"ALTER TABLE {wider} RENAME TO {self.qualified(table)}")

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests by DuckDB's own hash."""
        rows = Sql(f"{self.qualified(file.table)} WHERE {self.of_month(file)}")
        return digest(self._connection, rows, file.types, self.digest_kind)

    def _refuse_other_text(self, file: MonthFile, name: str, kept: str) -> None:
        """Raise BillError, which names the first text that is not exactly what the column holds."""
        cast = self.from_text[kept].format(quoted(name))
        for (text,) in self.query(
            f"SELECT {quoted(name)} FROM {relation(file.path)} "
            f"WHERE {quoted(name)} IS NOT NULL AND TRY({cast}) IS NULL LIMIT 1"
        ):
            raise BillError(
                f"column {name} of {self.full_name(file.table)} is {kept}, and {shown(text)} in "
                f"{file.path} cannot be kept exactly as one; give the export another name and table"
            )
