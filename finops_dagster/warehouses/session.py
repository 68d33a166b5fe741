"""A session with one warehouse: its connection, its types, and how it names and writes things."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from typing import Any, ClassVar

from finops_dagster.billing.columns import Sql, SqlType, name_within, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DigestKind
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.month_file import MonthFile


class Session(ABC):
    """A session with one warehouse, and its SQL. What is not overridden is what most databases
    have."""

    types: ClassVar[Mapping[str, ColumnType]]
    max_name_length: int = 255
    accepts_text_as_amount: ClassVar[bool] = False
    """Whether a text is kept as an amount in a column of amounts, or refused where it is none."""

    digest_kind: ClassVar[DigestKind] = DigestKind.SUMS
    md5_number: ClassVar[Sql] = Sql("{0}")
    """For MD5s: the first HEX_DIGITS of a text's MD5 as a number."""
    map_entries: ClassVar[Sql] = Sql("{0}")
    """For MD5s: the entries of a map as rows, `entry.key` and `entry.value`."""

    job_id = "finops_dagster"
    """What the session is for: the name of a load's job, or else the program's."""

    # How it is reached, and what it answers.

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._native_types: dict[str, dict[str, str]] = {}

    @property
    @abstractmethod
    def location(self) -> str:
        """What answers, for messages: the product, and the place."""

    @abstractmethod
    def connect(self, *, write: bool) -> AbstractContextManager[None]:
        """Connect until the block ends."""

    @abstractmethod
    def translate_error(self, error: Exception) -> Exception | None:
        """Return what an error of the client's means in one line; None for anybody else's."""

    @abstractmethod
    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement whose parameters are bound to `values`, and return its rows."""

    def check_connection(self) -> str:
        """Return what it is that answered."""
        self.query("SELECT 1")
        return self.location

    @contextmanager
    def session(self, *, write: bool) -> Iterator[None]:
        """Connect; say what goes wrong in one line."""
        try:
            with self.connect(write=write):
                yield
        except Exception as error:
            explained = self.translate_error(error)
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

    def native_types(self, table: str) -> dict[str, str]:
        """Return the types of the table's columns by their names in small letters, as they were
        when the session first looked."""
        if table not in self._native_types:
            columns = self.columns(table)
            self._native_types[table] = {name.lower(): kind for name, kind in columns.items()}
        return self._native_types[table]

    def has_columns(self, table: str, names: Sequence[str]) -> bool:
        """Return whether the table has all these columns."""
        return {self.stored_name(name).lower() for name in names} <= self.native_types(table).keys()

    def stored_name(self, name: str) -> str:
        """Return the name of a column or table as the warehouse can hold it."""
        return name_within(self.max_name_length, name)

    def quoted(self, name: str) -> Sql:
        """Return the name as an identifier."""
        return quoted(self.stored_name(name))

    def qualified(self, table: str) -> Sql:
        """Return the table's whole name as SQL."""
        return self.quoted(table)

    def native_type(self, kind: str) -> Sql:
        """Return the warehouse's own name of a type."""
        return self.types[kind].native

    def placeholder(self, number: int) -> Sql:
        """Return what stands for the value of that number, from 1 on."""
        return Sql(f"${int(number)}")

    def date_literal(self, day: date) -> Sql:
        """Return a day as a literal."""
        return Sql(f"DATE '{day}'")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        """Return a time in UTC as a literal."""
        return Sql(f"TIMESTAMP '{timestamp:%Y-%m-%d %H:%M:%S.%f}'")

    def month_condition(self, file: MonthFile) -> Sql:
        """Return the condition that a row is of the month."""
        return Sql(f"{self.quoted('billing_month')} = {self.date_literal(file.month.first_day)}")

    def sum_expression(self, cell: Sql) -> Sql:
        """Return the exact sum of a cell, as SQL."""
        return Sql(f"SUM({cell})")

    # Types, and what they become over months.

    def target_columns(self, file: MonthFile) -> dict[str, str]:
        """Return the columns that the file's become in the table, with their types."""
        return file.types

    def stored_type(self, table: str, name: str, given: str) -> str:
        """Return what a column of the table is to a bill; `given` where its type may be several."""
        held = self.native_types(table)[self.stored_name(name).lower()]
        kinds = [k for k, own in self.types.items() if own.native == held and k != COUNT]
        return given if given in kinds else kinds[0] if kinds else held

    def column_expression(self, table: str, name: str, wanted: str) -> Sql:
        """Return a column of a table, read as the type that the file gives it. Raises BillError."""
        if not self.has_columns(table, [name]):
            raise BillError(f"it has no column {self.stored_name(name)}")
        was, from_text = self.stored_type(table, name, wanted), self.types[wanted].from_text
        if was == wanted:
            return self.quoted(name)
        if was != SqlType.TEXT or not from_text:
            raise BillError(f"its column {name} is {was}, not {self.types[wanted].native}")
        return Sql(from_text.format(self.quoted(name)))
