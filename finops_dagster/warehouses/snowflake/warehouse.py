"""Snowflake: the file is copied beside the table, and takes the month's place in a transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from uuid import uuid4

import dagster as dg
from snowflake.connector import SnowflakeConnection, errors

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import Measured, Totals, reconcile
from finops_dagster.lake.footer import Footer
from finops_dagster.tables.digest import DigestKind, MonthDigest
from finops_dagster.warehouses.base import Loaded, LoadedMonth, MonthFile, newest_loads
from finops_dagster.warehouses.snowflake import Settings
from finops_dagster.warehouses.snowflake.columns import (
    ColumnType,
    as_text,
    identifier,
    in_capitals,
    in_quotes,
    type_kept,
    type_named,
    type_of,
)
from finops_dagster.warehouses.snowflake.digest import digests_of
from finops_dagster.warehouses.snowflake.session import (
    in_one_line,
    load,
    may_pass,
    rows_of,
    session,
)

_NO_SUCH_OBJECT = 2003
_LEDGER = """(
    billing_period VARCHAR NOT NULL,
    load_timestamp TIMESTAMP_NTZ NOT NULL,
    row_count NUMBER(38, 0) NOT NULL,
    state VARCHAR NOT NULL,
    error_message VARCHAR,
    manifest_id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL
)"""


class SnowflakeWarehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One schema. Names are in capitals, so that a person writes them without quotes.

    `{table}_loads` beside each table says of every load what month and version it brought, and
    whether it is loaded or failed. What a load needs on its way lives no longer than its session.
    """

    account: str
    user: str
    warehouse: str
    database: str
    schema_name: str
    role: str | None = None
    stage: str | None = None
    host: str | None = None
    port: int = 443
    protocol: str = "https"

    def reach(self) -> str:
        """Log in, which takes the right to use the warehouse, the database and the schema."""
        with self._connected() as connection:
            rows_of(connection, "SELECT CURRENT_VERSION()")
        return self._where

    def full_name(self, table: str) -> str:
        """`database.schema.TABLE`."""
        return f"{self.database}.{self.schema_name}.{in_capitals(table)}"

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return what the table's ledger says is loaded."""
        ledger = f"{table}_loads"
        with self._connected() as connection:
            if not _columns(connection, ledger):
                return []
            loads = rows_of(
                connection,
                "SELECT billing_period, manifest_id, row_count, load_timestamp "
                f"FROM {identifier(ledger)} WHERE state = 'loaded'",
            )
        return newest_loads(loads)

    def held_version(self, file: MonthFile) -> Footer | None:
        """What the ledger says is loaded, if the table really holds its rows and cost."""
        with self._connected() as connection:
            there = _columns(connection, file.table)
            needed = {"billing_month", file.cost, file.billing_period} - {None}
            if not {in_capitals(str(name)) for name in needed} <= there.keys():
                return None
            if not _columns(connection, _ledger(file)):
                return None
            loaded = rows_of(
                connection,
                f"SELECT manifest_id FROM {identifier(_ledger(file))} "
                "WHERE billing_period = ? AND state = 'loaded' "
                "ORDER BY load_timestamp DESC LIMIT 1",
                str(file.month),
            )
            if not loaded:
                return None
            measured = _measure(connection, file)
            return Footer(loaded[0][0], measured.totals) if not measured.foreign_rows else None

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests, by MD5."""
        with self._connected() as connection:
            in_table = _columns(connection, file.table)
            return MonthDigest(DigestKind.MD5, digests_of(connection, file, in_table))

    def replace_month(self, file: MonthFile) -> Loaded:
        """Copy the file into a table of this session, and put it in the month's place.

        A statement that defines something ends a transaction in Snowflake, so all of them come
        before it.
        """
        job = f"finops_{file.export}_{file.month}_{uuid4().hex[:12]}"
        with self._connected(job) as connection:
            rows_of(connection, f"CREATE TABLE IF NOT EXISTS {identifier(_ledger(file))} {_LEDGER}")
            try:
                copy = self._copied(connection, file, job)
                held, warnings = self._widened(connection, file)
                self._put_in_place(connection, file, job, copy, held)
            except Exception as error:
                if not may_pass(error):
                    with suppress(errors.Error):
                        rows_of(connection, "ROLLBACK")
                        _record(connection, file, job, "failed", in_one_line(error))
                raise
            return Loaded(job, tuple(warnings))

    def _copied(self, connection: SnowflakeConnection, file: MonthFile, job: str) -> Sql:
        """The name of a temporary table that has the file's rows, in the file's types.

        The vectorized scanner is asked for because it alone reads a Parquet map as an object.
        """
        temporary = identifier(f"finops_{job[-12:]}")
        columns = ", ".join(f"{identifier(f.name)} {type_of(f)}" for f in file.schema)
        rows_of(connection, f"CREATE TEMPORARY TABLE {temporary} ({columns})")
        if self.stage is None:
            rows_of(
                connection,
                f"CREATE TEMPORARY STAGE {temporary} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
            )
            where = in_quotes(f"file://{file.path.resolve()}")
            load(connection, f"PUT {where} @{temporary} AUTO_COMPRESS = FALSE")
            source, files = temporary, ""
        else:
            in_lake = "/".join(file.path.parts[-3:])
            source, files = Sql(self.stage), f"FILES = ({in_quotes(in_lake)})"
        cells = ", ".join(f"$1:{quoted(f.name)}::{type_of(f)}" for f in file.schema)
        load(
            connection,
            f"COPY INTO {temporary} FROM (SELECT {cells} FROM @{source}) {files} "
            "FILE_FORMAT = (TYPE = PARQUET USE_VECTORIZED_SCANNER = TRUE)",
        )
        if self.stage is not None:
            ((staged,),) = rows_of(connection, f"SELECT MAX(manifest_id) FROM {temporary}")
            if staged not in (None, file.footer.manifest_id):
                raise BillError(
                    f"stage {self.stage} holds version {staged} of {file.export} {file.month}, the "
                    f"lake holds {file.footer.manifest_id}; copy the lake to the stage and run the "
                    "month again"
                )
        return temporary

    def _widened(
        self, connection: SnowflakeConnection, file: MonthFile
    ) -> tuple[dict[str, ColumnType], list[str]]:
        """Make the table, the columns that it lacks, and text of those that cannot stay what they
        are; the types of the file's columns in the table, and the warnings of what they came to."""
        table = identifier(file.table)
        given = {field.name: type_of(field) for field in file.schema}
        definitions = ", ".join(f"{identifier(name)} {kind}" for name, kind in given.items())
        rows_of(
            connection,
            f"CREATE TABLE IF NOT EXISTS {table} ({definitions}) "
            f"CLUSTER BY ({identifier('billing_month')})",
        )
        there = _columns(connection, file.table)
        held, warnings = {}, []
        becoming_text: dict[str, Sql] = {}
        for name, kind in given.items():
            was = type_named(there.get(in_capitals(name), kind))
            held[name] = kept = type_kept(name, self.full_name(file.table), was, kind)
            if kept != was:
                becoming_text[in_capitals(name)] = as_text(identifier(name), was)
                warnings.append(f"{name} was {was}, {file.month} gives {kind}: it is text now")
            elif kept != kind:
                warnings.append(f"{name} stays {kept}, {file.month} gives {kind}")
        for name, kind in given.items():
            if in_capitals(name) not in there:
                rows_of(
                    connection,
                    f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {identifier(name)} {kind}",
                )
        if becoming_text:
            # Snowflake makes text of no column in place; this makes the table anew, in one step.
            cells = ", ".join(
                f"{becoming_text.get(name, quoted(name))} AS {quoted(name)}"
                for name in _columns(connection, file.table)
            )
            load(
                connection,
                f"CREATE OR REPLACE TABLE {table} CLUSTER BY ({identifier('billing_month')}) "
                f"COPY GRANTS AS SELECT {cells} FROM {table}",
            )
        return held, warnings

    def _put_in_place(
        self,
        connection: SnowflakeConnection,
        file: MonthFile,
        job: str,
        copy: Sql,
        held: dict[str, ColumnType],
    ) -> None:
        """Replace the month in one transaction: its rows, measured, and the ledger's word."""
        table, month = identifier(file.table), file.month.first_day
        names = ", ".join(identifier(name) for name in held)
        cells = ", ".join(
            identifier(f.name)
            if held[f.name] == type_of(f)
            else as_text(identifier(f.name), type_of(f))
            for f in file.schema
        )
        rows_of(connection, "BEGIN TRANSACTION")
        load(connection, f"DELETE FROM {table} WHERE billing_month = ?", month)
        load(connection, f"INSERT INTO {table} ({names}) SELECT {cells} FROM {copy}")
        reconcile(self.full_name(file.table), file.footer.totals, _measure(connection, file))
        _record(connection, file, job, "loaded")
        rows_of(connection, "COMMIT")

    @property
    def _where(self) -> str:
        return f"Snowflake {self.account} {self.database}.{self.schema_name}"

    def _connected(
        self, job: str = "finops_dagster"
    ) -> AbstractContextManager[SnowflakeConnection]:
        """A session whose queries the account's history finds by the tag `job`."""
        return session(
            self._where,
            job,
            account=self.account,
            user=self.user,
            warehouse=self.warehouse,
            database=self.database,
            schema=self.schema_name,
            **({"role": self.role} if self.role else {}),
            **({"host": self.host} if self.host else {}),
            port=self.port,
            protocol=self.protocol,
        )


