"""The runs of the months as they were: when each began, how long it took, how it ended, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog, Run
from finops_dagster.cli.failures import ending
from finops_dagster.settings import Settings


def past_runs(settings: Settings, asked: Asked, most: int | None = None) -> list[dict[str, Any]]:
    """Return the runs of the months, the newest run first: a row for each export of a run. Times
    are in UTC; of a run that has not ended, `seconds` are those until now."""
    months = {
        export.name: set(map(str, asked.months(export))) for export in asked.exports(settings)
    }
    log = EventLog()
    chosen = [
        (export, run)
        for run in log.runs()
        for export in sorted(run.exports & months.keys())
        if run.month in months[export]
    ]
    return [_row(log, export, run) for export, run in chosen[:most]]


def _row(log: EventLog, export: str, run: Run) -> dict[str, Any]:
    stage, reason = ending(log, run.id)
    return {
        "export": export,
        "month": run.month,
        "run": run.id,
        "start": run.began,
        "seconds": round(((run.ended or datetime.now(UTC)) - run.began).total_seconds(), 1),
        "status": run.status.lower(),
        "last_stage": stage,
        "reason": reason,
    }
