"""Any SQL database: SQLAlchemy inserts the month into a table of the load, then into the table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import date, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from duckdb import DuckDBPyRelation
from sqlalchemy.dialects import mysql

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.locks import waiting_lock
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DATE, MAPS
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.loads_table import LEDGER_COLUMNS, ledger_name
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable, as_utc
from finops_dagster.warehouses.schema_change import SchemaChange
from finops_dagster.warehouses.sql.address import database_url
from finops_dagster.warehouses.sql.settings import SqlSettings

_ROWS_AT_ONCE = 10_000
_INDEXED_DATABASES = ("mariadb", "mssql", "mysql", "oracle", "postgresql", "sqlite")
_STATISTICS_STATEMENTS = {
    **dict.fromkeys(("mariadb", "mysql"), "ANALYZE TABLE {0}"),
    **dict.fromkeys(("postgresql", "redshift", "sqlite"), "ANALYZE {0}"),
    "mssql": "UPDATE STATISTICS {0}",
}
# SQLAlchemy raises the same error for a wrong password as for a lost connection; only the drivers'
# messages tell them apart.
_TRANSIENT_MESSAGES = re.compile(
    r"connection (was |is )?(refused|reset|closed|aborted|lost|already closed)"
    r"|closed the connection|lost connection|gone away|broken pipe|unreachable|timed? ?out"
    r"|shutting down|starting up"
    r"|too many (connections|clients)|temporarily|deadlock|serializ|conflict"
    r"|database is locked|could not set lock|lock wait",
    re.IGNORECASE,
)
_TEXT = sa.UnicodeText().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
SQLALCHEMY_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    SqlType.TEXT: _TEXT,
    SqlType.MONEY: sa.Numeric(38, 18),
    SqlType.TIME: _TIME,
    # JSON types of databases turn numbers into floats, or quote a text once more.
    **dict.fromkeys(MAPS, _TEXT),
    DATE: sa.Date(),
    COUNT: sa.BigInteger(),
}
MAP_TO_JSON = "CAST(to_json({0}) AS VARCHAR)"
MONEY_MAP_TO_JSON = "CAST(to_json(CAST({0} AS MAP(VARCHAR, VARCHAR))) AS VARCHAR)"


class SqlDialect(Dialect):
    """One dataset (a schema) of one database.

    A load is `loading` in the ledger while it inserts the month into its incoming table. If it is
    killed, the next load of the month drops that table. The native types in `column_types` and in
    `read_columns` are data types; `sqlalchemy_types` has those of the database.
    """

    # Times are sent with their zone, and maps as JSON whose amounts are text, because some
    # databases read a JSON number as a float.
    column_types: ClassVar[Mapping[str, ColumnType]] = {
        **{
            data_type: ColumnType.of(data_type)
            for data_type in (SqlType.TEXT, SqlType.MONEY, DATE, COUNT)
        },
        SqlType.TIME: ColumnType.of(SqlType.TIME, duckdb_cast="CAST({0} AS TIMESTAMPTZ)"),
        SqlType.TEXT_MAP: ColumnType.of(SqlType.TEXT, duckdb_cast=MAP_TO_JSON),
        SqlType.MONEY_MAP: ColumnType.of(SqlType.TEXT, duckdb_cast=MONEY_MAP_TO_JSON),
    }
    sqlalchemy_types: ClassVar[Mapping[str, sa.types.TypeEngine[Any]]] = SQLALCHEMY_TYPES
    """SQLAlchemy's type of each data type, from which it makes the database's own."""
    ordered_types: ClassVar[tuple[str, ...]] = (SqlType.TIME, SqlType.MONEY)
    """The data types whose least and greatest values are compared with the file's."""
    add_column_clause: ClassVar[Sql] = Sql("ADD")
    _settings: SqlSettings
    _connection: sa.Connection

    def __init__(self, settings: SqlSettings) -> None:
        super().__init__(settings)
        self._locks = ExitStack()
        self._in_transaction = False

    @property
    def location(self) -> str:
        return f"{self._settings.destination} {self._settings.dataset}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        """Connect until the block ends, which also releases the lock of `lock_month`.

        Nothing is committed at the end of the block: `query` and `transaction` commit.
        """
        kwargs = self._settings.engine_kwargs
        engine = sa.create_engine(database_url(self._settings), poolclass=sa.NullPool, **kwargs)
        with self._locks, engine.connect() as self._connection:
            self.max_name_bytes = engine.dialect.max_identifier_length
            yield

    def translate_error(self, error: Exception) -> Exception | None:
        if isinstance(error, ModuleNotFoundError):
            return BillError(
                f"{self.location}: the client {error.name} is not installed; install it by pip, as "
                "docs/warehouses.md says"
            )
        if not isinstance(error, sa.exc.SQLAlchemyError):
            return None
        message = " ".join(str(getattr(error, "orig", None) or error).split())
        is_transient = _TRANSIENT_MESSAGES.search(message)
        if is_transient:
            return WarehouseUnavailable(f"{self.location}: {message}")
        return BillError(f"{self.location}: {message}; check [database.sql] and the user's rights")

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; commit it, unless within `transaction`."""
        bound = {f"finops_{number}": value for number, value in enumerate(values, 1)}
        # SQLAlchemy would read a colon in a name or a literal as a parameter.
        text = sa.text(re.sub(r"(?<!:):(?!finops_\d)", r"\:", sql))
        result = self._connection.execute(text, bound)
        rows = [tuple(row) for row in result] if result.returns_rows else []
        self._commit_outside_transaction()
        return rows

    def _commit_outside_transaction(self) -> None:
        if not self._in_transaction:
            self._connection.commit()

    def full_name(self, table: str) -> str:
        """Return `dataset.table`."""
        return f"{self._settings.dataset}.{table}"

    def quoted(self, name: str) -> Sql:
        preparer = self._connection.dialect.identifier_preparer
        end = preparer.final_quote
        return Sql(f"{preparer.initial_quote}{self.stored_name(name).replace(end, end * 2)}{end}")

    def table_sql(self, table: str) -> Sql:
        return Sql(f"{self.quoted(self._settings.dataset)}.{self.quoted(table)}")

    def placeholder(self, number: int) -> Sql:
        return Sql(f":finops_{int(number)}")

    def date_literal(self, day: date) -> Sql:
        return Sql(f"CAST('{day}' AS DATE)")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        native = self.native_type(SqlType.TIME)
        zone = "+00:00" if "ZONE" in native or "OFFSET" in native else ""
        return Sql(f"CAST('{timestamp:%Y-%m-%d %H:%M:%S.%f}{zone}' AS {native})")

    def native_type(self, data_type: str) -> Sql:
        return Sql(self.sqlalchemy_types[data_type].compile(dialect=self._connection.dialect))

    def read_columns(self, table: str) -> dict[str, str]:
        """Query {stored name: data type} of the columns, in their order; empty without a table.

        A type that no data type matches has SQLAlchemy's name.
        """
        inspector, schema = sa.inspect(self._connection), self._schema
        name = self.stored_name(table)
        columns = inspector.get_columns(name, schema) if inspector.has_table(name, schema) else []
        self._commit_outside_transaction()
        return {column["name"]: _data_type(column["type"]) for column in columns}

    @property
    def _schema(self) -> str | None:
        return self._settings.dataset

    # The steps of a load

    def lock_month(self, file: MonthFile) -> None:
        """Wait for other loads of the month on this machine, and keep them out.

        The lock is released when the connection closes. A load on another machine does not wait:
        it makes this one fail, unless this one is in `transaction`, whose end it waits for.
        """
        path = self._settings.working_dir / f"{file.table}-{file.month}.lock"
        purpose = f"loading {file.month} into {self.full_name(file.table)}"
        self._locks.enter_context(waiting_lock(path, purpose))

    def prepare_tables(self, file: MonthFile, change: SchemaChange) -> None:
        """Create schema, ledger and table if they are missing, and add new columns; commit each."""
        # Not in the transaction that replaces the month: in many databases DDL commits it.
        schema = self._schema
        if schema and schema not in sa.inspect(self._connection).get_schema_names():
            self._connection.execute(sa.schema.CreateSchema(schema))
        super().prepare_tables(file, change)
        if self.stored_columns(file.table):
            self.alter_table(file.table, change.new_columns, {})
            return
        table = self._create_table(file.table, self.target_columns(file))
        if self._connection.dialect.name in _INDEXED_DATABASES:
            (month,) = (c for c in table.columns if c.name == self.stored_name(file.month_column))
            sa.Index(self.stored_name(f"{file.table}_{file.month_column}"), month).create(
                self._connection
            )
            self._commit_outside_transaction()

    def begin_load(self, file: MonthFile) -> None:
        """Record this load as `loading`; other loads of the month in this state become `failed`.

        They were killed, or are still running on another machine, where they then fail, as their
        incoming tables are dropped. Raises BillError if the database does not roll back, as with
        MyISAM or AUTOCOMMIT.
        """
        ledger = self.table_sql(ledger_name(file.table))
        killed = self.query(
            f"SELECT job_id FROM {ledger} WHERE billing_period = :finops_1 AND state = 'loading'",
            str(file.month),
        )
        reason = "another load of the month began before this one ended"
        for (job_id,) in killed:
            # A load that was loaded meanwhile was not killed: it drops its incoming table itself.
            if super().record_load(file, job_id, "failed", reason) == "failed":
                self._drop_incoming(job_id)
        with suppress(_RollBack), self._atomic():
            self.record_load(file, self.job_id, "loading")
            raise _RollBack
        if self.query(f"SELECT 1 FROM {ledger} WHERE job_id = :finops_1", self.job_id):
            problem = (
                "the database does not roll back, so no month can be replaced in one step; use one "
                "with transactions (MyISAM and AUTOCOMMIT have none)"
            )
            self.record_load(file, self.job_id, "failed", problem)
            raise BillError(f"{self.location}: {problem}")
        self.record_load(file, self.job_id, "loading")

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Insert the month into the incoming table of this load; return it as a FROM item.

        Raises BillError if a column of that table differs from the file in the number of its
        values, or, for `ordered_types`, in the smallest or the largest value.
        """
        incoming = _incoming_table(self.job_id)
        target_types = {name: change.target_types[name] for name in file.data_types}
        table = self._create_table(incoming, target_types)
        cells = ", ".join(
            self.column_types[data_type].duckdb_cast.format(quoted(name))
            for name, data_type in target_types.items()
        )
        with file.duckdb.open_in_memory(threads=1) as connection, file.translating_read_errors():
            prepare_casts(connection)
            relation, self.loaded_from = file.lake_file.relation_and_location(connection)
            rows = file.select_sql(target_types, relation)
            cursor = connection.execute(f"SELECT {cells} FROM ({rows})")
            while batch := cursor.fetchmany(_ROWS_AT_ONCE):
                keyed = [dict(zip(table.columns.keys(), row, strict=True)) for row in batch]
                self._connection.execute(sa.insert(table), keyed)
                self._commit_outside_transaction()
            relation, _ = file.lake_file.relation_and_location(connection)
            in_file = connection.sql(file.select_sql(target_types, relation))
            self._compare_with_file(file, in_file, incoming, target_types)
        return self.table_sql(incoming)

    def _compare_with_file(
        self,
        file: MonthFile,
        rows: DuckDBPyRelation,
        incoming: str,
        target_types: Mapping[str, str],
    ) -> None:
        # Some drivers and databases round amounts, shift times, or store empty text as NULL.
        aggregates = [
            (name, function)
            for name, data_type in target_types.items()
            for function in ("COUNT", *(("MIN", "MAX") if data_type in self.ordered_types else ()))
        ]
        in_database = ", ".join(f"{function}({self.quoted(name)})" for name, function in aggregates)
        in_file = ", ".join(f"{function}({quoted(name)})" for name, function in aggregates)
        (loaded_row,) = self.query(f"SELECT {in_database} FROM {self.table_sql(incoming)}")
        (file_row,) = rows.aggregate(in_file).fetchall()
        for (name, function), loaded, expected in zip(
            aggregates, loaded_row, file_row, strict=True
        ):
            is_time = isinstance(expected, datetime) and loaded is not None
            if (as_utc(loaded) != as_utc(expected)) if is_time else loaded != expected:
                raise BillError(
                    f"column {name} of {file.month}: {function} is {loaded} in {self.location}, "
                    f"but {expected} in {file.location}; this database does not store the values "
                    "exactly; name another database in [database.sql]"
                )

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        """Commit at the end of the block, or roll back if it fails; `query` does not commit."""
        # The UPDATE locks the ledger's rows of the month: a load on another machine waits for
        # them. SQLite, which locks at the first write, begins with it too.
        with self._atomic():
            self.query(
                f"UPDATE {self.table_sql(ledger_name(file.table))} SET error_message = NULL "
                "WHERE billing_period = :finops_1 AND state = 'loading'",
                str(file.month),
            )
            yield

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        self._in_transaction = True
        try:
            with self._connection.begin():
                yield
        finally:
            self._in_transaction = False

    def clean_up(self, file: MonthFile, incoming: Sql) -> tuple[str, ...]:
        """Refresh the planner's statistics and drop the incoming table; return the warnings."""
        warnings = []
        for consequence, statement in {
            "the table's statistics are old until the next load": _STATISTICS_STATEMENTS.get(
                self._connection.dialect.name
            ),
            f"table {incoming} is left over, and may be dropped": f"DROP TABLE {incoming}",
        }.items():
            try:
                if statement:
                    self.query(statement.format(self.table_sql(file.table)))
            except sa.exc.SQLAlchemyError as error:
                self._connection.rollback()
                warnings.append(f"{consequence}: {self.translate_error(error)}")
        return tuple(warnings)

    def record_load(
        self, file: MonthFile, job_id: str, state: str, error_message: str | None = None
    ) -> str:
        """Record a load (see `Dialect.record_load`); with `failed`, drop its incoming table."""
        recorded_state = super().record_load(file, job_id, state, error_message)
        if state == "failed":
            self._drop_incoming(job_id)
        return recorded_state

    def _drop_incoming(self, job_id: str) -> None:
        """Drop the incoming table of a load if it exists; errors of the database are ignored."""
        incoming = _incoming_table(job_id)
        try:
            if self.read_columns(incoming):
                self.query(f"DROP TABLE {self.table_sql(incoming)}")
        except sa.exc.SQLAlchemyError:
            # The load itself may have dropped it meanwhile. Without the rollback, the connection
            # would refuse the next statement.
            self._connection.rollback()

    def cast_type(self, data_type: str) -> Sql:
        # MySQL knows CHAR in a CAST, but not the types of its text columns.
        is_text = isinstance(self.sqlalchemy_types[data_type], sa.String)
        return Sql("CHAR") if is_text else self.native_type(data_type)

    def create_view(self, view: str, query: Sql) -> None:
        """Create or replace the view; SQLite and SQL Server drop an old one first."""
        if self._connection.dialect.name not in ("sqlite", "mssql"):
            super().create_view(view, query)
            return
        with self._atomic():
            self.query(f"DROP VIEW IF EXISTS {self.table_sql(view)}")
            self.query(f"CREATE VIEW {self.table_sql(view)} AS {query}")

    def create_table(self, table: str, columns: Mapping[str, str]) -> None:
        self._create_table(table, columns)

    def _create_table(self, table: str, columns: Mapping[str, str]) -> sa.Table:
        """Create a table if it is missing, and return SQLAlchemy's object of it.

        Its columns have the keys c0, c1, ..., because their names may have any character.
        """
        required = columns.keys() - {"error_message"} if columns is LEDGER_COLUMNS else ()
        definitions = (
            sa.Column(
                sa.sql.quoted_name(self.stored_name(name), quote=True),
                self.sqlalchemy_types[data_type],
                key=f"c{position}",
                nullable=name not in required,
            )
            for position, (name, data_type) in enumerate(columns.items())
        )
        table_name = sa.sql.quoted_name(self.stored_name(table), quote=True)
        created = sa.Table(table_name, sa.MetaData(), *definitions, schema=self._schema)
        created.create(self._connection, checkfirst=True)
        self._commit_outside_transaction()
        self._stored_columns.pop(table, None)
        return created


class _RollBack(Exception):
    """Ends the transaction that tests whether the database can roll back."""


def _incoming_table(job_id: str) -> str:
    return f"finops_incoming_{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"


def _data_type(sqlalchemy_type: sa.types.TypeEngine[Any]) -> str:
    """Return the data type of a SQLAlchemy type; its name if no data type matches it."""
    if isinstance(sqlalchemy_type, sa.Float):
        return "DOUBLE"
    if isinstance(sqlalchemy_type, sa.Numeric):
        is_exact = sqlalchemy_type.scale is None or sqlalchemy_type.scale >= 18
        return (
            SqlType.MONEY
            if is_exact
            else f"DECIMAL({sqlalchemy_type.precision},{sqlalchemy_type.scale})"
        )
    for sqlalchemy_class, data_type in (
        (sa.DateTime, SqlType.TIME),
        (sa.Date, DATE),
        (sa.String, SqlType.TEXT),
        (sa.Integer, COUNT),
    ):
        if isinstance(sqlalchemy_type, sqlalchemy_class):
            return data_type
    return str(sqlalchemy_type)
