"""The sensor of an export, which requests runs of new versions and of missing charges."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import dagster as dg

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError, ManifestInvalid, ManifestMissing, excerpts
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.focus.exports import focus_derivation
from finops_dagster.focus.month import ChargesRecord
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline import FOCUS_STAGES
from finops_dagster.pipeline.checks import manifest_is_fresh
from finops_dagster.pipeline.export import Export
from finops_dagster.run_sizes import RunSize, tags_of_size
from finops_dagster.sources.base import ManifestOrError, Source
from finops_dagster.tables.database import DuckDB

# Seconds until a month whose run failed is requested again: a network or a server recovers within
# an hour or a day, but a defect of the bill needs a new delivery, or somebody who looks at it.
_PAUSES = (600, 1800, 7200, 21600, 86400)
# The metadata of the object that a run has read as the month's manifest.
_OBJECT_KEYS = ("manifest", "last_modified", "bytes")
TagsOfMonth = Callable[[BillingMonth], dict[str, str]]
"""A function from a month to the tags of its run."""
_IN_PROGRESS = [
    dg.DagsterRunStatus[name] for name in "QUEUED NOT_STARTED STARTING STARTED CANCELING".split()
]


@dataclass(frozen=True)
class RequestedMonth:
    """An entry of the sensor's cursor: the runs requested for a month's version, or its charges.

    `version` is the manifest's ETag; of charges, the bill's version and the mapping's. `times` is
    the number of runs that were requested for it, `last` the time of the last request in seconds
    since 1970, and `is_loaded` whether a run has loaded it. An entry for `manifest_is_fresh` has
    only the ETag of a manifest that is too old. The cursor is stored as JSON, so these names stay.
    """

    version: str
    times: int = 0
    last: float = 0
    is_loaded: bool = False

    @classmethod
    def from_json(cls, entry: Any) -> RequestedMonth:
        """Return an entry of the cursor from its JSON: an object, or the ETag in old releases."""
        # Earlier releases stored the ETag alone, once they had requested it.
        return cls(entry, times=1) if isinstance(entry, str) else cls(**entry)

    def may_request(self, now: float) -> bool:
        """Return whether a run may be requested now: one at once, five more after longer pauses.

        `is_loaded` is not considered. `now` is in seconds since 1970.
        """
        pauses = (0, *_PAUSES)
        return self.times < len(pauses) and now - self.last >= pauses[self.times]


def manifest_sensor(
    export: Export, last_stage: str, run_sizes: Sequence[RunSize] = ()
) -> dg.SensorDefinition:
    """Return the sensor that requests a run of every month whose newest version is not loaded.

    A version is loaded once a run has completed `last_stage`. Up to six runs of it are requested,
    with growing pauses, until it is loaded or its run was canceled. The newest month comes first;
    months with a run in progress are skipped. A run is requested for a month with an invalid
    manifest too: people see its failure, but not the sensor's log. The tick fails if the store
    refuses access, or has no month of the export at all.

    If only the charges are missing, or the bill or the mapping has changed since they were derived,
    runs of their stages alone are requested, in the same way. Each run has the tags of its month's
    size among `run_sizes`.

    The tick itself evaluates the check `manifest_is_fresh` once the newest manifest is too old, as
    no run does while the vendor delivers nothing.
    """
    # A source remembers the manifests that it read: an unchanged one costs one conditional GET.
    sources: dict[ObjectStores, Source] = {}
    keys = [export.resource_key(name) for name in ("stores", "staging", "lake", "database")]

    @dg.sensor(
        name=f"{export.settings.dagster_name}_manifests",
        job_name=f"{export.settings.dagster_name}_month",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING
        if export.settings.sensor
        else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={*keys},
        description=f"Requests a run for each new or restated month of {export.name}.",
    )
    def sensor(context: dg.SensorEvaluationContext, **_resources: object) -> dg.SensorResult:
        # Dagster passes the resources as arguments only where a test calls the sensor.
        stores, staging, lake, database = (getattr(context.resources, key) for key in keys)
        cursor = _read_cursor(context.cursor)
        if stores not in sources:
            sources[stores] = export.source(stores, staging, lake, database)
        source = sources[stores]
        manifests = source.newest_manifests(export.months())
        newest = manifests[max(manifests)]
        if isinstance(newest, ManifestMissing) and len(set(map(type, manifests.values()))) == 1:
            raise newest
        for manifest in manifests.values():
            if _etag(manifest) is None and not isinstance(manifest, ManifestMissing):
                context.log.error(str(manifest))
        history = _ExportHistory(context.instance, export, last_stage)
        tags = _tags_of_sizes(run_sizes, export, lake)
        requests = list(_requests(history, manifests, cursor, tags))
        requests += _focus_requests(history, lake, cursor, requests, tags)
        stale = _stale_evaluations(export, manifests, cursor, source.max_manifest_age)
        document = {month: asdict(requested) for month, requested in cursor.items()}
        reason = None if requests else _skip_reason(manifests, cursor)
        cursor_text = json.dumps(document, sort_keys=True)
        return dg.SensorResult(requests, skip_reason=reason, cursor=cursor_text, asset_events=stale)

    return sensor


def _tags_of_sizes(sizes: Sequence[RunSize], export: Export, lake: Lake) -> TagsOfMonth:
    """Return a function from a month to the tags of its run's size.

    A month is as large as its version in the lake, or else as that of the newest month before it.
    """
    months = export.months()

    def tags(month: BillingMonth) -> dict[str, str]:
        if not sizes:
            return {}
        earlier = reversed(months[: months.index(month) + 1])
        versions = (lake.file(export.name, m).version() for m in earlier)
        return tags_of_size(sizes, next((v.byte_count for v in versions if v is not None), None))

    return tags


def _read_cursor(cursor: str | None) -> dict[str, RequestedMonth]:
    return {
        month: RequestedMonth.from_json(entry)
        for month, entry in json.loads(cursor or "{}").items()
    }


def _requests(
    history: _ExportHistory,
    manifests: Mapping[BillingMonth, ManifestOrError],
    cursor: dict[str, RequestedMonth],
    tags: TagsOfMonth,
) -> Iterator[dg.RunRequest]:
    """Yield the runs to request, the newest month first, and update `cursor`."""
    now, in_progress = time.time(), history.months_in_progress
    for month, manifest in sorted(manifests.items(), reverse=True):
        key, etag = str(month), _etag(manifest)
        if etag is None or key in in_progress:
            continue
        requested = cursor.get(key)
        if requested is None or requested.version != etag:
            requested = RequestedMonth(etag)
        if requested.is_loaded:
            continue
        if history.has_load_of(key, manifest):
            requested = replace(requested, is_loaded=True)
        elif requested.may_request(now) and not (requested.times and history.was_canceled(key)):
            # Dagster never launches a run key twice, but a version may be due again: after a
            # failure, or because the vendor went back to it. So the key has the time too.
            yield dg.RunRequest(f"{key}/{etag}/{now}", partition_key=key, tags=tags(month))
            requested = replace(requested, times=requested.times + 1, last=now)
        cursor[key] = requested


def _focus_requests(
    history: _ExportHistory,
    lake: Lake,
    cursor: dict[str, RequestedMonth],
    requests: Sequence[dg.RunRequest],
    tags: TagsOfMonth,
) -> list[dg.RunRequest]:
    """Return the runs to request for charges alone, the newest month first; update `cursor`.

    `requests` are those of all stages, which derive the charges too. So does the retry of one
    that was requested lately, whose process is gone.
    """
    now, focus_requests = time.time(), list[dg.RunRequest]()
    due_versions = _due_charges(history.export, lake)
    if not due_versions:
        return []
    busy = history.months_in_progress | {request.partition_key for request in requests}
    busy |= {month for month, bill in cursor.items() if now - bill.last < _PAUSES[0]}
    for month, version in sorted(due_versions.items(), reverse=True):
        key = f"{month} focus"
        requested = cursor.get(key)
        if requested is None or requested.version != version:
            requested = RequestedMonth(version)
        is_due = requested.may_request(now) and month not in busy
        if is_due and not (requested.times and history.was_canceled(month)):
            focus_requests.append(
                dg.RunRequest(
                    f"{key}/{version}/{now}",
                    partition_key=month,
                    tags=tags(BillingMonth.parse(month)),
                    asset_selection=list(map(history.export.asset_key, history.focus_stages)),
                )
            )
            requested = replace(requested, times=requested.times + 1, last=now)
        cursor[key] = requested
    return focus_requests


def _stale_evaluations(
    export: Export,
    manifests: Mapping[BillingMonth, ManifestOrError],
    cursor: dict[str, RequestedMonth],
    max_age: timedelta,
) -> list[dg.AssetCheckEvaluation]:
    """Return the failed `manifest_is_fresh` of the month in progress if the newest manifest is old.

    `cursor` is updated: the check is evaluated once for each manifest, not at each tick. It passes
    again with the run of the next manifest.
    """
    current = BillingMonth.current()
    found = {month: item for month, item in manifests.items() if isinstance(item, Manifest)}
    if current not in manifests or not found:
        return []
    newest, key = found[max(found)], f"{current} stale"
    result = manifest_is_fresh(newest, current, max_age)
    evaluated = RequestedMonth(newest.source.etag)
    if result.passed or cursor.get(key) == evaluated:
        return []
    cursor[key] = evaluated
    return [
        dg.AssetCheckEvaluation(
            asset_key=export.asset_key("manifest"),
            check_name=str(result.check_name),
            passed=False,
            severity=result.severity,
            description=result.description,
            partition=str(current),
        )
    ]


def _due_charges(export: Export, lake: Lake) -> dict[str, str]:
    """Return the loaded months whose charges are missing, or of another bill or mapping.

    The value of each is the versions of the bills and of the mapping from which they are to be
    derived. Only footers of files are read.
    """
    versions_by_month = {}
    for month in export.months() if export.has_focus else ():
        with suppress(BillError):  # The bill is not loaded, or has no mapping.
            derivation = focus_derivation(export.settings, month, lake, DuckDB())
            record = ChargesRecord.from_file(derivation.charges_file)
            if record is None or derivation.outdated_reason(record) is not None:
                versions = [version.manifest_id for version in derivation.bill_versions().values()]
                versions_by_month[str(month)] = " ".join([*versions, derivation.mapping.version])
    return versions_by_month


def _skip_reason(
    manifests: Mapping[BillingMonth, ManifestOrError], cursor: Mapping[str, RequestedMonth]
) -> str:
    available = [str(month) for month, manifest in manifests.items() if _etag(manifest)]
    missing = [month for month in available if month not in cursor or not cursor[month].is_loaded]
    loaded = len(available) - len(missing)
    reason = f"no run is due: {loaded} of the vendor's {len(available)} months are loaded"
    return f"{reason}; see the last runs of {excerpts(missing, 12)}" if missing else reason


def _etag(manifest: ManifestOrError) -> str | None:
    """Return the ETag of a manifest, also of an invalid one; None if the month has none."""
    if isinstance(manifest, Manifest):
        return manifest.source.etag
    return manifest.etag if isinstance(manifest, ManifestInvalid) else None


@dataclass(frozen=True)
class _ExportHistory:
    """The runs and materializations of an export in Dagster's event log."""

    instance: dg.DagsterInstance
    export: Export
    last_stage: str

    @property
    def focus_stages(self) -> Sequence[str]:
        """The stages of the charges; also if the export has none."""
        return FOCUS_STAGES if self.last_stage == "warehouse_table" else FOCUS_STAGES[:1]

    @cached_property
    def months_in_progress(self) -> set[str]:
        """The months with a queued or running run, also of runs that `finops` started.

        They are read once, before the lake: a run that ends in between counts as in progress.
        """
        name, months = self.export.name, set()
        for record in self.instance.get_run_records(dg.RunsFilter(statuses=_IN_PROGRESS)):
            run = record.dagster_run
            exports = {key.path[0] for key in run.asset_selection or ()}
            if name in exports or run.tags.get("finops/export") == name:
                months.add(run.tags.get("dagster/partition", ""))
        return months

    def was_canceled(self, month: str) -> bool:
        """Return whether the last run of the export's job for the month was canceled.

        Runs of single assets that the UI started do not count.
        """
        tags = {"finops/export": self.export.name, "dagster/partition": month}
        records = self.instance.get_run_records(dg.RunsFilter(tags=tags), limit=1)
        return any(record.dagster_run.status == dg.DagsterRunStatus.CANCELED for record in records)

    def has_load_of(self, month: str, manifest: ManifestOrError) -> bool:
        """Return whether a run has read this manifest, and its version completed the last stage.

        A run that read an older manifest may have completed it since: that does not count.
        """
        if not isinstance(manifest, Manifest):
            return False
        manifest_record = self._last_materialization("manifest", month)
        last_record = self._last_materialization(self.last_stage, month)
        if manifest_record is None or last_record is None:
            return False
        assert manifest_record.asset_materialization is not None
        metadata = manifest_record.asset_materialization.metadata
        recorded = [metadata[key].value for key in _OBJECT_KEYS if key in metadata]
        source = manifest.source
        newest = [source.location, source.last_modified.timestamp(), source.size]
        is_since = manifest_record.storage_id <= last_record.storage_id
        is_of_manifest = is_version_of(_data_version(last_record), _data_version(manifest_record))
        return recorded == newest and is_since and is_of_manifest

    def _last_materialization(self, stage: str, month: str) -> dg.EventLogRecord | None:
        month_filter = dg.AssetRecordsFilter(self.export.asset_key(stage), asset_partitions=[month])
        records = self.instance.fetch_materializations(month_filter, limit=1).records
        return next(iter(records), None)


def _data_version(record: dg.EventLogRecord) -> str:
    """Return the version id of a materialization."""
    event = record.asset_materialization
    return str(((event and event.tags) or {}).get("dagster/data_version"))
