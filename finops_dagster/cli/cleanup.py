"""`finops state cleanup`: delete old staged files, runs and ledger entries that no month needs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.filesize import decimal

from finops_dagster.billing.manifest import staging_folder_name
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Row
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import FolderLake, Lake
from finops_dagster.lake.catalog_settings import CHARGES_TABLE, lake_url
from finops_dagster.pipeline import ASSETS_WITHOUT_MONTHS, STAGES
from finops_dagster.pipeline.history import History
from finops_dagster.pipeline.observations import StageChange
from finops_dagster.processes import lost_runs
from finops_dagster.settings import Settings, dagster_home
from finops_dagster.tables import ledger

_LONGEST_USE = timedelta(days=1)

Deletion = tuple[Row, StageChange | None]
"""A row to print, and the same deletion as a change of a stage.

The change is None for runs and unfinished files.
"""


def delete_unneeded_data(
    settings: Settings, history: History, *, older_than: timedelta, dry_run: bool
) -> Iterator[Deletion]:
    """Delete old staged files, superseded loads, runs and unused files of the lake; yield each.

    These are deleted, as the caller iterates, if they are older than `older_than`:

    - staged files of a version that is loaded, or is not the month's newest
    - downloaded copies of shared files
    - superseded loads of the ledger
    - ended runs, except the last run of each stage of each month

    Files that no month, kept version or catalog uses are deleted from a lake in a folder at once,
    and from one in a store after a day, whatever `older_than` is. A dry run yields the same and
    deletes nothing. A missing DuckDB file may be created, empty.
    """
    cutoff = datetime.now(UTC) - older_than
    catalog = settings.open_catalog() if settings.catalog else None
    stored = StoredMonths(settings)
    for export in settings.exports:
        months = list(stored.months(Selection(export=export.name)))
        for month, folder in _unneeded_folders(months, cutoff):
            row = _row("staged files", str(folder), _bytes(folder.iterdir()))
            if not dry_run:
                shutil.rmtree(folder)
            yield row, _change(row, export.name, "staged_files", month)
        copies = stored.staging.shared_copies(export.name).existing_paths()
        for row in _delete_copies(copies, cutoff, dry_run=dry_run):
            yield row, _change(row, export.name, "staged_files", None)
        tables = {
            "parquet": (stored.lake, export.table_name),
            "focus": (focus_lake(stored.lake), CHARGES_TABLE),
        }
        for stage, (lake, table) in tables.items():
            registered = catalog.registered_urls(lake, export.name, table) if catalog else ()
            for row in _delete_replaced(lake, export.name, registered, dry_run=dry_run):
                yield row, _change(row, export.name, stage, None)
        for month, version in _delete_superseded(months, cutoff, dry_run=dry_run):
            row = _row("superseded version", f"{export.name} {month} {version}", 0)
            yield row, _change(row, export.name, "billing_table", month)
    for row in _delete_runs(settings, history, cutoff, dry_run=dry_run):
        yield row, None


def _delete_runs(
    settings: Settings, history: History, cutoff: datetime, *, dry_run: bool
) -> Iterator[Row]:
    """Delete old runs that no month needs from Dagster's history; yield a row for each."""
    for run in _unneeded_runs(history, settings, cutoff):
        files = list((dagster_home() / "history" / "runs").glob(f"{run}.db*"))
        row = _row("run", run, _bytes(files))
        if not dry_run and history.instance is not None:
            history.instance.delete_run(run)
            history.instance.compute_log_manager.delete_logs(prefix=[run])
            for file in files:  # Dagster empties the files and leaves them.
                file.unlink(missing_ok=True)
        yield row


def _delete_replaced(
    lake: Lake, export: str, registered: Collection[str], *, dry_run: bool
) -> Iterator[Row]:
    """Delete files of a lake that no month and no catalog has any more; yield a row for each."""
    # A run may have uploaded a file that no pointer names yet; a query may read one that was just
    # replaced.
    for info in lake.unneeded_objects(export, datetime.now(UTC) - _LONGEST_USE):
        if lake_url(info.location) in registered:
            continue
        row = _row("replaced file", info.location, info.size)
        if not dry_run:
            lake.delete_object(info)
        yield row


