"""What every kind of bill file is to the table: headers, and the SQL that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from finops_dagster.billing.columns import Sql, SqlType


@dataclass(frozen=True)
class BillFiles(ABC):
    """Files of a month that are read as one: the same kind, with the same columns.

    A column is read by its position under a name of our own: DuckDB would rename the second of
    `user:team`, `user:Team` by order of appearance.
    """

    headers: tuple[str, ...]
    paths: tuple[Path, ...]

    @cached_property
    def positions(self) -> dict[str, int]:
        """The place of each header in the file."""
        return {header: position for position, header in enumerate(self.headers)}

    def __contains__(self, header: str) -> bool:
        return header in self.positions

    @abstractmethod
    def scan(self) -> Sql:
        """Return a table expression with the columns `c0`, `c1` and so on."""

    @abstractmethod
    def cell(self, header: str, sql_type: SqlType, *, rounded: bool = False) -> Sql:
        """Return the SQL that reads a column as its type, exactly or with an error. Where
        `rounded`, more than 18 decimals of a number are no error but rounded, half to even."""

    @abstractmethod
    def own_type(self, header: str) -> SqlType | None:
        """Return the type that the file itself gives the column, where it gives any."""

    @abstractmethod
    def finer(self, header: str, sql_type: SqlType) -> Sql:
        """Return the SQL of the list of the numbers in a cell that have more than 18 decimals, as
        text; NULL where there are none."""

    @abstractmethod
    def has_doubles(self, header: str) -> bool:
        """Return whether the column's numbers are binary, which are rounded in every column: their
        shortest decimals are long without anybody having meant them."""

    @abstractmethod
    def place(self, record: int) -> str:
        """Say where the data record of this number, counted from 1, stands in the only file."""

    def alone(self, path: Path) -> Self:
        """Return one of the files."""
        return replace(self, paths=(path,))
