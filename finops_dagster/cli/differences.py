"""What differs between the copies of a month, each difference with the command that repairs it.

The event log, the ledger, the billing table, the Parquet file, the charges and the warehouse are
compared by version, rows and cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from finops_dagster.billing.errors import count_text
from finops_dagster.billing.restatement import Restatement
from finops_dagster.billing.version import Load, LoadedVersion, Version
from finops_dagster.cli.stored_months import StoredMonth
from finops_dagster.pipeline import STAGES
from finops_dagster.tables import ledger
from finops_dagster.tables.restatements import restatements
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile

_CHECKED = "event log, ledger, footers of Parquet files, rows and cost of DuckDB tables"
_CHECKED_DEEP = (
    "event log, ledger, every byte of staged files and Parquet files, every column of Parquet "
    "files and DuckDB tables"
)


class Repair(Enum):
    """The command that repairs a month, in order from the least work to the most.

    Each value is the command to type, as a template for `str.format`; `{only}` stands for the
    options that select the month.
    """

    RUN = "finops {vendor} run-pipeline {only}"
    """Runs only the stages that differ from the stage before them."""
    FETCH = "finops {vendor} extract-billing {only} --force"
    """Downloads the vendor's files again."""
    REPROCESS = "finops state reprocess {export} {month}"
    """Runs every stage again, from the vendor's files."""
    LEDGER = "finops state verify --repair"
    """Rebuilds the ledger from the data; verifying again then shows what else differs."""

    @classmethod
    def combined(cls, repairs: Collection[Repair]) -> Repair:
        """Return the one repair that does what all of these do; `repairs` must not be empty.

        If RUN and FETCH are both among them, it is REPROCESS, as neither includes the other.
        Otherwise it is the one with the most work.
        """
        if {cls.RUN, cls.FETCH} <= set(repairs):
            return cls.REPROCESS
        return max(repairs, key=list(cls).index)


Differences = Iterator[tuple[str, Repair]]
"""A line for each difference, which says what differs, and the command that repairs it."""
LoggedVersions = dict[str, str | None]
"""The version of each stage in Dagster's event log."""


@dataclass
class Coverage:
    """What `verify` checked and what it skipped; the counts grow with each month that it reads."""

    is_deep: bool = False
    warehouse: str | None = None
    """The name of the backend, if it is a warehouse."""
    months: int = 0
    without_data: Counter[str] = field(default_factory=Counter)
    """The number of months without any record, by export."""
    skipped: Counter[str] = field(default_factory=Counter)
    """The number of months for each part that was not checked, by its description."""
    has_charges: bool = False
    """Whether an export has charges of FOCUS, which are checked too."""

    def lines(self) -> Iterator[str]:
        """Yield lines that say what was checked, what was not, and which months have no data."""
        checked = _CHECKED_DEEP if self.is_deep else _CHECKED
        if self.warehouse is not None:
            checked += f", and of {self.warehouse}"
        if self.has_charges:
            checked += f", {'every column' if self.is_deep else 'rows and costs'} of charges"
            if self.warehouse is not None:
                what = "rows and costs" if self.is_deep else "and"
                checked += f", {what} of charges in {self.warehouse}"
        yield f"checked {count_text(self.months, 'month')}: {checked}"
        if not self.is_deep:
            yield "not checked: cells, pages of Parquet files, staged files; --deep checks them"
        for skipped, months in self.skipped.items():
            yield f"not checked in {count_text(months, 'month')}: {skipped}"
        without_data = (+self.without_data).items()
        if exports := [
            f"{count_text(months, 'month')} of {export}" for export, months in without_data
        ]:
            yield f"without data: {', '.join(exports)}"


def version_differences(month: StoredMonth, logged: LoggedVersions) -> Differences:
    """Yield each difference in version, rows or cost, with its repair; cells are not compared.

    The event log, the ledger, the billing table, the Parquet file, the warehouse and the charges
    are compared. If the table does not have the totals of the ledger, only that is yielded.
    `logged` are the versions in the event log. A missing DuckDB file is created, empty. Raises
    LedgerDamaged, BillError for a file that cannot be read, and WarehouseUnavailable.
    """
    with month.connect() as connection:
        recorded = ledger.newest_load(connection, month.export.name, month.month)
        load = month.verified_load(connection)
        in_ledger = restatements(connection, month.export.name, month.month)
    if recorded is not None and load is None:
        yield (
            f"the ledger has {recorded.manifest_id}, but the table does not have its rows and cost",
            Repair.RUN,
        )
        return  # the other copies can only be compared with a table that has its load's totals
    footer = month.lake_load
    in_table = load or (footer if month.is_only_in_lake else None)
    if month.lake_file.is_in_store and not any(logged.values()):
        logged = _versions_without_log(month)
    version = in_table and in_table.manifest_id
    if version != logged["billing_table"]:
        yield (
            f"the table has {version or 'no version'}, the event log "
            f"{logged['billing_table'] or 'no version'}",
            Repair.RUN,
        )
    yield from _lake_differences(month, load, in_ledger)
    if footer is not None:
        yield from _later_differences(month, footer, logged)


