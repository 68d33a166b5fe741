"""Deleting what nobody needs any more, and nothing that a month still stands on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from rich.filesize import decimal

from finops_dagster.billing.manifest import version_folder
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.event_log import EventLog
from finops_dagster.cli.history import IN_PROGRESS
from finops_dagster.pipeline.build import build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import end_lost_runs, open_instance
from finops_dagster.processes import lost_runs
from finops_dagster.settings import Settings, dagster_home
from finops_dagster.staging.folder import StagingFolder, VersionRecord
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.tables.load import held_version

_ENDED = [status for status in dg.DagsterRunStatus if status.value not in IN_PROGRESS]


def clean(settings: Settings, older_than: timedelta, *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """Delete, or only find, what is older: a row each when it is gone, with the bytes that it took
    on disk."""
    before = datetime.now(UTC) - older_than
    resources = build_resources(settings)
    staging, database = resources.staging, resources.database
    exports = [Export(export) for export in settings.exports]
    for export in exports:
        for folder in _staged_in_vain(export, staging, database, before):
            row = _row("staged files", str(folder), _bytes_in(folder))
            if not dry_run:
                shutil.rmtree(folder)
            yield row
        for month, version in _superseded(export, database, before, dry_run=dry_run):
            yield _row("superseded version", f"{export.name} {month} {version}", 0)
    with open_instance() as instance:
        for run in _old_runs(instance, {export.name for export in exports}, before):
            files = list((dagster_home() / "history" / "runs").glob(f"{run}.db*"))
            row = _row("run", run, sum(file.stat().st_size for file in files))
            if not dry_run:
                _delete_run(instance, run, files)
            yield row


def clean_stale(settings: Settings, *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """Clean up after runs whose process is gone, or only find them: mark them as failed, and delete
    the files that they did not finish. Exports with a run in progress are left alone."""
    with open_instance() as instance:
        lost = lost_runs(dagster_home()) if dry_run else end_lost_runs(instance)
    yield from (_row("lost run", run, 0) for run in lost)
    going_on = [run for run in EventLog().runs() if run.status in IN_PROGRESS]
    busy = set[str]().union(*(run.exports for run in going_on if run.id not in lost))
    for export in settings.exports:
        if export.name in busy:
            continue
        for root in (settings.storage.staging_dir, settings.storage.parquet_dir):
            for file in sorted((root / export.name).rglob("*.part*")):
                row = _row("unfinished file", str(file), file.stat().st_size)
                if not dry_run:
                    file.unlink()
                yield row


def _row(what: str, name: str, size: int) -> dict[str, Any]:
    return {"what": what, "which": name, "size": decimal(size)}


def _staged_in_vain(
    export: Export, staging: StagingFolder, database: BillingDatabase, before: datetime
) -> Iterator[Path]:
    """The folders of versions that the table holds, or that are not the month's newest."""
    for month in reversed(export.months()):
        staged = staging.month(export.name, month)
        manifest = staged.manifest()
        newest = manifest and version_folder(manifest.id)
        for version, folder in staged.versions():
            if datetime.fromtimestamp(_last_change(folder), UTC) >= before:
                continue
            current = staged.current()
            if newest != version or (current and _holds(export, month, current, database)):
                yield folder


def _holds(
    export: Export, month: BillingMonth, version: VersionRecord, database: BillingDatabase
) -> bool:
    with database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.formats)
    return load is not None and load.manifest_id == version.manifest_id


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _superseded(
    export: Export, database: BillingDatabase, before: datetime, *, dry_run: bool
) -> list[tuple[BillingMonth, str]]:
    months = {database.path(export.name, month): month for month in export.months()}
    gone = []
    for path, month in months.items():
        if path.exists():
            with database.connect(export.name, month) as connection:
                connection.execute("BEGIN TRANSACTION")
                gone += ledger.forget_superseded(connection, export.name, _utc(before))
                connection.execute("ROLLBACK" if dry_run else "COMMIT")
    return gone


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)


def _old_runs(instance: dg.DagsterInstance, exports: set[str], before: datetime) -> Iterator[str]:
    """The runs of these exports that ended before and have no stage's last word on any month."""
    needed = EventLog().last_runs()
    wanted = dg.RunsFilter(statuses=_ENDED, created_before=before)
    for record in instance.get_run_records(wanted):
        run = record.dagster_run
        ours = {key.path[0] for key in run.asset_selection or ()} & exports
        if (ours or run.tags.get("finops/export") in exports) and run.run_id not in needed:
            yield run.run_id


def _delete_run(instance: dg.DagsterInstance, run: str, files: list[Path]) -> None:
    """Dagster empties the run's own SQLite file, and leaves it and the captured output lying."""
    instance.delete_run(run)
    instance.compute_log_manager.delete_logs(prefix=[run])
    for file in files:
        file.unlink(missing_ok=True)
