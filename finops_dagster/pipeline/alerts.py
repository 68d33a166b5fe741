"""The sensor that sends alerts: of failed months, silent exports, restatements and the report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import dagster as dg

from finops_dagster.alerts.alert import (
    Alert,
    exceeds_thresholds,
    failed_month_alert,
    restatement_alert,
    silent_export_alert,
)
from finops_dagster.alerts.channels import channels_of
from finops_dagster.alerts.settings import AlertSettings
from finops_dagster.alerts.unsent import TICK_SECONDS, UnsentAlert, send_alerts, split_dropped
from finops_dagster.billing.errors import count_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline import export_stages
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.history import History, Run
from finops_dagster.pipeline.metadata import restatement_from_metadata
from finops_dagster.pipeline.report_alerts import report_alerts
from finops_dagster.pipeline.report_checks import BUDGETS_KEPT, NO_ANOMALIES

# A month that failed earlier is known, or nobody has tried it again since.
_FAILURES_READ = timedelta(days=14)
_MONTHS_READ = 13
_MANIFESTS_READ = 50
_REPORT_CHECKS = BUDGETS_KEPT.name, NO_ANOMALIES.name

AlertStates = Iterator[tuple[str, Alert | None]]
"""The key of each state that an alert is about and that still holds, with the alert.

The alert is None for a failed month whose next run is in progress or was canceled, and for one that
failed too recently: nothing is sent, and the key stays among those that were sent, if it was.
"""


@dataclass
class Cursor:
    """The sensor's cursor, which Dagster stores as JSON: the fields must keep their names.

    `known` has the keys of states that still hold, and whose alerts were sent or are in `unsent`:
    the alerts that a channel did not accept yet. `restatements` has the storage id of the last load
    that was read, and `first_ticks` the seconds since 1970 of the first tick, both by export.
    """

    known: list[str] = field(default_factory=list)
    restatements: dict[str, int] = field(default_factory=dict)
    first_ticks: dict[str, float] = field(default_factory=dict)
    unsent: list[UnsentAlert] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """Return the cursor that the last tick stored as JSON; an empty one if `text` is None."""
        document = json.loads(text or "{}")
        unsent = [
            UnsentAlert(**u | {"alert": Alert(**u["alert"])}) for u in document.pop("unsent", [])
        ]
        return cls(**document, unsent=unsent)


def alerts_sensor(
    settings: AlertSettings, exports: Sequence[Export], last_stage: str, prefix: str = ""
) -> dg.SensorDefinition:
    """Return the sensor that sends the alerts of all exports.

    `last_stage` is the last stage of the bill, and `prefix` begins the sensor's name. An alert that
    a channel refuses is sent again at each tick, through that channel alone. It is given up after
    288 tries, or if 100 newer alerts wait. An alert may be sent twice if a channel did not confirm
    it in 15 seconds, or if the process dies before Dagster has stored the cursor.
    """

    @dg.sensor(
        name=f"{prefix}alerts",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends each alert once: of failed months, silent exports, restatements, "
        "budgets and anomalies.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        end = time.monotonic() + TICK_SECONDS
        cursor, instance = Cursor.from_json(context.cursor), context.instance
        alerts = [*_restatements(settings, exports, instance, cursor.restatements)]
        states = {
            **dict(_failed_months(settings, exports, instance, last_stage)),
            **dict(_silent_exports(settings, exports, instance, cursor.first_ticks)),
            **dict(report_alerts(instance, _REPORT_CHECKS)),
        }
        alerts += [a for key, a in states.items() if a is not None and key not in cursor.known]
        known_keys = [key for key, a in states.items() if a is not None or key in cursor.known]
        channels = channels_of(settings)
        new = [UnsentAlert(alert, [*channels]) for alert in alerts]
        unsent, dropped = split_dropped([*cursor.unsent, *new])
        waiting, problems = send_alerts(unsent, channels, end)
        for problem in [*dropped, *problems]:
            context.log.error(problem)
        document = asdict(replace(cursor, known=known_keys, unsent=waiting))
        sent = len(unsent) - len(waiting)
        reason = f"{count_text(sent, 'alert')} sent; {len(waiting)} to send at the next tick"
        return dg.SensorResult(
            skip_reason="; ".join([reason, *problems]) if unsent else "no new alerts",
            cursor=json.dumps(document, sort_keys=True),
        )

    return sensor


def _failed_months(
    settings: AlertSettings,
    exports: Sequence[Export],
    instance: dg.DagsterInstance,
    last_stage: str,
) -> AlertStates:
    """Find months whose last run failed, and none of whose runs succeeded since the first failure.

    While a run is in progress, after it was canceled, or while the first failure is newer than
    `failed_minutes`, there is no alert: the sensor of the manifests requests a failed month again
    after ten minutes.
    """
    now = datetime.now(UTC)
    history = History(instance, since=now - _FAILURES_READ)
    has_warehouse = last_stage == "warehouse_table"
    all_stages = {
        export.name: export_stages(has_warehouse=has_warehouse, has_focus=export.has_focus)
        for export in exports
    }
    for (export, month), runs in history.month_runs.items():
        stages = all_stages.get(export, ())
        status, reason = history.month_status(export, month, stages)
        if not stages or status == "success":
            continue
        key, failed = f"failed {export} {month}", _failed_runs(runs)
        first = min((run.ended or now for run in failed), default=now)
        is_due = status == "failure" and now - first >= timedelta(minutes=settings.failed_minutes)
        reason = reason or "the run has no message; see its log in the UI"
        yield (
            key,
            failed_month_alert(export, month, reason, len(failed), first, key) if is_due else None,
        )


def _failed_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the failed runs of a month since its last success; `runs` has the newest first."""
    failed = []
    for run in runs:
        if run.status == "success":
            break
        if run.status == "failure":
            failed.append(run)
    return failed


