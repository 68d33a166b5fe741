"""Load, measure and list months in a warehouse, by the steps of its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import ReconciliationError, first_line, reprocess_advice
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.version import Version
from finops_dagster.tables.digest import MonthDigest
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.loads_table import recorded_loads
from finops_dagster.warehouses.measure import measured_columns, measured_totals
from finops_dagster.warehouses.month_file import MonthFile, as_utc
from finops_dagster.warehouses.schema_change import SchemaChange


@dataclass(frozen=True)
class LoadResult:
    """The result of a load: its id in the warehouse's ledger, and warnings of one line each.

    The warnings are about columns, and about temporary data that could not be removed.
    `loaded_from` is where the file was read, for people: an address in a store, or this machine.
    """

    job_id: str
    loaded_from: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WarehouseMonth:
    """A month of a warehouse's ledger, such as `2024-01`, with its newest load.

    `manifest_id` is the version id; `loaded_at` has the zone UTC.
    """

    month: str
    manifest_id: str
    rows: int
    loaded_at: datetime


def months_from_loads(loads: Iterable[Sequence[Any]]) -> list[WarehouseMonth]:
    """Return each month with its newest load, the newest month first.

    `loads` are rows of month, version id, row count and time, as `recorded_loads` returns them.
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
    `loading`, `loaded` or `failed`. Methods that connect raise BillError, or WarehouseUnavailable
    if a retry may help.
    """

    def __init__(self, open_dialect: Callable[[], Dialect]) -> None:
        self._open_dialect = open_dialect

    def check_connection(self) -> str:
        """Connect, run a query, and return the name and address of the warehouse, for people."""
        with self._connected_dialect() as dialect:
            return dialect.ping()

    def full_name(self, table: str) -> str:
        """Return the table's name with its schema and database, for people; does not connect.

        Raises BillError if the settings of `sql` have no address.
        """
        return self._open_dialect().full_name(table)

    def loaded_months(self, table: str) -> list[WarehouseMonth]:
        """Return the loaded months of the table's ledger with their newest loads.

        The newest month is first. Empty if the table has no ledger.
        """
        with self._connected_dialect() as dialect:
            return months_from_loads(recorded_loads(dialect, table))

    def measured_version(self, file: MonthFile) -> Version | None:
        """Return the version id of the month's newest load, with totals measured in the table.

        Compare it with `file.footer` by `Version.is_same_version`; its other fields are not set.
        `file` gives the table, the month and the columns to measure, and may be of another version.

        None if the month has no load, if the table lacks a column to measure, or if a row is
        misdated: its billing period is another month. Also None if `is_same_version` would be true,
        but the sum of another money column or the cost of a currency differs.
        """
        with self._connected_dialect() as dialect:
            months = months_from_loads(recorded_loads(dialect, file.table))
            load = {load.month: load for load in months}.get(str(file.month))
            if load is None or not dialect.has_columns(file.table, measured_columns(file)):
                return None
            measured = measured_totals(dialect, file, file.table)
        if measured.misdated_rows:
            return None
        version = Version(load.manifest_id, measured.totals)
        if version.is_same_version(file.footer) and measured.totals.first_difference(
            file.footer.totals
        ):
            return None
        return version

    def create_union_view(
        self, view: str, tables: Iterable[str], columns: Mapping[str, str]
    ) -> None:
        """Create or replace a view of all rows of the tables; those that do not exist are left out.

        `columns` are the view's, with their data types. One that a table lacks is a NULL of this
        type in its rows; existing columns are not cast. Does nothing if no table exists.
        """
        with self._connected_dialect(write=True) as dialect:
            selects = []
            for table in filter(dialect.stored_columns, tables):
                cells = ", ".join(
                    f"{_cell_or_null(dialect, table, name, data_type)} AS {dialect.quoted(name)}"
                    for name, data_type in columns.items()
                )
                selects.append(f"SELECT {cells} FROM {dialect.table_sql(table)}")
            if selects:
                dialect.create_view(view, Sql(" UNION ALL ".join(selects)))

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return the digests of the month's rows in the table, of the warehouse's digest kind.

        They are of those columns of the file that this kind compares, and all of their cells are
        read. Raises BillError if the table lacks one of them. In DuckDB they are of all columns of
        the table instead, and a column that only the file has is left out.
        """
        with self._connected_dialect() as dialect:
            return dialect.digest(file)

    def replace_month(self, file: MonthFile) -> LoadResult:
        """Replace the month in the table by the file, in one step, and record the load.

        Creates missing tables and columns, and casts columns to text as `required_change` says. If
        it fails after the tables are created, the load is recorded as `failed`, unless it may still
        be running. Raises ReconciliationError if the totals differ, or if another run has written
        another version to the lake meanwhile; BigQuery has replaced the month then.
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
                warnings = self._load(dialect, file, change)
                return LoadResult(dialect.job_id, dialect.loaded_from, warnings)
        except Exception as error:
            # By a second connection, since the first one may be lost. Its errors are ignored, so
            # that they do not hide the error of the load.
            if has_begun and dialect.load_has_ended(error):
                with suppress(Exception), self._connected_dialect(write=True) as reconnected:
                    reconnected.record_load(file, dialect.job_id, "failed", first_line(error))
            raise

    def _load(self, dialect: Dialect, file: MonthFile, change: SchemaChange) -> tuple[str, ...]:
        """Load the file, reconcile it, replace the month's rows by it, and return the warnings.

        An error after the commit becomes a warning.
        """
        incoming = dialect.load_incoming(file, change)
        if dialect.measures_incoming:
            self._verify(dialect, file, incoming)
        if not dialect.transactional_ddl:
            dialect.apply_schema_change(file, change)
        with dialect.transaction(file):
            warnings = dialect.replace_month_rows(file, incoming, change)
            if not dialect.measures_incoming:
                self._verify(dialect, file, file.table)
            dialect.record_load(file, dialect.job_id, "loaded")
        try:
            return (*warnings, *dialect.clean_up(file, incoming))
        except Exception as error:  # the month has been committed
            reason = first_line(error)
            warning = f"the month is loaded, but temporary data was not deleted: {reason}"
            return (*warnings, warning)

    def _verify(self, dialect: Dialect, file: MonthFile, table: str) -> None:
        """Raise ReconciliationError unless the lake still has the file, and the rows are its rows.

        A run that wrote a newer version to the lake loads it after this load, or has loaded it
        already: then this load must not replace it.
        """
        advice = f"{dialect.mismatch_effect}; {reprocess_advice(file.export, file.month)}"
        name, in_lake = self.full_name(file.table), file.lake_file.version()
        if in_lake is None or in_lake.manifest_id != file.bill_version_id:
            newer = f"version {in_lake.manifest_id}" if in_lake else "a file that cannot be read"
            raise ReconciliationError(
                f"{name}: another run was faster: while version {file.bill_version_id} of "
                f"{file.month} was being loaded, the lake got {newer}; {advice}"
            )
        reconcile(name, file.footer.totals, measured_totals(dialect, file, table), advice)

    @contextmanager
    def _connected_dialect(self, *, write: bool = False) -> Iterator[Dialect]:
        dialect = self._open_dialect()
        with dialect.connected(write=write):
            yield dialect


def _cell_or_null(dialect: Dialect, table: str, name: str, data_type: str) -> Sql:
    if dialect.has_columns(table, [name]):
        return dialect.quoted(name)
    return Sql(f"CAST(NULL AS {dialect.cast_type(data_type)})")
