"""`finops state cleanup`: delete what no month needs any more, and nothing that one stands on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.filesize import decimal

from finops_dagster.billing.manifest import version_folder
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.history import History, open_history
from finops_dagster.cli.output import Row
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.build import Resources, build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.processes import lost_runs
from finops_dagster.settings import Settings, dagster_home
from finops_dagster.tables import ledger
from finops_dagster.tables.load import held_version


def clean(settings: Settings, *, older_than: timedelta, dry_run: bool) -> Iterator[Row]:
    """Delete, or only find, what is older: a row each when it is gone, with the bytes that it took
    on disk."""
    before = datetime.now(UTC) - older_than
    resources = build_resources(settings)
    for export in map(Export, settings.exports):
        for folder in _unneeded_versions(export, resources, before):
            row = _row("staged files", str(folder), _bytes(folder.iterdir()))
            if not dry_run:
                shutil.rmtree(folder)
            yield row
        for month, version in _superseded(export, resources, before, dry_run=dry_run):
            yield _row("superseded version", f"{export.name} {month} {version}", 0)
    with open_history() as history:
        for run in _old_runs(history, settings, before):
            files = list((dagster_home() / "history" / "runs").glob(f"{run}.db*"))
            row = _row("run", run, _bytes(files))
            if not dry_run:
                history.delete(run)
                for file in files:  # which Dagster empties, and leaves
                    file.unlink(missing_ok=True)
            yield row


def clean_stale(settings: Settings, *, dry_run: bool) -> Iterator[Row]:
    """Clean up after runs whose process is gone, or only find them: mark them as failed, and delete
    the files that they did not finish. Exports with a run in progress are left alone."""
    with open_history() as history:
        lost = lost_runs(dagster_home()) if dry_run else history.end_lost()
        going_on = [run for run in history.runs if run.is_in_progress and run.id not in lost]
    yield from (_row("lost run", run, 0) for run in lost)
    busy = {export for run in going_on for export in run.stages}
    for export in settings.exports:
        for root in (settings.storage.staging_dir, settings.storage.parquet_dir):
            unfinished = () if export.name in busy else (root / export.name).rglob("*.part*")
            for file in sorted(unfinished):
                row = _row("unfinished file", str(file), _bytes([file]))
                if not dry_run:
                    file.unlink()
                yield row


def _row(what: str, name: str, size: int) -> Row:
    return {"what": what, "which": name, "size": decimal(size)}


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _unneeded_versions(export: Export, resources: Resources, before: datetime) -> Iterator[Path]:
    """Yield the folders of versions that the table holds, or that are not the month's newest."""
    for month in reversed(export.months()):
        staged = resources.staging.month(export.name, month)
        manifest = staged.manifest()
        for version, folder in staged.versions():
            changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if datetime.fromtimestamp(changed, UTC) >= before:
                continue
            current = staged.current()
            is_newest = manifest is not None and version == version_folder(manifest.id)
            if not is_newest or (
                current and current.manifest_id == _in_table(export, month, resources)
            ):
                yield folder


def _in_table(export: Export, month: BillingMonth, resources: Resources) -> str | None:
    with resources.database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.formats)
    return load.manifest_id if load else None


def _superseded(
    export: Export, resources: Resources, before: datetime, *, dry_run: bool
) -> list[tuple[BillingMonth, str]]:
    """Forget the versions that were replaced before, or only find them."""
    months = {resources.database.path(export.name, month): month for month in export.months()}
    gone = []
    for path, month in months.items():
        if path.exists():
            with resources.database.connect(export.name, month) as connection:
                connection.execute("BEGIN TRANSACTION")
                gone += ledger.forget_superseded(
                    connection, export.name, before.replace(tzinfo=None)
                )
                connection.execute("ROLLBACK" if dry_run else "COMMIT")
    return gone


def _old_runs(history: History, settings: Settings, before: datetime) -> Iterator[str]:
    """Yield the runs that ended before, and are no month's last word on any stage."""
    months = {export.name: set(map(str, export.months())) for export in settings.exports}
    needed = {
        made.run
        for export, of_export in months.items()
        for by_month in history.materializations(export, of_export).values()
        for made in by_month.values()
    }
    for (export, _), runs in history.by_month.items():
        for stage in STAGES:
            needed |= {run.id for run in [r for r in runs if stage in r.stages[export]][:1]}
    for run in history.runs:
        is_ours = run.stages.keys() & months.keys()
        if is_ours and run.ended and run.began < before and run.id not in needed:
            yield run.id
