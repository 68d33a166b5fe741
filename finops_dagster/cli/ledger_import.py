"""Restore the ledgers for `finops state import`, in a process of its own.

Loads are read and written month by month. Only what the data on this machine confirms is restored.
"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from finops_dagster.billing.content import is_version_of, vendor_id_of
from finops_dagster.billing.errors import count_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.cli.errors import error_line
from finops_dagster.cli.options import Options
from finops_dagster.cli.state_file import MonthState, Stage, read_months
from finops_dagster.cli.state_import import ConfirmedMonth, RestoredLedgers
from finops_dagster.lake import Lake, load_from_footer, record_lost_load
from finops_dagster.pipeline import BILL_STAGES, FOCUS_STAGES
from finops_dagster.pipeline.history import Materialization
from finops_dagster.pipeline.observations import StageChange
from finops_dagster.processes import raise_gc_threshold
from finops_dagster.settings import Settings
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import verified_load
from finops_dagster.tables.restatements import add_missing_restatements

if TYPE_CHECKING:
    from finops_dagster.cli.stored_months import StoredMonth

# Their data is on this machine, even if the lake is in a store.
_LOCAL_STAGES = BILL_STAGES[: BILL_STAGES.index("parquet")]


@dataclass(frozen=True)
class _Month:
    """A month of the file whose export the settings have."""

    export: ExportSettings
    month: BillingMonth
    state: MonthState


@dataclass(frozen=True)
class _RestoredMonth:
    """A month whose ledger is restored: its stages in the file, and its version in the table."""

    export: ExportSettings
    month: BillingMonth
    stages: dict[Stage, Materialization]
    table_version: str | None = None
    change: StageChange | None = None
    """What was recorded in the ledger; None if it lacked nothing."""


def main() -> None:
    """Restore the ledgers for the process that has started this one.

    Standard input has the pickled `Options` and path of the file. Standard output gets, pickled,
    the `RestoredLedgers`, or the line of an error as text.
    """
    raise_gc_threshold()
    options: Options
    file: Path
    options, file = pickle.load(sys.stdin.buffer)
    result: RestoredLedgers | str
    try:
        result = _restore_ledgers(options.settings(), file)
    except Exception as error:
        result = error_line(error)
    # If the other process was killed, this one ends without a trace.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    pickle.dump(result, sys.stdout.buffer)


def _restore_ledgers(settings: Settings, file: Path) -> RestoredLedgers:
    """Restore the loads and restatements of a file that the data on this machine confirms.

    They are recorded in one transaction for each DuckDB file; what the ledger has already is not
    recorded again. Raises BillError if the file cannot be read, which changes nothing, or if a
    DuckDB file cannot be opened, and WarehouseUnavailable.
    """
    for _ in read_months(file):
        pass  # A file that is damaged at its end must change nothing.
    months, refused = list[ConfirmedMonth](), list[str]()
    restored = list(_restored_months(settings, _known_months(settings, file, refused)))
    # Once DuckDB is closed: this imports pyarrow, which is never in memory with DuckDB's cache.
    from finops_dagster.cli.stored_months import StoredMonth, StoredMonths

    stored_months = StoredMonths(settings)
    for month in restored:
        stored = StoredMonth(month.export, month.month, stored_months)
        stages, problems = _confirmed_stages(stored, month.stages, month.table_version)
        refused += problems
        if stages:
            months.append(ConfirmedMonth(*stored.key, stages, month.change))
    return RestoredLedgers(months, refused)


def _known_months(settings: Settings, file: Path, refused: list[str]) -> Iterator[_Month]:
    """Yield the months of exports that the settings have; add a line for each other export."""
    exports = {export.name: export for export in settings.exports}
    for record, export_months in groupby(read_months(file), lambda month: month.export):
        export = exports.get(record.name)
        if export is None:
            refused.append(
                f"{record.name}  refused: {settings.location} has no export {record.name!r}; add "
                f'an [[exports]] block with name = "{record.name}" and vendor = "{record.vendor}", '
                "and run the same command again"
            )
        elif export.vendor != record.vendor:
            refused.append(
                f"{record.name}  refused: {settings.location}: the export {record.name!r} has "
                f'vendor = "{export.vendor}", but "{record.vendor}" in the file; correct its '
                "vendor, or import another file"
            )
        else:
            for state in export_months:
                yield _Month(export, BillingMonth.parse(state.month), state)


def _restored_months(settings: Settings, months: Iterable[_Month]) -> Iterator[_RestoredMonth]:
    """Restore the ledger of each month, in one transaction for each DuckDB file."""
    database, lake = settings.database.duckdb.billing_database(), settings.storage.open_lake()
    for path, file_months in groupby(months, lambda m: database.path(m.export.name, m.month)):
        if not path.exists():
            yield from (_RestoredMonth(m.export, m.month, m.state.stages) for m in file_months)
            continue
        first = next(file_months)
        with database.connect(first.export.name, first.month) as connection:
            # Else DuckDB would keep all that it has written in memory until the commit. A month of
            # the ledger is small, and each thread has buffers of its own.
            connection.execute("SET memory_limit = '32MB'")
            connection.execute("SET threads = 1")
            connection.execute("BEGIN TRANSACTION")
            for month in chain([first], file_months):
                yield _restored_month(connection, month, lake)
            connection.execute("COMMIT")


def _restored_month(connection: DuckDBPyConnection, of_file: _Month, lake: Lake) -> _RestoredMonth:
    """Restore the loads and restatements that the ledger lacks if the table confirms them."""
    export, month, state = of_file.export, of_file.month, of_file.state
    formats = VENDORS[export.vendor].formats(export)
    # The file has the newest load first; load numbers count from the oldest.
    documented = [
        record.to_load(export, number)
        for number, record in enumerate(reversed(state.loads), 1)
        if record.format in formats
    ]
    recorded = set(ledger.loads(connection, export.name, month))
    missing = [load for load in documented if load not in recorded]
    for load in missing:
        if load.state == "loaded":
            record_lost_load(connection, load, formats[load.format], lake.file(export.name, month))
    current, change = verified_load(connection, export.name, month, formats), None
    # Superseded loads have no rows; they are trusted if the loaded one is confirmed.
    if current in documented:
        superseded = [load for load in missing if load.state != "loaded"]
        ledger.restore_superseded_loads(connection, superseded)
        added = add_missing_restatements(connection, export.name, month, state.restatements)
        if missing or added:
            loads, changes = count_text(len(missing), "load"), count_text(added, "restatement")
            text = f"Imported into the ledger: {loads}, {changes}."
            change = StageChange(export.name, "billing_table", str(month), text)
    version = current.manifest_id if current else None
    return _RestoredMonth(export, month, state.stages, version, change)


def _confirmed_stages(
    month: StoredMonth, stages: dict[Stage, Materialization], table_version: str | None
) -> tuple[dict[Stage, Materialization], list[str]]:
    """Return the stages whose version the data confirms, and a line for each of the others."""
    confirmed, refused = dict[Stage, Materialization](), dict[Stage, str | None]()
    for stage, materialization in stages.items():
        version = _confirmed_version(month, stage, materialization.version, table_version)
        if version is None or version != materialization.version:
            refused[stage] = version
        else:
            confirmed[stage] = materialization
    if not refused:
        return confirmed, []
    export, file = month.export, month.lake_file
    in_lake = load_from_footer(file, export.name, month.month, export.table_name)
    return confirmed, [
        f"{month}  refused: {stage} has {stages[stage].version} in the file, but "
        f"{version or 'no complete month'} in the data; "
        f"{_advice(month, stage, stages[stage], version, in_lake)}"
        for stage, version in refused.items()
    ]


def _advice(
    month: StoredMonth,
    stage: Stage,
    documented: Materialization,
    version: str | None,
    in_lake: Load | None,
) -> str:
    """Return what to do about a refused stage, whose data has `version`.

    The lake's version is newer than that of the file if it was loaded after the file's stage was
    recorded. If the lake is in a store, this machine needs neither staged files nor a table.
    """
    if in_lake is not None and in_lake.loaded_at is not None:
        newest = in_lake.manifest_id
        if stage == "manifest":
            newest = vendor_id_of(newest)
        is_newer = in_lake.loaded_at.replace(tzinfo=UTC) > documented.at
        if is_newer and version == newest:
            return "nothing needs to be done, as the data is newer than the file"
        is_local = month.lake_file.is_in_store and stage in _LOCAL_STAGES
        if is_local and version is None and (is_newer or documented.version == newest):
            return "nothing needs to be done, as the lake has the month"
    return f"run finops state reprocess {month}"


def _confirmed_version(
    month: StoredMonth, stage: str, documented: str | None, table_version: str | None
) -> str | None:
    """Return the version that the stage's data confirms; for the manifest, the vendor's id.

    The manifest and the staged files need not exist any more once the table has their version.
    """
    if stage == "billing_table":
        return table_version
    if stage == "parquet":
        return month.lake_load.manifest_id if month.lake_load else None
    if stage == "warehouse_table":
        if month.stored_months.warehouse is None or month.lake_load is None:
            return None
        version = month.stored_months.warehouse.measured_version(month.bill_month_file)
        return version.manifest_id if version else None
    if stage in FOCUS_STAGES:
        return month.stage_versions.get(stage)
    manifest = month.staged_month.manifest()
    if manifest is None or (table_version and is_version_of(table_version, manifest.id)):
        is_table_version = (
            stage == "manifest"
            and table_version
            and documented
            and is_version_of(table_version, documented)
        )
        return documented if is_table_version else table_version
    if stage == "manifest":
        return manifest.id
    current = month.staged_month.current_record()
    is_whole = month.staged_month.staged_version(manifest).content() is not None
    return current.manifest_id if current and is_whole else None
