"""A second DuckDB file, for readers alone: open for the moment that a month's replacement takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import duckdb
from dagster_duckdb import DuckDBResource

from finops_dagster.billing.columns import OWN_COLUMNS, Sql, SqlType, literal, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.money import reconcile
from finops_dagster.lake.footer import Footer
from finops_dagster.tables import load as table
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import DigestKind, MonthDigest, digest
from finops_dagster.tables.load import Target
from finops_dagster.tables.load import columns as columns_of
from finops_dagster.tables.parquet_files import ParquetFiles, parquet_files
from finops_dagster.warehouses.base import Loaded, LoadedMonth, MonthFile, newest_loads
from finops_dagster.warehouses.duckdb import Settings

_LEDGER = """
CREATE TABLE IF NOT EXISTS {} (
    billing_period VARCHAR NOT NULL,
    load_timestamp TIMESTAMP NOT NULL,
    row_count BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    error_message VARCHAR,
    manifest_id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL
)
"""


class DuckDBWarehouse(DuckDBResource):
    """One file with the tables of all exports. A month, its new columns and its row in
    `{table}_loads` are one transaction; a load that failed has a row there too."""

    memory_limit: str
    threads: int | None = None
    temp_dir: str | None = None
    lock_wait_seconds: int

    def reach(self) -> str:
        """Open the file for reading where there is one."""
        if not self._path.is_file():
            return f"DuckDB {self._path}, which is made when the first month comes"
        with self._connection(read_only=True):
            return f"DuckDB {self._path}"

    def full_name(self, table: str) -> str:
        """`file.table`, as it is after the file was opened or attached."""
        return f"{self._path.stem}.{table}"

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return what the table's ledger says is loaded."""
        ledger = f"{table}_loads"
        if not self._path.is_file():
            return []
        with self._connection(read_only=True) as connection:
            if not columns_of(connection, ledger):
                return []
            loads = connection.execute(
                f"SELECT billing_period, manifest_id, row_count, load_timestamp "
                f"FROM {quoted(ledger)} WHERE state = 'loaded'"
            ).fetchall()
        return newest_loads(loads)

    def held_version(self, file: MonthFile) -> Footer | None:
        """What the ledger says is loaded, if the table really holds its rows and cost."""
        if not self._path.is_file():
            return None
        with self._connection(read_only=True) as connection:
            if not all(table.columns(connection, name) for name in (file.table, _ledger(file))):
                return None
            loaded = connection.execute(
                f"SELECT manifest_id FROM {quoted(_ledger(file))} "
                "WHERE billing_period = ? AND state = 'loaded' "
                "ORDER BY load_timestamp DESC LIMIT 1",
                [str(file.month)],
            ).fetchone()
            sums = file.footer.totals.sums
            measured = table.measure(connection, quoted(file.table), file.month, file, sums)
        if loaded is None or measured.foreign_rows:
            return None
        return Footer(loaded[0], measured.totals)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests, by DuckDB's own hash."""
        first_day = literal(str(file.month.first_day))
        rows = Sql(f"{quoted(file.table)} WHERE billing_month = DATE {first_day}")
        with self._connection(read_only=True) as connection:
            table.prepare_casts(connection)
            return digest(connection, rows, file.types, DigestKind.HASH)

    def replace_month(self, file: MonthFile) -> Loaded:
        """Replace the month's rows by those of the file."""
        job_id = str(uuid4())
        with self._connection() as connection:
            table.prepare_casts(connection)
            connection.execute(_LEDGER.format(quoted(_ledger(file))))
            try:
                return Loaded(job_id, self._replaced(connection, file, job_id))
            except Exception as error:
                with suppress(duckdb.Error):  # a full disk has no room for this either
                    _record(connection, file, job_id, first_line(error))
                raise

    def _replaced(
        self, connection: duckdb.DuckDBPyConnection, file: MonthFile, job_id: str
    ) -> tuple[str, ...]:
        files = parquet_files([file.path])
        targets: list[Target] = []
        try:
            with table.transaction(connection):
                targets = _targets(connection, file, files[0])
                warnings = table.write_month(
                    connection, file.table, file.month, file.footer.manifest_id, files, targets
                )
                totals, rows = file.footer.totals, quoted(file.table)
                measured = table.measure(connection, rows, file.month, file, totals.sums)
                reconcile(self.full_name(file.table), totals, measured)
                _record(connection, file, job_id, None)
                return tuple(warnings)
        except duckdb.Error as error:
            raise table.refused(
                connection, error, file.table, file.month, files, targets
            ) from error

    @property
    def _path(self) -> Path:
        return Path(self.database)

    @property
    def _limits(self) -> DuckDB:
        temp_dir = None if self.temp_dir is None else Path(self.temp_dir)
        return DuckDB(self.memory_limit, self.threads, temp_dir, self.lock_wait_seconds)

    @contextmanager
    def _connection(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file; says in one line what DuckDB says."""
        try:
            with self._limits.open(self._path, read_only=read_only) as connection:
                yield connection
        except duckdb.Error as error:
            raise BillError(f"{self._path}: {first_line(error)}") from error


def open_warehouse(settings: Settings) -> DuckDBWarehouse:
    """The file at `warehouse_path`."""
    return DuckDBWarehouse(
        database=str(settings.warehouse_path),
        memory_limit=settings.memory_limit,
        threads=settings.threads,
        temp_dir=None if settings.temp_dir is None else str(settings.temp_dir),
        lock_wait_seconds=settings.lock_wait_seconds,
    )


def _targets(
    connection: duckdb.DuckDBPyConnection, file: MonthFile, columns: ParquetFiles
) -> list[Target]:
    """The column of the table for every column of the file, which has the same name."""
    existing = table.types_by_lower_name(connection, file.table)
    targets = []
    for name in columns.headers:
        if name not in OWN_COLUMNS:
            given = columns.own_type(name) or SqlType.TEXT
            kept = table.type_kept(
                connection, file.table, file.month, name, existing.get(name.lower()), given
            )
            targets.append(Target(name, name, kept, given))
    return targets


def _ledger(file: MonthFile) -> str:
    return f"{file.table}_loads"


def _record(
    connection: duckdb.DuckDBPyConnection, file: MonthFile, job_id: str, error: str | None
) -> None:
    """Add a row to the ledger, unless the job has one: now, or just after the month's newest, which
    a clock that was wrong may have put into the future."""
    ledger = quoted(_ledger(file))
    connection.execute(
        f"INSERT INTO {ledger} SELECT $1, greatest(get_current_timestamp() AT TIME ZONE 'UTC', "
        f"(SELECT max(load_timestamp) + INTERVAL 1 MICROSECOND FROM {ledger} "
        "WHERE billing_period = $1)), $2, $3, $4, $5, $6 "
        f"WHERE NOT EXISTS (FROM {ledger} WHERE job_id = $6)",
        [
            str(file.month),
            file.footer.totals.rows,
            "loaded" if error is None else "failed",
            error,
            file.footer.manifest_id,
            job_id,
        ],
    )
