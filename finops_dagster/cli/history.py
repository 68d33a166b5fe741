"""What Dagster's event log says of months and of the runs in progress, and how both are mended."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from finops_dagster.assets import STAGES
from finops_dagster.assets.export import Export
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog
from finops_dagster.code_location import build_definitions
from finops_dagster.runs import INTERRUPTS, is_alive, open_instance, process_of
from finops_dagster.settings import Settings

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED_BADLY = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}


def stages_of(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """What each stage of the one month said last: version, totals, when, by which run, its checks;
    and of a stage that failed since, why."""
    export, month = Export(asked.exports(settings)[0]), BillingMonth.parse(str(asked.start))
    graph = build_definitions(settings).resolve_asset_graph()
    with open_instance() as instance:
        return [
            {
                "stage": stage,
                **_last_words(instance, key, month),
                "checks": _checks(instance, graph, key, month),
                "error": _error(instance, export, stage, month),
            }
            for stage in STAGES
            if graph.has(key := export.key(stage))
        ]


def _last_words(
    instance: dg.DagsterInstance, key: dg.AssetKey, month: BillingMonth
) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[str(month)])
    records = instance.fetch_materializations(wanted, limit=1).records
    told = records[0].asset_materialization if records else None
    if told is None:
        return dict.fromkeys(("version", "outcome", "rows", "cost", "when", "run"))
    said = {name: one.value for name, one in told.metadata.items()}
    return {
        "version": (told.tags or {}).get("dagster/data_version"),
        "outcome": said.get("outcome"),
        "rows": said.get("dagster/partition_row_count", said.get("rows")),
        "cost": said.get("total_cost_exact"),
        "when": f"{datetime.fromtimestamp(records[0].timestamp, UTC):%Y-%m-%d %H:%M:%S}",
        "run": records[0].run_id,
    }


def _checks(
    instance: dg.DagsterInstance, graph: Any, key: dg.AssetKey, month: BillingMonth
) -> str | None:
    keys = sorted(graph.get_check_keys_for_assets({key}))
    found = instance.event_log_storage.get_asset_check_partition_info(
        keys, partition_keys=[str(month)]
    )
    by_status: dict[str, list[str]] = defaultdict(list)
    for one in found:
        by_status[one.latest_execution_status.value].append(one.check_key.name)
    if by_status["FAILED"]:
        return f"failed: {', '.join(by_status['FAILED'])}"
    return f"{len(by_status['SUCCEEDED'])} passed" if by_status["SUCCEEDED"] else None


def _error(
    instance: dg.DagsterInstance, export: Export, stage: str, month: BillingMonth
) -> str | None:
    """Why the stage ended without its month, if it did so after it last had it."""
    run = EventLog().unfinished_runs(export.name)[stage].get(str(month))
    if run is None:
        return None
    failures = instance.get_records_for_run(run, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for record in failures:
        event = record.event_log_entry.dagster_event
        assert event is not None
        failed = str(event.step_key).rpartition("__")[2]
        if failed != stage:
            return f"not reached: {failed} failed"
        told = event.step_failure_data.user_failure_data
        error = event.step_failure_data.error
        if told is not None and told.description:
            return told.description
        return "stopped by a person" if error and error.cls_name in INTERRUPTS else str(error)
    ended = instance.get_records_for_run(run, of_type=_ENDED_BADLY).records
    return ended[-1].event_log_entry.get_dagster_event().message if ended else "in progress"


def runs_in_progress() -> list[dict[str, Any]]:
    """Every run that has not ended: its month, the stage that it is at, its age in seconds, and its
    process on this machine, which is `lost` when it is gone."""
    with open_instance() as instance:
        return _runs_in_progress(instance)


def _runs_in_progress(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    rows = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS)):
        run = record.dagster_run
        process = process_of(instance, run)
        began = record.start_time or record.create_timestamp.timestamp()
        rows.append(
            {
                "run": run.run_id,
                "export": run.tags.get("finops/export"),
                "month": run.tags.get("dagster/partition"),
                "status": run.status.value.lower(),
                "stage": _stage(instance, run.run_id),
                "seconds": round(time.time() - began),
                "process": process and str(process),
                "lost": process is not None and not is_alive(process),
            }
        )
    return rows


def stop_run(run: str) -> str:
    """Ask the run's process to stop, or write down that it is gone; what was done. `run` may be the
    beginning of an id. Raises BillError."""
    with open_instance() as instance:
        return _stop_run(instance, run)


def _stop_run(instance: dg.DagsterInstance, run: str) -> str:
    found = [row for row in _runs_in_progress(instance) if row["run"].startswith(run)]
    if len(found) != 1:
        raise BillError(f"{len(found)} runs in progress have an id that begins with {run!r}")
    (row,) = found
    if row["process"] is not None and not row["lost"]:
        os.kill(int(row["process"]), signal.SIGINT)
        return f"process {row['process']} of run {row['run']} is asked to stop"
    lost = instance.get_run_by_id(row["run"])
    assert lost is not None
    reason = f"process {row['process']} is gone" if row["lost"] else "it never began"
    instance.report_run_failed(lost, f"Ended by finops worker stop: {reason}.")
    return f"run {row['run']} is marked failed: {reason}; run its month again"


def _stage(instance: dg.DagsterInstance, run_id: str) -> str | None:
    started = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_START).records
    if not started:
        return None
    event = started[-1].event_log_entry.dagster_event
    return None if event is None else str(event.step_key).rpartition("__")[2]
