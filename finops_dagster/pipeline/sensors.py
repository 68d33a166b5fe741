"""One sensor an export: notices new and restated months by the versions of their manifests."""

import functools
import json

import dagster as dg

from finops_dagster.billing.errors import ManifestInvalid, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import end_lost_runs
from finops_dagster.sources.base import Version


def manifest_sensor(export: Export, last_stage: str) -> dg.SensorDefinition:
    """Ask for a run of every month whose manifest is new or was rewritten since the last look, and
    which no run has brought to the last stage since; the newest month first.

    The cursor is JSON, `{month: version}`, the version being the store's ETag of the manifest. One
    that cannot be read is a failed run, where a person looks. The tick fails where the store says
    no, and where it has no month of the export at all.
    """
    source_in = functools.cache(export.source)  # which keeps what it has read between ticks

    @dg.sensor(
        name=f"{export.settings.group}_manifests",
        job_name=f"{export.settings.group}_month",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING
        if export.settings.sensor
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks for new and restated months of {export.name}.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, stores: dg.ResourceParam[ObjectStores]
    ) -> dg.SensorResult:
        known: dict[str, str] = json.loads(context.cursor or "{}")
        versions = source_in(stores).versions(export.months())
        newest = versions[max(versions)]
        if isinstance(newest, ManifestMissing) and len(set(map(type, versions.values()))) == 1:
            raise newest
        requests = []
        for month, version in sorted(versions.items(), reverse=True):
            etag = _etag(version)
            if etag is None and not isinstance(version, ManifestMissing):
                context.log.error(str(version))
            if etag in (None, known.get(str(month))):
                continue
            known[str(month)] = etag
            if not _is_loaded(context.instance, export, month, version, last_stage):
                requests.append(dg.RunRequest(f"{month}/{etag}", partition_key=str(month)))
        return dg.SensorResult(requests, cursor=json.dumps(known, sort_keys=True))

    return sensor


def _etag(version: Version) -> str | None:
    """What tells whether a version was written anew; None where there is none."""
    if isinstance(version, Manifest):
        return version.source.etag
    return version.etag if isinstance(version, ManifestInvalid) else None


def _is_loaded(
    instance: dg.DagsterInstance,
    export: Export,
    month: BillingMonth,
    version: Version,
    last_stage: str,
) -> bool:
    """Whether a run has read this very manifest, and come to the last stage after it."""

    def last(stage: str) -> dg.EventLogRecord | None:
        of_month = dg.AssetRecordsFilter(export.key(stage), asset_partitions=[str(month)])
        return next(iter(instance.fetch_materializations(of_month, limit=1).records), None)

    read, done = last("manifest"), last(last_stage)
    if read is None or done is None or read.storage_id > done.storage_id:
        return False
    if not isinstance(version, Manifest):
        return False
    assert read.asset_materialization is not None
    metadata = read.asset_materialization.metadata
    was = [metadata[name].value for name in ("last_modified", "bytes") if name in metadata]
    return was == [version.source.last_modified.timestamp(), version.source.size]


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
