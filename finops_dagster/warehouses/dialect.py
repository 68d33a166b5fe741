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
from finops_dagster.warehouses.loads_table import LEDGER_COLUMNS, ledger_name
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster.warehouses.schema_change import SchemaChange, schema_change
from finops_dagster.warehouses.session import Session


class Dialect(Session):
    """The load of a month into one warehouse. What is not overridden is what most databases do: a
    month is deleted and inserted in one transaction."""

    table_options: ClassVar[Sql] = Sql("")
    """What follows the columns of a table of bills where it is made."""
    add_column_clause: ClassVar[Sql] = Sql("ADD COLUMN")

    transactional_ddl: ClassVar[bool] = True
    """Whether columns are made and changed in the transaction that replaces the month."""
    measures_incoming: ClassVar[bool] = False
    """Whether the month is measured where it was loaded, before it takes the month's place."""
    advice: ClassVar[str] = "the month was left as it was"

    @classmethod
    def factory(cls, settings: Any) -> Callable[[], Dialect]:
        """Return what gives a dialect for a session. Raises SettingsError where the settings name
        what cannot replace a month."""
        return partial(cls, settings)

    # A load, in the order of its steps.

    def lock_month(self, file: MonthFile) -> None:
        """Wait until no other load of the month is in the way."""

    def schema_change(self, file: MonthFile) -> SchemaChange:
        """Return what the month changes of its table. Raises BillError."""
        return schema_change(self, file)

    def prepare_tables(self, file: MonthFile, change: SchemaChange) -> None:
        """Make the ledger where it is missing."""
        self.create_table(ledger_name(file.table), LEDGER_COLUMNS)

    def begin_load(self, file: MonthFile) -> None:
        """Write into the ledger that the job has begun, where a load is no transaction."""

    @abstractmethod
    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
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

    def exchange_month(
        self, file: MonthFile, incoming: Sql, change: SchemaChange
    ) -> tuple[str, ...]:
        """Replace the month in the table by what is `incoming`; return the warnings."""
        if self.transactional_ddl:
            self.apply_schema_change(file, change)
        names, table = ", ".join(map(self.quoted, file.schema.names)), self.qualified(file.table)
        self.query(f"DELETE FROM {table} WHERE {self.month_condition(file)}")
        self.query(f"INSERT INTO {table} ({names}) SELECT {names} FROM {incoming}")
        return change.warnings

    def clean_up(self, file: MonthFile, incoming: Sql) -> tuple[str, ...]:
        """Do what the month does not depend on; return the warnings of what failed."""
        return ()

    def has_ended(self, error: Exception) -> bool:
        """Whether a load that failed so has ended, and the ledger may say that it failed."""
        return True

    def apply_schema_change(self, file: MonthFile, change: SchemaChange) -> None:
        """Make the table, and what other months have not yet made of it: the columns that it lacks,
        and text of those that become it."""
        table, (new, becoming) = file.table, (change.new_columns, change.cast_to_text)
        self._native_types.pop(table, None)
        if not self.native_types(table):
            self.create_table(table, self.target_columns(file))
            return
        self.alter_table(
            table,
            {n: kind for n, kind in new.items() if not self.has_columns(table, [n])},
            {n: k for n, k in becoming.items() if self.stored_type(table, n, k) != SqlType.TEXT},
        )

    def alter_table(
        self, table: str, new: Mapping[str, str], becoming_text: Mapping[str, str]
    ) -> None:
        """Give a table columns that it does not have, and make text of others, whose types are
        these until now."""
        if new:
            self.add_columns(table, new)
        if becoming_text:
            self.cast_columns_to_text(table, becoming_text)
        self._native_types.pop(table, None)

    def create_table(self, table: str, columns: Mapping[str, str]) -> None:
        """Make a table where it is missing."""
        options = Sql("") if columns is LEDGER_COLUMNS else self.table_options
        self.query(
            f"CREATE TABLE IF NOT EXISTS {self.qualified(table)} "
            f"({', '.join(self.column_definitions(columns))}) {options}"
        )
        self._native_types.pop(table, None)

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        """Give a table columns that it does not have."""
        for definition in self.column_definitions(columns):
            self.query(f"ALTER TABLE {self.qualified(table)} {self.add_column_clause} {definition}")

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        """Make text of columns, whose types are these until now."""
        for name, kind in columns.items():
            cell = self.types[kind].to_text.format(self.quoted(name))
            self.query(
                f"ALTER TABLE {self.qualified(table)} ALTER {self.quoted(name)} "
                f"TYPE {self.native_type(SqlType.TEXT)} USING {cell}"
            )

    def column_definitions(self, columns: Mapping[str, str]) -> list[Sql]:
        """Return columns with their types as SQL."""
        required = columns.keys() - {"error_message"} if columns is LEDGER_COLUMNS else ()
        return [
            Sql(
                f"{self.quoted(name)} {self.native_type(kind)}"
                f"{Sql(' NOT NULL') if name in required else Sql('')}"
            )
            for name, kind in columns.items()
        ]

    # The ledger, and what the table holds.

    def record_load(
        self, file: MonthFile, job_id: str, state: str, error_message: str | None = None
    ) -> None:
        """Write into the ledger how a load stands."""
        loads_table.record_load(self, file, job_id, state, error_message)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digest of each of the file's columns in the table. Raises BillError."""
        return measure.warehouse_digest(self, file)
