"""The one way in which a month gets into a warehouse, whatever its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion, Version
from finops_dagster.lake import relation, write_rows
from finops_dagster.tables.bill_files import AS_TEXT
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import MonthDigest, column_type

if TYPE_CHECKING:
    from finops_dagster.warehouses.dialect import Change, Dialect

# What DuckDB makes of a file's text where the table's column is of another type.
AMOUNTS_OF_TEXT: Mapping[str, Sql] = {
    SqlType.MONEY: Sql("exact_decimal({0})"),
    SqlType.MONEY_MAP: Sql("exact_map(text_map({0}))"),
}


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
    footer: LoadedVersion
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
        """The type of each column: one of SqlType, or DATE."""
        return {field.name: column_type(field.type) for field in self.schema}

    @property
    def money(self) -> list[str]:
        """The columns whose sums are compared: all columns of money whose sums are known, or else
        the headline cost alone."""
        names = dict.fromkeys(
            [*([self.cost] if self.cost else []), *(self.footer.totals.sums or {})]
        )
        return [name for name in names if name in self.schema.names]

    def rows(self, kept: Mapping[str, str]) -> Sql:
        """Return the file's rows as SQL of DuckDB, each cell in the type that `kept` has for it."""

        def cell(name: str, given: str) -> Sql:
            kind = kept.get(name, given)
            ways = AS_TEXT if kind == SqlType.TEXT else AMOUNTS_OF_TEXT
            way = ways.get(given if kind == SqlType.TEXT else kind, Sql("CAST({0} AS VARCHAR)"))
            return quoted(name) if kind == given else Sql(way.format(quoted(name)))

        cells = ", ".join(
            f"{cell(name, given)} AS {quoted(name)}" for name, given in self.types.items()
        )
        return Sql(f"SELECT {cells} FROM {relation(self.path)}")

    @contextmanager
    def written_as(self, kept: Mapping[str, str]) -> Iterator[MonthFile]:
        """The month in a file whose columns have the types of `kept`, for as long as the block
        takes; the file itself where they have them already. Raises BillError."""
        if all(kept.get(name, given) == given for name, given in self.types.items()):
            yield self
            return
        with TemporaryDirectory(prefix="finops-") as folder:
            path = Path(folder) / self.path.name
            with self.duckdb.scratch(threads=1) as connection:
                prepare_casts(connection)
                write_rows(connection, self.rows(kept), path, self.path)
            yield replace(self, path=path, schema=pq.read_schema(path))


@dataclass(frozen=True)
class Loaded:
    """A month that was loaded: the name of its job, and what a person should know of its
    columns."""

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
        load = LoadedMonth(month, version, int(rows), as_utc(at))
        if month not in newest or newest[month].loaded_at <= load.loaded_at:
            newest[month] = load
    return [newest[month] for month in sorted(newest, reverse=True)]


def as_utc(at: Any) -> datetime:
    """Return a time as a database gives it, a text too; one without a zone is in UTC."""
    time = datetime.fromisoformat(str(at))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def exact(amount: object) -> Decimal:
    """Return an amount as the database gives it, 0 where there is none. Raises BillError."""
    if isinstance(amount, float):
        raise BillError("it adds amounts as floats, and amounts are exact")
    return Decimal(str(amount)) if amount is not None else Decimal(0)


def ledger_of(table: str) -> str:
    """Return the name of the table's ledger."""
    return f"{table}_loads"


class Warehouse:
    """A warehouse, whose dialect `open_dialect` gives anew for every session.

    `{table}_loads` beside each table is its ledger: the version of every load, and whether that is
    loading, loaded or failed. Errors are BillError, ReconciliationError, and WarehouseUnavailable
    where asking again may help.
    """

    def __init__(self, open_dialect: Callable[[], Dialect]) -> None:
        self._open_dialect = open_dialect

    def reach(self) -> str:
        """Connect, and return what it is that answered."""
        with self._session() as dialect:
            return dialect.reach()

    def full_name(self, table: str) -> str:
        """Return the table's name as a person would query it."""
        return self._open_dialect().full_name(table)

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return the months that the table's ledger says are loaded, the newest first."""
        with self._session() as dialect:
            return newest_loads(dialect.loads(table))

    def held_version(self, file: MonthFile) -> Version | None:
        """Return the version that the ledger says is loaded, with the totals that the table really
        has; None where it has no whole month, or other sums of money than that version's file."""
        with self._session() as dialect:
            loads = {load.month: load for load in newest_loads(dialect.loads(file.table))}
            load = loads.get(str(file.month))
            needed = [*file.money, *filter(None, [file.billing_period]), "billing_month"]
            if load is None or not dialect.has(file.table, needed):
                return None
            measured = dialect.measure(file, file.table)
        if measured.foreign_rows:
            return None
        version = Version(load.version, measured.totals)
        if version.is_same(file.footer) and measured.totals.differing(file.footer.totals):
            return None
        return version

    def digest(self, file: MonthFile) -> MonthDigest:
        """Read the month in the table, and return the digest of each of the file's columns, of
        the best kind that this warehouse can."""
        with self._session() as dialect:
            return dialect.digest(file)

    def replace_month(self, file: MonthFile) -> Loaded:
        """Make the table hold exactly this month's file, in one step, and the ledger say so."""
        dialect, has_begun = self._open_dialect(), False
        dialect.job = f"finops_{file.export}_{file.month}_{uuid4().hex[:12]}"
        try:
            with dialect.session(write=True):
                dialect.take_turn(file)
                change = dialect.change(file)
                dialect.prepare(file, change)
                dialect.begin(file)
                has_begun = True
                return Loaded(dialect.job, self._load(dialect, file, change))
        except Exception as error:
            if has_begun and dialect.is_over(error):
                with suppress(Exception), self._session(write=True) as another:
                    another.record(file, dialect.job, "failed", first_line(error))
            raise

    def _load(self, dialect: Dialect, file: MonthFile, change: Change) -> tuple[str, ...]:
        """Load the file beside the table, put it in the month's place, measure, and record it."""
        where, totals = self.full_name(file.table), file.footer.totals
        incoming = dialect.load_beside(file, change)
        if dialect.measures_beside:
            reconcile(where, totals, dialect.measure(file, incoming))
        if not dialect.defines_in_transaction:
            dialect.widen(file, change)
        with dialect.transaction(file):
            warnings = dialect.exchange(file, incoming, change)
            if not dialect.measures_beside:
                reconcile(where, totals, dialect.measure(file, file.table), dialect.what_now)
            dialect.record(file, dialect.job, "loaded")
        try:
            return (*warnings, *dialect.tidy_up(file, incoming))
        except Exception as error:  # the month has been committed
            return (*warnings, f"what the load needed on its way stays: {first_line(error)}")

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[Dialect]:
        dialect = self._open_dialect()
        with dialect.session(write=write):
            yield dialect
