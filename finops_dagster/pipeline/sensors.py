"""One sensor an export: notices new and restated months by the versions of their manifests."""

import functools
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import (
    ObjectInfo,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.manifest import homes, what_is_there
from finops_dagster.pipeline.runs import end_lost_runs

_REQUESTS_AT_ONCE = 16


def manifest_sensor(export: Export, last_stage: str) -> dg.SensorDefinition:
    """Ask for a run of every month whose manifest is new or was rewritten since the last look, and
    which no run has brought to the last stage since; the newest month first.

    The cursor is JSON, `{month: version}`, the version being the store's ETag of the manifest. What
    the manifest says is the run's to read: one that cannot be read is a failed run. The tick fails
    where the store says no, and where it has no month of the export at all.
    """

    @dg.sensor(
        name=f"{export.settings.group}_manifests",
        job_name=f"{export.settings.group}_month",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING
        if export.settings.sensor
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks for new and restated months of {export.name}.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        known: dict[str, str] = json.loads(context.cursor or "{}")
        months = export.months()
        manifests = manifest_versions(export, months, context.log.error)
        if not manifests:
            raise ManifestMissing(what_is_there(export, months[-1]))
        etags = {str(month): manifest.etag for month, manifest in manifests.items()}
        requests = [
            dg.RunRequest(f"{month}/{manifest.etag}", partition_key=str(month))
            for month, manifest in manifests.items()
            if known.get(str(month)) != manifest.etag
            and not _is_loaded(context.instance, export, month, manifest, last_stage)
        ]
        return dg.SensorResult(requests, cursor=json.dumps({**known, **etags}, sort_keys=True))

    return sensor


def _is_loaded(
    instance: dg.DagsterInstance,
    export: Export,
    month: BillingMonth,
    manifest: ObjectInfo,
    last_stage: str,
) -> bool:
    """Whether a run has read this very manifest, and come to the last stage after it."""

    def last(stage: str) -> dg.EventLogRecord | None:
        of_month = dg.AssetRecordsFilter(export.key(stage), asset_partitions=[str(month)])
        return next(iter(instance.fetch_materializations(of_month, limit=1).records), None)

    read, done = last("manifest"), last(last_stage)
    if read is None or done is None or read.storage_id > done.storage_id:
        return False
    assert read.asset_materialization is not None
    metadata = read.asset_materialization.metadata
    was = [metadata[name].value for name in ("last_modified", "bytes") if name in metadata]
    return was == [manifest.last_modified.timestamp(), manifest.size]


def lost_runs_sensor() -> dg.SensorDefinition:
    """Ends what `finops` began in a process that was killed: Dagster would wait for it for hours,
    and give its place in the queue to nobody."""

    @dg.sensor(
        name="lost_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends the runs of terminals on this machine whose process is gone.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lost = end_lost_runs(context.instance)
        return dg.SkipReason(f"ended {', '.join(lost)}" if lost else "no run is lost")

    return sensor


def manifest_versions(
    export: Export, months: Sequence[BillingMonth], report: Callable[[str], None]
) -> dict[BillingMonth, ObjectInfo]:
    """The version of each month's manifest, by one HEAD request for every month that has a folder,
    side by side, after one LIST of these folders; the newest month first.

    Months without a manifest are left out; one that cannot be looked at is reported and left out.
    Where none can be looked at, the store itself is at fault, and its error is raised.
    """
    store, _ = export.store
    versions: dict[BillingMonth, ObjectInfo] = {}
    errors: list[Exception] = []

    def look(month: BillingMonth, keys: list[str]) -> None:
        for key in keys:
            try:
                versions[month] = store.head(key)
            except ObjectMissing:
                continue
            except (StoreError, StoreUnavailable) as error:
                errors.append(error)
            return

    there = _keys_in_folders_that_are_there(export, months)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        list(pool.map(look, there.keys(), there.values()))
    if len(errors) == len(there) > 0:
        raise errors[0]
    for error in errors:
        report(str(error))
    return dict(sorted(versions.items(), reverse=True))


def _keys_in_folders_that_are_there(
    export: Export, months: Sequence[BillingMonth]
) -> dict[BillingMonth, list[str]]:
    """The keys that a month's manifest may have; no folder is listed twice, and no old version."""
    store, prefix = export.store
    listed = functools.cache(store.folders)

    def is_there(folder: str, home: str) -> bool:
        parent, _, name = folder.rpartition("/")
        return folder == home or (is_there(parent, home) and name in listed(parent))

    keys: dict[BillingMonth, list[str]] = {}
    for home, formats in homes(export, prefix).items():
        for month in months:
            for key in formats[0].manifest_keys(home, export.aws.export_name, month):
                if is_there(key.rpartition("/")[0], home):
                    keys.setdefault(month, []).append(key)
    return keys
