"""One sensor an export: asks for every month that is not loaded as the vendor has it."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import dagster as dg

from finops_dagster.billing.errors import ManifestInvalid, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import end_lost_runs
from finops_dagster.sources.base import AvailableVersion

# A month whose run failed is asked for again after 10 minutes, then later and later: what a run
# could not reach comes back within the hour or within a day, and what is wrong with a bill needs
# the vendor or a person.
_PAUSES = (600, 1800, 7200, 21600, 86400)
_IN_PROGRESS = [
    dg.DagsterRunStatus[name] for name in "QUEUED NOT_STARTED STARTING STARTED CANCELING".split()
]


@dataclass(frozen=True)
class Requested:
    """What the cursor keeps of a month: its version, which is the store's ETag of the manifest, how
    many runs were asked for it, when the last one was, and whether one has loaded it."""

    version: str
    times: int = 0
    last: float = 0
    is_loaded: bool = False

    @classmethod
    def of(cls, kept: Any) -> Requested:
        """Return what a cursor has; earlier releases kept the version alone, once it was asked
        for."""
        return cls(kept, times=1) if isinstance(kept, str) else cls(**kept)

    def is_due(self, now: float) -> bool:
        """Whether a run may be asked for."""
        pauses = (0, *_PAUSES)
        return self.times < len(pauses) and now - self.last >= pauses[self.times]


def manifest_sensor(export: Export, last_stage: str) -> dg.SensorDefinition:
    """Ask for a run of every month whose newest version is not loaded, the newest month first:
    once a version, and again with growing pauses while its runs fail.

    A month that is queued or running is not asked for. A manifest that cannot be read is a failed
    run, where a person looks. The tick fails where the store says no, and where it has no month of
    the export at all.
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
        cursor = {m: Requested.of(kept) for m, kept in json.loads(context.cursor or "{}").items()}
        versions = source_in(stores).versions(export.months())
        newest = versions[max(versions)]
        if isinstance(newest, ManifestMissing) and len(set(map(type, versions.values()))) == 1:
            raise newest
        for version in versions.values():
            if _etag(version) is None and not isinstance(version, ManifestMissing):
                context.log.error(str(version))
        history = _History(context.instance, export, last_stage)
        requests = list(_requests(history, versions, cursor))
        kept = {month: asdict(requested) for month, requested in cursor.items()}
        reason = None if requests else _skip_reason(versions, cursor)
        return dg.SensorResult(
            requests, skip_reason=reason, cursor=json.dumps(kept, sort_keys=True)
        )

    return sensor


def _requests(
    history: _History,
    versions: Mapping[BillingMonth, AvailableVersion],
    cursor: dict[str, Requested],
) -> Iterator[dg.RunRequest]:
    """Yield the runs that are due, the newest month first, and bring the cursor up to date."""
    now, in_progress = time.time(), history.months_in_progress()
    for month, version in sorted(versions.items(), reverse=True):
        key, etag = str(month), _etag(version)
        if etag is None or key in in_progress:
            continue
        requested = cursor.get(key)
        if requested is None or requested.version != etag:
            requested = Requested(etag)
        if requested.is_loaded:
            continue
        if history.is_loaded(key, version):
            requested = replace(requested, is_loaded=True)
        elif requested.is_due(now) and not (requested.times and history.was_stopped(key)):
            # Dagster launches no key twice, and a version that comes back has the ETag again.
            yield dg.RunRequest(f"{key}/{etag}/{now}", partition_key=key)
            requested = replace(requested, times=requested.times + 1, last=now)
        cursor[key] = requested


def _skip_reason(
    versions: Mapping[BillingMonth, AvailableVersion], cursor: Mapping[str, Requested]
) -> str:
    available = [str(month) for month, version in versions.items() if _etag(version)]
    loaded = sum(cursor[month].is_loaded for month in available if month in cursor)
    return f"no run is due: {loaded} of the vendor's {len(available)} months are loaded"


def _etag(version: AvailableVersion) -> str | None:
    """What tells whether a version was written anew; None where there is none."""
    if isinstance(version, Manifest):
        return version.source.etag
    return version.etag if isinstance(version, ManifestInvalid) else None


@dataclass(frozen=True)
class _History:
    """What Dagster knows of the months of an export."""

    instance: dg.DagsterInstance
    export: Export
    last_stage: str

    def months_in_progress(self) -> set[str]:
        """The months that a run is queued for, or is loading, whoever started it."""
        name, months = self.export.name, set()
        for record in self.instance.get_run_records(dg.RunsFilter(statuses=_IN_PROGRESS)):
            run = record.dagster_run
            exports = {key.path[0] for key in run.asset_selection or ()}
            if name in exports or run.tags.get("finops/export") == name:
                months.add(run.tags.get("dagster/partition", ""))
        return months

    def was_stopped(self, month: str) -> bool:
        """Whether a person stopped the month's last run, which is not asked for again."""
        tags = {"finops/export": self.export.name, "dagster/partition": month}
        last = self.instance.get_run_records(dg.RunsFilter(tags=tags), limit=1)
        return any(record.dagster_run.status == dg.DagsterRunStatus.CANCELED for record in last)

    def is_loaded(self, month: str, version: AvailableVersion) -> bool:
        """Whether a run has read this very manifest, and come to the last stage after it."""
        if not isinstance(version, Manifest):
            return False
        read, loaded = self._last("manifest", month), self._last(self.last_stage, month)
        if read is None or loaded is None:
            return False
        assert read.asset_materialization is not None
        metadata = read.asset_materialization.metadata
        was = [metadata[name].value for name in ("last_modified", "bytes") if name in metadata]
        is_same = was == [version.source.last_modified.timestamp(), version.source.size]
        return is_same and read.storage_id <= loaded.storage_id

    def _last(self, stage: str, month: str) -> dg.EventLogRecord | None:
        of_month = dg.AssetRecordsFilter(self.export.key(stage), asset_partitions=[month])
        return next(iter(self.instance.fetch_materializations(of_month, limit=1).records), None)


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