def end_lost_runs_and_clean(
    settings: Settings, history: History, *, dry_run: bool
) -> Iterator[Deletion]:
    """Mark lost runs as failed, delete unfinished files, and yield each.

    Unfinished files are those that a killed process left on this machine: in the staging folder, in
    a lake in a folder, and copies of files of a lake in a store. Those of an export with a run in
    progress stay. All of it happens as the caller iterates. Only lost runs of this machine are
    found. A dry run changes nothing; it may also yield lost runs that Dagster shows as ended
    already.
    """
    if dry_run or history.instance is None:
        lost = lost_runs(dagster_home())
    else:
        from finops_dagster.pipeline.instance import end_lost_runs

        lost = end_lost_runs(history.instance)
    in_progress = [run for run in history.runs if run.is_in_progress and run.id not in lost]
    yield from ((_row("lost run", run, 0), None) for run in lost)
    busy_exports = {export for run in in_progress for export in run.stages}
    for export in settings.exports:
        # A running load writes such files too, so they may not be deleted beside it.
        if export.name in busy_exports:
            continue
        lake = settings.storage.open_lake()
        for folder in (FolderLake(settings.storage.staging_dir), lake, focus_lake(lake)):
            for file in folder.unfinished_files(export.name):
                row = _row("unfinished file", str(file), _bytes([file]))
                if not dry_run:
                    file.unlink()
                yield row, None


def _row(kind: str, name: str, size: int) -> Row:
    return {"what": kind, "which": name, "size": decimal(size)}


def _change(row: Row, export: str, stage: str, month: BillingMonth | None) -> StageChange:
    text = f"Deleted: {row['what']} {row['which']}."
    return StageChange(export, stage, None if month is None else str(month), text)


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _unneeded_folders(
    months: Iterable[StoredMonth], cutoff: datetime
) -> Iterator[tuple[BillingMonth, Path]]:
    """Yield months and folders of staged versions that are loaded, or not the month's newest."""
    for month in months:
        manifest, current = month.staged_month.manifest(), month.staged_month.current_record()
        for name, folder in month.staged_month.version_folders():
            # A write to a file leaves the time of its folder unchanged.
            changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if datetime.fromtimestamp(changed, UTC) >= cutoff:
                continue
            if manifest is None or name != staging_folder_name(manifest.id):
                yield month.month, folder
            elif current is not None:
                with month.connect() as connection:
                    load = month.verified_load(connection)
                if load is not None and load.manifest_id == current.manifest_id:
                    yield month.month, folder


def _delete_copies(copies: Iterable[Path], cutoff: datetime, *, dry_run: bool) -> Iterator[Row]:
    """Delete old copies of shared files: their months are recorded, and can fetch them again."""
    for path in copies:
        if datetime.fromtimestamp(path.stat().st_mtime, UTC) < cutoff:
            row = _row("staged files", str(path), _bytes([path]))
            if not dry_run:
                path.unlink()
            yield row


def _delete_superseded(
    months: Iterable[StoredMonth], cutoff: datetime, *, dry_run: bool
) -> Iterator[tuple[BillingMonth, str]]:
    """Delete superseded loads of before `cutoff` from the ledger; yield month and version."""
    # Several months may share one DuckDB file; each file is opened once.
    by_file = {month.database_path: month for month in months}
    for month in (by_file[file] for file in by_file if file.exists()):
        with month.connect() as connection:
            connection.execute("BEGIN TRANSACTION")
            deleted = ledger.delete_superseded_loads(
                connection, month.export.name, cutoff.replace(tzinfo=None)
            )
            connection.execute("ROLLBACK" if dry_run else "COMMIT")
        yield from deleted


def _unneeded_runs(history: History, settings: Settings, cutoff: datetime) -> Iterator[str]:
    """Yield the ids of ended runs from before `cutoff` that are not the last of any stage."""
    months = {export.name: set(map(str, export.months())) for export in settings.exports}
    needed = {
        materialization.run_id
        for export, export_months in months.items()
        for by_month in history.materializations(export, export_months).values()
        for materialization in by_month.values()
    }
    # Also the last runs that failed: `finops state show` says why.
    for (export, _), runs in history.month_runs.items():
        for stage in STAGES:
            latest = next((run.id for run in runs if stage in run.stages[export]), None)
            needed |= {latest} if latest else set()
    for name in ASSETS_WITHOUT_MONTHS:
        # The last run, and the last that succeeded.
        runs = history.export_runs(name)
        needed |= {run.id for run in (*runs[:1], *[r for r in runs if r.status == "success"][:1])}
    for run in history.runs:
        is_ours = run.stages.keys() & {*months, *ASSETS_WITHOUT_MONTHS}
        if is_ours and run.ended and run.started < cutoff and run.id not in needed:
            yield run.id
