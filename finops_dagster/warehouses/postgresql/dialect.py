"""PostgreSQL: the month is loaded into a new table, which then becomes its partition."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DATE, HEX_DIGITS, MAPS, DigestKind
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.postgresql.errors import (
    LOCK_NOT_AVAILABLE,
    ROW_TOO_WIDE,
    translate_error,
)
from finops_dagster.warehouses.postgresql.expressions import AMOUNT_OF_TEXT, TIME_AS_TEXT
from finops_dagster.warehouses.postgresql.locks import lock_statement, lock_timeout_seconds
from finops_dagster.warehouses.postgresql.settings import PostgreSQLSettings
from finops_dagster.warehouses.schema_change import SchemaChange, refuse_inexact_text

_OVERFLOW_COLUMN = "resource_tags_overflow"
# A table of PostgreSQL has at most 1,600 columns; a hundred are left for new ones of the vendor.
_MAX_COLUMNS = 1_500
_CELLS_A_BATCH = 1_000_000
# A write that fits in the socket's buffer lets ADBC go on while the server reads. Writes of 200 kB
# or more make them wait for each other, and a load takes a third longer.
_BYTES_A_WRITE = 128 * 1024
# DuckDB's JSON has no spaces after commas and colons, unlike the text of a jsonb.
_CREATE_MAP_AS_TEXT = """
CREATE OR REPLACE FUNCTION pg_temp.map_as_text(map jsonb) RETURNS text LANGUAGE sql STRICT AS $$
    SELECT '{' || coalesce(string_agg(to_json(key)::text || ':' || value::text, ','), '') || '}'
    FROM jsonb_each(map)
