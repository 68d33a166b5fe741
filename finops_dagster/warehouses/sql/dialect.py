"""Any SQL database: a month is inserted beside by SQLAlchemy, and moved in one transaction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import date, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.lake import relation
from finops_dagster.locks import waiting_lock
from finops_dagster.tables.digest import DATE, MAPS
from finops_dagster.warehouses.base import MonthFile, WarehouseUnavailable, as_utc, ledger_of
from finops_dagster.warehouses.dialect import COUNT, Change, Dialect, texts
from finops_dagster.warehouses.sql import Settings
from finops_dagster.warehouses.sql.address import refuse_unusable, url_of

_ROWS_AT_ONCE = 10_000
_INDEXED = ("mariadb", "mssql", "mysql", "oracle", "postgresql", "sqlite")
_STATISTICS = {
    "mariadb": "ANALYZE TABLE {0}",
    "mssql": "UPDATE STATISTICS {0}",
    "mysql": "ANALYZE TABLE {0}",
    "postgresql": "ANALYZE {0}",
    "redshift": "ANALYZE {0}",
    "sqlite": "ANALYZE {0}",
}
# To SQLAlchemy a wrong password passes like a lost connection; what the drivers say tells them
# apart.
_PASSING = re.compile(
    r"connection (was |is )?(refused|reset|closed|aborted|lost|already closed)"
    r"|closed the connection|lost connection|gone away|broken pipe|unreachable|timed? ?out"
    r"|shutting down|starting up"
    r"|too many (connections|clients)|temporarily|deadlock|serializ|conflict"
    r"|database is locked|could not set lock|lock wait",
    re.IGNORECASE,
)
_TEXT = sa.UnicodeText().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    SqlType.TEXT: _TEXT,
    SqlType.MONEY: sa.Numeric(38, 18),
    SqlType.TIME: sa.DateTime(timezone=True).with_variant(
        mysql.DATETIME(fsp=6), "mysql", "mariadb"
    ),
    # Databases' types for JSON make floats of numbers, or quote a text once more.
    SqlType.TEXT_MAP: _TEXT,
    SqlType.MONEY_MAP: _TEXT,
    DATE: sa.Date(),
    COUNT: sa.BigInteger(),
}


class SqlDialect(Dialect):
    """One dataset of one database. The ledger says `loading` until a load ends, for the month lies
    in a table of its own meanwhile, which the next load drops where one was killed."""

    types: ClassVar[Mapping[str, Sql]] = texts(
        {
            **{kind: kind for kind in (*SqlType, DATE, COUNT)},
            **dict.fromkeys(MAPS, SqlType.TEXT),
        }
    )
    column_types: ClassVar[Mapping[str, sa.types.TypeEngine[Any]]] = TYPES

    @classmethod
    def of(cls, settings: Settings) -> Callable[[], Dialect]:

        from finops_dagster.warehouses.sql.databases import DATABASES

        refuse_unusable(settings)

        def opened() -> Dialect:
            with suppress(sa.exc.ArgumentError):
                backend = url_of(settings).get_backend_name()
                return DATABASES.get(backend, cls)(settings)
            return cls(settings)

        return opened

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: sa.Connection
        self._held = ExitStack()
        self._is_all_or_nothing = False

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        kwargs = self._settings.engine_kwargs
        engine = sa.create_engine(url_of(self._settings), poolclass=sa.NullPool, **kwargs)
        with self._held, engine.connect() as self._connection:
            self.longest_name = engine.dialect.max_identifier_length
            yield

    @property
    def _where(self) -> str:
        return f"{self._settings.destination} {self._settings.dataset}"

    def explanation(self, error: Exception) -> Exception | None:
        if isinstance(error, ModuleNotFoundError):
            return BillError(f"{self._where}: its client {error.name} is not installed")
        if not isinstance(error, sa.exc.SQLAlchemyError):
            return None
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        kind = WarehouseUnavailable if _PASSING.search(said) else BillError
        return kind(f"{self._where}: {said}")

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and commit it where it is of no transaction."""
        bound = {f"finops_{number}": value for number, value in enumerate(values, 1)}
        text = sa.text(re.sub(r"(?<!:):(?!finops_\d)", r"\:", sql))
        result = self._connection.execute(text, bound)
        rows = [tuple(row) for row in result] if result.returns_rows else []
        self._commit()
        return rows

    def reach(self) -> str:
        self.query("SELECT 1")
        return self._where

    def full_name(self, table: str) -> str:
        """Return `dataset.table`."""
        return f"{self._settings.dataset}.{table}"

    def quoted(self, name: str) -> Sql:
        preparer = self._connection.dialect.identifier_preparer
        end = preparer.final_quote
        return Sql(f"{preparer.initial_quote}{self.name(name).replace(end, end * 2)}{end}")

    def qualified(self, table: str) -> Sql:
        return Sql(f"{self.quoted(self._settings.dataset)}.{self.quoted(table)}")

    def parameter(self, number: int) -> Sql:
        return Sql(f":finops_{int(number)}")

    def day(self, day: date) -> Sql:
        return Sql(f"CAST('{day}' AS DATE)")

    def moment(self, moment: datetime) -> Sql:
        kind = self._compiled(SqlType.TIME)
        zone = "+00:00" if "ZONE" in kind or "OFFSET" in kind else ""
        return Sql(f"CAST('{moment:%Y-%m-%d %H:%M:%S.%f}{zone}' AS {kind})")

    def columns(self, table: str) -> dict[str, str]:
        inspector, schema = sa.inspect(self._connection), self._schema
        name = self.name(table)
        there = inspector.get_columns(name, schema) if inspector.has_table(name, schema) else []
        self._commit()
        return {column["name"]: _named(column["type"]) for column in there}

    # A load.

    def take_turn(self, file: MonthFile) -> None:
        """Wait for other loads of the month on this machine."""
        path = self._settings.working_dir / f"{file.table}-{file.month}.lock"
        what = f"loading {file.month} into {self.full_name(file.table)}"
        self._held.enter_context(waiting_lock(path, what))

    def prepare(self, file: MonthFile, change: Change) -> None:
        """Make the schema and both tables where they are missing, and new columns: in many
        databases a statement that defines something ends a transaction."""
        schema = self._schema
        if schema and schema not in sa.inspect(self._connection).get_schema_names():
            self._connection.execute(sa.schema.CreateSchema(schema))
        super().prepare(file, change)
        if not self.columns(file.table):
            table = self._table(file.table, self.columns_of(file))
            table.create(self._connection, checkfirst=True)
            if self._connection.dialect.name in _INDEXED:
                month = table.columns["billing_month"]
                sa.Index(self.name(f"{file.table}_billing_month"), month).create(self._connection)
        else:
            self.add_columns(file.table, change.new)
        self._commit()

    def begin(self, file: MonthFile) -> str:
        """Write into the ledger that the month is being loaded; end what died before its end.
        Raises BillError where the database keeps what was rolled back."""
        ledger = self.qualified(ledger_of(file.table))
        died = self.query(
            f"SELECT job_id FROM {ledger} WHERE billing_period = :finops_1 AND state = 'loading'",
            str(file.month),
        )
        for (job,) in died:
            self.record(file, job, "failed", "another load of the month began before it ended")
            self._drop(job)
        with suppress(_Undone), self._all_or_nothing():
            self.record(file, self.job, "loading")
            raise _Undone
        if self.query(f"SELECT 1 FROM {ledger} WHERE job_id = :finops_1", self.job):
            problem = "it keeps what was rolled back: a month could not be replaced in one step"
            self.record(file, self.job, "failed", problem)
            raise BillError(f"{self._where}: {problem}")
        self.record(file, self.job, "loading")
        return self.job

    def load_beside(self, file: MonthFile, change: Change) -> Sql:
        """Insert the month into a table of its own, and hold that against the file."""
        incoming = _incoming(self.job)
        table = self._table(incoming, file.types)
        table.create(self._connection)
        self._commit()
        for rows in self._batches(file):
            self._connection.execute(sa.insert(table), rows)
            self._commit()
        self._hold_against(file, incoming)
        return self.qualified(incoming)

    def transaction(self, file: MonthFile, job: str) -> AbstractContextManager[None]:
        return self._moving(file)

    @contextmanager
    def _moving(self, file: MonthFile) -> Iterator[None]:
        """Lock the ledger's rows of the month first: a load on another machine waits for them, and
        SQLite begins its transaction with them."""
        with self._all_or_nothing():
            self.query(
                f"UPDATE {self.qualified(ledger_of(file.table))} SET error_message = NULL "
                "WHERE billing_period = :finops_1 AND state = 'loading'",
                str(file.month),
            )
            yield

    def widen(self, file: MonthFile, change: Change) -> None:
        self.make_text(file.table, change.becoming_text)

    def tidy_up(self, file: MonthFile, incoming: Sql) -> tuple[str, ...]:
        statistics = _STATISTICS.get(self._connection.dialect.name)
        problems = []
        for what, statement in {
            "the planner's statistics are the old ones": statistics,
            f"{incoming} stays, and can be dropped": f"DROP TABLE {incoming}",
        }.items():
            try:
                if statement:
                    self.query(statement.format(self.qualified(file.table)))
            except sa.exc.SQLAlchemyError as error:
                self._connection.rollback()
                problems.append(f"{what}: {self.explanation(error)}")
        return tuple(problems)

    def record(self, file: MonthFile, job: str, state: str, problem: str | None = None) -> None:
        super().record(file, job, state, problem)
        if state == "failed":
            with suppress(sa.exc.SQLAlchemyError):
                self._drop(job)

    def create_table(
        self, table: str, columns: Mapping[str, str], required: Sequence[str] = ()
    ) -> None:
        self._table(table, columns, required).create(self._connection, checkfirst=True)
        self._commit()

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        for name, kind in columns.items():
            definition = f"{self.quoted(name)} {self._compiled(kind)}"
            self.query(f"ALTER TABLE {self.qualified(table)} ADD {definition}")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        self._is_all_or_nothing = True
        try:
            with self._connection.begin():
                yield
        finally:
            self._is_all_or_nothing = False

    def _commit(self) -> None:
        if not self._is_all_or_nothing:
            self._connection.commit()

    @property
    def _schema(self) -> str | None:
        return self._settings.dataset

    def _compiled(self, kind: str) -> Sql:
        return Sql(self.column_types[kind].compile(dialect=self._connection.dialect))

    def _table(
        self, table: str, columns: Mapping[str, str], required: Sequence[str] = ()
    ) -> sa.Table:
        """Return the table as SQLAlchemy knows it, its columns under the keys c0, c1, ..."""
        made = (
            sa.Column(
                sa.sql.quoted_name(self.name(name), quote=True),
                self.column_types[kind],
                key=name if name == "billing_month" else f"c{position}",
                nullable=name not in required,
            )
            for position, (name, kind) in enumerate(columns.items())
        )
        name = sa.sql.quoted_name(self.name(table), quote=True)
        return sa.Table(name, sa.MetaData(), *made, schema=self._schema)

    def _batches(self, file: MonthFile) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows as the database takes them: times with their zone, maps as JSON whose
        amounts are text, for a JSON number becomes a float somewhere."""
        cells = {
            SqlType.TIME: "CAST({0} AS TIMESTAMPTZ)",
            SqlType.TEXT_MAP: "CAST(to_json({0}) AS VARCHAR)",
            SqlType.MONEY_MAP: "CAST(to_json(CAST({0} AS MAP(VARCHAR, VARCHAR))) AS VARCHAR)",
            **self.cells,
        }
        selected = ", ".join(
            cells.get(SqlType(kind) if kind != DATE else SqlType.TEXT, "{0}").format(quoted(name))
            for name, kind in file.types.items()
        )
        keys = [
            name if name == "billing_month" else f"c{position}"
            for position, name in enumerate(file.types)
        ]
        with file.duckdb.scratch(threads=1) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows = connection.execute(f"SELECT {selected} FROM {relation(file.path)}")
            while batch := rows.fetchmany(_ROWS_AT_ONCE):
                yield [dict(zip(keys, row, strict=True)) for row in batch]

    cells: ClassVar[Mapping[SqlType, str]] = {}
    """What DuckDB makes of other cells on their way."""

    def _hold_against(self, file: MonthFile, incoming: str) -> None:
        """Hold every column against the file, for a way into some database rounds, shifts times, or
        makes NULL of empty text: how many values it has, and the least and the greatest of each
        amount and time. Raises BillError."""
        ends = [SqlType.TIME] if SqlType.MONEY in self.cells else [SqlType.TIME, SqlType.MONEY]
        wanted = [
            (name, function)
            for name, kind in file.types.items()
            for function in ("COUNT", *(("MIN", "MAX") if kind in ends else ()))
        ]
        theirs = ", ".join(f"{function}({self.quoted(name)})" for name, function in wanted)
        ours = ", ".join(f"{function}({quoted(name)})" for name, function in wanted)
        (brought,) = self.query(f"SELECT {theirs} FROM {self.qualified(incoming)}")
        with file.duckdb.scratch(threads=1) as connection:
            (given,) = connection.execute(f"SELECT {ours} FROM {relation(file.path)}").fetchall()
        for (name, function), is_now, was in zip(wanted, brought, given, strict=True):
            is_time = isinstance(was, datetime) and is_now is not None
            if (as_utc(is_now) != as_utc(was)) if is_time else is_now != was:
                raise BillError(
                    f"{function.lower()} of {name} is {is_now} in {self._where}, and {was} in the "
                    "file: this database does not keep it as it is"
                )

    def _drop(self, job: str) -> None:
        incoming = _incoming(job)
        if self.columns(incoming):
            self.query(f"DROP TABLE {self.qualified(incoming)}")


class _Undone(Exception):
    """Ends a transaction that was begun to see whether it can be undone."""


def _incoming(job: str) -> str:
    return f"finops_incoming_{hashlib.sha256(job.encode()).hexdigest()[:16]}"


def _named(kind: sa.types.TypeEngine[Any]) -> str:
    """Return what a type is to a bill, or else its name; a decimal must have room for 18 digits."""
    if isinstance(kind, sa.Float):
        return "DOUBLE"
    if isinstance(kind, sa.Numeric):
        is_exact = kind.scale is None or kind.scale >= 18
        return SqlType.MONEY if is_exact else f"DECIMAL({kind.precision},{kind.scale})"
    for of, name in (
        (sa.DateTime, SqlType.TIME),
        (sa.Date, DATE),
        (sa.String, SqlType.TEXT),
        (sa.Integer, COUNT),
    ):
        if isinstance(kind, of):
            return name
    return str(kind)