def open_warehouse(settings: Settings) -> SnowflakeWarehouse:
    """The schema of the settings. Makes no connection yet."""
    return SnowflakeWarehouse(**settings.model_dump())


def _ledger(file: MonthFile) -> str:
    return f"{file.table}_loads"


def _columns(connection: SnowflakeConnection, table: str) -> dict[str, str]:
    """Name and type of each column, in the table's order; empty where there is no table. Wakes no
    warehouse."""
    try:
        described = rows_of(connection, f"DESCRIBE TABLE {identifier(table)}")
    except errors.ProgrammingError as error:
        if error.errno == _NO_SUCH_OBJECT:
            return {}
        raise
    return {name: kind for name, kind, *_ in described}


def _measure(connection: SnowflakeConnection, file: MonthFile) -> Measured:
    cost = f"SUM({identifier(file.cost)}::{ColumnType.MONEY})" if file.cost else "NULL"
    period = f"{identifier(file.billing_period or 'billing_month')}::{ColumnType.TIME}"
    ((rows, total, foreign_rows),) = rows_of(
        connection,
        f"SELECT COUNT(*), {cost}, COUNT_IF(DATE_TRUNC('MONTH', {period}) <> billing_month) "
        f"FROM {identifier(file.table)} WHERE billing_month = ?",
        file.month.first_day,
    )
    return Measured(Totals.of((rows, total)), foreign_rows or 0)


def _record(
    connection: SnowflakeConnection, file: MonthFile, job: str, state: str, error: str | None = None
) -> None:
    """Add a row to the ledger; adding waits for nobody's transaction, changing would."""
    rows_of(
        connection,
        f"INSERT INTO {identifier(_ledger(file))} (billing_period, load_timestamp, row_count, "
        "state, error_message, manifest_id, job_id) VALUES (?, SYSDATE(), ?, ?, ?, ?, ?)",
        str(file.month),
        file.footer.totals.rows,
        state,
        error,
        file.footer.manifest_id,
        job,
    )
