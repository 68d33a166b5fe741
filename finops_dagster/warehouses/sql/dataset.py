"""A dataset of a destination of dlt, and what is done in it by SQL that all of them take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, localcontext
from typing import Any, cast

import dlt
from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns
from dlt.common.schema.utils import new_table
from dlt.destinations.job_client_impl import SqlJobClientBase
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import Measured, Totals, reconcile
from finops_dagster.lake.month import relation
from finops_dagster.tables.digest import (
    ColumnDigest,
    DigestKind,
    MonthDigest,
    column_type,
    compared,
)
from finops_dagster.warehouses.base import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.sql.columns import (
    Widening,
    dlt_type,
    has_decimals,
    making_text,
    widening,
)

INCOMING = "finops_incoming"
_ROWS_AT_ONCE = 10_000
_STATISTICS = {
    "mysql": "ANALYZE TABLE {0}",
    "postgres": "ANALYZE {0}",
    "redshift": "ANALYZE {0}",
    "sqlite": "ANALYZE {0}",
    "tsql": "UPDATE STATISTICS {0}",
}

_LEDGER: dict[str, TColumnSchema] = {
    "billing_period": {"data_type": "text"},
    "load_timestamp": {"data_type": "timestamp"},
    "row_count": {"data_type": "bigint"},
    "state": {"data_type": "text"},
    "error_message": {"data_type": "text"},
    "manifest_id": {"data_type": "text"},
    "job_id": {"data_type": "text"},
}


class _Undone(Exception):
    """Ends a transaction that was begun to see whether it can be undone."""


@dataclass(frozen=True)
class Dataset:
    """An open connection to the dataset, and dlt's knowledge of how the destination has it."""

    client: SqlJobClientBase

    @property
    def has_decimals(self) -> bool:
        """Whether amounts are decimals here, and not text."""
        return has_decimals(self._dialect)

    @property
    def longest_name(self) -> int | None:
        return self.client.schema.naming.max_length

    @property
    def _dialect(self) -> str | None:
        return self.client.capabilities.sqlglot_dialect

    def name_of(self, column: str) -> str:
        """The column's name here: dlt gives one that is too long a hash for its middle."""
        return str(self.client.schema.naming.normalize_identifier(column))

    def columns(self, table: str) -> TTableSchemaColumns:
        """The columns that the table has, by name; none where there is no table."""
        ((_, columns),) = self.client.get_storage_tables([table])
        return {name.lower(): column for name, column in columns.items()}

    def columns_of(self, kinds: Mapping[str, str]) -> TTableSchemaColumns:
        """What dlt is told of columns of these types."""
        columns: TTableSchemaColumns = {}
        for name, kind in kinds.items():
            known = dlt_type(kind, self._dialect)
            columns[name] = {"name": name, "nullable": True, "description": kind, **known}
        return columns

    def kinds_of(self, file: MonthFile) -> dict[str, str]:
        """The types of the month's columns, as DuckDB has them, by the columns' names here."""
        return {self.name_of(field.name): column_type(field.type) for field in file.schema}

    def widening(self, file: MonthFile, full_name: str) -> Widening:
        """What the month asks of its table. Raises BillError."""
        there = self.columns(file.table)
        known = self._known(file, there)
        return widening(file, full_name, self._dialect, self.name_of, there, known)

    def _known(self, file: MonthFile, there: TTableSchemaColumns) -> TTableSchemaColumns:
        """What dlt has stored of the columns that are there."""
        stored = self.client.get_stored_schema(_schema_name(file)) if there else None
        tables = json.loads(stored.schema)["tables"] if stored else {}
        known: TTableSchemaColumns = tables.get(file.table, {}).get("columns", {})
        return {name: column for name, column in known.items() if name.lower() in there}

    def schema_with(self, file: MonthFile, kinds: Mapping[str, str]) -> dlt.Schema:
        """The table as dlt stored it, the month's columns of these types, and the ledger."""
        wanted = self.columns_of(kinds)
        wanted["billing_month"].update({"partition": True, "sort": True})
        columns = {**self._known(file, self.columns(file.table)), **wanted}
        ledger = [cast(TColumnSchema, {"name": name, **rest}) for name, rest in _LEDGER.items()]
        schema = dlt.Schema(_schema_name(file))
        schema.update_table(new_table(file.table, columns=list(columns.values())))
        schema.update_table(new_table(ledger_of(file), columns=ledger))
        return dlt.Schema.from_dict(cast(dict[str, Any], schema.to_dict()))

    def store(self, file: MonthFile) -> None:
        """Make the tables and columns of dlt's schema that are missing, and let dlt know of it."""
        tables = [file.table, ledger_of(file), self.client.schema.version_table_name]
        self.client.update_stored_schema(only_tables=tables, force=True)

    def index(self, table: str) -> None:
        """Let a month be found without reading the others, where that is what an index is for."""
        index, month = f"{table}_billing_month", self._quoted("billing_month")
        if self._dialect == "sqlite":
            self.query(f"CREATE INDEX {self._table(index)} ON {self._quoted(table)} ({month})")
        elif self._dialect in ("mysql", "oracle", "postgres", "tsql"):
            self.query(f"CREATE INDEX {self._quoted(index)} ON {self._table(table)} ({month})")

    def renew_statistics(self, file: MonthFile) -> None:
        """Tell the planner what has come, where it must be told."""
        statement = _STATISTICS.get(self._dialect or "")
        if statement:
            self.query(statement.format(self._table(file.table)))

    def begin(self, file: MonthFile, job_id: str) -> None:
        """Write into the ledger that the month is being loaded; end what died before its end.
        Raises BillError where the destination keeps what was rolled back."""
        ledger = self._table(ledger_of(file))
        died = self.query(
            f"SELECT job_id FROM {ledger} WHERE billing_period = %s AND state = 'loading'",
            str(file.month),
        )
        for (job,) in died:
            self.fail(file, job, "another load of the month began before it ended")
        with suppress(_Undone), self.client.sql_client.begin_transaction():
            self._record(file, job_id)
            raise _Undone
        if self.query(f"SELECT job_id FROM {ledger} WHERE job_id = %s", job_id):
            reason = "it keeps what was rolled back: a month could not be replaced in one step"
            self.fail(file, job_id, reason)
            raise BillError(reason)
        self._record(file, job_id)

    def move(
        self, file: MonthFile, job_id: str, full_name: str, becoming_text: Mapping[str, str]
    ) -> None:
        """Put what was brought into the month's place, measured before the commit; and make text of
        columns that no longer can be what they are.

        The ledger's rows of the month are written first: a load on another machine waits for them,
        and SQLite begins its transaction with them.
        """
        ledger, table = self._table(ledger_of(file)), self._table(file.table)
        with self.client.sql_client.begin_transaction():
            self.query(
                f"UPDATE {ledger} SET state = 'loaded', load_timestamp = %s "
                "WHERE job_id = %s AND state = 'loading'",
                self._now(file),
                job_id,
            )
            self.query(
                f"UPDATE {ledger} SET state = 'failed', error_message = 'another load was faster' "
                "WHERE billing_period = %s AND state = 'loading'",
                str(file.month),
            )
            if self.state(file, job_id) != "loaded":
                raise WarehouseUnavailable(f"{full_name}: {another_run(file)}")
            for column, kind in becoming_text.items():
                name, free = self._column(column), self._column(f"{column}_as_text")
                for statement in making_text(self._dialect, table, name, free, kind):
                    self.query(statement)
            month = self._quoted("billing_month")
            self.query(f"DELETE FROM {table} WHERE {month} = %s", file.month.first_day)
            if file.footer.totals.rows:
                self._insert(file, incoming_table(job_id))
            reconcile(full_name, file.footer.totals, self.measure(file))

    def _insert(self, file: MonthFile, incoming: str) -> None:
        names = ", ".join(map(self._column, file.schema.names))
        into, brought = self._table(file.table), self._table(incoming)
        self.query(f"INSERT INTO {into} ({names}) SELECT {names} FROM {brought}")

    def hold_against(self, file: MonthFile, connection: DuckDBPyConnection, job_id: str) -> None:
        """Hold every column that dlt has brought against the file. Raises BillError, for a way into
        some destination may round, shift times, or make NULL of empty text."""
        # SQLite takes a quoted name that is no column for a text.
        there = self.columns(incoming_table(job_id))
        absent = [name for name in self.kinds_of(file) if name.lower() not in there]
        if absent:
            raise BillError(f"dlt brought no column {', '.join(absent)}")
        asked = [
            (field.name, function)
            for field in file.schema
            for function in (Sql("COUNT"), *self._comparable(column_type(field.type)))
        ]
        theirs = ", ".join(_asked(function, self._column(name)) for name, function in asked)
        ours = ", ".join(_asked(function, quoted(name)) for name, function in asked)
        (brought,) = self.query(f"SELECT {theirs} FROM {self._table(incoming_table(job_id))}")
        (given,) = connection.execute(f"SELECT {ours} FROM {relation(file.path)}").fetchall()
        for (name, function), is_now, was in zip(asked, brought, given, strict=True):
            if _in_utc(is_now) != was:
                raise BillError(
                    f"{function.lower()} of {name} is {is_now} when dlt has brought it, and {was} "
                    "in the file: this destination does not keep it as it is"
                )

    def _comparable(self, kind: str) -> tuple[Sql, ...]:
        """What else than its count says that a column came as it was."""
        kinds = (SqlType.MONEY, SqlType.TIME) if self.has_decimals else (SqlType.TIME,)
        return (Sql("MIN"), Sql("MAX")) if kind in kinds else ()

    def fail(self, file: MonthFile, job_id: str, reason: str) -> None:
        """Write into the ledger why the load ended, and remove what it brought."""
        self.query(
            f"UPDATE {self._table(ledger_of(file))} SET state = 'failed', error_message = %s "
            "WHERE job_id = %s AND state = 'loading'",
            reason,
            job_id,
        )
        self.drop(job_id)

    def drop(self, job_id: str) -> None:
        """Remove the table that dlt loaded, and what dlt noted of it."""
        self.client.drop_tables(incoming_table(job_id), delete_schema=True)

    def state(self, file: MonthFile, job_id: str) -> str:
        """What the ledger says of the load; a load on another machine may have ended it."""
        ledger = self._table(ledger_of(file))
        ((state,),) = self.query(f"SELECT state FROM {ledger} WHERE job_id = %s", job_id)
        return str(state)

    def loads(self, ledger: str) -> list[tuple[Any, ...]]:
        """Return month, version, rows and time of every load in a ledger that succeeded."""
        if not self.columns(ledger):
            return []
        return self.query(
            "SELECT billing_period, manifest_id, row_count, load_timestamp "
            f"FROM {self._table(ledger)} WHERE state = 'loaded'"
        )

    def loaded_version(self, file: MonthFile) -> str | None:
        """The manifest that the newest loaded row of the month names."""
        rows = self.query(
            f"SELECT manifest_id FROM {self._table(ledger_of(file))} "
            "WHERE billing_period = %s AND state = 'loaded' ORDER BY load_timestamp DESC",
            str(file.month),
        )
        return rows[0][0] if rows else None

    def measure(self, file: MonthFile) -> Measured:
        """Count the month in the table."""
        month = self._column("billing_month")
        of_month = Sql(f"FROM {self._table(file.table)} WHERE {month} = %s")
        first = file.month.first_day
        if file.billing_period:
            period = self._column(file.billing_period)
            foreign = f"SUM(CASE WHEN {period} < %s OR {period} >= %s THEN 1 ELSE 0 END)"
            bounds = [self._midnight(first), self._midnight(file.month.next.first_day)]
        else:
            foreign, bounds = "0", []
        ((rows, foreign_rows),) = self.query(
            f"SELECT COUNT(*), {foreign} {of_month}", *bounds, first
        )
        cost = self._sum(file, file.cost, of_month) if file.cost else None
        return Measured(Totals.of((int(rows), cost)), int(foreign_rows or 0))

    def sums(self, file: MonthFile) -> MonthDigest:
        """Return how many amounts each column of money has, and their sum."""
        of_month = Sql(f"FROM {self._table(file.table)} WHERE {self._column('billing_month')} = %s")
        first, digests = file.month.first_day, {}
        for name in compared(file.types, DigestKind.SUMS):
            count = f"SELECT COUNT({self._column(name)}) {of_month}"
            ((values,),) = self.query(count, first)
            digests[name] = ColumnDigest(values, self._sum(file, name, of_month) or 0)
        return MonthDigest(DigestKind.SUMS, digests)

    def _sum(self, file: MonthFile, column: str, of_month: Sql) -> Decimal | None:
        cost, first = self._column(column), file.month.first_day
        held = self.columns(file.table)[self.name_of(column).lower()]
        if self.has_decimals and held["data_type"] != "text":
            ((total,),) = self.query(f"SELECT SUM({cost}) {of_month}", first)
            if isinstance(total, float):
                raise BillError(f"it adds {column} as floats, and amounts are exact")
            return None if total is None else Decimal(total)
        added = Decimal(0)
        amounts = f"SELECT {cost}, COUNT(*) {of_month} AND {cost} IS NOT NULL GROUP BY {cost}"
        with (
            localcontext(prec=100),
            self.client.sql_client.execute_query(amounts, *self._bound(first)) as cursor,
        ):
            while batch := cursor.fetchmany(_ROWS_AT_ONCE):
                added += sum((Decimal(text) * count for text, count in batch), Decimal(0))
        return added

    def query(self, sql: str, *values: Any) -> list[Any]:
        """The rows of a statement, whose values are bound."""
        return list(self.client.sql_client.execute_sql(sql, *self._bound(*values)) or [])

    def _record(self, file: MonthFile, job_id: str) -> None:
        self.query(
            f"INSERT INTO {self._table(ledger_of(file))} "
            "(billing_period, load_timestamp, row_count, state, manifest_id, job_id) "
            "VALUES (%s, %s, %s, 'loading', %s, %s)",
            str(file.month),
            self._now(file),
            file.footer.totals.rows,
            file.footer.manifest_id,
            job_id,
        )

    def _table(self, table: str) -> Sql:
        return Sql(self.client.sql_client.make_qualified_table_name(table))

    def _column(self, column: str) -> Sql:
        return self._quoted(self.name_of(column))

    def _quoted(self, name: str) -> Sql:
        """A name as this destination quotes it, which dlt knows."""
        return Sql(self.client.sql_client.escape_column_name(name))

    def _now(self, file: MonthFile) -> datetime:
        """Now, or just after the month's newest load, which a clock that was wrong may have put
        into the future."""
        ((newest,),) = self.query(
            f"SELECT MAX(load_timestamp) FROM {self._table(ledger_of(file))} "
            "WHERE billing_period = %s AND state = 'loaded'",
            str(file.month),
        )
        now = datetime.now(UTC)
        if newest is not None:
            now = max(now, _in_utc(newest).replace(tzinfo=UTC) + timedelta(microseconds=1))
        return self._as_held(now)

    def _midnight(self, day: date) -> datetime:
        return self._as_held(datetime.combine(day, time(), UTC))

    def _as_held(self, moment: datetime) -> datetime:
        has_zones = self.client.capabilities.supports_tz_aware_datetime
        return moment if has_zones else moment.replace(tzinfo=None)

    def _bound(self, *values: Any) -> list[Any]:
        """SQLite holds days and moments as text."""
        texts = self._dialect == "sqlite"
        return [str(value) if texts and isinstance(value, date) else value for value in values]


def another_run(file: MonthFile) -> str:
    """What is told of a load that another one ended."""
    return f"another run is loading {file.month}"


def ledger_of(file: MonthFile) -> str:
    return f"{file.table}_loads"


def _schema_name(file: MonthFile) -> str:
    return f"finops_{file.table}"[:64]


def incoming_table(job_id: str) -> str:
    return f"{INCOMING}_{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"


def _asked(function: Sql, column: Sql) -> Sql:
    return Sql(f"{function}({column})")


def _in_utc(value: Any) -> Any:
    """A time as DuckDB has it; SQLite gives text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    is_aware = isinstance(moment, datetime) and moment.tzinfo is not None
    return moment.astimezone(UTC).replace(tzinfo=None) if is_aware else moment
