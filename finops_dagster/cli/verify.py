"""`finops state verify`: find what differs between the copies of a month, and repair it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby

from finops_dagster.billing.errors import BillError, LedgerDamaged, count_text
from finops_dagster.cli.deep_differences import cell_differences
from finops_dagster.cli.differences import Coverage, LoggedVersions, Repair, version_differences
from finops_dagster.cli.month_runs import run_months
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Headings, Row, key_headings
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.lake import load_from_footer, record_lost_load, restore_restatements_of_footer
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.history import open_history
from finops_dagster.pipeline.observations import StageChange
from finops_dagster.settings import Settings
from finops_dagster.terminal import console

DIFFERENCE_HEADINGS: Headings = key_headings("export month what_differs repair")
OnRestored = Callable[[str, StageChange], None]
"""A function that takes a line about a month whose ledger was restored, and the change."""


def find_differences(
    settings: Settings, selection: Selection, *, deep: bool
) -> tuple[list[tuple[StoredMonth, str, Repair]], Coverage]:
    """Return each difference with its month and repair, and what was checked; repair nothing.

    Months without a Parquet file and without an event are only counted. `deep` also reads every
    staged file and every cell. If a month cannot be read, its error is returned as a difference. A
    missing DuckDB file is created, empty. Raises BillError if no export is selected, and
    WarehouseUnavailable. On a terminal, standard error shows which month is being read.
    """
    has_warehouse = settings.database.has_warehouse
    coverage = Coverage(deep, settings.database.backend if has_warehouse else None)
    found: list[tuple[StoredMonth, str, Repair]] = []
    with console(stderr=True).status("") as status:
        for month, logged in _recorded_months(settings, selection, coverage):
            status.update(f"reading {month}")
            coverage.has_charges |= "focus" in month.expected_stages
            try:
                found.extend(
                    (month, *difference) for difference in version_differences(month, logged)
                )
                if deep:
                    found.extend(
                        (month, *difference)
                        for difference in cell_differences(month, logged, coverage)
                    )
            except LedgerDamaged as error:
                found.append((month, str(error), Repair.LEDGER))
            except BillError as error:  # A damaged database must not hide the other months.
                found.append((month, str(error), Repair.RUN))
    return found, coverage


def difference_row(month: StoredMonth, difference: str, repair: Repair) -> Row:
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
    """Restore the ledger from the lake, then run the repair of each month that still differs.

    `on_restored` is called for each month whose load or restatements are recorded in the ledger
    again: with a line to print, and the change. Returns whether every run succeeded, which is also
    true if none was needed; what then still differs is not checked. `deep` and the errors are those
    of `find_differences`.
    """
    for month, _ in _recorded_months(settings, selection, Coverage()):
        with suppress(BillError):  # `find_differences` reports a database that cannot be opened.
            if restored := _restore_ledger(month):
                text, (export, name) = f"restored in the ledger: {restored}", month.key
                change = StageChange(export, "billing_table", name, f"The load was {text}.")
                on_restored(f"{month}  {text}", change)
    repairs: dict[tuple[str, str], list[Repair]] = defaultdict(list)
    for month, _, repair in find_differences(settings, selection, deep=deep)[0]:
        repairs[month.key].append(repair)
    succeeded = True
    for (export, name), month_repairs in repairs.items():
        repair, only = Repair.combined(month_repairs), Selection(None, export, name, name)
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
        if load is not None and load.is_same_version(in_lake):
            restored = restore_restatements_of_footer(connection, load, file)
            return count_text(restored, "restatement") if restored else None
        if load is not None or in_lake is None:
            return None
        bill_format = month.formats[in_lake.format]
        is_restored = record_lost_load(connection, in_lake, bill_format, file)
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
