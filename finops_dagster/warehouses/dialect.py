"""What is one warehouse's own: how a file gets in, and how a month is exchanged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.tables.digest import MonthDigest
from finops_dagster.warehouses import loads_table, measure
from finops_dagster.warehouses.loads_table import LEDGER, ledger_of
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster.warehouses.schema_change import Change, change_of
from finops_dagster.warehouses.session import Session


class Dialect(Session):
    """The load of a month into one warehouse. What is not overridden is what most databases do: a
    month is deleted and inserted in one transaction."""

    table_options: ClassVar[Sql] = Sql("")
    """What follows the columns of a table of bills where it is made."""
    add_column: ClassVar[Sql] = Sql("ADD COLUMN")

    defines_in_transaction: ClassVar[bool] = True
    """Whether columns are made and changed in the transaction that replaces the month."""
    measures_beside: ClassVar[bool] = False
    """Whether the month is measured where it was loaded, before it takes the month's place."""
    advice: ClassVar[str] = "the month was left as it was"

    @classmethod
    def of(cls, settings: Any) -> Callable[[], Dialect]:
        """Return what gives a dialect for a session. Raises SettingsError where the settings name
        what cannot replace a month."""
        return partial(cls, settings)

    # A load, in the order of its steps.

    def lock_table(self, file: MonthFile) -> None:
        """Wait until no other load of the month is in the way."""

    def change(self, file: MonthFile) -> Change:
        """Return what the month changes of its table. Raises BillError."""
        return change_of(self, file)

    def prepare(self, file: MonthFile, change: Change) -> None:
        """Make the ledger where it is missing."""
        self.create_table(ledger_of(file.table), LEDGER)

    def begin(self, file: MonthFile) -> None:
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

    # The ledger, and what the table holds.

    def record(self, file: MonthFile, job: str, state: str, problem: str | None = None) -> None:
        """Write into the ledger how a load stands."""
        loads_table.record(self, file, job, state, problem)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digest of each of the file's columns in the table. Raises BillError."""
        return measure.warehouse_digest(self, file)
