"""The daily upkeep: a backup of all months' records, a cleanup, the removal of old backups."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, escaped
from finops_dagster.object_stores import (
    ObjectInfo,
    StoreError,
    StoreUnavailable,
    WritableStore,
    open_store,
)
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.pipeline import RUN_TAGS
from finops_dagster.pipeline.history import History
from finops_dagster.settings import Settings

if TYPE_CHECKING:
    from finops_dagster.cli.changes import LoggedChanges

# The name of a backup has the time at which it was written, which a copy of the file keeps.
_NAME = "state-%Y%m%dT%H%M%SZ.json"


def upkeep_definitions(settings: Settings) -> dg.Definitions:
    """Return the asset of the newest backup, its job, and the schedule `state_upkeep`.

    The schedule runs the job each day at 4:00 UTC. `upkeep.schedule` says whether it is on at
    first.
    """

    @dg.asset(key="state_backup", group_name="state", kinds={"json"}, owners=["team:finops"])
    def state_backup(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """Write the records of all months to a file, and delete what no month needs."""
        try:
            backup, changes = _run_upkeep(settings, History(context.instance))
        except (BillError, StoreError, StoreUnavailable, OSError) as error:
            message = memory_or_disk_problem(error) or str(error)
            raise dg.Failure(escaped(message), allow_retries=False) from None
        for line in changes.lines:
            context.log.info(line)
        return dg.MaterializeResult(
            metadata={
                "backup": backup.location,
                "bytes": backup.size,
                "deleted": len(changes.lines),
                "changes": dg.MetadataValue.json(changes.lines),
            }
        )

    job = dg.define_asset_job(
        "state_upkeep",
        selection=["state_backup"],
        description="Writes a backup of the state, and cleans up.",
        tags=RUN_TAGS,
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name="state_upkeep",
        job=job,
        cron_schedule="0 4 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING
        if settings.upkeep.schedule
        else dg.DefaultScheduleStatus.STOPPED,
        description="Writes a backup of the state and cleans up, each day at 4:00 UTC.",
    )
    return dg.Definitions(assets=[state_backup], jobs=[job], schedules=[schedule])


def _run_upkeep(settings: Settings, history: History) -> "tuple[ObjectInfo, LoggedChanges]":
    """Write a backup, clean up, delete old backups; return the backup and what was deleted.

    Nothing is deleted before the backup is stored. Raises BillError, StoreError, StoreUnavailable
    and OSError; what was deleted until then is logged.
    """
    # The commands import typer, which the code location does not need.
    from finops_dagster.cli.changes import logging_changes
    from finops_dagster.cli.cleanup import delete_unneeded_data

    limits, (store, folder) = settings.upkeep, backup_store(settings)
    backup = _write_backup(settings, history, store, folder)
    with logging_changes("state upkeep") as changes:
        older_than = timedelta(days=limits.cleanup_days)
        for row, stage in delete_unneeded_data(
            settings, history, older_than=older_than, dry_run=False
        ):
            changes.add(f"{row['what']} {row['which']}", stage)
        for old in _old_backups(store, folder, timedelta(days=limits.backup_days)):
            store.delete(old.key)
            changes.add(f"backup {old.location}")
    return backup, changes


def backup_store(settings: Settings) -> tuple[WritableStore, str]:
    """Return the store of the backups and their folder in it; nothing is connected to.

    Raises StoreError if the client package of the store or its credentials are missing.
    """
    chosen = settings.upkeep.backup_dir
    address = settings.storage.parquet_dir if chosen is None else chosen
    if isinstance(address, Path):
        source = StoreSettings(source=f"file://{address.resolve()}")
    else:
        keys = settings.storage.lake.store_settings if address.startswith("s3://") else {}
        source = StoreSettings(source=address, **keys)
    store, folder = open_store(source)
    return store, folder if chosen is not None else f"{folder}/backups".lstrip("/")


def _write_backup(
    settings: Settings, history: History, store: WritableStore, folder: str
) -> ObjectInfo:
    from finops_dagster.cli.options import Selection
    from finops_dagster.cli.state_export import state_records
    from finops_dagster.cli.state_file import write_records

    staging = settings.storage.staging_dir
    staging.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=staging, prefix=".state-") as scratch:
        file = Path(scratch, f"{datetime.now(UTC):{_NAME}}")
        write_records(state_records(settings, Selection(), history), file)
        return store.upload(file, f"{folder}/{file.name}".lstrip("/"))


def _old_backups(store: WritableStore, folder: str, age: timedelta) -> Iterator[ObjectInfo]:
    """Yield the backups that are older than `age`; other files of the folder are left alone."""
    for info in store.files(folder):
        try:
            written = datetime.strptime(info.key.rpartition("/")[2], _NAME)
        except ValueError:
            continue
        if written.replace(tzinfo=UTC) < datetime.now(UTC) - age:
            yield info
