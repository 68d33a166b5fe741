"""One month in PostgreSQL: filled beside the table, exchanged for the partition, and measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import adbc_driver_postgresql.dbapi as adbc

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import Measured, Totals, reconcile
from finops_dagster.lake.footer import Footer
from finops_dagster.tables.digest import (
    ColumnDigest,
    DigestKind,
    MonthDigest,
    digests_of_row,
    groups_of,
)
from finops_dagster.warehouses.base import MonthFile
from finops_dagster.warehouses.postgresql.columns import (
    CASTS,
    MAP,
    MAP_AS_TEXT,
    MONEY,
    TEXT,
    Arrival,
    arrival_of,
    within_limit,
)
from finops_dagster.warehouses.postgresql.digest import COLUMNS_AT_ONCE, count_and_total
from finops_dagster.warehouses.postgresql.errors import explained

# What a socket holds: ADBC writes on while the server reads the last of it. From 200 kB on they
# take turns, and a load takes a third longer.
_BYTES_AT_ONCE = 128 * 1024

# Who asks for a table stands behind a load that waits for it. So a load waits for a few seconds,
# lets pass who has come, and waits again; in the server, for a transaction in which a statement of
# the client failed is over.
_SECONDS_A_TRY = 5
_LOCK = """
DO $lock$
DECLARE
    processes text;
BEGIN
    FOR try IN 1..{tries} LOOP
        BEGIN
            LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            SELECT string_agg(DISTINCT pid::text, ', ') INTO processes
            FROM pg_locks WHERE granted AND relation IN ({relations});
        END;
    END LOOP;
    RAISE lock_not_available USING
        MESSAGE = concat_ws(' ', {problem}, processes, 'of the server (see pg_stat_activity)');
END
$lock$"""

_LEDGER = """
    billing_period text NOT NULL,
    load_timestamp timestamptz NOT NULL,
    row_count bigint NOT NULL,
    state text NOT NULL,
    error_message text,
    manifest_id text NOT NULL,
    job_id text NOT NULL
