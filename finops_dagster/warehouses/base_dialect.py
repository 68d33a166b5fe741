"""The base of every dialect: the connection, the column types and the SQL expressions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from typing import Any, ClassVar

from finops_dagster.billing.columns import Sql, SqlType, quoted, shortened_name
from finops_dagster.billing.errors import BillError
from finops_dagster.lake import THIS_MACHINE
from finops_dagster.tables.digest import DigestKind
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.month_file import MonthFile


class BaseDialect(ABC):
    """The base of Dialect: connection, types and SQL; the defaults suit most SQL databases.

    A data type is one of SqlType, DATE or COUNT; a native type is the warehouse's name of it.
    `table` and `name` are names as the lake has them, which the warehouse may store shortened.
    Methods need an open connection, unless they say otherwise.
    """

    column_types: ClassVar[Mapping[str, ColumnType]]
    """The column type of each data type."""
    max_name_bytes: int = 255
    """The longest name of a table or column, in bytes; longer ones are cut and end in a hash."""
    accepts_text_as_number: ClassVar[bool] = False
    """Whether a column of numbers takes a month's text column whose texts are exact numbers."""

    digest_kind: ClassVar[DigestKind] = DigestKind.SUMS
    """How a month in the table is compared with the lake; see DigestKind."""
    md5_number: ClassVar[Sql] = Sql("{0}")
    """For DigestKind.MD5: the first `HEX_DIGITS` hex digits of the MD5 of text `{0}`, as a number.

    For DigestKind.SUMS it is the amount itself.
    """
    map_entries: ClassVar[Sql] = Sql("{0}")
    """For DigestKind.MD5: a FROM item with the entries of map `{0}`: `entry.key`, `entry.value`."""

    job_id = "finops_dagster"
    """The id of the load, and Snowflake's QUERY_TAG; the program's name if nothing is loaded."""
    loaded_from = THIS_MACHINE
    """Where the load read the file, for people: an address in a store, or this machine."""

    # Connection

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._stored_columns: dict[str, dict[str, str]] = {}

    @property
    @abstractmethod
    def location(self) -> str:
        """The name and address of the warehouse, for messages; needs no connection."""

    @abstractmethod
    def connect(self, *, write: bool) -> AbstractContextManager[None]:
        """Connect until the block ends.

        With `write`, changes are committed at the end of the block at the latest. If the block
        raises, those that are not committed yet are rolled back. Without `write` the block must
        change nothing: the connection may be read-only, or what it changes may be rolled back.
        Raises errors of the client, or BillError.
        """

    @abstractmethod
    def translate_error(self, error: Exception) -> Exception | None:
        """Return the one-line error for an error of the client; None for any other error.

        The result is WarehouseUnavailable if a retry may help, else BillError. Needs no connection.
        """

    @abstractmethod
    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, with `values` for its placeholders in their order; return its rows.

        The result is empty if the statement returns no rows. Errors are the client's own.
        """

    def ping(self) -> str:
        """Query the server of the open connection, and return its name and address for people."""
        self.query("SELECT 1")
        return self.location

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        """Connect until the block ends, and translate errors, also those of the block.

        An error for which `translate_error` returns None is raised as it is.
        """
        try:
            with self.connect(write=write):
                yield
        except Exception as error:
            translated = self.translate_error(error)
            if translated is None:
                raise
            raise translated from error

    # Names and SQL expressions

    @abstractmethod
    def full_name(self, table: str) -> str:
        """Return the table's name with its schema and database, for people; needs no connection.

        Statements use `table_sql` instead.
        """

    @abstractmethod
    def read_columns(self, table: str) -> dict[str, str]:
        """Query {stored name: native type} of the columns, in their order; empty without a table.

        A type that no data type matches has the name that the warehouse gives it.
        """

    def stored_columns(self, table: str) -> dict[str, str]:
        """Return `read_columns` with the names in lower case.

        Empty without a table. Cached until `create_table` or `alter_table` changes the table.
        """
        if table not in self._stored_columns:
            columns = self.read_columns(table)
            self._stored_columns[table] = {name.lower(): native for name, native in columns.items()}
        return self._stored_columns[table]

    def has_columns(self, table: str, names: Sequence[str]) -> bool:
        """Return whether the table has all these columns; letter case makes no difference."""
        stored_names = {self.stored_name(name).lower() for name in names}
        return stored_names <= self.stored_columns(table).keys()

    def stored_name(self, name: str) -> str:
        """Return the name under which the warehouse stores a column or table."""
        return shortened_name(self.max_name_bytes, name)

    def quoted(self, name: str) -> Sql:
        """Return the stored name of a column or table as a quoted identifier."""
        return quoted(self.stored_name(name))

    def table_sql(self, table: str) -> Sql:
        """Return the table's stored name for statements: quoted, and with its schema if needed."""
        return self.quoted(table)

    def native_type(self, data_type: str) -> Sql:
        """Return the warehouse's name of a data type, for a column's definition."""
        return self.column_types[data_type].native

    def cast_type(self, data_type: str) -> Sql:
        """Return the warehouse's name of a data type in a CAST; MySQL has other names there."""
        return self.native_type(data_type)

    def placeholder(self, number: int) -> Sql:
        """Return the placeholder of a value of `query` by the value's position, from 1.

        Write each one once, in their order: some warehouses have no numbers in placeholders.
        """
        return Sql(f"${int(number)}")

    def date_literal(self, day: date) -> Sql:
        """Return a date as a literal."""
        return Sql(f"DATE '{day}'")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        """Return a time as a literal; it must be in UTC."""
        return Sql(f"TIMESTAMP '{timestamp:%Y-%m-%d %H:%M:%S.%f}'")

    def month_condition(self, file: MonthFile) -> Sql:
        """Return the condition that selects the month's rows."""
        return Sql(f"{self.quoted(file.month_column)} = {self.date_literal(file.month.first_day)}")

    def sum_expression(self, cell: Sql) -> Sql:
        """Return the SQL that adds the numbers of `cell` exactly.

        Its result is a number or a text, or NULL if there are none; see `number_from_database`.
        """
        return Sql(f"SUM({cell})")

    # The columns of a month

    def target_columns(self, file: MonthFile) -> dict[str, str]:
        """Return {name: data type} of the table's columns that the month fills."""
        return file.data_types

    def stored_type(self, table: str, name: str, file_type: str) -> str:
        """Return the data type of a stored column; its native type if no data type matches it.

        If several data types share the native type, it is `file_type`, the type of the column in
        the file, or else the first. The table must have the column.
        """
        native = self.stored_columns(table)[self.stored_name(name).lower()]
        # A count is a type of the ledger: no column of a bill has it.
        matching = [
            data_type
            for data_type, column_type in self.column_types.items()
            if column_type.native == native and data_type != COUNT
        ]
        return file_type if file_type in matching else matching[0] if matching else native

    def column_expression(self, table: str, name: str, data_type: str) -> Sql:
        """Return the SQL of a stored column as a value of the data type.

        A stored text that is no such value becomes NULL or fails the query, as `from_text` of the
        type says. Raises BillError if the column is missing, or cannot be read as this type.
        """
        if not self.has_columns(table, [name]):
            raise BillError(
                f"{self.full_name(table)} has no column {self.stored_name(name)}; run finops state "
                "reprocess for the month, which adds the column"
            )
        stored_type = self.stored_type(table, name, data_type)
        from_text = self.column_types[data_type].from_text
        if stored_type == data_type:
            return self.quoted(name)
        if stored_type != SqlType.TEXT or not from_text:
            expected = self.column_types[data_type].native
            raise BillError(
                f"column {name} of {self.full_name(table)} is {stored_type}, not {expected}; "
                "change the type of the table's column, or give the export another table"
            )
        return Sql(from_text.format(self.quoted(name)))
