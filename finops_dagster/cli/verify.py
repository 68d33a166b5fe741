"""`finops state verify`: compare all copies of a month, and name the command that repairs them.

The event log, the ledger, the billing table, the Parquet file and the warehouse are compared by
version, rows and cost. With --deep every staged file, Parquet page and cell is read too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, groupby

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError, LedgerDamaged, count_text, excerpts, first_line
from finops_dagster.billing.restatement import Restatement
from finops_dagster.billing.version import Load, LoadedVersion, Version
from finops_dagster.cli.month_runs import run_months
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Headings, Row, key_headings
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.lake import (
    has_rows_of,
    load_from_footer,
    matches_checksum,
    month_relation,
    parquet_relation,
    restore_load,
    restore_restatements_of_footer,
)
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.history import open_history
from finops_dagster.pipeline.observations import StageChange
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, MonthDigest, month_digest
from finops_dagster.tables.restatements import restatements
from finops_dagster.terminal import console
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile

_CHECKED = "event log, ledger, footers of Parquet files, rows and cost of DuckDB tables"
_CHECKED_DEEP = (
    "event log, ledger, every byte of staged files and Parquet files, every column of Parquet "
    "files and DuckDB tables"
)
_COLUMNS_SHOWN = 5
DIFFERENCE_HEADINGS: Headings = key_headings("export month what_differs repair")


class Repair(Enum):
    """The command that repairs a month, from the one that does the least to the most."""

    RUN = "finops {vendor} run-pipeline {only}"
    """Runs only the stages that differ from the stage before them."""
    FETCH = "finops {vendor} extract-billing {only} --force"
    """Downloads the vendor's files again."""
    REPROCESS = "finops state reprocess {export} {month}"
    """Runs every stage again, from the vendor's files."""
    LEDGER = "finops state verify --repair"
    """Rebuilds the ledger from the data; verifying again then shows what else differs."""

    @classmethod
    def of(cls, repairs: Collection[Repair]) -> Repair:
        """Return the one command that repairs all differences of a month, at least one."""
        if {cls.RUN, cls.FETCH} <= set(repairs):
            return cls.REPROCESS
        return max(repairs, key=list(cls).index)


Differences = Iterator[tuple[str, Repair]]
"""What differs, with the command that repairs it."""
LoggedVersions = dict[str, str | None]
"""The version of each stage in Dagster's event log."""
OnRestored = Callable[[str, StageChange], None]


@dataclass
class Coverage:
    """What a verification checked and what it skipped."""

    is_deep: bool = False
    warehouse: str | None = None
    """The name of the backend, if it is a warehouse."""
    months: int = 0
    without_data: Counter[str] = field(default_factory=Counter)
    """The number of months without any record, by export."""
    skipped: Counter[str] = field(default_factory=Counter)
    """The number of months by what was not checked in them."""
    has_charges: bool = False
    """Whether an export has charges of FOCUS, which are checked too."""

    def lines(self) -> Iterator[str]:
        """Yield the coverage as lines of text."""
        checked = _CHECKED_DEEP if self.is_deep else _CHECKED
        if self.has_charges:
            checked += f", {'every column' if self.is_deep else 'rows and costs'} of charges"
        if self.warehouse is not None:
            checked += f", and of {self.warehouse}"
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


def verify(
    settings: Settings, selection: Selection, *, deep: bool
) -> tuple[list[tuple[StoredMonth, str, Repair]], Coverage]:
    """Return each difference with its month and repair, and what was checked; repair nothing.

    `deep` also reads every staged file and every cell. A month's error is a difference too. A
    missing DuckDB file is created, empty. Raises BillError if no export is selected, and
    WarehouseUnavailable. On a terminal, standard error shows the month that is being read.
    """
    has_warehouse = settings.database.has_warehouse
    coverage = Coverage(deep, settings.database.backend if has_warehouse else None)
    differences: list[tuple[StoredMonth, str, Repair]] = []
    with console(stderr=True).status("") as status:
        for month, logged in _recorded_months(settings, selection, coverage):
            status.update(f"reading {month}")
            coverage.has_charges |= "focus" in month.stages
            try:
                differences.extend(
                    (month, *difference) for difference in _differences(month, logged)
                )
                if deep:
                    damages = chain(_damage(month, logged, coverage), _focus_damage(month))
                    differences.extend((month, *damage) for damage in damages)
            except LedgerDamaged as error:
                differences.append((month, str(error), Repair.LEDGER))
            except BillError as error:  # A damaged database must not hide the other months.
                differences.append((month, str(error), Repair.RUN))
    return differences, coverage


