"""`finops state import`: restore the state of months that another machine has exported.

Loads are read and written month by month; the last materializations of all months are in memory.
Only what the data on this machine confirms is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError, count_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Selection
from finops_dagster.cli.state_file import MonthState, Stage
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.lake import restore_load
from finops_dagster.pipeline import FOCUS_STAGES
from finops_dagster.pipeline.history import History, Materialization
from finops_dagster.pipeline.observations import StageChange
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.restatements import add_missing_restatements

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class _RestoredMonth:
    """A month whose ledger is restored: its version in the table, and its stages in the file."""

    month: StoredMonth
    table_version: str | None
    stages: dict[Stage, Materialization]
    change: StageChange | None = None
    """What was recorded in the ledger; None if it lacked nothing."""


def import_months(
    settings: Settings,
    months: Iterable[MonthState],
    on_month: Callable[[str, StageChange | None], None],
) -> list[str]:
    """Restore the loads, restatements and materializations that the data on this machine confirms.

    Loads and restatements are recorded in the ledgers first, in one transaction for each DuckDB
    file, and then materializations in Dagster's event log; what these have already is not recorded
    again. `months` must be grouped by export. `on_month` is called after each month that has a
    confirmed stage: with a line to print, and the change of its ledger or None. Returns a line for
    each export or stage that is refused. Raises BillError for a DuckDB file that cannot be opened,
    and WarehouseUnavailable.
    """
    refused = list[str]()
    restored = list(_restore_ledgers(_known_months(settings, months, refused)))
    # Once DuckDB has been closed: its cache and Dagster are never in memory together.
    from finops_dagster.pipeline.instance import open_instance

    with open_instance() as instance:
        for export, group in groupby(restored, lambda restored: restored.month.key[0]):
            export_months = list(group)
            month_names = [restored.month.key[1] for restored in export_months]
            # What is in the event log already is not recorded a second time.
            logged = History(instance).materializations(export, month_names)
            for restored_month in export_months:
                name = restored_month.month.key[1]
                confirmed, problems = _confirmed_stages(restored_month)
                refused += problems
                for stage in confirmed:
                    imported, recorded = restored_month.stages[stage], logged[stage].get(name)
                    if recorded is None or recorded.version != imported.version:
                        _report(instance, [export, stage], name, imported)
                if confirmed:
                    line = f"{restored_month.month}: {', '.join(confirmed)}"
                    on_month(line, restored_month.change)
    return refused


def _known_months(
    settings: Settings, months: Iterable[MonthState], refused: list[str]
) -> Iterator[tuple[StoredMonth, MonthState]]:
    """Yield the months of exports that the settings have; add a line for each other export."""
    stored = StoredMonths(settings)
    for record, export_months in groupby(months, lambda month: month.export):
        try:
            (export,) = Selection(record.vendor, record.name).exports(settings)
        except BillError as error:
            refused.append(f"{record.name}  refused: {error}")
            continue
        for state in export_months:
            yield StoredMonth(export, BillingMonth.parse(state.month), stored), state


def _restore_ledgers(
    months: Iterable[tuple[StoredMonth, MonthState]],
) -> Iterator[_RestoredMonth]:
    """Restore the ledger of each month, in one transaction for each DuckDB file."""
    for file, file_months in groupby(months, lambda pair: pair[0].database_path):
        if not file.exists():
            yield from (_RestoredMonth(month, None, state.stages) for month, state in file_months)
            continue
        pairs = iter(file_months)
        first_pair = next(pairs)
        with first_pair[0].connect() as connection:
            # Else DuckDB would keep all that it has written in memory until the commit. A month of
            # the ledger is small, and each thread has buffers of its own.
            connection.execute("SET memory_limit = '32MB'")
            connection.execute("SET threads = 1")
            connection.execute("BEGIN TRANSACTION")
            for month, state in chain([first_pair], pairs):
                version, change = _restore(connection, month, state)
                yield _RestoredMonth(month, version, state.stages, change)
            connection.execute("COMMIT")


def _restore(
    connection: DuckDBPyConnection, month: StoredMonth, state: MonthState
) -> tuple[str | None, StageChange | None]:
    """Restore the loads and restatements that the ledger lacks if the table confirms them.

    Returns the version in the table, and what was restored; None if the ledger lacked nothing.
    """
    export, formats = month.export.name, month.formats
    # The file has the newest load first; load numbers count from the oldest.
    documented = [
        record.to_load(month.export, number)
        for number, record in enumerate(reversed(state.loads), 1)
        if record.format in formats
    ]
    recorded = set(ledger.loads(connection, export, month.month))
    missing = [load for load in documented if load not in recorded]
    for load in missing:
        if load.state == "loaded":
            restore_load(connection, load, formats[load.format], month.lake_file)
    current, change = month.verified_load(connection), None
    # Superseded loads have no rows; they are trusted if the loaded one is confirmed.
    if current in documented:
        superseded = [load for load in missing if load.state != "loaded"]
        ledger.restore_superseded_loads(connection, superseded)
        added = add_missing_restatements(connection, export, month.month, state.restatements)
        if missing or added:
            loads, changes = count_text(len(missing), "load"), count_text(added, "restatement")
            text = f"Imported into the ledger: {loads}, {changes}."
            change = StageChange(export, "billing_table", str(month.month), text)
    return current.manifest_id if current else None, change


def _confirmed_stages(restored: _RestoredMonth) -> tuple[list[Stage], list[str]]:
    """Return the stages whose version the data confirms, and a line for each of the others."""
    month, confirmed, problems = restored.month, list[Stage](), list[str]()
    for stage, materialization in restored.stages.items():
        version = _confirmed_version(month, stage, materialization.version, restored.table_version)
        if version is None or version != materialization.version:
            problems.append(
                f"{month}  refused: {stage} has {materialization.version} in the file, but "
                f"{version or 'no complete month'} on this machine; run finops state "
                f"reprocess {month}"
            )
        else:
            confirmed.append(stage)
    return confirmed, problems


def _report(
    instance: dg.DagsterInstance, key: list[str], month: str, imported: Materialization
) -> None:
    import dagster as dg

    # The run is not in the event log of this machine, so the event has none.
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=dg.AssetKey(key),
            partition=month,
            description=f"Imported; recorded by run {imported.run} at {imported.at}.",
            metadata=imported.metadata,
            tags={"dagster/data_version": str(imported.version)},
        )
    )


def _confirmed_version(
    month: StoredMonth, stage: str, documented: str | None, table_version: str | None
) -> str | None:
    """Return the version that the stage's data confirms; for the manifest, the vendor's id.

    The manifest and the staged files need not exist any more once the table has their version.
    """
    if stage == "billing_table":
        return table_version
    if stage == "parquet":
        return month.lake_version.manifest_id if month.lake_version else None
    if stage == "warehouse_table":
        if month.stored_months.warehouse is None or month.lake_version is None:
            return None
        version = month.stored_months.warehouse.measured_version(month.warehouse_input)
        return version.manifest_id if version else None
    if stage in FOCUS_STAGES:
        return month.versions.get(stage)
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
