"""How far all exports are: their progress, what failed and why, how long stages take, restarts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
from jinja2 import Environment, FileSystemLoader
from rich.console import Console

from finops_dagster.assets import STAGES
from finops_dagster.assets.export import Export
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.held import FAILED, last_stage, state
from finops_dagster.cli.history import IN_PROGRESS
from finops_dagster.cli.show import show, text
from finops_dagster.runs import open_instance
from finops_dagster.settings import Settings

Sections = dict[str, list[dict[str, Any]]]


def report(settings: Settings) -> Sections:
    """The tables of the report, by title; seconds are wall time."""
    with open_instance() as instance:
        runs = _runs(instance, settings)
        return {
            "progress": [_progress(settings, export.name) for export in settings.exports],
            "failures by cause": _failures(instance, runs),
            "times": list(_times(instance, settings)),
            "restarts": list(_restarts(runs)),
        }


def _runs(instance: dg.DagsterInstance, settings: Settings) -> dict[str, list[dg.RunRecord]]:
    """The runs of each export, the newest first."""
    return {
        export.name: list(
            instance.get_run_records(dg.RunsFilter(tags={"finops/export": export.name}))
        )
        for export in settings.exports
    }


def _progress(settings: Settings, export: str) -> dict[str, Any]:
    """A month is complete when its last stage holds the version that was read last; the months are
    all since the export's first."""
    rows, last = state(settings, Asked(export=export)), last_stage(settings)
    (chosen,) = Asked(export=export).exports(settings)
    months = len(chosen.months())
    complete = sum(row[last] is not None and row[last] == row["manifest"] for row in rows)
    ended = Counter(row["last run"] for row in rows)
    return {
        "export": export,
        "months": months,
        "complete": complete,
        "rate": f"{complete / months:.0%}",
        "failed": sum(ended[status] for status in FAILED),
        "running": sum(ended.values()) - sum(ended[status] for status in ("success", *FAILED)),
        "rows": sum(row["rows"] or 0 for row in rows),
    }


def _failures(
    instance: dg.DagsterInstance, runs: dict[str, list[dg.RunRecord]]
) -> list[dict[str, Any]]:
    """Every failed step since the history begins, by its cause, the commonest first."""
    by_cause: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for export, records in runs.items():
        for record in records:
            run = record.dagster_run
            if run.status != dg.DagsterRunStatus.FAILURE:
                continue
            stage, cause, message = _reason(instance, run.run_id)
            month = run.tags.get("dagster/partition", "")
            by_cause[export, stage, cause].append((month, message))
    return [
        {
            "export": export,
            "stage": stage,
            "cause": cause,
            "times": len(found),
            "months": ", ".join(sorted({month for month, _ in found})),
            "last": found[0][1],
        }
        for (export, stage, cause), found in sorted(
            by_cause.items(), key=lambda item: -len(item[1])
        )
    ]


def _reason(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str, str]:
    """Stage, cause and message of the step that failed, or what is said of a run without one."""
    of_type = dg.DagsterEventType.STEP_FAILURE
    records = instance.get_records_for_run(run_id, of_type=of_type).records
    if not records:
        return "", "the process was lost", ""
    event = records[0].event_log_entry.get_dagster_event()
    failure = event.step_failure_data
    told, error = failure.user_failure_data, failure.error
    stage = str(event.step_key).rpartition("__")[2]
    if told is not None and "cause" in told.metadata:
        return stage, str(told.metadata["cause"].value), told.description or ""
    name = (error.cls_name or "") if error else ""
    return stage, name, error.message.strip() if error else ""


def _times(instance: dg.DagsterInstance, settings: Settings) -> Iterable[dict[str, Any]]:
    """How long the stages took that had work to do."""
    for export in map(Export, settings.exports):
        for stage in STAGES:
            found = instance.fetch_materializations(export.key(stage), limit=1000).records
            told = [r.asset_materialization.metadata for r in found if r.asset_materialization]
            seconds = [
                float(str(metadata["seconds"].value))
                for metadata in told
                if "seconds" in metadata and metadata["outcome"].value != "unchanged"
            ]
            if seconds:
                yield {
                    "export": export.name,
                    "stage": stage,
                    "times": len(seconds),
                    "median seconds": round(median(seconds), 2),
                    "longest": round(max(seconds), 2),
                }


def _restarts(runs: dict[str, list[dg.RunRecord]]) -> Iterable[dict[str, Any]]:
    """How many runs the months took, and how many of them began again after one that failed."""
    for export, records in runs.items():
        ended = Counter(record.dagster_run.status for record in records)
        after_failure, failed = 0, set[str]()
        for record in reversed(records):
            month = record.dagster_run.tags.get("dagster/partition", "")
            after_failure += month in failed
            if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
                failed.discard(month)
            elif record.dagster_run.status not in IN_PROGRESS:
                failed.add(month)
        yield {
            "export": export,
            "runs": len(records),
            "succeeded": ended[dg.DagsterRunStatus.SUCCESS],
            "failed": ended[dg.DagsterRunStatus.FAILURE],
            "canceled": ended[dg.DagsterRunStatus.CANCELED],
            "begun again after a failure": after_failure,
        }


def print_tables(sections: Sections) -> None:
    """For a terminal or a log."""
    for title, rows in sections.items():
        Console().print(f"\n[bold]{title.capitalize()}[/]")
        show(rows, as_json=False, empty="none")


def print_json(sections: Sections) -> None:
    """For a program."""
    print(json.dumps(sections, indent=2, default=text))  # noqa: T201


def print_html(sections: Sections) -> None:
    """For a browser or a mail: one page that needs no other file."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    templates.filters["text"] = text
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    print(templates.get_template("report.html").render(sections=sections, when=when))  # noqa: T201
