"""The one way in which a month gets into a warehouse, whatever its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from finops_dagster.billing.errors import first_line
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.version import Version
from finops_dagster.tables.digest import MonthDigest
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.loads_table import recorded_loads
from finops_dagster.warehouses.measure import measure
from finops_dagster.warehouses.month_file import MonthFile, as_utc
from finops_dagster.warehouses.schema_change import SchemaChange


@dataclass(frozen=True)
class LoadResult:
    """A month that was loaded: the name of its job, and what a person should know of its
    columns."""

    job_id: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WarehouseMonth:
    """A month that a warehouse's own ledger says is loaded: its version, its rows, and when."""

    month: str
    version: str
    rows: int
    loaded_at: datetime


def newest_loads(loads: Iterable[Sequence[Any]]) -> list[WarehouseMonth]:
    """Return of each month the newest of its loads, the newest month first; a load is the month,
    the version, the rows, and the time as the database gives it."""
    newest: dict[str, WarehouseMonth] = {}
    for month, version, rows, at in loads:
        load = WarehouseMonth(month, version, int(rows), as_utc(at))
        if month not in newest or newest[month].loaded_at <= load.loaded_at:
            newest[month] = load
    return [newest[month] for month in sorted(newest, reverse=True)]


class Warehouse:
    """A warehouse, whose dialect `open_dialect` gives anew for every session.

    `{table}_loads` beside each table is its ledger: the version of every load, and whether that is
    loading, loaded or failed. Errors are BillError, ReconciliationError, and WarehouseUnavailable
    where asking again may help.
    """

    def __init__(self, open_dialect: Callable[[], Dialect]) -> None:
        self._open_dialect = open_dialect

    def check_connection(self) -> str:
        """Connect, and return what it is that answered."""
        with self._session() as dialect:
            return dialect.check_connection()

    def full_name(self, table: str) -> str:
        """Return the table's name as a person would query it."""
        return self._open_dialect().full_name(table)

    def loaded_months(self, table: str) -> list[WarehouseMonth]:
        """Return the months that the table's ledger says are loaded, the newest first."""
        with self._session() as dialect:
            return newest_loads(recorded_loads(dialect, table))

    def verified_version(self, file: MonthFile) -> Version | None:
        """Return the version that the ledger says is loaded, with the totals that the table really
        has; None where it has no whole month, or other sums of money than that version's file."""
        with self._session() as dialect:
            newest = {
                load.month: load for load in newest_loads(recorded_loads(dialect, file.table))
            }
            load = newest.get(str(file.month))
            needed = [*file.money_columns, *filter(None, [file.period_column]), "billing_month"]
            if load is None or not dialect.has_columns(file.table, needed):
                return None
            measured = measure(dialect, file, file.table)
        if measured.rows_outside_month:
            return None
        version = Version(load.version, measured.totals)
        if version.is_same(file.footer) and measured.totals.difference(file.footer.totals):
            return None
        return version

    def digest(self, file: MonthFile) -> MonthDigest:
        """Read the month in the table, and return the digest of each of the file's columns, of
        the best kind that this warehouse can."""
        with self._session() as dialect:
            return dialect.digest(file)

    def replace_month(self, file: MonthFile) -> LoadResult:
        """Make the table hold exactly this month's file, in one step, and the ledger say so."""
        dialect, has_begun = self._open_dialect(), False
        dialect.job_id = f"finops_{file.export}_{file.month}_{uuid4().hex[:12]}"
        try:
            with dialect.session(write=True):
                dialect.lock_month(file)
                change = dialect.schema_change(file)
                dialect.prepare_tables(file, change)
                dialect.begin_load(file)
                has_begun = True
                return LoadResult(dialect.job_id, self._load(dialect, file, change))
        except Exception as error:
            if has_begun and dialect.has_ended(error):
                with suppress(Exception), self._session(write=True) as another:
                    another.record_load(file, dialect.job_id, "failed", first_line(error))
            raise

    def _load(self, dialect: Dialect, file: MonthFile, change: SchemaChange) -> tuple[str, ...]:
        """Load the file beside the table, put it in the month's place, measure, and record it."""
        where, totals = self.full_name(file.table), file.footer.totals
        incoming = dialect.load_incoming(file, change)
        if dialect.measures_incoming:
            reconcile(where, totals, measure(dialect, file, incoming))
        if not dialect.transactional_ddl:
            dialect.apply_schema_change(file, change)
        with dialect.transaction(file):
            warnings = dialect.exchange_month(file, incoming, change)
            if not dialect.measures_incoming:
                reconcile(where, totals, measure(dialect, file, file.table), dialect.advice)
            dialect.record_load(file, dialect.job_id, "loaded")
        try:
            return (*warnings, *dialect.clean_up(file, incoming))
        except Exception as error:  # the month has been committed
            return (*warnings, f"what the load needed on its way stays: {first_line(error)}")

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[Dialect]:
        dialect = self._open_dialect()
        with dialect.session(write=write):
            yield dialect
