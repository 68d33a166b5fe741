"""The steps of a month's load, which each warehouse implements or inherits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.tables.digest import MonthDigest
from finops_dagster.warehouses import loads_table, measure
from finops_dagster.warehouses.base_dialect import BaseDialect
from finops_dagster.warehouses.loads_table import LEDGER_COLUMNS, ledger_name
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster.warehouses.schema_change import SchemaChange, required_change


class Dialect(BaseDialect):
    """The SQL of one warehouse, and the steps of a load, which `Warehouse.replace_month` calls.

    An object serves one connection. By default a month is deleted and inserted in one transaction.
    """

    add_column_clause: ClassVar[Sql] = Sql("ADD COLUMN")
    """The SQL before the column's definition in ALTER TABLE."""

    transactional_ddl: ClassVar[bool] = True
    """Whether `replace_month_rows` changes the schema; else that is done before `transaction`.

    False if the warehouse commits the open transaction at a change of columns.
    """
    measures_incoming: ClassVar[bool] = False
    """Whether the incoming rows are measured, before they replace the month; else the table is."""
    mismatch_effect: ClassVar[str] = "the month's rows in the table were not changed"
    """What the message says of the table if the measured totals are not those of the file."""

    @classmethod
    def factory(cls, settings: Any) -> Callable[[], Dialect]:
        """Return a function that makes a new dialect with these settings at each call."""
        return partial(cls, settings)

    # The steps of a load, in their order

    def lock_month(self, file: MonthFile) -> None:
        """Wait for other loads of the month, and keep them out until the connection closes.

        By default it does nothing, since most servers let loads wait for each other by themselves.
        """

    def schema_change(self, file: MonthFile) -> SchemaChange:
        """Return what must change in the table's columns; see `schema_change.required_change`."""
        return required_change(self, file)

    def prepare_tables(self, file: MonthFile, change: SchemaChange) -> None:
        """Create the ledger if it is missing; dialects also create schemas and tables here."""
        self.create_table(ledger_name(file.table), LEDGER_COLUMNS)

    def begin_load(self, file: MonthFile) -> None:
        """Record the load as `loading`; by default do nothing, as a load is one transaction."""

    @abstractmethod
    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Prepare the file's rows for `replace_month_rows`, in the target types.

        Returns a FROM item with the rows or, if `measures_incoming`, the name of their table
        without quotes. Readers of the month's table see them only after `replace_month_rows`,
        except in BigQuery. Raises BillError if values cannot be stored exactly.
        """

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        """Commit at the end of the block, or roll back if it fails."""
        self.query("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            self.query("ROLLBACK")
            raise
        self.query("COMMIT")

    def replace_month_rows(
        self, file: MonthFile, incoming: Sql, change: SchemaChange
    ) -> tuple[str, ...]:
        """Replace the month's rows by the incoming ones, and return the warnings about columns.

        Runs within `transaction`, in which the caller then writes the ledger. If
        `transactional_ddl`, the schema change is applied first; otherwise it was applied before.
        """
        if self.transactional_ddl:
            self.apply_schema_change(file, change)
        names, table = ", ".join(map(self.quoted, file.schema.names)), self.table_sql(file.table)
        self.query(f"DELETE FROM {table} WHERE {self.month_condition(file)}")
        self.query(f"INSERT INTO {table} ({names}) SELECT {names} FROM {incoming}")
        return change.warnings

    def clean_up(self, file: MonthFile, incoming: Sql) -> tuple[str, ...]:
        """Remove temporary data after the commit; return a warning for each failure.

        By default there is none to remove.
        """
        return ()

    def load_has_ended(self, error: Exception) -> bool:
        """Return whether this error has ended the load, which is then recorded as `failed`.

        `error` is as `connected` raises it: an error of the client is translated already. False if
        the load may still be running in the warehouse, or if the next run will complete it. By
        default always true. Needs no connection.
        """
        return True

    # Changes of tables

    def apply_schema_change(self, file: MonthFile, change: SchemaChange) -> None:
        """Create the table if it is missing; else add the new columns, and cast others to text.

        Columns that another load has already added or cast are skipped.
        """
        table = file.table
        self._stored_columns.pop(table, None)
        if not self.stored_columns(table):
            self.create_table(table, self.target_columns(file))
            return
        new_columns = {
            name: data_type
            for name, data_type in change.new_columns.items()
            if not self.has_columns(table, [name])
        }
        cast_to_text = {
            name: data_type
            for name, data_type in change.cast_to_text.items()
            if self.stored_type(table, name, data_type) != SqlType.TEXT
        }
        self.alter_table(table, new_columns, cast_to_text)

    def alter_table(
        self, table: str, new_columns: Mapping[str, str], cast_to_text: Mapping[str, str]
    ) -> None:
        """Add the new columns with their data types, and cast columns to text.

        `cast_to_text` has their present data types.
        """
        if new_columns:
            self.add_columns(table, new_columns)
        if cast_to_text:
            self.cast_columns_to_text(table, cast_to_text)
        self._stored_columns.pop(table, None)

    def create_table(self, table: str, columns: Mapping[str, str]) -> None:
        """Create a table with these columns and data types if it is missing.

        If `columns` is the object LEDGER_COLUMNS (not a copy), the table is a ledger: it has no
        `table_options`, and its columns are NOT NULL, except `error_message`.
        """
        options = Sql("") if columns is LEDGER_COLUMNS else self.table_options(columns)
        self.query(
            f"CREATE TABLE IF NOT EXISTS {self.table_sql(table)} "
            f"({', '.join(self.column_definitions(columns))}) {options}"
        )
        self._stored_columns.pop(table, None)

    def table_options(self, columns: Collection[str]) -> Sql:
        """Return the SQL after the columns in CREATE TABLE; empty by default.

        `columns` are the names of the table's columns. A ledger is created without it.
        """
        return Sql("")

    def create_view(self, view: str, query: Sql) -> None:
        """Create or replace a view; it is committed at the latest when the connection closes.

        PostgreSQL refuses a view whose first columns are not those of the old one.
        """
        self.query(f"CREATE OR REPLACE VIEW {self.table_sql(view)} AS {query}")

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        """Add columns of these data types; the table must have none of them.

        Only for `alter_table`, which drops the table's columns from the cache afterwards.
        """
        for definition in self.column_definitions(columns):
            self.query(f"ALTER TABLE {self.table_sql(table)} {self.add_column_clause} {definition}")

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        """Cast columns with their values to text; `columns` has their present data types.

        Only for `alter_table`, as `add_columns`.
        """
        for name, data_type in columns.items():
            cell = self.column_types[data_type].to_text.format(self.quoted(name))
            self.query(
                f"ALTER TABLE {self.table_sql(table)} ALTER {self.quoted(name)} "
                f"TYPE {self.native_type(SqlType.TEXT)} USING {cell}"
            )

    def column_definitions(self, columns: Mapping[str, str]) -> list[Sql]:
        """Return `name type` of each column, for CREATE TABLE or ADD COLUMN.

        Those of LEDGER_COLUMNS have NOT NULL, except `error_message`.
        """
        required = columns.keys() - {"error_message"} if columns is LEDGER_COLUMNS else ()
        return [
            Sql(
                f"{self.quoted(name)} {self.native_type(data_type)}"
                f"{Sql(' NOT NULL') if name in required else Sql('')}"
            )
            for name, data_type in columns.items()
        ]

    # The ledger and the digest

    def record_load(
        self, file: MonthFile, job_id: str, state: str, error_message: str | None = None
    ) -> str:
        """Insert or update the ledger's row of a load; see `loads_table.record_load`."""
        return loads_table.record_load(self, file, job_id, state, error_message)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests of the month's rows in the table; see `measure.warehouse_digest`."""
        return measure.warehouse_digest(self, file)
