"""Why a run failed, from what Dagster's event log keeps of it."""

from __future__ import annotations

from typing import Any

from finops_dagster.cli.event_log import EventLog, metadata_of
from finops_dagster.processes import INTERRUPTS


def reason(log: EventLog, run: str | None, stage: str) -> str | None:
    """Say why a run has not done a stage: its failure, that of a stage before it, or that it is in
    progress, and then what it is trying again for."""
    if run is None:
        return None
    ended, retried = None, None
    for of_type, step, event in log.events_of(run):
        if of_type == "STEP_FAILURE":
            failed = stage_of_step(step)
            return f"not reached: {failed} failed" if failed != stage else failure(event)[1]
        if of_type == "STEP_UP_FOR_RETRY" and stage_of_step(step) == stage:
            retried = _text_of(event["event_specific_data"]["error"])
        if of_type in ("PIPELINE_FAILURE", "PIPELINE_CANCELED"):
            ended = str(event["message"])
    return ended or (f"in progress, trying again: {retried}" if retried else "in progress")


def ending(log: EventLog, run: str) -> tuple[str | None, str | None]:
    """Return the last stage that a run began, and why it did not end well, where it did not."""
    stage, why = None, None
    for of_type, step, event in log.events_of(run):
        if of_type == "STEP_START":
            stage = stage_of_step(step)
        elif of_type == "STEP_FAILURE":
            return stage_of_step(step), failure(event)[1]
        elif of_type in ("PIPELINE_FAILURE", "PIPELINE_CANCELED"):
            why = str(event["message"])
    return stage, why


def failure(event: dict[str, Any]) -> tuple[str, str]:
    """Why a step failed: the name of the cause, and one line that says it."""
    told = event["event_specific_data"]["user_failure_data"]
    error = event["event_specific_data"]["error"] or {"cls_name": None, "message": ""}
    if told is not None and told["description"]:
        return metadata_of(told).get("cause", error["cls_name"]), told["description"]
    if error["cls_name"] in INTERRUPTS:
        return error["cls_name"], "stopped by a person"
    root = _root(error)
    return str(root["cls_name"]), root["message"].strip().partition("\n")[0]


def stage_of_step(step: str | None) -> str:
    """The stage that a step of the run is."""
    return str(step).rpartition("__")[2]


def _root(error: dict[str, Any]) -> dict[str, Any]:
    while error.get("cause"):
        error = error["cause"]
    return error


def _text_of(retry: dict[str, Any]) -> str:
    """The first line of what a retry was requested for, without the name of its class."""
    line = str((retry["cause"] or retry)["message"]).strip().partition("\n")[0]
    return line.partition(": ")[2] or line
