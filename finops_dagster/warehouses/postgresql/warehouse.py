"""PostgreSQL: a month is a partition, filled out of sight and exchanged, all in one transaction."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import adbc_driver_postgresql.dbapi as adbc
import dagster as dg

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.lake.footer import Footer
from finops_dagster.tables.digest import MonthDigest
from finops_dagster.warehouses.base import (
    Loaded,
    LoadedMonth,
    MonthFile,
    WarehouseUnavailable,
    newest_loads,
)
from finops_dagster.warehouses.postgresql import Settings
from finops_dagster.warehouses.postgresql.columns import within_limit
from finops_dagster.warehouses.postgresql.errors import RowTooWide, explained
from finops_dagster.warehouses.postgresql.month import Month


class PostgreSQLWarehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One schema, in which each export has a table that is partitioned by LIST (billing_month).

    `{table}_loads` beside each table has a row for every load that ended: what month and version it
    brought, and whether that is loaded or failed. A load that was killed leaves nothing.
    """

    host: str
    port: int
    database: str
    schema_name: str
    user: str
    sslmode: str
    lock_wait_seconds: int

    def reach(self) -> str:
        """Ask the server for its version."""
        with self._transaction() as cursor:
            cursor.execute("SELECT current_setting('server_version')")
            ((version,),) = cursor.fetchall()
        return f"PostgreSQL {version}, {self._where}"

    def full_name(self, table: str) -> str:
        """`schema.table`, quoted where PostgreSQL would take it for another."""
        parts = (self.schema_name, table)
        return ".".join(
            part if re.fullmatch("[a-z_][a-z0-9_]*", part) else quoted(part) for part in parts
        )

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return what the table's ledger says is loaded."""
        ledger = Sql(f"{quoted(self.schema_name)}.{quoted(within_limit(f'{table}_loads'))}")
        with self._transaction() as cursor:
            cursor.execute("SELECT to_regclass($1) IS NULL", [ledger])
            if cursor.fetchall() == [(True,)]:
                return []
            cursor.execute(
                "SELECT billing_period, manifest_id, row_count, load_timestamp::text "
                f"FROM {ledger} WHERE state = 'loaded'"
            )
            return newest_loads(cursor.fetchall())

    def held_version(self, file: MonthFile) -> Footer | None:
        """What the ledger says is loaded, if the partition really holds its rows and cost."""
        with self._month(file) as month:
            return month.held_version()

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests, by MD5."""
        with self._month(file) as month:
            return month.digest()

    def replace_month(self, file: MonthFile) -> Loaded:
        """Load the file beside the table, and put it in the place of the month's partition."""
        job = uuid4().hex
        try:
            with self._month(file) as month:
                month.prepare()
            try:
                warnings = self._load(file, job)
            except RowTooWide:
                warnings = self._load(file, job, all_tags_overflow=True)
        except Exception as error:
            with suppress(BillError, WarehouseUnavailable), self._month(file) as month:
                month.record(job, first_line(error))
            raise
        return Loaded(job, warnings)

    def _load(self, file: MonthFile, job: str, all_tags_overflow: bool = False) -> tuple[str, ...]:
        with self._month(file) as month:
            return month.replace(job, self.lock_wait_seconds, all_tags_overflow)

    @contextmanager
    def _month(self, file: MonthFile) -> Iterator[Month]:
        with self._transaction() as cursor:
            yield Month(cursor, self.schema_name, file, self.full_name(file.table))

    @contextmanager
    def _transaction(self) -> Iterator[adbc.Cursor]:
        """A connection whose one transaction is committed at the end of the block."""
        with (
            explained(self._where),
            adbc.connect(self._conninfo()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"SET lock_timeout = '{self.lock_wait_seconds}s'")
            yield cursor
            connection.commit()

    @property
    def _where(self) -> str:
        return f"database {self.database} at {self.host}"

    def _conninfo(self) -> str:
        words = {
            "host": self.host,
            "port": str(self.port),
            "dbname": self.database,
            "user": self.user,
            "password": os.environ.get("POSTGRESQL_PASSWORD"),
            "sslmode": self.sslmode,
            "connect_timeout": "10",
            "application_name": "finops_dagster",
        }
        escaped = {key: re.sub(r"(['\\])", r"\\\1", word) for key, word in words.items() if word}
        return " ".join(f"{key}='{word}'" for key, word in escaped.items())


def open_warehouse(settings: Settings) -> PostgreSQLWarehouse:
    """The schema that the settings name."""
    return PostgreSQLWarehouse(**settings.model_dump())
