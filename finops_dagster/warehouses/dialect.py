"""What is one warehouse's own: types, names, how a file gets in, how a month is exchanged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, NamedTuple

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, SqlType, merged_type, name_within, quoted
from finops_dagster.billing.errors import BillError, excerpt
from finops_dagster.billing.money import MeasuredTotals, Totals, exact_sum
from finops_dagster.lake import parquet_relation
from finops_dagster.tables.digest import (
    BETWEEN_KEY_AND_VALUE,
    MAPS,
    ColumnDigest,
    DigestKind,
    MonthDigest,
    column_groups,
    compared_columns,
    digests_from_row,
    map_value_type,
)
from finops_dagster.warehouses.month_file import (
    AMOUNTS_OF_TEXT,
    MonthFile,
    WarehouseUnavailable,
    as_utc,
    exact,
    ledger_of,
)

COUNT = "BIGINT"
LEDGER = {
    "billing_period": SqlType.TEXT,
    "load_timestamp": SqlType.TIME,
    "row_count": COUNT,
    "state": SqlType.TEXT,
    "error_message": SqlType.TEXT,
    "manifest_id": SqlType.TEXT,
    "job_id": SqlType.TEXT,
}
"""The columns of every ledger; all but `error_message` always have a value."""
_COLUMNS_A_DIGEST = 400


class ColumnType(NamedTuple):
    """A SqlType, DATE or COUNT in a warehouse: its name there, and SQL of a cell, `{0}`."""

    name_there: Sql
    as_text: Sql = Sql("")
    """How a cell of the table becomes the text that DuckDB would make of it, if it can."""
    read_as: Sql = Sql("")
    """How a text is read as this type, or as NULL, if it can be."""
    digest: Sql = Sql("{0}")
    """The text of which an MD5 is taken, as `md5_text` has it."""
    way_in: Sql = Sql("{0}")
    """What DuckDB makes of a cell on its way in."""


def typed(name_there: str, as_text: str = "", **more: str) -> ColumnType:
    """Return a type in the program's own words, and nobody else's."""
    return ColumnType(
        Sql(name_there), Sql(as_text), **{what: Sql(text) for what, text in more.items()}
    )


@dataclass(frozen=True)
class Change:
    """What a month changes of its table, by the names of the file's columns: those that are new,
    those that become text and what they are until then, and the type of each afterwards."""

    new: Mapping[str, str]
    becoming_text: Mapping[str, str]
    kept: Mapping[str, str]
    warnings: tuple[str, ...]


class Dialect(ABC):
    """A session with one warehouse. What is not overridden is what most databases do: a month is
    deleted and inserted in one transaction."""

    types: ClassVar[Mapping[str, ColumnType]]
    table_options: ClassVar[Sql] = Sql("")
    """What follows the columns of a table of bills where it is made."""
    add_column: ClassVar[Sql] = Sql("ADD COLUMN")
    longest_name: int = 255
    takes_amounts_of_text: ClassVar[bool] = False
    """Whether a text is kept as an amount in a column of amounts, or refused where it is none."""
    defines_in_transaction: ClassVar[bool] = True
    """Whether columns are made and changed in the transaction that replaces the month."""
    measures_beside: ClassVar[bool] = False
    """Whether the month is measured where it was loaded, before it takes the month's place."""
    advice: ClassVar[str] = "the month was left as it was"

    digest_kind: ClassVar[DigestKind] = DigestKind.SUMS
    digest_number: ClassVar[Sql] = Sql("{0}")
    """For MD5s: the first HEX_DIGITS of a text's MD5 as a number."""
    entries: ClassVar[Sql] = Sql("{0}")
    """For MD5s: the entries of a map as rows, `entry.key` and `entry.value`."""

    job = "finops_dagster"
    """What the session is for: the name of a load's job, or else the program's."""

    # How it is reached, and what it answers.

    @classmethod
    def of(cls, settings: Any) -> Callable[[], Dialect]:
        """Return what gives a dialect for a session. Raises SettingsError where the settings name
        what cannot replace a month."""
        return partial(cls, settings)

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._seen: dict[str, dict[str, str]] = {}

    @property
    @abstractmethod
    def where(self) -> str:
        """What answers, for messages: the product, and the place."""

    @abstractmethod
    def connected(self, *, write: bool) -> AbstractContextManager[None]:
        """Connect until the block ends."""

    @abstractmethod
    def explanation(self, error: Exception) -> Exception | None:
        """Return what an error of the client's means in one line; None for anybody else's."""

    @abstractmethod
    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement whose parameters are bound to `values`, and return its rows."""

    def check_connection(self) -> str:
        """Return what it is that answered."""
        self.query("SELECT 1")
        return self.where

    @contextmanager
    def session(self, *, write: bool) -> Iterator[None]:
        """Connect; say what goes wrong in one line."""
        try:
            with self.connected(write=write):
                yield
        except Exception as error:
            explained = self.explanation(error)
            if explained is None:
                raise
            raise explained from error

    # How it names things.

    @abstractmethod
    def full_name(self, table: str) -> str:
        """Return the table's name as a person would query it."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Return name and type of each column, in the table's order; empty without a table."""

    def held(self, table: str) -> dict[str, str]:
        """Return the types of the table's columns by their names in small letters, as they were
        when the session first looked."""
        if table not in self._seen:
            columns = self.columns(table)
            self._seen[table] = {name.lower(): kind for name, kind in columns.items()}
        return self._seen[table]

    def has(self, table: str, names: Sequence[str]) -> bool:
        """Return whether the table has all these columns."""
        return {self.name(name).lower() for name in names} <= self.held(table).keys()

    def name(self, name: str) -> str:
        """Return the name of a column or table as the warehouse can hold it."""
        return name_within(self.longest_name, name)

    def quoted(self, name: str) -> Sql:
        """Return the name as an identifier."""
        return quoted(self.name(name))

    def qualified(self, table: str) -> Sql:
        """Return the table's whole name as SQL."""
        return self.quoted(table)

    def sql_type(self, kind: str) -> Sql:
        """Return the warehouse's own name of a type."""
        return self.types[kind].name_there

    def definitions(self, columns: Mapping[str, str]) -> list[Sql]:
        """Return columns with their types as SQL."""
        required = columns.keys() - {"error_message"} if columns is LEDGER else ()
        return [
            Sql(
                f"{self.quoted(name)} {self.sql_type(kind)}"
                f"{Sql(' NOT NULL') if name in required else Sql('')}"
            )
            for name, kind in columns.items()
        ]

    def parameter(self, number: int) -> Sql:
        """Return what stands for the value of that number, from 1 on."""
        return Sql(f"${int(number)}")

    def day(self, day: date) -> Sql:
        """Return a day as a literal."""
        return Sql(f"DATE '{day}'")

    def moment(self, moment: datetime) -> Sql:
        """Return a time in UTC as a literal."""
        return Sql(f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'")

    def of_month(self, file: MonthFile) -> Sql:
        """Return the condition that a row is of the month."""
        return Sql(f"{self.quoted('billing_month')} = {self.day(file.month.first_day)}")

    def sum(self, cell: Sql) -> Sql:
        """Return the exact sum of a cell, as SQL."""
        return Sql(f"SUM({cell})")

    # Types, and what they become over months.

    def columns_of(self, file: MonthFile) -> dict[str, str]:
        """Return the columns that the file's become in the table, with their types."""
        return file.types

    def type_of(self, table: str, name: str, given: str) -> str:
        """Return what a column of the table is to a bill; `given` where its type may be several."""
        held = self.held(table)[self.name(name).lower()]
        kinds = [k for k, own in self.types.items() if own.name_there == held and k != COUNT]
        return given if given in kinds else kinds[0] if kinds else held

    def change(self, file: MonthFile) -> Change:
        """Return what the month changes of its table: text takes anything, amounts stay amounts,
        and a time or a map becomes text. Raises BillError for a column that can be neither."""
        new, becoming_text, kept, warnings = {}, {}, {}, []
        for name, given in self.columns_of(file).items():
            if not self.has(file.table, [name]):
                new[name] = kept[name] = given
                continue
            was = self.type_of(file.table, name, given)
            type_before = self.types[was].name_there if was in self.types else was
            type_given = self.types[given].name_there
            is_amount = was in AMOUNTS_OF_TEXT and self.takes_amounts_of_text
            kind = was if is_amount and given == SqlType.TEXT else merged_type(was, given)
            if kind is None or (kind != was and not self.types[was].as_text):
                raise BillError(
                    f"column {name} of {self.full_name(file.table)} is {type_before}, the month's "
                    f"is {type_given}; give the export another table or change it"
                )
            kept[name] = kind
            if kind != was:
                becoming_text[name] = was
                warnings.append(
                    f"{name} was {type_before}, {file.month} gives {type_given}: it is text now"
                )
            elif kind != given:
                warnings.append(f"{name} stays {type_before}, {file.month} gives {type_given}")
        return Change(new, becoming_text, kept, tuple(warnings))

    def refuse_other_text(
        self, connection: DuckDBPyConnection, file: MonthFile, change: Change
    ) -> None:
        """Raise BillError, which names the first text that is not exactly the amount that its
        column holds."""
        for name, kept in change.kept.items():
            if file.types.get(name) != SqlType.TEXT or kept == SqlType.TEXT:
                continue
            cast = AMOUNTS_OF_TEXT[kept].format(quoted(name))
            for (text,) in connection.execute(
                f"SELECT {quoted(name)} FROM {parquet_relation(file.path)} "
                f"WHERE {quoted(name)} IS NOT NULL AND TRY({cast}) IS NULL LIMIT 1"
            ).fetchall():
                raise BillError(
                    f"column {name} of {self.full_name(file.table)} is {self.sql_type(kept)}, and "
                    f"{excerpt(text)} in {file.path} cannot be kept exactly as one; give the "
                    "export another name and table"
                )

    def cell(self, table: str, name: str, wanted: str) -> Sql:
        """Return a column of a table, read as the type that the file gives it. Raises BillError."""
        if not self.has(table, [name]):
            raise BillError(f"it has no column {self.name(name)}")
        was, read_as = self.type_of(table, name, wanted), self.types[wanted].read_as
        if was == wanted:
            return self.quoted(name)
        if was != SqlType.TEXT or not read_as:
            raise BillError(f"its column {name} is {was}, not {self.types[wanted].name_there}")
        return Sql(read_as.format(self.quoted(name)))

    # A load, in the order of its steps.

    def lock_table(self, file: MonthFile) -> None:  # noqa: B027 most servers let loads wait
        """Wait until no other load of the month is in the way."""

    def prepare(self, file: MonthFile, change: Change) -> None:
        """Make the ledger where it is missing."""
        self.create_table(ledger_of(file.table), LEDGER)

    def begin(self, file: MonthFile) -> None:  # noqa: B027 a load is one transaction
        """Write into the ledger that the job has begun, where a load is no transaction."""

    @abstractmethod
    def load_beside(self, file: MonthFile, change: Change) -> Sql:
        """Load the file where nobody looks for it, in the types that the table keeps; return
        what follows FROM."""

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        """Do all of the block, or nothing of it."""
        self.query("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            self.query("ROLLBACK")
            raise
        self.query("COMMIT")

    def exchange(self, file: MonthFile, incoming: Sql, change: Change) -> tuple[str, ...]:
        """Replace the month in the table by what is `incoming`; return the warnings."""
        if self.defines_in_transaction:
            self.widen(file, change)
        names, table = ", ".join(map(self.quoted, file.schema.names)), self.qualified(file.table)
        self.query(f"DELETE FROM {table} WHERE {self.of_month(file)}")
        self.query(f"INSERT INTO {table} ({names}) SELECT {names} FROM {incoming}")
        return change.warnings

    def tidy_up(self, file: MonthFile, incoming: Sql) -> tuple[str, ...]:
        """Do what the month does not depend on; return the warnings of what failed."""
        return ()

    def has_lost_connection(self, error: Exception) -> bool:
        """Whether a load that failed so has ended, and the ledger may say that it failed."""
        return True

    def widen(self, file: MonthFile, change: Change) -> None:
        """Make the table, and what other months have not yet made of it: the columns that it lacks,
        and text of those that become it."""
        table, (new, becoming) = file.table, (change.new, change.becoming_text)
        self._seen.pop(table, None)
        if not self.held(table):
            self.create_table(table, self.columns_of(file))
            return
        self.alter(
            table,
            {n: kind for n, kind in new.items() if not self.has(table, [n])},
            {n: k for n, k in becoming.items() if self.type_of(table, n, k) != SqlType.TEXT},
        )

    def alter(self, table: str, new: Mapping[str, str], becoming_text: Mapping[str, str]) -> None:
        """Give a table columns that it does not have, and make text of others, whose types are
        these until now."""
        if new:
            self.add_columns(table, new)
        if becoming_text:
            self.make_text(table, becoming_text)
        self._seen.pop(table, None)

    def create_table(self, table: str, columns: Mapping[str, str]) -> None:
        """Make a table where it is missing."""
        options = Sql("") if columns is LEDGER else self.table_options
        self.query(
            f"CREATE TABLE IF NOT EXISTS {self.qualified(table)} "
            f"({', '.join(self.definitions(columns))}) {options}"
        )
        self._seen.pop(table, None)

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        """Give a table columns that it does not have."""
        for definition in self.definitions(columns):
            self.query(f"ALTER TABLE {self.qualified(table)} {self.add_column} {definition}")

    def make_text(self, table: str, columns: Mapping[str, str]) -> None:
        """Make text of columns, whose types are these until now."""
        for name, kind in columns.items():
            cell = self.types[kind].as_text.format(self.quoted(name))
            self.query(
                f"ALTER TABLE {self.qualified(table)} ALTER {self.quoted(name)} "
                f"TYPE {self.sql_type(SqlType.TEXT)} USING {cell}"
            )

    # The ledger, and what the table holds.

    def loads(self, table: str) -> list[tuple[Any, ...]]:
        """Return month, version, rows and time of every load that the ledger has as loaded."""
        if not self.held(ledger_of(table)):
            return []
        return self.query(
            "SELECT billing_period, manifest_id, row_count, load_timestamp "
            f"FROM {self.qualified(ledger_of(table))} WHERE state = 'loaded'"
        )

    def record(self, file: MonthFile, job: str, state: str, problem: str | None = None) -> None:
        """Write into the ledger how a load stands: now, or just after the month's newest, which a
        clock that was wrong may have put into the future. One that ended stays as it is: the answer
        to its commit may have been lost. Raises WarehouseUnavailable where another run ended it."""
        ledger, at = self.qualified(ledger_of(file.table)), self.parameter
        ((known, newest),) = self.query(
            f"SELECT MAX(CASE WHEN job_id = {at(1)} THEN state END), MAX(load_timestamp) "
            f"FROM {ledger} WHERE billing_period = {at(2)}",
            *(job, str(file.month)),
        )
        if known == "failed" and state == "loaded":
            raise WarehouseUnavailable(
                f"{self.full_name(file.table)}: another run is loading {file.month}"
            )
        now = datetime.now(UTC)
        if newest is not None:
            now = max(now, as_utc(newest) + timedelta(microseconds=1))
        if known == "loading":
            self.query(
                f"UPDATE {ledger} SET state = {at(1)}, error_message = {at(2)}, "
                f"load_timestamp = {self.moment(now)} WHERE job_id = {at(3)}",
                *(state, problem, job),
            )
        elif known is None:
            self.query(
                f"INSERT INTO {ledger} ({', '.join(LEDGER)}) VALUES ({at(1)}, {self.moment(now)}, "
                f"{at(2)}, {at(3)}, {at(4)}, {at(5)}, {at(6)})",
                *(str(file.month), file.footer.totals.rows, state, problem),
                *(file.footer.manifest_id, job),
            )

    def measure(self, file: MonthFile, table: str) -> MeasuredTotals:
        """Count the month in a table by one statement: its rows, those of another billing period,
        and the sum of every column of money, by currency where that is known."""
        by_currency = file.currency and file.footer.totals.costs is not None
        group = self.cell(table, str(file.currency), SqlType.TEXT) if by_currency else Sql("NULL")
        foreign = Sql("0")
        if file.billing_period:
            period = self.cell(table, file.billing_period, SqlType.TIME)
            begin, end = (
                self.moment(datetime.combine(month.first_day, time(), UTC))
                for month in (file.month, file.month.next)
            )
            foreign = Sql(f"CASE WHEN {period} < {begin} OR {period} >= {end} THEN 1 ELSE 0 END")
        sums = [self.sum(self.cell(table, name, SqlType.MONEY)) for name in file.money]
        rows = self.query(
            f"SELECT {', '.join([group, Sql('COUNT(*)'), Sql(f'SUM({foreign})'), *sums])} "
            f"FROM {self.qualified(table)} WHERE {self.of_month(file)}"
            + (f" GROUP BY {group}" if by_currency else "")
        )
        return _measured(file, rows)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digest of each of the file's columns in the table: of MD5s the same as in
        DuckDB. A map takes a query of its own, in which its entries are rows. Raises BillError."""
        types = compared_columns(file.types, self.digest_kind)
        cells = {name: self.cell(file.table, name, of_type) for name, of_type in types.items()}
        where = Sql(f"WHERE {self.of_month(file)}")
        table, found = self.qualified(file.table), dict[str, ColumnDigest]()
        plain = [name for name in types if types[name] not in MAPS]
        for names in column_groups(plain, _COLUMNS_A_DIGEST):
            numbers = {
                n: Sql(self.digest_number.format(self.types[types[n]].digest.format(cells[n])))
                for n in names
            }
            counted = ", ".join(f"COUNT({cells[n]}), {self.sum(numbers[n])}" for n in names)
            (row,) = self.query(f"SELECT {counted} FROM {table} {where}")
            found |= digests_from_row(names, [exact(number) for number in row])
        for name in (name for name in types if types[name] in MAPS):
            ((values,),) = self.query(f"SELECT COUNT({cells[name]}) FROM {table} {where}")
            value = self.types[map_value_type(types[name])].digest.format("entry.value")
            text = Sql(f"entry.key || CHR({BETWEEN_KEY_AND_VALUE}) || {value}")
            entries = self.entries.format(cells[name])
            ((total,),) = self.query(
                f"SELECT {self.sum(Sql(self.digest_number.format(text)))} "
                f"FROM {table}, {entries} {where}"
            )
            found |= digests_from_row([name], [values, exact(total)])
        return MonthDigest(self.digest_kind, found)


def _measured(file: MonthFile, groups: Sequence[Sequence[Any]]) -> MeasuredTotals:
    """Return the sum of what was measured by currency."""
    known = file.footer.totals
    sums = {
        name: exact_sum(exact(group[place]) for group in groups)
        for place, name in enumerate(file.money, 3)
    }
    costs = None
    if file.currency and file.cost and known.costs is not None:
        place = 3 + file.money.index(file.cost)
        costs = {group[0] or "": exact(group[place]) for group in groups}
    totals = Totals(
        sum(int(group[1]) for group in groups),
        sums.get(file.cost or "", Decimal(0)),
        None if known.sums is None else {n: sums[n] for n in known.sums if n in sums},
        costs,
    )
    return MeasuredTotals(totals, sum(int(group[2] or 0) for group in groups))