def as_row(month: StoredMonth, difference: str, repair: Repair) -> Row:
    """Return a difference as a row to print, with the repair as a command to type.

    The command is also under `mend`, which was the name of `repair` in earlier releases.
    """
    export, name = month.key
    only = f"--export {export} --start-date {name} --end-date {name}"
    vendor = month.export.vendor
    command = repair.value.format(vendor=vendor, export=export, month=name, only=only)
    return {
        "export": export,
        "month": name,
        "what_differs": difference,
        "repair": command,
        "mend": command,
    }


def repair_months(
    settings: Settings, selection: Selection, on_restored: OnRestored, *, deep: bool
) -> bool:
    """Restore the ledger from the data, then run the repair of each month that still differs.

    `on_restored` gets a line and the change for each month whose load or restatements are recorded
    in the ledger again. Returns whether every run succeeded. `deep` and the errors are those of
    `verify`.
    """
    for month, _ in _recorded_months(settings, selection, Coverage()):
        with suppress(BillError):  # `verify` reports a database that cannot be opened.
            if restored := _restore_ledger(month):
                text, (export, name) = f"restored in the ledger: {restored}", month.key
                change = StageChange(export, "billing_table", name, f"The load was {text}.")
                on_restored(f"{month}  {text}", change)
    repairs: dict[tuple[str, str], list[Repair]] = defaultdict(list)
    for month, _, repair in verify(settings, selection, deep=deep)[0]:
        repairs[month.key].append(repair)
    succeeded = True
    for (export, name), month_repairs in repairs.items():
        repair, only = Repair.of(month_repairs), Selection(None, export, name, name)
        until = "staged_files" if repair == Repair.FETCH else None
        force = repair in (Repair.FETCH, Repair.REPROCESS)
        succeeded &= run_months(settings, only, until, force=force)
    return succeeded


def _restore_ledger(month: StoredMonth) -> str | None:
    """Record what the Parquet file's footer records in the ledger again if the table confirms it.

    A damaged table of the ledger is replaced by an empty one first. Returns the version whose load
    was recorded, or how many restatements were, or None if the ledger lacked nothing.
    """
    export, file = month.export, month.lake_file
    with month.connect(repair=True) as connection:
        in_lake = load_from_footer(file, export.name, month.month, export.table_name)
        load = month.verified_load(connection)
        if load is not None and load.is_same(in_lake):
            restored = restore_restatements_of_footer(connection, load, file)
            return count_text(restored, "restatement") if restored else None
        if load is not None or in_lake is None:
            return None
        bill_format = month.formats[in_lake.format]
        is_restored = restore_load(connection, in_lake, bill_format, file)
        return in_lake.manifest_id if is_restored else None


def _recorded_months(
    settings: Settings, selection: Selection, coverage: Coverage
) -> Iterator[tuple[StoredMonth, LoggedVersions]]:
    """Yield the months with a Parquet file or an event, with the versions in the event log."""
    with open_history() as history:
        all_months = StoredMonths(settings).months(selection)
        for export, months in groupby(all_months, lambda month: month.key[0]):
            export_months = list(months)
            names = {str(month.month) for month in export_months}
            # One query of the event log for all months of an export is faster than one a month.
            by_stage = history.materializations(export, names)
            for month in export_months:
                events = {stage: by_stage[stage].get(str(month.month)) for stage in STAGES}
                if any(events.values()) or month.lake_file.exists():
                    coverage.months += 1
                    logged = {
                        stage: event.version if event else None for stage, event in events.items()
                    }
                    yield month, logged
                else:
                    coverage.without_data[export] += 1


def _differences(month: StoredMonth, logged: LoggedVersions) -> Differences:
    """Compare versions, rows and cost in the event log, ledger, table, lake and warehouse."""
    with month.connect() as connection:
        recorded = ledger.newest_load(connection, month.export.name, month.month)
        load = month.verified_load(connection)
        history = restatements(connection, month.export.name, month.month)
    if recorded is not None and load is None:
        yield (
            f"the ledger has {recorded.manifest_id}, but the table does not have its rows and cost",
            Repair.RUN,
        )
        return  # the other copies can only be compared with a table that is right
    footer = month.lake_record
    in_table = load or (footer if month.is_only_in_lake else None)
    if month.lake_file.is_shared and not any(logged.values()):
        logged = _versions_without_log(month)
    version = in_table and in_table.manifest_id
    if version != logged["billing_table"]:
        yield (
            f"the table has {version or 'no version'}, the event log "
            f"{logged['billing_table'] or 'no version'}",
            Repair.RUN,
        )
    yield from _lake_differences(month, load, history)
    if footer is not None:
        yield from _later_differences(month, footer, logged)


