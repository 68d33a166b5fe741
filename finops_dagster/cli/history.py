"""What happened to a month stage by stage, and the runs in progress and how one is ended."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from typing import Any

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog, Materialization, metadata_of
from finops_dagster.cli.failures import reason, stage_of_step
from finops_dagster.cli.held import last_stage
from finops_dagster.cli.restatement import restatement_of, summary
from finops_dagster.cli.stage_times import stage_seconds, usual_time
from finops_dagster.pipeline import STAGES
from finops_dagster.processes import is_here, is_lost
from finops_dagster.settings import Settings, dagster_home

IN_PROGRESS = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def stages_of(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """What each stage of the one month said last: version, totals, when, by which run, its checks;
    and of a stage that failed since, why."""
    export, month, log = asked.exports(settings)[0].name, str(asked.start), EventLog()
    told, checks = log.materializations(month)[export], log.checks(export, month)
    return [
        {
            "stage": stage,
            **_last_words(told[stage].get(month)),
            "checks": _checks(checks[stage]),
            "error": reason(log, log.unfinished_runs(export)[stage].get(month), stage),
        }
        for stage in STAGES[: STAGES.index(last_stage(settings)) + 1]
    ]


def stages_at_a_glance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stages for a table: what a restatement changed, in words."""
    return [
        {
            **{name: row[name] for name in ("stage", "version", "outcome", "rows", "cost")},
            "restatement": summary(row),
            **{name: row[name] for name in ("when", "run", "checks", "error")},
        }
        for row in rows
    ]


def _last_words(told: Materialization | None) -> dict[str, Any]:
    if told is None:
        return {
            **dict.fromkeys(("version", "outcome", "rows", "cost")),
            **restatement_of({}),
            **dict.fromkeys(("when", "run")),
        }
    said = told.metadata
    return {
        "version": told.version,
        "outcome": said.get("outcome"),
        "rows": said.get("dagster/partition_row_count", said.get("rows")),
        "cost": said.get("total_cost_exact"),
        **restatement_of(said),
        "when": told.at,
        "run": told.run,
    }


def _checks(status_of: dict[str, str]) -> str | None:
    failed = [name for name, status in status_of.items() if status == "FAILED"]
    if failed:
        return f"failed: {', '.join(failed)}"
    passed = sum(status == "SUCCEEDED" for status in status_of.values())
    return f"{passed} passed" if passed else None


def runs_in_progress(export: str | None = None) -> list[dict[str, Any]]:
    """Return every run that has not ended, or those of one export: its month, the stage that it is
    at, its age in seconds, when it should end by the median times of its stages, and its process on
    this machine, which is `lost` when it is gone."""
    log, home = EventLog(), dagster_home()
    rows, seconds = [], None
    for run in log.runs():
        if run.status not in IN_PROGRESS or (export is not None and export not in run.exports):
            continue
        seconds = seconds or stage_seconds(log)
        usual, is_started = usual_time(seconds, run.exports), run.status == "STARTED"
        end = run.began + usual if usual is not None and is_started else None
        process, stage = None, None
        for of_type, step, event in log.events_of(run.id):
            if of_type == "ENGINE_EVENT":
                process = metadata_of(event["event_specific_data"]).get("pid", process)
            elif of_type == "STEP_START":
                stage = stage_of_step(step)
        rows.append(
            {
                "run": run.id,
                "export": ", ".join(sorted(run.exports)) or None,
                "month": run.month,
                "status": run.status.lower(),
                "stage": stage,
                "seconds": round((datetime.now(UTC) - run.began).total_seconds()),
                "estimated_completion": end,
                "process": process if is_here(home, run.id) else None,
                "lost": is_lost(home, run.id),
            }
        )
    return rows


def at_a_glance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs in progress for a table: the beginning of the id, which `stop` takes too."""
    return [
        {
            "run": row["run"][:8],
            **{name: row[name] for name in ("export", "month", "status", "stage", "seconds")},
            "done_by": row["estimated_completion"] and f"{row['estimated_completion'][11:16]}Z",
            "process": "lost" if row["lost"] else row["process"] and str(row["process"]),
        }
        for row in rows
    ]


def stop_run(run: str) -> str:
    """Ask the run's process to stop, or write down that it is gone; what was done. `run` may be the
    beginning of an id. Raises BillError."""
    found = [row for row in runs_in_progress() if row["run"].startswith(run)]
    if len(found) != 1:
        raise BillError(f"{len(found)} runs in progress have an id that begins with {run!r}")
    (row,) = found
    if row["process"] is not None and not row["lost"]:
        os.kill(int(row["process"]), signal.SIGINT)
        return f"process {row['process']} of run {row['run']} is asked to stop"
    from finops_dagster.pipeline.runs import open_instance

    why = "no process of this machine has it"
    if row["lost"]:
        why = f"process {row['process']} is gone" if row["process"] else "its process is gone"
    with open_instance() as instance:
        lost = instance.get_run_by_id(row["run"])
        assert lost is not None
        instance.report_run_failed(lost, f"Ended by finops worker stop: {why}.")
    return f"run {row['run']} is marked failed: {why}; run its month again"