def _silent_exports(
    settings: AlertSettings,
    exports: Sequence[Export],
    instance: dg.DagsterInstance,
    first_ticks: dict[str, float],
) -> AlertStates:
    """Find exports whose newest version is too old; not those whose last month is over.

    The newest version is that of the newest manifest that a run has read in the last 13 months.
    Without one, an export is silent since its first tick; `first_ticks` is updated.
    """
    history, now = History(instance), datetime.now(UTC)
    for export in exports:
        months = export.months()[-_MONTHS_READ:]
        if months[-1] < BillingMonth.current():
            continue
        manifests = history.materializations(export.name, [*map(str, months)], ["manifest"])
        times = [
            manifest.metadata["last_modified"]
            for manifest in manifests["manifest"].values()
            if "last_modified" in manifest.metadata
        ]
        first_tick = first_ticks.setdefault(export.name, now.timestamp())
        newest = datetime.fromtimestamp(max(times, default=first_tick), UTC)
        days, silent_days = (now - newest).days, export.settings.silent_days or settings.silent_days
        if now - newest > timedelta(days=silent_days):
            key = f"silent {export.name} {newest:%Y-%m-%dT%H:%M:%S}"
            yield (
                key,
                silent_export_alert(export.name, newest if times else None, days, silent_days, key),
            )


def _restatements(
    settings: AlertSettings,
    exports: Sequence[Export],
    instance: dg.DagsterInstance,
    positions: dict[str, int],
) -> Iterator[Alert]:
    """Yield restatements above the thresholds since the last tick, and update `positions`.

    The first tick of an export yields none: its restatements so far are no news.
    """
    for export in exports:
        table = export.asset_key("billing_table")
        if export.name not in positions:
            newest = instance.fetch_materializations(table, limit=1).records
            positions[export.name] = newest[0].storage_id if newest else 0
            continue
        loads = dg.AssetRecordsFilter(table, after_storage_id=positions[export.name])
        # At most this many a tick; the rest follows.
        for record in instance.fetch_materializations(loads, 100, ascending=True).records:
            positions[export.name] = record.storage_id
            alert = _restatement(settings, export, instance, record)
            if alert is not None:
                yield alert


def _restatement(
    settings: AlertSettings,
    export: Export,
    instance: dg.DagsterInstance,
    record: dg.EventLogRecord,
) -> Alert | None:
    """Return the alert of a materialization of the billing table; None if it is not worth one."""
    event, month = record.asset_materialization, record.partition_key
    assert event is not None
    assert month is not None
    restatement, version = restatement_from_metadata(event.metadata), _plain(event, "manifest_id")
    if restatement is None or _plain(event, "outcome") != "loaded":
        return None
    previous = dg.AssetRecordsFilter(
        export.asset_key("billing_table"),
        asset_partitions=[month],
        before_storage_id=record.storage_id,
    )
    earlier = instance.fetch_materializations(previous, 1).records
    before = earlier[0].asset_materialization if earlier else None
    if before is not None and _plain(before, "manifest_id") == version:
        return None  # Earlier releases repeated a restatement if the version was loaded again.
    was_final = before is not None and _plain(before, "final")
    if not was_final and not _is_settled(settings, export, instance, record):
        return None
    if not exceeds_thresholds(
        restatement, settings.restatement_percent, settings.restatement_amount
    ):
        return None
    key = f"restated {export.name} {month} {version}"
    return restatement_alert(export.name, month, restatement, key)


def _is_settled(
    settings: AlertSettings,
    export: Export,
    instance: dg.DagsterInstance,
    record: dg.EventLogRecord,
) -> bool:
    """Return whether a load changed a month that was over for `settled_days`.

    The times of the vendor's versions count, and not those of the loads: after weeks without loads,
    a month's usual growth is no restatement. The replaced version must be of after the month.
    """
    event, month = record.asset_materialization, record.partition_key
    assert event is not None
    assert month is not None
    manifests = dg.AssetRecordsFilter(export.asset_key("manifest"), asset_partitions=[month])
    written: dict[object, float] = {}
    for manifest in instance.fetch_materializations(manifests, _MANIFESTS_READ).records:
        version = manifest.asset_materialization
        if version and isinstance(at := _plain(version, "last_modified"), float):
            written.setdefault(_plain(version, "manifest_id"), at)
    end = datetime.combine(BillingMonth.parse(month).next.first_day, datetime.min.time(), UTC)
    settled = end + timedelta(days=settings.settled_days)
    restatement = restatement_from_metadata(event.metadata)
    replaced = written.get(restatement.replaced_id) if restatement else None
    if replaced is not None and replaced < end.timestamp():
        return False
    return written.get(_plain(event, "manifest_id"), record.timestamp) >= settled.timestamp()


def _plain(event: dg.AssetMaterialization, key: str) -> object:
    """Return a plain value of metadata; None where another program recorded the event without."""
    return event.metadata[key].value if key in event.metadata else None
