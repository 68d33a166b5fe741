"""PostgreSQL: a month is a partition, filled out of sight and exchanged, all in one transaction."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DATE, HEX_DIGITS, MAPS, DigestKind
from finops_dagster.warehouses.column_types import COUNT, ColumnType, typed
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.postgresql.errors import ROW_TOO_WIDE, explanation
from finops_dagster.warehouses.postgresql.expressions import AMOUNT_OF_TEXT, TIME_AS_TEXT
from finops_dagster.warehouses.postgresql.settings import PostgreSQLSettings
from finops_dagster.warehouses.schema_change import Change, refuse_other_text

_OVERFLOW = "resource_tags_overflow"
# PostgreSQL takes 1,600 columns; a hundred are left for those that the vendor may yet add.
_MOST_COLUMNS = 1_500
_CELLS_A_BATCH = 1_000_000
# What a socket holds: ADBC writes on while the server reads the last of it. From 200 kB on they
# take turns, and a load takes a third longer.
_BYTES_AT_ONCE = 128 * 1024
# Who asks for a table stands behind a load that waits for it. So a load waits for a few seconds,
# lets pass who has come, and waits again; in the server, for to ADBC a transaction in which a
# statement failed is over.
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
    """One schema, in which each export has a table that is partitioned by LIST (billing_month).
    Tags that have no room there are keys of one JSONB column."""

    types: ClassVar[Mapping[str, ColumnType]] = {  # named as format_type() names them
        SqlType.TEXT: typed("text"),
        SqlType.MONEY: typed(
            "numeric(38,18)", read_as=AMOUNT_OF_TEXT, digest="{0}::numeric(38,18)::text"
        ),
        SqlType.TIME: typed(
            "timestamp with time zone",
            TIME_AS_TEXT,
            read_as="{0}::timestamptz",
            digest="(extract(epoch FROM {0}) * 1000000)::bigint::text",
            way_in="CAST({0} AS TIMESTAMPTZ)",
        ),
        **dict.fromkeys(
            MAPS,
            typed("jsonb", "pg_temp.map_as_text({0})", read_as="{0}::jsonb", way_in="to_json({0})"),
        ),
        DATE: typed("date", digest="to_char({0}, 'YYYY-MM-DD')"),
        COUNT: typed("bigint"),
    }
    longest_name = 63  # PostgreSQL would cut off in silence what is longer
    takes_amounts_of_text = True
    measures_beside = True
    digest_kind = DigestKind.MD5
    digest_number: ClassVar[Sql] = Sql(
        f"('x' || substr(md5(convert_to({{0}}, 'UTF8')), 1, {HEX_DIGITS}))"
        f"::bit({4 * HEX_DIGITS})::bigint"
    )
    entries: ClassVar[Sql] = Sql("jsonb_each_text({0}) AS entry(key, value)")
    _settings: PostgreSQLSettings

    def __init__(self, settings: PostgreSQLSettings) -> None:
        super().__init__(settings)
        self._overflow: tuple[str, ...] | None = None
        self._cursor: adbc.Cursor

    @property
    def where(self) -> str:
        return f"database {self._settings.database} at {self._settings.host}"

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        """Connect; what is not committed at the end of the block is undone."""
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
        conninfo = " ".join(f"{key}='{word}'" for key, word in escaped.items())
        with adbc.connect(conninfo) as self._connection:
            with self._connection.cursor() as self._cursor:
                self.query(f"SET lock_timeout = '{self._settings.lock_wait_seconds}s'")
                yield
            if write:
                self._connection.commit()

    def explanation(self, error: Exception) -> Exception | None:
        return explanation(self.where, error) if isinstance(error, adbc.Error) else None

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql, values or None)
        rows: list[tuple[Any, ...]] = self._cursor.fetchall() if self._cursor.description else []
        return rows

    def check_connection(self) -> str:
        ((version,),) = self.query("SELECT current_setting('server_version')")
        return f"PostgreSQL {version}, {self.where}"

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

    def moment(self, moment: datetime) -> Sql:
        return Sql(f"TIMESTAMPTZ '{moment:%Y-%m-%d %H:%M:%S.%f}+00'")

    def sum(self, cell: Sql) -> Sql:
        return Sql(f"SUM({cell})::text")  # ADBC gives no number of so many digits

    # A month's columns, of which some have no room.

    def columns_of(self, file: MonthFile) -> dict[str, str]:
        if self._overflow is None:
            self._overflow = self._tags_without_room(file)
        kept = {name: kind for name, kind in file.types.items() if name not in set(self._overflow)}
        return {**kept, _OVERFLOW: SqlType.TEXT_MAP} if self._overflow else kept

    def _tags_without_room(self, file: MonthFile, *, all_tags: bool = False) -> tuple[str, ...]:
        """Return the columns of tags that are keys instead. A column stays one, and so does a key:
        from the first tag on that has no room, every tag that is new has none. `all_tags` begins
        that now."""
        held = self.held(file.table)
        names = [name for name in file.schema.names if not self.has(file.table, [name])]
        tags = [name for name in names if name in set(file.user_defined_columns)]
        beyond = len(held) + len(names) - _MOST_COLUMNS
        if all_tags or _OVERFLOW in held:
            beyond = len(tags)
        elif beyond > 0:
            beyond += 1  # the overflow is a column too
        return tuple(tags[max(0, len(tags) - max(0, beyond)) :])

    def type_of(self, table: str, name: str, given: str) -> str:
        """A jsonb holds texts or amounts, which its type does not tell where text comes."""
        kind = super().type_of(table, name, given)
        if kind in MAPS and given == SqlType.TEXT:
            amounts = self.query(
                f"SELECT 1 FROM {self.qualified(table)}, jsonb_each({self.quoted(name)}) "
                "WHERE jsonb_typeof(value) = 'number' LIMIT 1"
            )
            return SqlType.MONEY_MAP if amounts else SqlType.TEXT_MAP
        return kind

    def cell(self, table: str, name: str, wanted: str) -> Sql:
        if _OVERFLOW in self.held(table) and not self.has(table, [name]):
            return Sql(f"{quoted(_OVERFLOW)} ->> {literal(name)}")
        return super().cell(table, name, wanted)

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
            self._fill(incoming, file, change)
        except adbc.Error as error:
            self._connection.rollback()
            all_tags = self._tags_without_room(file, all_tags=True)
            if error.sqlstate != ROW_TOO_WIDE or all_tags == self._overflow:
                raise
            self._overflow = all_tags
            self._fill(incoming, file, self.change(file))
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

    def _fill(self, incoming: str, file: MonthFile, change: Change) -> None:
        self._take_turn(f"{self.qualified(file.table)} {file.month}")
        own = {self.name(name): self.sql_type(kind) for name, kind in change.kept.items()}
        columns = {**self.columns(file.table), **own}
        definitions = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
        self.query(
            f"CREATE TABLE {self.qualified(incoming)} ({definitions}, "
            f"CHECK (billing_month IS NOT NULL AND {self.of_month(file)}))"
        )
        schema = self._settings.schema_name
        with file.duckdb.scratch(preserve_insertion_order=False) as connection:
            prepare_casts(connection)
            connection.execute("SET arrow_lossless_conversion = true")  # JSON is told as JSON
            try:
                refuse_other_text(self, connection, file, change)
                month = connection.sql(self._rows(file, change))
                batches = month.to_arrow_reader(max(1, _CELLS_A_BATCH // len(change.kept)))
                with ThreadPoolExecutor(1) as reader:  # reads on while the last batch is sent
                    ahead = reader.submit(next, batches, None)
                    while (batch := ahead.result()) is not None:
                        ahead = reader.submit(next, batches, None)
                        at_once = max(1, batch.num_rows * _BYTES_AT_ONCE // batch.nbytes)
                        rows = pa.Table.from_batches([batch]).to_reader(max_chunksize=at_once)
                        self._cursor.adbc_ingest(
                            incoming, rows, mode="append", db_schema_name=schema
                        )
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                raise BillError(f"{file.path} cannot be read: {first_line(error)}") from error

    def _rows(self, file: MonthFile, change: Change) -> Sql:
        """Return the month as SQL of DuckDB: maps as JSON, decimals to the digit."""
        cells = {
            name: Sql(self.types[kind].way_in.format(quoted(name)))
            for name, kind in change.kept.items()
        }
        if self._overflow:
            pairs = ", ".join(
                f"{{'key': {literal(name)}, 'value': {quoted(name)}}}" for name in self._overflow
            )
            cells[_OVERFLOW] = Sql(
                f"CASE WHEN coalesce({', '.join(map(quoted, self._overflow))}) IS NOT NULL "
                f"THEN to_json(map_from_entries(list_filter([{pairs}], "
                "lambda pair: pair.value IS NOT NULL))) END"
            )
        selected = ", ".join(f"{cell} AS {self.quoted(name)}" for name, cell in cells.items())
        return Sql(f"SELECT {selected} FROM ({file.select(change.kept)})")

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        """Commit at the end: the load began the transaction."""
        yield
        self._connection.commit()

    def exchange(self, file: MonthFile, incoming: Sql, change: Change) -> tuple[str, ...]:
        """Put the table in the place of the month's partition. A lock that is taken stays to the
        end of the transaction, so the table is touched last; and then again looked at, for other
        months came meanwhile. Raises WarehouseUnavailable where they changed a type."""
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
        self._seen.clear()
        change = self.change(file)
        self.query(_MAP_AS_TEXT)
        self.alter(file.table, change.new, change.becoming_text)
        for name in change.new:
            if self.name(name) != name:
                column = Sql(f"{table}.{self.quoted(name)}")
                self.query(f"COMMENT ON COLUMN {column} IS {literal(name)}")
        given, missing = self.columns(incoming), []
        for name, kind in self.columns(file.table).items():
            if name not in given:
                missing.append(Sql(f"ADD COLUMN {quoted(name)} {kind}"))
            elif given[name] != kind:
                raise WarehouseUnavailable(
                    f"column {name} of {self.full_name(file.table)} became {kind} in another load"
                )
        if missing:
            self.query(f"ALTER TABLE {self.qualified(incoming)} {', '.join(missing)}")
        self.query(f"ALTER TABLE {self.qualified(incoming)} RENAME TO {self.quoted(partition)}")
        self.query(
            f"ALTER TABLE {table} ATTACH PARTITION {self.qualified(partition)} "
            f"FOR VALUES IN ({literal(str(file.month.first_day))})"
        )
        return (*self._overflow_warnings(), *change.warnings)

    def _overflow_warnings(self) -> list[str]:
        tags = self._overflow or ()
        shown = ", ".join([*tags[:3], *["..."][: len(tags) // 4]])
        return [
            f"{len(tags)} columns of tags have no room in a table of PostgreSQL and are keys of "
            f"{_OVERFLOW}: {shown}"
        ][: len(tags)]

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

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        new = ", ".join(Sql(f"ADD COLUMN {new}") for new in self.definitions(columns))
        self.query(f"ALTER TABLE {self.qualified(table)} {new}")

    def _take_turn(self, what: str) -> None:
        """Wait, however long, for other loads that do `what`, and keep them waiting to the end."""
        self.query("SET LOCAL lock_timeout = 0")
        self.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"finops {what}")