"""


@dataclass(frozen=True)
class Month:
    """A month's file and the transaction in which it is looked at or replaced; tables are named
    without their schema, `shown` is the table's name for messages."""

    cursor: adbc.Cursor
    schema: str
    file: MonthFile
    shown: str

    def held_version(self) -> Footer | None:
        """What the ledger says is loaded, if the partition really holds its rows and cost."""
        measured_by = {"billing_month", self.file.cost, self.file.billing_period} - {None}
        if not measured_by <= self._types(self.file.table).keys():
            return None
        if not self._types(self._ledger):
            return None
        loaded = self._query(
            f"SELECT manifest_id FROM {self._name(self._ledger)} "
            "WHERE billing_period = $1 AND state = 'loaded' ORDER BY load_timestamp DESC LIMIT 1",
            str(self.file.month),
        )
        if not loaded:
            return None
        measured = self._measure(self.file.table)
        return Footer(loaded[0][0], measured.totals) if not measured.foreign_rows else None

    def digest(self) -> MonthDigest:
        """Return the digest of each of the file's columns in the partition."""
        held, found = self._types(self.file.table), dict[str, ColumnDigest]()
        schema = self.file.schema
        for names in groups_of(schema.names, COLUMNS_AT_ONCE):
            asked = ", ".join(count_and_total(schema.field(name), held) for name in names)
            (row,) = self._query(
                f"SELECT {asked} FROM {self._name(self.file.table)} WHERE billing_month = $1",
                self.file.month.first_day,
            )
            found |= digests_of_row(names, [int(number or 0) for number in row])
        return MonthDigest(DigestKind.MD5, found)

    def prepare(self) -> None:
        """Make the schema and both tables where they are missing; columns come with months."""
        self._take_turn(self.schema)
        if not self._query("SELECT 1 FROM pg_namespace WHERE nspname = $1", self.schema):
            self.cursor.execute(f"CREATE SCHEMA {quoted(self.schema)}")
        if not self._types(self._ledger):
            self.cursor.execute(f"CREATE TABLE {self._name(self._ledger)} ({_LEDGER})")
        kind = self._query(
            "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)",
            self._name(self.file.table),
        )
        if not kind:
            self.cursor.execute(
                f"CREATE TABLE {self._name(self.file.table)} "
                "(billing_month date, manifest_id text) PARTITION BY LIST (billing_month)"
            )
        elif kind != [("p",)]:
            raise BillError(f"{self.shown} is not partitioned; give the export another table")

    def replace(self, job: str, lock_wait_seconds: int, all_tags_overflow: bool) -> tuple[str, ...]:
        """Fill a table, exchange it for the month's partition, tell the ledger; the warnings.

        A lock that is taken stays to the end of the transaction, so the table is touched last.
        """
        table, day = self.file.table, self.file.month.first_day
        partition = within_limit(f"{table}_{day:%Y_%m}")
        incoming = within_limit(f"{partition}_new")
        self._take_turn(f"{self._name(table)} {self.file.month}")
        held = self._types(table)
        arrival = arrival_of(self.file, held, all_tags_overflow)
        self._fill(incoming, {**held, **arrival.columns}, arrival)
        reconcile(self.shown, self.file.footer.totals, self._measure(incoming))
        self._index(incoming)
        self.cursor.execute(f"ANALYZE {self._name(incoming)}")
        is_there = self._is_partition(partition)
        self._lock([table, partition] if is_there else [table], lock_wait_seconds)
        if is_there:
            self.cursor.execute(f"DROP TABLE {self._name(partition)}")
        warnings = self._unite(incoming, arrival)
        self.cursor.execute(f"ALTER TABLE {self._name(incoming)} RENAME TO {quoted(partition)}")
        self.cursor.execute(
            f"ALTER TABLE {self._name(table)} ATTACH PARTITION {self._name(partition)} "
            f"FOR VALUES IN ({literal(str(day))})"
        )
        self.record(job, None)
        return (*arrival.warnings(), *warnings)

    def record(self, job: str, problem: str | None) -> None:
        """Add to the ledger that the month is loaded, or what the problem was, unless the job is
        there: an answer to its commit may have been lost. It is dated now, or just after the
        month's newest, which a clock that was wrong may have put into the future."""
        ledger = self._name(self._ledger)
        self.cursor.execute(
            f"INSERT INTO {ledger} SELECT $1, greatest(clock_timestamp(), "
            f"(SELECT max(load_timestamp) + interval '1 microsecond' FROM {ledger} "
            "WHERE billing_period = $1)), $2, $3, $4, $5, $6 "
            f"WHERE NOT EXISTS (SELECT 1 FROM {ledger} WHERE job_id = $6)",
            [
                str(self.file.month),
                self.file.footer.totals.rows,
                "loaded" if problem is None else "failed",
                problem,
                self.file.footer.manifest_id,
                job,
            ],
        )

    def _fill(self, incoming: str, columns: dict[str, Sql], arrival: Arrival) -> None:
        """Make a table of the month. What its CHECK says is what the partition will be bound to, so
        that no row is looked at again to attach it."""
        definitions = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
        bound = f"billing_month = DATE {literal(str(self.file.month.first_day))}"
        self.cursor.execute(
            f"CREATE TABLE {self._name(incoming)} "
            f"({definitions}, CHECK (billing_month IS NOT NULL AND {bound}))"
        )
        for rows in arrival.batches(self.file.path, self.file.duckdb):
            at_once = max(1, rows.num_rows * _BYTES_AT_ONCE // rows.nbytes)
            stream = rows.to_reader(max_chunksize=at_once)
            self.cursor.adbc_ingest(incoming, stream, mode="append", db_schema_name=self.schema)

    def _measure(self, table: str) -> Measured:
        cost, period = "NULL", "billing_month"
        if self.file.cost:
            cost = f"sum({quoted(self.file.cost)})::text"
        if self.file.billing_period:
            period = f"{quoted(self.file.billing_period)}::timestamptz AT TIME ZONE 'UTC'"
        ((rows, total, foreign_rows),) = self._query(
            f"SELECT count(*), {cost}, "
            f"count(*) FILTER (WHERE date_trunc('month', {period}) <> billing_month) "
            f"FROM {self._name(table)} WHERE billing_month = $1",
            self.file.month.first_day,
        )
        return Measured(Totals(rows, Decimal(total or 0)), foreign_rows)

    def _index(self, incoming: str) -> None:
        """Give the month the indexes that somebody gave the table, before a reader would have to
        wait for them."""
        definitions = self._query(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass($1)",
            self._name(self.file.table),
        )
        for (definition,) in definitions:
            unique = "UNIQUE" if definition.startswith("CREATE UNIQUE ") else ""
            on_table = r"^CREATE( UNIQUE)? INDEX .+? ON ONLY .+? USING "
            using = Sql(re.sub(on_table, "", definition))
            self.cursor.execute(f"CREATE {unique} INDEX ON {self._name(incoming)} USING {using}")

    def _is_partition(self, name: str) -> bool:
        found = self._query(
            "SELECT 1 FROM pg_inherits "
            "WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)",
            self._name(self.file.table),
            self._name(name),
        )
        return bool(found)

    def _lock(self, tables: list[str], wait_seconds: int) -> None:
        """Wait until nobody reads the tables, and let nobody in until the transaction ends."""
        names = [self._name(table) for table in tables]
        seconds = min(_SECONDS_A_TRY, wait_seconds)
        self.cursor.execute(f"SET LOCAL lock_timeout = '{seconds}s'")
        self.cursor.execute(
            _LOCK.format(
                tries=wait_seconds // seconds,
                tables=", ".join(f"ONLY {name}" for name in names),
                relations=", ".join(f"to_regclass({literal(name)})" for name in names),
                problem=literal(f"{self.shown} was in use for {wait_seconds} s, now by process"),
            )
        )

    def _unite(self, incoming: str, arrival: Arrival) -> list[str]:
        """Give the table and the month the same columns; what somebody should know of them.

        The table may have more by now than when the month was filled: other months come too.
        """
        table = self.file.table
        held, given = self._types(table), self._types(incoming)
        for name, has, ought in ((table, held, given), (incoming, given, held)):
            self._add(name, {n: kind for n, kind in ought.items() if n not in has})
        for column in arrival.cut.keys() - held.keys():
            self.cursor.execute(
                f"COMMENT ON COLUMN {self._name(table)}.{quoted(column)} "
                f"IS {literal(arrival.cut[column])}"
            )
        warnings = []
        for column, kind in held.items():
            other = given.get(column, kind)
            if other == kind:
                continue
            kept = self._type_kept(column, kind, other, column in arrival.amounts)
            says = f"column {column} of {self.shown} is {kind}, {self.file.month} gives {other}"
            for name, had in ((table, kind), (incoming, other)):
                if had != kept:
                    self._cast(name, column, had, kept, says)
            warnings.append(
                f"{column} stays {kind}, {self.file.month} gives {other}"
                if kept == kind
                else f"{column} was {kind}, {self.file.month} gives {other}: it is {kept} now"
            )
        return warnings

    def _type_kept(self, column: str, held: Sql, given: Sql, given_amounts: bool) -> Sql:
        """Text takes anything, amounts stay amounts, and all else becomes text, as in DuckDB."""
        if held == TEXT:
            return TEXT
        if held == MONEY or (held == MAP and self._has_amounts(column)):
            return held
        return given if given_amounts else TEXT

    def _has_amounts(self, column: str) -> bool:
        """Whether the column's maps hold numbers; their type does not say it."""
        found = self._query(
            f"SELECT 1 FROM {self._name(self.file.table)}, jsonb_each({quoted(column)}) "
            "WHERE jsonb_typeof(value) = 'number' LIMIT 1"
        )
        return bool(found)

    def _add(self, table: str, columns: dict[str, Sql]) -> None:
        new = ", ".join(f"ADD COLUMN {quoted(name)} {kind}" for name, kind in columns.items())
        if new:
            self.cursor.execute(f"ALTER TABLE {self._name(table)} {new}")

    def _cast(self, table: str, column: str, had: Sql, kept: Sql, says: str) -> None:
        if (had, kept) not in CASTS:
            raise BillError(
                f"{says}, and neither can be kept as the other; give the export another name and "
                "table"
            )
        with explained(says):
            self.cursor.execute(MAP_AS_TEXT)
            self.cursor.execute(
                f"ALTER TABLE {self._name(table)} ALTER {quoted(column)} TYPE {kept} "
                f"USING {CASTS[had, kept].format(quoted(column))}"
            )

    def _types(self, table: str) -> dict[str, Sql]:
        """Name and type of each column in the table's order; empty where there is no table."""
        return dict(
            self._query(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped "
                "ORDER BY attnum",
                self._name(table),
            )
        )

    def _take_turn(self, what: str) -> None:
        """Wait, however long, for other loads that do `what`, and keep them waiting to the end."""
        self.cursor.execute("SET LOCAL lock_timeout = 0")
        self._query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"finops {what}")

    def _query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        self.cursor.execute(sql, parameters or None)
        rows: list[tuple[Any, ...]] = self.cursor.fetchall()
        return rows

    def _name(self, table: str) -> Sql:
        return Sql(f"{quoted(self.schema)}.{quoted(table)}")

    @property
    def _ledger(self) -> str:
        return within_limit(f"{self.file.table}_loads")
