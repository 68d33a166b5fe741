"""PostgreSQL: a month is a partition, filled out of sight and exchanged, all in one transaction."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

import adbc_driver_postgresql.dbapi as adbc

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DATE, HEX_DIGITS, DigestKind
from finops_dagster.warehouses.base import MonthFile
from finops_dagster.warehouses.dialect import COUNT, Change, Dialect, texts
from finops_dagster.warehouses.postgresql import Settings
from finops_dagster.warehouses.postgresql.arrival import OVERFLOW, Arrival, overflow_of
from finops_dagster.warehouses.postgresql.errors import ROW_TOO_WIDE, explanation

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
# jsonb's own text has spaces, which DuckDB's has not.
_MAP_AS_TEXT = """
CREATE OR REPLACE FUNCTION pg_temp.map_as_text(map jsonb) RETURNS text LANGUAGE sql STRICT AS $$
    SELECT '{' || coalesce(string_agg(to_json(key)::text || ':' || value::text, ','), '') || '}'
    FROM jsonb_each(map)
$$"""


class PostgreSQLDialect(Dialect):
    """One schema, in which each export has a table that is partitioned by LIST (billing_month)."""

    types: ClassVar[Mapping[str, Sql]] = texts(
        {  # as format_type() says them
            SqlType.TEXT: "text",
            SqlType.MONEY: "numeric(38,18)",
            SqlType.TIME: "timestamp with time zone",
            SqlType.TEXT_MAP: "jsonb",
            SqlType.MONEY_MAP: "jsonb",
            DATE: "date",
            COUNT: "bigint",
        }
    )
    as_text: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.TIME: "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', "
            "'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'",
            SqlType.TEXT_MAP: "pg_temp.map_as_text({0})",
            SqlType.MONEY_MAP: "pg_temp.map_as_text({0})",
            SqlType.MONEY: "{0}::text",
        }
    )
    # Text that is no exact amount is an error, as it is in DuckDB, where a cast would round it; so
    # is NaN, which PostgreSQL takes for an amount.
    from_text: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.MONEY: "CASE WHEN scale(trim_scale({0}::numeric)) <= 18 THEN {0}::numeric "
            "ELSE ('no amount of 18 decimals: ' || {0})::numeric END",
            SqlType.MONEY_MAP: "{0}::jsonb",
        }
    )
    read_as: ClassVar[Mapping[str, Sql]] = texts(
        {
            **from_text,
            SqlType.TEXT_MAP: "{0}::jsonb",
            SqlType.TIME: "{0}::timestamptz",
        }
    )
    longest_name = 63  # PostgreSQL would cut off in silence what is longer
    digest_kind = DigestKind.MD5
    casts = True
    measures_beside = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._overflow: tuple[str, ...] | None = None
        self._cursor: adbc.Cursor

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        """Connect; what is not committed at the end of the block is undone."""
        with adbc.connect(self._conninfo()) as self._connection:
            with self._connection.cursor() as self._cursor:
                self.query(f"SET lock_timeout = '{self._settings.lock_wait_seconds}s'")
                yield
            if write:
                self._connection.commit()

    def explanation(self, error: Exception) -> Exception | None:
        where = f"database {self._settings.database} at {self._settings.host}"
        return explanation(where, error) if isinstance(error, adbc.Error) else None

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql, values or None)
        rows: list[tuple[Any, ...]] = self._cursor.fetchall() if self._cursor.description else []
        return rows

    def reach(self) -> str:
        ((version,),) = self.query("SELECT current_setting('server_version')")
        place = f"database {self._settings.database} at {self._settings.host}"
        return f"PostgreSQL {version}, {place}"

    def full_name(self, table: str) -> str:
        """Return `schema.table`, quoted where PostgreSQL would take it for another."""
        return ".".join(
            part if re.fullmatch("[a-z_][a-z0-9_]*", part) else quoted(part)
            for part in (self._settings.schema_name, table)
        )

    def qualified(self, table: str) -> Sql:
        return Sql(f"{quoted(self._settings.schema_name)}.{self.quoted(table)}")

    def columns(self, table: str) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped "
                "ORDER BY attnum",
                self.qualified(table),
            )
        )

    def parameter(self, number: int) -> Sql:
        return Sql(f"${int(number)}")

    def moment(self, moment: datetime) -> Sql:
        return Sql(f"TIMESTAMPTZ '{moment:%Y-%m-%d %H:%M:%S.%f}+00'")

    def sum(self, cell: Sql) -> Sql:
        return Sql(f"SUM({cell})::text")  # ADBC gives no number of so many digits

    # A month's columns, of which some have no room.

    def columns_of(self, file: MonthFile) -> dict[str, str]:
        if self._overflow is None:
            self._overflow = overflow_of(self, file, all_tags=False)
        kept = {name: kind for name, kind in file.types.items() if name not in set(self._overflow)}
        return {**kept, OVERFLOW: SqlType.TEXT_MAP} if self._overflow else kept

    def type_in_table(self, table: str, name: str, held: str, given: str) -> str:
        """A jsonb holds texts or amounts, which its type does not tell where text comes."""
        if held == "jsonb" and given == SqlType.TEXT and self._holds_amounts(table, name):
            return SqlType.MONEY_MAP
        return self.type_of(held, given)

    def _holds_amounts(self, table: str, name: str) -> bool:
        return bool(
            self.query(
                f"SELECT 1 FROM {self.qualified(table)}, jsonb_each({self.quoted(name)}) "
                "WHERE jsonb_typeof(value) = 'number' LIMIT 1"
            )
        )

    def cell(self, name: str, wanted: str, held: Mapping[str, str]) -> Sql:
        if self.name(name).lower() not in held and OVERFLOW in held:
            return Sql(f"{quoted(OVERFLOW)} ->> {literal(name)}")
        return super().cell(name, wanted, held)

    # A load.

    def prepare(self, file: MonthFile, change: Change) -> None:
        """Make the schema and both tables where they are missing; columns come with months."""
        schema, table = self._settings.schema_name, self.qualified(file.table)
        self._take_turn(schema)
        if not self.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
            self.query(f"CREATE SCHEMA {quoted(schema)}")
        kind = self.query("SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)", table)
        if kind not in ([], [("p",)]):
            raise BillError(
                f"{self.full_name(file.table)} is not partitioned; give the export another table"
            )
        super().prepare(file, change)
        if not kind:
            self.query(
                f"CREATE TABLE {table} "
                "(billing_month date, manifest_id text) PARTITION BY LIST (billing_month)"
            )
        self._connection.commit()

    def load_beside(self, file: MonthFile, change: Change) -> Sql:
        """Make a table of the month, of which a row may be too wide unless tags are keys. What its
        CHECK says is what the partition will be bound to, so that no row is looked at again to
        attach it; it is given the indexes that the table has, before a reader has to wait."""
        incoming = self.name(f"{self._partition(file)}_new")
        try:
            self._fill(incoming, file)
        except adbc.Error as error:
            self._connection.rollback()
            all_tags = overflow_of(self, file, all_tags=True)
            if error.sqlstate != ROW_TOO_WIDE or all_tags == self._overflow:
                raise
            self._overflow = all_tags
            self._fill(incoming, file)
        definitions = self.query(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass($1)",
            self.qualified(file.table),
        )
        for (definition,) in definitions:
            unique = "UNIQUE" if definition.startswith("CREATE UNIQUE ") else ""
            on_table = r"^CREATE( UNIQUE)? INDEX .+? ON ONLY .+? USING "
            using = Sql(re.sub(on_table, "", definition))
            self.query(f"CREATE {unique} INDEX ON {self.qualified(incoming)} USING {using}")
        self.query(f"ANALYZE {self.qualified(incoming)}")
        return Sql(incoming)

    @contextmanager
    def transaction(self, file: MonthFile, job: str) -> Iterator[None]:
        """Commit at the end: the load began the transaction."""
        yield
        self._connection.commit()

    def exchange(self, file: MonthFile, incoming: Sql, change: Change) -> tuple[str, ...]:
        """Put the table in the place of the month's partition. A lock that is taken stays to the
        end of the transaction, so the table is touched last; and then again looked at, for other
        months came meanwhile."""
        table, partition = self.qualified(file.table), self._partition(file)
        is_there = self.query(
            "SELECT 1 FROM pg_inherits "
            "WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)",
            table,
            self.qualified(partition),
        )
        self._lock([file.table, partition] if is_there else [file.table], file)
        if is_there:
            self.query(f"DROP TABLE {self.qualified(partition)}")
        change = self.change(file)
        self._unite(file, incoming, change)
        self.query(f"ALTER TABLE {self.qualified(incoming)} RENAME TO {self.quoted(partition)}")
        self.query(
            f"ALTER TABLE {table} ATTACH PARTITION {self.qualified(partition)} "
            f"FOR VALUES IN ({literal(str(file.month.first_day))})"
        )
        return (*self._arrival(file).warnings(), *change.warnings)

    def _fill(self, incoming: str, file: MonthFile) -> None:
        self._take_turn(f"{self.qualified(file.table)} {file.month}")
        held = self.columns(file.table)
        own = {self.name(name): self.types[kind] for name, kind in self.columns_of(file).items()}
        definitions = ", ".join(f"{quoted(name)} {kind}" for name, kind in {**held, **own}.items())
        self.query(
            f"CREATE TABLE {self.qualified(incoming)} ({definitions}, "
            f"CHECK (billing_month IS NOT NULL AND {self.of_month(file)}))"
        )
        for rows in self._arrival(file).streams(file):
            schema = self._settings.schema_name
            self._cursor.adbc_ingest(incoming, rows, mode="append", db_schema_name=schema)

    def _arrival(self, file: MonthFile) -> Arrival:
        return Arrival(file.schema, self._overflow or (), self.name)

    def _partition(self, file: MonthFile) -> str:
        return self.name(f"{file.table}_{file.month.first_day:%Y_%m}")

    def _lock(self, tables: list[str], file: MonthFile) -> None:
        """Wait until nobody reads the tables, and let nobody in until the transaction ends."""
        names = [self.qualified(table) for table in tables]
        wait = self._settings.lock_wait_seconds
        seconds = min(_SECONDS_A_TRY, wait)
        problem = f"{self.full_name(file.table)} was in use for {wait} s, now by process"
        self.query(f"SET LOCAL lock_timeout = '{seconds}s'")
        self.query(
            _LOCK.format(
                tries=wait // seconds,
                tables=", ".join(f"ONLY {name}" for name in names),
                relations=", ".join(f"to_regclass({literal(name)})" for name in names),
                problem=literal(problem),
            )
        )

    def _unite(self, file: MonthFile, incoming: str, change: Change) -> None:
        """Give the table and the month the same columns, of the same types."""
        self.add_columns(file.table, change.new)
        for name in change.new:
            if self.name(name) != name:
                self.query(
                    f"COMMENT ON COLUMN {self.qualified(file.table)}.{self.quoted(name)} "
                    f"IS {literal(name)}"
                )
        held, given = self.columns(file.table), self.columns(incoming)
        missing = (f"ADD COLUMN {quoted(n)} {kind}" for n, kind in held.items() if n not in given)
        if additions := ", ".join(missing):
            self.query(f"ALTER TABLE {self.qualified(incoming)} {additions}")
        self.query(_MAP_AS_TEXT)
        self.make_text(file.table, change.becoming_text)
        for name, kept in change.kept.items():
            if file.types.get(name, kept) != kept:
                self._cast(file, incoming, name, kept)

    def _cast(self, file: MonthFile, incoming: str, name: str, kept: str) -> None:
        """Make of the month's column what the table has."""
        given = file.types[name]
        cell = self.cast(name, given, Change({}, {}, {name: kept}, [], ()))
        try:
            self.query(
                f"ALTER TABLE {self.qualified(incoming)} ALTER {self.quoted(name)} "
                f"TYPE {self.types[kept]} USING {cell}"
            )
        except adbc.Error as error:
            says = (
                f"column {name} of {self.full_name(file.table)} is {self.types[kept]}, "
                f"{file.month} gives {self.types[given]}"
            )
            raise explanation(says, error) from error

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        new = (f"ADD COLUMN {self.quoted(n)} {self.types[kind]}" for n, kind in columns.items())
        if additions := ", ".join(new):
            self.query(f"ALTER TABLE {self.qualified(table)} {additions}")

    def _take_turn(self, what: str) -> None:
        """Wait, however long, for other loads that do `what`, and keep them waiting to the end."""
        self.query("SET LOCAL lock_timeout = 0")
        self.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"finops {what}")

    def _conninfo(self) -> str:
        words = {
            "host": self._settings.host,
            "port": str(self._settings.port),
            "dbname": self._settings.database,
            "user": self._settings.user,
            "password": os.environ.get("POSTGRESQL_PASSWORD"),
            "sslmode": self._settings.sslmode,
            "connect_timeout": "10",
            "application_name": "finops_dagster",
        }
        escaped = {key: re.sub(r"(['\\])", r"\\\1", word) for key, word in words.items() if word}
        return " ".join(f"{key}='{word}'" for key, word in escaped.items())

    # Digests.

    def digest_number(self, text: Sql) -> Sql:
        digits = f"substr(md5(convert_to({text}, 'UTF8')), 1, {HEX_DIGITS})"
        return Sql(f"('x' || {digits})::bit({4 * HEX_DIGITS})::bigint")

    def digest_text(self, cell: Sql, of_type: str) -> Sql:
        match of_type:
            case SqlType.TEXT:
                return cell
            case SqlType.MONEY:
                return Sql(f"{cell}::numeric(38,18)::text")
            case SqlType.TIME:
                return Sql(f"(extract(epoch FROM {cell}) * 1000000)::bigint::text")
        return Sql(f"to_char({cell}, 'YYYY-MM-DD')")

    def entries(self, cell: Sql) -> Sql:
        return Sql(f"jsonb_each_text({cell}) AS entry(key, value)")