def _lake_differences(
    month: StoredMonth, load: Load | None, in_ledger: Sequence[Restatement]
) -> Differences:
    """Compare the month's file with the load of the table, if there is one.

    `in_ledger` are the month's restatements in the ledger.
    """
    file, footer = month.lake_file, month.lake_load
    if file.is_in_store and footer is not None and not file.sha256():
        yield f"{file.location} names a file that is missing", Repair.REPROCESS
    elif load is not None and not load.is_same_version(footer):
        yield (
            f"{file.location} has {_version_text(footer)}, the table {load.manifest_id} with "
            f"{load.totals}",
            Repair.RUN,
        )
    elif load is not None:
        yield from _restatement_differences(file.location, month.restatements, in_ledger)


def _later_differences(
    month: StoredMonth, footer: LoadedVersion, logged: LoggedVersions
) -> Differences:
    """Compare the month's file with the event log, the warehouse and the charges."""
    if footer.manifest_id != logged["parquet"]:
        logged_version = logged["parquet"] or "no version"
        location = month.lake_file.location
        yield f"{location} has {footer.manifest_id}, the event log {logged_version}", Repair.RUN
    if (warehouse := month.stored_months.warehouse) is not None:
        yield from _warehouse_differences(
            month.bill_month_file, logged["warehouse_table"], warehouse
        )
    if "focus" in month.expected_stages:
        yield from _focus_differences(month, logged)


def _versions_without_log(month: StoredMonth) -> LoggedVersions:
    """Return the versions of the data instead of those of an event log that lacks the month."""
    versions = {**dict.fromkeys(STAGES), **month.stage_versions}
    if month.charges_record is not None:  # Without what else `stage_versions` says of it.
        versions["focus"] = month.charges_record.version.manifest_id
    return versions


def _restatement_differences(
    path: str, in_lake: Sequence[Restatement], in_ledger: Sequence[Restatement]
) -> Differences:
    """Compare the restatements of a month whose version is the same in the lake and the ledger."""
    lost = [restatement for restatement in in_lake if restatement not in in_ledger]
    missing = [restatement for restatement in in_ledger if restatement not in in_lake]
    if lost:
        yield f"the ledger lacks {count_text(len(lost), 'restatement')} of {path}", Repair.LEDGER
    elif missing:
        yield f"{path} lacks {count_text(len(missing), 'restatement')} of the ledger", Repair.RUN


def _focus_differences(month: StoredMonth, logged: LoggedVersions) -> Differences:
    """Compare the charges with the bill and the mapping, in their file and in the warehouse."""
    path, derivation = month.focus_lake_file.location, month.focus_derivation
    record = month.charges_record
    if record is None:
        yield f"{path} has no complete month of charges", Repair.RUN
        return
    version = record.version.manifest_id
    if difference := derivation.outdated_reason(record):
        yield f"{path} has {version} by the mapping {record.mapping}, but {difference}", Repair.RUN
    elif derivation.up_to_date_record() is None:
        yield f"{path} does not have the costs of its footer", Repair.RUN
    if version != logged["focus"]:
        yield f"{path} has {version}, the event log {logged['focus'] or 'no version'}", Repair.RUN
    warehouse, logged_load = month.stored_months.warehouse, logged["warehouse_focus"]
    if warehouse is not None:
        file = month.focus_month_file
        # The ledger has the versions of bills and mapping, the event log that of the bill alone.
        logged_version = file.footer.manifest_id if logged_load == version else logged_load
        yield from _warehouse_differences(file, logged_version, warehouse)


def _warehouse_differences(
    file: MonthFile, logged_version: str | None, warehouse: Warehouse
) -> Differences:
    version, table = warehouse.measured_version(file), warehouse.full_name(file.table)
    if version is not None and version.manifest_id != logged_version:
        yield (
            f"{table} has {version.manifest_id}, the event log {logged_version or 'no version'}",
            Repair.RUN,
        )
    if logged_version is not None and not file.footer.is_same_version(version):
        yield (
            f"{table} has {_version_text(version)}, {file.location} {file.footer.totals}",
            Repair.RUN,
        )


def _version_text(version: Version | None) -> str:
    return f"{version.manifest_id} with {version.totals}" if version else "no complete month"