def _lake_differences(
    month: StoredMonth, load: Load | None, history: Sequence[Restatement]
) -> Differences:
    """Compare the month's file with the load of the table, if there is one."""
    file, footer = month.lake_file, month.lake_record
    if file.is_shared and footer is not None and not file.sha256():
        yield f"{file.location} names a file that is missing", Repair.REPROCESS
    elif load is not None and not load.is_same(footer):
        yield (
            f"{file.location} has {_version_text(footer)}, the table {load.manifest_id} with "
            f"{load.totals}",
            Repair.RUN,
        )
    elif load is not None:
        yield from _history_differences(file.location, month.restatements, history)


def _later_differences(
    month: StoredMonth, footer: LoadedVersion, logged: LoggedVersions
) -> Differences:
    """Compare the month's file with the event log, the warehouse and the charges."""
    if footer.manifest_id != logged["parquet"]:
        logged_version = logged["parquet"] or "no version"
        location = month.lake_file.location
        yield f"{location} has {footer.manifest_id}, the event log {logged_version}", Repair.RUN
    if (warehouse := month.storage.warehouse) is not None:
        yield from _warehouse_differences(month.month_file, logged["warehouse_table"], warehouse)
    if "focus" in month.stages:
        yield from _focus_differences(month, logged)


def _versions_without_log(month: StoredMonth) -> LoggedVersions:
    """Return the versions of the data, for a machine whose event log does not have the month."""
    versions = {**dict.fromkeys(STAGES), **month.versions}
    if month.focus_record is not None:  # Without what else `versions` says of it.
        versions["focus"] = month.focus_record.version.manifest_id
    return versions


