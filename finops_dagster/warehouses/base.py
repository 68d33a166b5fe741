"""What the chain asks of a warehouse, and what it hands over: a month's file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import Footer
from finops_dagster.lake.month import write_with_text
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import MonthDigest, column_type


class WarehouseUnavailable(Exception):
    """The warehouse or the way to it failed; asking again may help."""


@dataclass(frozen=True)
class MonthFile:
    """One month of one export, ready to be loaded: the file, what its footer says, its columns, and
    the names of those that a warehouse must know, where the bill has them."""

    export: str
    table: str
    month: BillingMonth
    path: Path
    footer: Footer
    schema: pa.Schema
    cost: str | None
    billing_period: str | None
    cluster_by: tuple[str, ...]
    free_text: tuple[str, ...] = ()
    """The columns whose names the vendor's customer chose, as those of tags."""
    currency: str | None = None
    duckdb: DuckDB = field(default_factory=DuckDB)
    """What to read the file with."""

    @property
    def types(self) -> dict[str, str]:
        """The type of each column, as DuckDB names it."""
        return {field.name: column_type(field.type) for field in self.schema}

    @contextmanager
    def with_text(self, columns: Collection[str]) -> Iterator[MonthFile]:
        """The month, its `columns` as text for as long as the block takes: those that the table
        holds as text, where a load cannot make text of them. Raises BillError."""
        if not columns:
            yield self
            return
        with TemporaryDirectory(prefix="finops-") as folder:
            path = Path(folder) / self.path.name
            with self.duckdb.scratch(threads=1) as connection:
                write_with_text(connection, self.path, columns, path)
            yield replace(self, path=path, schema=pq.read_schema(path))


@dataclass(frozen=True)
class Loaded:
    """A month that has arrived: the name of the job that brought it, where the ledger has one, and
    what somebody should know of its columns."""

    job: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedMonth:
    """A month that a warehouse's own ledger says is loaded: its version, its rows, and when."""

    month: str
    version: str
    rows: int
    loaded_at: datetime


def newest_loads(loads: Iterable[Sequence[Any]]) -> list[LoadedMonth]:
    """Return of each month the newest of its loads, the newest month first; a load is the month,
    the version, the rows, and the time as the database gives it."""
    newest: dict[str, LoadedMonth] = {}
    for month, version, rows, at in loads:
        time = datetime.fromisoformat(str(at))
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        one = LoadedMonth(month, version, int(rows), time)
        if month not in newest or newest[month].loaded_at <= one.loaded_at:
            newest[month] = one
    return [newest[month] for month in sorted(newest, reverse=True)]


@runtime_checkable
class Warehouse(Protocol):
    """What the chain asks of a warehouse. Errors are BillError, ReconciliationError, and
    WarehouseUnavailable where asking again may help."""

    def reach(self) -> str:
        """Ask the warehouse for nothing, and say what it is that answered."""
        ...

    def full_name(self, table: str) -> str:
        """The table's name as a person would query it."""
        ...

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return the months that the table's ledger says are loaded, the newest first."""
        ...

    def held_version(self, file: MonthFile) -> Footer | None:
        """The version of the month that the ledger says is loaded, if the table really holds its
        rows and cost."""
        ...

    def digest(self, file: MonthFile) -> MonthDigest:
        """Read the month in the table, and return the digest of each of the file's columns, of
        the best kind that this warehouse can."""
        ...

    def replace_month(self, file: MonthFile) -> Loaded:
        """Make the table hold exactly this month's file, in one step, and the ledger say so."""
        ...