$$"""


class PostgreSQLDialect(Dialect):
    """One schema, with tables for each export, partitioned by LIST of the month's first day.

    Tags that have no column are keys of one jsonb column, the overflow column.
    """

    column_types: ClassVar[Mapping[str, ColumnType]] = {  # as format_type() names them
        SqlType.TEXT: ColumnType.of("text"),
        SqlType.MONEY: ColumnType.of(
            "numeric(38,18)", from_text=AMOUNT_OF_TEXT, digest_text="{0}::numeric(38,18)::text"
        ),
        SqlType.TIME: ColumnType.of(
            "timestamp with time zone",
            TIME_AS_TEXT,
            from_text="{0}::timestamptz",
            digest_text="(extract(epoch FROM {0}) * 1000000)::bigint::text",
            duckdb_cast="CAST({0} AS TIMESTAMPTZ)",
        ),
        **dict.fromkeys(
            MAPS,
            ColumnType.of(
                "jsonb",
                "pg_temp.map_as_text({0})",
                from_text="{0}::jsonb",
                duckdb_cast="to_json({0})",
            ),
        ),
        DATE: ColumnType.of("date", digest_text="to_char({0}, 'YYYY-MM-DD')"),
        COUNT: ColumnType.of("bigint"),
    }
    max_name_bytes = 63  # PostgreSQL cuts longer names without an error
    accepts_text_as_number = True
    measures_incoming = True
    digest_kind = DigestKind.MD5
    md5_number: ClassVar[Sql] = Sql(
        f"('x' || substr(md5(convert_to({{0}}, 'UTF8')), 1, {HEX_DIGITS}))"
        f"::bit({4 * HEX_DIGITS})::bigint"
    )
    map_entries: ClassVar[Sql] = Sql("jsonb_each_text({0}) AS entry(key, value)")
    _settings: PostgreSQLSettings

    def __init__(self, settings: PostgreSQLSettings) -> None:
        super().__init__(settings)
        self._overflow_tags: tuple[str, ...] | None = None
        self._cursor: adbc.Cursor

    @property
    def location(self) -> str:
        return f"database {self._settings.database} at {self._settings.host}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        """Connect until the block ends; commit then with `write`, else roll back.

        POSTGRESQL_PASSWORD has the password. Statements wait for table locks up to
        `lock_wait_seconds`; a load waits for other loads of its month without a limit.
        """
        parameters = {
            "host": self._settings.host,
            "port": str(self._settings.port),
            "dbname": self._settings.database,
            "user": self._settings.user,
            "password": os.environ.get("POSTGRESQL_PASSWORD"),
            "sslmode": self._settings.sslmode,
            "connect_timeout": "10",
            "application_name": "finops_dagster",
        }
        escaped = {
            key: re.sub(r"(['\\])", r"\\\1", value) for key, value in parameters.items() if value
        }
        conninfo = " ".join(f"{key}='{value}'" for key, value in escaped.items())
        with adbc.connect(conninfo) as self._connection:
            with self._connection.cursor() as self._cursor:
                self.query(f"SET lock_timeout = '{self._settings.lock_wait_seconds}s'")
                yield
            if write:
                self._connection.commit()

    def translate_error(self, error: Exception) -> Exception | None:
        return translate_error(self.location, error) if isinstance(error, adbc.Error) else None

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql, values or None)
        rows: list[tuple[Any, ...]] = self._cursor.fetchall() if self._cursor.description else []
        return rows

    def ping(self) -> str:
        ((version,),) = self.query("SELECT current_setting('server_version')")
        return f"PostgreSQL {version}, {self.location}"

    def full_name(self, table: str) -> str:
        """Return `schema.table`, with quotes where PostgreSQL needs them."""
        return ".".join(
            part if re.fullmatch("[a-z_][a-z0-9_]*", part) else quoted(part)
            for part in (self._settings.schema_name, table)
        )

    def table_sql(self, table: str) -> Sql:
        return Sql(f"{quoted(self._settings.schema_name)}.{self.quoted(table)}")

    def read_columns(self, table: str) -> dict[str, str]:
        return dict(
            self.query(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped "
                "ORDER BY attnum",
                self.table_sql(table),
            )
        )

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        return Sql(f"TIMESTAMPTZ '{timestamp:%Y-%m-%d %H:%M:%S.%f}+00'")

    def sum_expression(self, cell: Sql) -> Sql:
        return Sql(f"SUM({cell})::text")  # ADBC cannot return a numeric of so many digits

    # Columns, and tags in the overflow column

    def target_columns(self, file: MonthFile) -> dict[str, str]:
        """Return {name: data type} of the columns that the month fills.

        If the table has no room for all new tags, the result has the overflow column in place of
        some of them; if the table already has that column, in place of all of them. The first call
        chooses these tags; `load_incoming` may add more.
        """
        if self._overflow_tags is None:
            self._overflow_tags = self._tags_for_overflow(file)
        overflow = set(self._overflow_tags)
        columns = {
            name: data_type for name, data_type in file.data_types.items() if name not in overflow
        }
        return {**columns, _OVERFLOW_COLUMN: SqlType.TEXT_MAP} if overflow else columns

    def _tags_for_overflow(self, file: MonthFile, *, all_tags: bool = False) -> tuple[str, ...]:
        """Return the file's tags that become keys of the overflow column.

        Tags that are columns of the table stay columns. Once a table has the overflow column, every
        new tag goes there; with `all_tags`, also the new tags of this month.
        """
        existing = self.stored_columns(file.table)
        new_columns = [
            name for name in file.schema.names if not self.has_columns(file.table, [name])
        ]
        new_tags = [name for name in new_columns if name in set(file.user_defined_columns)]
        if all_tags or _OVERFLOW_COLUMN in existing:
            return tuple(new_tags)
        excess_columns = len(existing) + len(new_columns) - _MAX_COLUMNS
        if excess_columns <= 0:
            return ()
        tags_to_move = excess_columns + 1  # the overflow is a column too
        return tuple(new_tags[-tags_to_move:])

    def stored_type(self, table: str, name: str, file_type: str) -> str:
        """Return the data type of a stored column; its native type if no data type matches it.

        A jsonb column may be a map of texts or of amounts. If the file has text for it, the values
        in the table decide, which takes a query.
        """
        stored_type = super().stored_type(table, name, file_type)
        if stored_type in MAPS and file_type == SqlType.TEXT:
            amounts = self.query(
                f"SELECT 1 FROM {self.table_sql(table)}, jsonb_each({self.quoted(name)}) "
                "WHERE jsonb_typeof(value) = 'number' LIMIT 1"
            )
            return SqlType.MONEY_MAP if amounts else SqlType.TEXT_MAP
        return stored_type

    def column_expression(self, table: str, name: str, data_type: str) -> Sql:
        """Return the SQL of a stored column, or the text of a tag in the overflow column.

        If the table has that column, every name that is no column counts as a tag; else such a name
        raises BillError.
        """
        if _OVERFLOW_COLUMN in self.stored_columns(table) and not self.has_columns(table, [name]):
            return Sql(f"{quoted(_OVERFLOW_COLUMN)} ->> {literal(name)}")
        return super().column_expression(table, name, data_type)

    # The steps of a load

    def prepare_tables(self, file: MonthFile, change: SchemaChange) -> None:
        """Create schema, ledger and table if they are missing, and commit.

        A new table has two columns; `replace_month_rows` adds the others. Raises BillError for an
        existing table that is not partitioned.
        """
        schema, table = self._settings.schema_name, self.table_sql(file.table)
        self._take_advisory_lock(schema)
        if not self.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
            self.query(f"CREATE SCHEMA {quoted(schema)}")
        existing = self.query(
            "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)", table
        )
        if existing not in ([], [("p",)]):  # p: a partitioned table
            raise BillError(
                f"table {self.full_name(file.table)} is not partitioned by month; give the export "
                "another table"
            )
        super().prepare_tables(file, change)
        if not existing:
            self.query(
                f"CREATE TABLE {table} "
                f"({quoted(file.month_column)} date, {quoted(file.version_column)} text) "
                f"PARTITION BY LIST ({quoted(file.month_column)})"
            )
        self._connection.commit()

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Create, fill, index and analyze the table that becomes the month's partition.

        Returns its name without quotes. Waits without a limit until other loads of the month have
        ended. If a row is too wide, the table is filled again, with all new tags in the overflow
        column. Raises BillError for a text that cannot be stored exactly in a column of numbers.
        """
        incoming = self.stored_name(f"{self._partition_name(file)}_new")
        try:
            self._fill_incoming(incoming, file, change)
        except adbc.Error as error:
            self._connection.rollback()
            all_tags = self._tags_for_overflow(file, all_tags=True)
            if error.sqlstate != ROW_TOO_WIDE or all_tags == self._overflow_tags:
                raise
            self._overflow_tags = all_tags
            self._fill_incoming(incoming, file, self.schema_change(file))
        definitions = self.query(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass($1)",
            self.table_sql(file.table),
        )
        # ATTACH PARTITION would build missing indexes while readers wait.
        for (definition,) in definitions:
            unique = "UNIQUE" if definition.startswith("CREATE UNIQUE ") else ""
            on_table = r"^CREATE( UNIQUE)? INDEX .+? ON ONLY .+? USING "
            using = Sql(re.sub(on_table, "", definition))
            self.query(f"CREATE {unique} INDEX ON {self.table_sql(incoming)} USING {using}")
        self.query(f"ANALYZE {self.table_sql(incoming)}")
        return Sql(incoming)

    def _fill_incoming(self, incoming: str, file: MonthFile, change: SchemaChange) -> None:
        self._take_advisory_lock(f"{self.table_sql(file.table)} {file.month}")
        month_columns = {
            self.stored_name(name): self.native_type(data_type)
            for name, data_type in change.target_types.items()
        }
        columns = {**self.read_columns(file.table), **month_columns}
        definitions = ", ".join(f"{quoted(name)} {native}" for name, native in columns.items())
        # With the partition's condition as a CHECK, ATTACH PARTITION does not scan the rows.
        self.query(
            f"CREATE TABLE {self.table_sql(incoming)} ({definitions}, "
            f"CHECK ({quoted(file.month_column)} IS NOT NULL AND {self.month_condition(file)}))"
        )
        schema = self._settings.schema_name
        with file.duckdb.open_in_memory(preserve_insertion_order=False) as connection:
            prepare_casts(connection)
            # Without this, DuckDB gives JSON to Arrow as plain text.
            connection.execute("SET arrow_lossless_conversion = true")
            with file.translating_read_errors():
                refuse_inexact_text(self, connection, file, change)
                relation, self.loaded_from = file.lake_file.relation_and_location(connection)
                selected_rows = connection.sql(self._select(file, change, relation))
                rows_a_batch = max(1, _CELLS_A_BATCH // len(change.target_types))
                batches = selected_rows.to_arrow_reader(rows_a_batch)
                with ThreadPoolExecutor(1) as reader:  # reads the next batch while this one is sent
                    next_batch = reader.submit(next, batches, None)
                    while (batch := next_batch.result()) is not None:
                        next_batch = reader.submit(next, batches, None)
                        rows_a_write = max(1, batch.num_rows * _BYTES_A_WRITE // batch.nbytes)
                        rows = pa.Table.from_batches([batch]).to_reader(max_chunksize=rows_a_write)
                        self._cursor.adbc_ingest(
                            incoming, rows, mode="append", db_schema_name=schema
                        )

    def _select(self, file: MonthFile, change: SchemaChange, relation: Sql) -> Sql:
        """Return DuckDB's SELECT of the month in PostgreSQL's types, with maps as JSON."""
        cells = {
            name: Sql(self.column_types[data_type].duckdb_cast.format(quoted(name)))
            for name, data_type in change.target_types.items()
        }
        if self._overflow_tags:
            pairs = ", ".join(
                f"{{'key': {literal(name)}, 'value': {quoted(name)}}}"
                for name in self._overflow_tags
            )
            cells[_OVERFLOW_COLUMN] = Sql(
                f"CASE WHEN coalesce({', '.join(map(quoted, self._overflow_tags))}) IS NOT NULL "
                f"THEN to_json(map_from_entries(list_filter([{pairs}], "
                "lambda pair: pair.value IS NOT NULL))) END"
            )
        selected = ", ".join(f"{cell} AS {self.quoted(name)}" for name, cell in cells.items())
        return Sql(f"SELECT {selected} FROM ({file.select_sql(change.target_types, relation)})")

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        """Commit the open transaction at the end of the block.

        A failed block leaves it open, until the connection closes and rolls it back.
        """
        yield
        self._connection.commit()

    def replace_month_rows(
        self, file: MonthFile, incoming: Sql, change: SchemaChange
    ) -> tuple[str, ...]:
        """Replace the month's partition by the incoming table, and return the warnings.

        Waits up to `lock_wait_seconds` for readers of the table; then the client's error is raised,
        which `connected` makes WarehouseUnavailable. The schema change is determined anew, since
        loads of other months may have changed columns. Raises WarehouseUnavailable if one has
        changed the type of a column.
        """
        table, partition = self.table_sql(file.table), self._partition_name(file)
        has_partition = self.query(
            "SELECT 1 FROM pg_inherits "
            "WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)",
            table,
            self.table_sql(partition),
        )
        # The lock lasts until the commit, so it is taken as late as possible.
        self._lock_tables([file.table, partition] if has_partition else [file.table], file)
        if has_partition:
            self.query(f"DROP TABLE {self.table_sql(partition)}")
        self._stored_columns.clear()
        change = self.schema_change(file)
        self.query(_CREATE_MAP_AS_TEXT)
        self.alter_table(file.table, change.new_columns, change.cast_to_text)
        for name in change.new_columns:
            if self.stored_name(name) != name:
                column = Sql(f"{table}.{self.quoted(name)}")
                self.query(f"COMMENT ON COLUMN {column} IS {literal(name)}")
        self._add_missing_columns(incoming, file)
        self.query(f"ALTER TABLE {self.table_sql(incoming)} RENAME TO {self.quoted(partition)}")
        self.query(
            f"ALTER TABLE {table} ATTACH PARTITION {self.table_sql(partition)} "
            f"FOR VALUES IN ({literal(str(file.month.first_day))})"
        )
        return (*self._overflow_warnings(), *change.warnings)

    def _add_missing_columns(self, incoming: str, file: MonthFile) -> None:
        """Add the table's other columns to the incoming table, since a partition must have them.

        Raises WarehouseUnavailable if a column has another type now.
        """
        incoming_columns, missing = self.read_columns(incoming), []
        for name, native in self.read_columns(file.table).items():
            if name not in incoming_columns:
                missing.append(Sql(f"ADD COLUMN {quoted(name)} {native}"))
            elif incoming_columns[name] != native:
                raise WarehouseUnavailable(
                    f"another load has changed column {name} of {self.full_name(file.table)} to "
                    f"{native} while {file.month} was being loaded"
                )
        if missing:
            self.query(f"ALTER TABLE {self.table_sql(incoming)} {', '.join(missing)}")

    def _overflow_warnings(self) -> list[str]:
        tags = self._overflow_tags or ()
        if not tags:
            return []
        shown = ", ".join(tags[:3]) + (", ..." if len(tags) > 3 else "")
        return [
            f"{len(tags)} tags are keys of {_OVERFLOW_COLUMN}, because the table has no room for "
            f"more columns; read them from there: {shown}"
        ]

    def _partition_name(self, file: MonthFile) -> str:
        return self.stored_name(f"{file.table}_{file.month.first_day:%Y_%m}")

    def _lock_tables(self, tables: list[str], file: MonthFile) -> None:
        """Lock the tables against readers until the transaction ends.

        After `lock_wait_seconds` PostgreSQL raises lock_not_available, whose message names the
        processes that use them.
        """
        wait = self._settings.lock_wait_seconds
        self.query(f"SET LOCAL lock_timeout = '{lock_timeout_seconds(wait)}s'")
        names = [self.table_sql(table) for table in tables]
        self.query(lock_statement(names, self.full_name(file.table), wait))

    def create_view(self, view: str, query: Sql) -> None:
        """Create or replace a view; it is committed when the connection closes.

        Waits without a limit for loads that replace the view. Raises WarehouseUnavailable if a
        query reads it for more than `lock_wait_seconds`.
        """
        # Two loads that replace one view at the same time would fail.
        self._take_advisory_lock(str(self.table_sql(view)))
        try:
            super().create_view(view, query)
        except adbc.Error as error:
            if error.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            seconds = self._settings.lock_wait_seconds
            raise WarehouseUnavailable(
                f"{self.full_name(view)} was in use for {seconds} s by queries, which "
                "pg_stat_activity shows; end them"
            ) from error

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        clauses = ", ".join(
            Sql(f"ADD COLUMN {column}") for column in self.column_definitions(columns)
        )
        self.query(f"ALTER TABLE {self.table_sql(table)} {clauses}")

    def _take_advisory_lock(self, key: str) -> None:
        """Wait without a timeout for this key's lock, and hold it until the transaction ends."""
        self.query("SET LOCAL lock_timeout = 0")
        self.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"finops {key}")
        # Later statements wait for readers, and new readers queue behind them: so not for ever.
        self.query(f"SET LOCAL lock_timeout = '{self._settings.lock_wait_seconds}s'")