def _history_differences(
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
    record = month.focus_record
    if record is None:
        yield f"{path} has no complete month of charges", Repair.RUN
        return
    version = record.version.manifest_id
    if difference := derivation.difference(record):
        yield f"{path} has {version} by the mapping {record.mapping}, but {difference}", Repair.RUN
    elif derivation.current() is None:
        yield f"{path} does not have the costs of its footer", Repair.RUN
    if version != logged["focus"]:
        yield f"{path} has {version}, the event log {logged['focus'] or 'no version'}", Repair.RUN
    warehouse, logged_load = month.storage.warehouse, logged["warehouse_focus"]
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
    if logged_version is not None and not file.footer.is_same(version):
        yield (
            f"{table} has {_version_text(version)}, {file.location} {file.footer.totals}",
            Repair.RUN,
        )


def _version_text(version: Version | None) -> str:
    return f"{version.manifest_id} with {version.totals}" if version else "no complete month"


def _damage(month: StoredMonth, logged: LoggedVersions, coverage: Coverage) -> Differences:
    """Read every staged file and compare every column of table, Parquet file and warehouse.

    The columns are compared only if table and Parquet file have the same version.
    """
    staged_damage = month.staging.damage()
    if staged_damage is None:
        coverage.skipped["staged files, which were deleted or are not all downloaded yet"] += 1
    for problem in staged_damage or ():
        yield problem, Repair.FETCH
    with month.connect() as connection:
        load = month.verified_load(connection)
    if load is None and month.is_only_in_lake:
        coverage.skipped["cells of the table, which this machine does not have"] += 1
        yield from _lake_damage(month)
        return
    if load is None or not load.is_same(month.lake_file.version()):
        coverage.skipped["cells, as table and Parquet file have different versions"] += 1
        return
    file, warehouse_copy = month.month_file, _Copy("no warehouse")
    if month.storage.warehouse is not None and logged["warehouse_table"] is not None:
        warehouse_copy = _warehouse_copy(file, month.storage.warehouse, coverage)
    # DuckDB's own hash is fastest; a warehouse can compute MD5 or sums only. The table and the
    # Parquet file need the kinds of both comparisons.
    kinds = [copy_digest.kind for copy_digest in warehouse_copy.digests]
    if kinds != [DigestKind.MD5]:
        kinds = list(dict.fromkeys([DigestKind.HASH, *kinds]))
    lake_copy = _lake_copy(file, kinds)
    with file.duckdb.open(month.database_path, read_only=True) as connection:
        is_unchanged = matches_checksum(load, file.file)
        digests = _digests(connection, month_relation(load), file, kinds)
    table_copy = _Copy(f"table {load.table}", digests)
    yield from _copy_differences(table_copy, lake_copy, warehouse_copy, is_unchanged=is_unchanged)


def _lake_damage(month: StoredMonth) -> Differences:
    """Read the month's file, which has no table to compare it with."""
    file, export = month.lake_file, month.export
    load = load_from_footer(file, export.name, month.month, export.table_name)
    if load is None:
        return
    with month.storage.database.duckdb.scratch() as connection:
        prepare_casts(connection)
        if not has_rows_of(connection, load, file, month.formats):
            yield f"{file.location} does not have the totals of its record", Repair.REPROCESS


def _focus_damage(month: StoredMonth) -> Differences:
    """Derive the charges again, and compare every column of their file with them.

    A file that `_focus_differences` reports is not read.
    """
    if month.focus_record is None or month.focus_derivation.current() is None:
        return
    path = month.focus_lake_file.location
    try:
        columns = month.focus_derivation.differing_columns()
    except duckdb.Error as error:
        yield f"{path} cannot be read: {first_line(error)}", Repair.REPROCESS
        return
    if columns:
        names = _names_text(columns)
        yield f"{path} differs in {names} from the charges of its bill", Repair.REPROCESS


def _warehouse_copy(file: MonthFile, warehouse: Warehouse, coverage: Coverage) -> _Copy:
    table = warehouse.full_name(file.table)
    try:
        warehouse_digest = warehouse.digest(file)
    except BillError as error:
        return _Copy(table, problem=str(error))
    if warehouse_digest.kind == DigestKind.SUMS:
        coverage.skipped[
            f"columns of {coverage.warehouse} other than money, whose sums are compared"
        ] += 1
    return _Copy(table, [warehouse_digest])


def _lake_copy(file: MonthFile, kinds: Collection[DigestKind]) -> _Copy:
    try:
        with file.duckdb.scratch() as connection:
            digests = _digests(connection, parquet_relation(file.path), file, kinds)
            return _Copy(file.location, digests)
    except duckdb.Error as error:
        return _Copy(file.location, problem=first_line(error))


def _digests(
    connection: duckdb.DuckDBPyConnection,
    rows: Sql,
    file: MonthFile,
    kinds: Collection[DigestKind],
) -> list[MonthDigest]:
    prepare_casts(connection)
    return [month_digest(connection, rows, file.data_types, kind) for kind in kinds]


@dataclass(frozen=True)
class _Copy:
    """A copy of a month: its digests, at least one of each kind, or why it cannot be read."""

    name: str
    digests: list[MonthDigest] = field(default_factory=list)
    problem: str | None = None

    def differing_columns(self, other: _Copy) -> list[str]:
        """Return the columns that differ, by the first kind of digest that both copies have.

        The list is empty if one of the copies cannot be read.
        """
        for own_digest in self.digests:
            for other_digest in other.digests:
                if own_digest.kind == other_digest.kind:
                    return own_digest.differing_columns(other_digest)
        return []


def _copy_differences(
    table: _Copy, lake: _Copy, warehouse: _Copy, *, is_unchanged: bool | None
) -> Differences:
    """Yield how the copies differ, with the repair.

    If only the Parquet file is wrong, it is written again from the table; otherwise the month is
    reprocessed from the vendor's files. `is_unchanged` says whether the Parquet file still has the
    checksum that the ledger recorded; None if the ledger has no checksum.
    """
    table_and_lake = table.differing_columns(lake)
    warehouse_and_table = warehouse.differing_columns(table)
    warehouse_and_lake = warehouse.differing_columns(lake)
    # If two of the three copies agree, the third is wrong.
    is_lake_alone = bool(warehouse_and_lake) and not warehouse_and_table
    is_lake_wrong = lake.problem or is_unchanged is False or is_lake_alone
    repair = Repair.RUN if is_lake_wrong and not warehouse_and_table else Repair.REPROCESS
    if lake.problem:
        yield f"{lake.name} cannot be read: {lake.problem}", repair
    elif table_and_lake:
        evidence = "; the file is unchanged" if is_unchanged else ""
        if is_unchanged is False:
            evidence = "; the file was changed"
        elif bool(warehouse_and_table) != bool(warehouse_and_lake):
            agreeing = "file" if warehouse_and_table else "table"
            evidence = f"; {warehouse.name} agrees with the {agreeing}"
        names = _names_text(table_and_lake)
        yield f"{lake.name} and {table.name} differ in {names}{evidence}", repair
    elif is_unchanged is False:
        yield f"{lake.name} was changed, though its cells are the same", repair
    if warehouse.problem:
        yield f"{warehouse.name} cannot be compared: {warehouse.problem}", Repair.REPROCESS
    elif warehouse_and_table and (warehouse_and_lake or lake.problem):
        names = _names_text(warehouse_and_table)
        yield f"{warehouse.name} and {table.name} differ in {names}", repair


def _names_text(columns: list[str]) -> str:
    return excerpts(columns, _COLUMNS_SHOWN)
