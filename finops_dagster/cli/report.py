"""How far all exports are: their progress, what failed and why, how long stages take, restarts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader

from finops_dagster.billing.errors import for_people
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.delivered import Report, delivered
from finops_dagster.cli.event_log import EventLog, Run
from finops_dagster.cli.failures import failure, stage_of_step
from finops_dagster.cli.held import FAILED, last_stage, newest_version, state
from finops_dagster.cli.history import IN_PROGRESS
from finops_dagster.cli.show import heading, show, text
from finops_dagster.cli.show import print_json as print_document
from finops_dagster.cli.stage_times import stage_seconds
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import Settings
from finops_dagster.terminal import console

Sections = dict[str, list[dict[str, Any]]]


def report(settings: Settings, tell_problem: Report) -> Sections:
    """Return the tables of the report by title; seconds are wall time. An export of which the
    vendor cannot be asked is told, and what is known of it is counted."""
    log = EventLog()
    runs: dict[str, list[Run]] = {export.name: [] for export in settings.exports}
    for run in log.runs():
        for export in run.exports & runs.keys():
            runs[export].append(run)
    return {
        "progress": list(_progress(settings, tell_problem)),
        "failures_by_cause": _failures(log, runs),
        "times": list(_times(log, runs)),
        "restarts": list(_restarts(runs)),
    }


def _progress(settings: Settings, tell_problem: Report) -> Iterable[dict[str, Any]]:
    """Return a row an export: how many of the months that the vendor has delivered, or that are
    loaded, are at which status."""
    if not settings.exports:
        return
    every, last = Asked(), last_stage(settings)
    rows, months = defaultdict[str, list[dict[str, Any]]](list), defaultdict[str, set[str]](set)
    for row in state(settings, every):
        rows[row["export"]].append(row)
        months[row["export"]].add(row["month"])
    for export, of_export in delivered(settings, every, tell_problem):
        months[export.name] |= {str(month) for month in of_export}
    for one in settings.exports:
        count = Counter(_status(row, last) for row in rows[one.name])
        of_one = len(months[one.name])
        yield {
            "export": one.name,
            "months": of_one,
            "complete": count["complete"],
            "pending": of_one - count["complete"] - count["running"] - count["failed"],
            "running": count["running"],
            "failed": count["failed"],
            "rate": f"{count['complete'] / of_one:.0%}" if of_one else None,
            "rows": sum(row["rows"] or 0 for row in rows[one.name]),
        }


def _status(row: dict[str, Any], last_stage: str) -> str:
    """Return what a month is: complete where its last stage holds the version that was read last,
    and pending where it holds another, or none."""
    if row["last_run"] in FAILED:
        return "failed"
    if row["last_run"] != "success":
        return "running"
    has_newest = row[last_stage] is not None and row[last_stage] == newest_version(row)
    return "complete" if has_newest else "pending"


def _failures(log: EventLog, runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Every failed run since the history begins, by its cause, the commonest first."""
    by_cause: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for export, of_export in runs.items():
        for run in of_export:
            if run.status == "FAILURE":
                stage, cause, message = _reason(log, run)
                by_cause[export, stage, cause].append((run.month, message))
    return [
        {
            "export": export,
            "stage": stage,
            "cause": cause,
            "times": len(found),
            "months": ", ".join(sorted({month for month, _ in found}, reverse=True)),
            "last": found[0][1],
        }
        for (export, stage, cause), found in sorted(
            by_cause.items(), key=lambda item: -len(item[1])
        )
    ]


def _reason(log: EventLog, run: Run) -> tuple[str, str, str]:
    """Stage, cause and message of the step that failed, or what is said of a run without one."""
    for of_type, step, event in log.events_of(run.id):
        if of_type == "STEP_FAILURE":
            return stage_of_step(step), *failure(event)
    return "", "the process was lost", ""


def _times(log: EventLog, exports: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Return how long the stages took that had work to do, of the newest that did."""
    seconds = stage_seconds(log)
    for export in exports:
        for stage in STAGES:
            if took := seconds.get((export, stage)):
                yield {
                    "export": export,
                    "stage": stage,
                    "times": len(took),
                    "median_seconds": round(median(took), 2),
                    "longest": round(max(took), 2),
                }


def _restarts(runs: dict[str, list[Run]]) -> Iterable[dict[str, Any]]:
    """How many runs the months took, and how many of them began again after one that failed."""
    for export, of_export in runs.items():
        ended = Counter(run.status for run in of_export)
        after_failure, failed = 0, set[str]()
        for run in reversed(of_export):
            after_failure += run.month in failed
            if run.status == "SUCCESS":
                failed.discard(run.month)
            elif run.status not in IN_PROGRESS:
                failed.add(run.month)
        yield {
            "export": export,
            "runs": len(of_export),
            "succeeded": ended["SUCCESS"],
            "failed": ended["FAILURE"],
            "canceled": ended["CANCELED"],
            "begun_again_after_a_failure": after_failure,
        }


def print_tables(sections: Sections, title: str) -> None:
    """For a terminal or a log."""
    console().print(for_people(title), style="bold")
    for section, rows in sections.items():
        console().print(f"\n{heading(section).capitalize()}", style="bold")
        show(rows, as_json=False, empty="none")


def print_json(sections: Sections, _title: str) -> None:
    """For a program."""
    print_document(sections)


def print_html(sections: Sections, title: str) -> None:
    """For a browser or a mail: one page that needs no other file."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    templates.filters.update(text=text, heading=heading)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    page = templates.get_template("report.html").render(sections=sections, title=title, when=when)
    # Whatever the encoding of standard output is, the page is the same.
    print(page.encode("ascii", "xmlcharrefreplace").decode("ascii"))  # noqa: T201
