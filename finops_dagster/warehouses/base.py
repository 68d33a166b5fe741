"""Load, measure and list months in a warehouse, by the steps of its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from finops_dagster.billing.errors import first_line, reprocess_advice
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
    """The id of a load's job, and its warnings: about columns, and about the clean-up."""

    job_id: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WarehouseMonth:
    """A month of the ledger, with its newest load."""

    month: str
    manifest_id: str
    rows: int
    loaded_at: datetime


def months_from_loads(loads: Iterable[Sequence[Any]]) -> list[WarehouseMonth]:
    """Return each month with its newest load, the newest month first.

    A load is a row of month, version id, row count and time, as the database returns them.
    """
    newest: dict[str, WarehouseMonth] = {}
    for month, manifest_id, rows, loaded_at in loads:
        load = WarehouseMonth(month, manifest_id, int(rows), as_utc(loaded_at))
        if month not in newest or newest[month].loaded_at <= load.loaded_at:
            newest[month] = load
    return [newest[month] for month in sorted(newest, reverse=True)]


class Warehouse:
    """A warehouse; each operation opens a new Dialect, which connects.

    The ledger of a table is `{table}_loads`, with the version of every load and its state:
    `loading`, `loaded` or `failed`. Methods raise BillError, ReconciliationError, and
    WarehouseUnavailable where a retry may help.
    """

    def __init__(self, open_dialect: Callable[[], Dialect]) -> None:
        self._open_dialect = open_dialect

    def check_connection(self) -> str:
        """Connect, run a query, and return the location of the server that answered."""
        with self._connected_dialect() as dialect:
            return dialect.ping()

    def full_name(self, table: str) -> str:
        """Return the table's name as queries use it, without connecting."""
        return self._open_dialect().full_name(table)

    def loaded_months(self, table: str) -> list[WarehouseMonth]:
        """Return the months of the table's ledger, the newest first; empty without a ledger."""
        with self._connected_dialect() as dialect:
            return months_from_loads(recorded_loads(dialect, table))

    def measured_version(self, file: MonthFile) -> Version | None:
        """Return the version that the ledger names, with the totals measured in the table.

        None without a load, with rows of another month, without a measured column, or where the
        version is the file's and its totals differ, as after rows were deleted by hand.
        """
        with self._connected_dialect() as dialect:
            months = months_from_loads(recorded_loads(dialect, file.table))
            load = {load.month: load for load in months}.get(str(file.month))
            period_columns = [*filter(None, [file.billing_period_column]), "billing_month"]
            columns = [*file.money_columns, *period_columns]
            if load is None or not dialect.has_columns(file.table, columns):
                return None
            measured = measure(dialect, file, file.table)
        if measured.misdated_rows:
            return None
        version = Version(load.manifest_id, measured.totals)
        if version.is_same(file.footer) and measured.totals.difference(file.footer.totals):
            return None
        return version

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests of the month in the table; all compared cells are read.

        The warehouse's `digest_kind` says which columns are compared: of SUMS, the money columns.
        Raises BillError where the table lacks one of them.
        """
        with self._connected_dialect() as dialect:
            return dialect.digest(file)

    def replace_month(self, file: MonthFile) -> LoadResult:
        """Replace the month in the table by the file, in one step, and record the load.

        Creates tables and columns that are missing. A failed load is recorded, unless it may still
        be running.
        """
        dialect, has_begun = self._open_dialect(), False
        dialect.job_id = f"finops_{file.export}_{file.month}_{uuid4().hex[:12]}"
        try:
            with dialect.connected(write=True):
                dialect.lock_month(file)
                change = dialect.schema_change(file)
                dialect.prepare_tables(file, change)
                dialect.begin_load(file)
                has_begun = True
                return LoadResult(dialect.job_id, self._load(dialect, file, change))
        except Exception as error:
            # By a connection of its own, since the first one may be lost.
            if has_begun and dialect.load_has_ended(error):
                with suppress(Exception), self._connected_dialect(write=True) as reconnected:
                    reconnected.record_load(file, dialect.job_id, "failed", first_line(error))
            raise

    def _load(self, dialect: Dialect, file: MonthFile, change: SchemaChange) -> tuple[str, ...]:
        """Load the file, reconcile it and swap it in for the month's rows; return the warnings.

        Nothing after the commit may fail the load.
        """
        name, totals = self.full_name(file.table), file.footer.totals
        advice = f"{dialect.mismatch_effect}; {reprocess_advice(file.export, file.month)}"
        incoming = dialect.load_incoming(file, change)
        if dialect.measures_incoming:
            reconcile(name, totals, measure(dialect, file, incoming), advice)
        if not dialect.transactional_ddl:
            dialect.apply_schema_change(file, change)
        with dialect.transaction(file):
            warnings = dialect.exchange_month(file, incoming, change)
            if not dialect.measures_incoming:
                reconcile(name, totals, measure(dialect, file, file.table), advice)
            dialect.record_load(file, dialect.job_id, "loaded")
        try:
            return (*warnings, *dialect.clean_up(file, incoming))
        except Exception as error:  # the month has been committed
            warning = f"the month is loaded, but its temporary data is left: {first_line(error)}"
            return (*warnings, warning)

    @contextmanager
    def _connected_dialect(self, *, write: bool = False) -> Iterator[Dialect]:
        dialect = self._open_dialect()
        with dialect.connected(write=write):
            yield dialect
