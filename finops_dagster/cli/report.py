"""How far all exports are: their progress, what failed and why, how long stages take, restarts."""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import median

from finops_dagster.billing.errors import shortened
from finops_dagster.cli.available import available_months
from finops_dagster.cli.history import FAILED, History, open_history
from finops_dagster.cli.month_rows import month_rows
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import (
    OnProblem,
    Row,
    heading,
    is_number,
    print_json,
    show,
    text,
)
from finops_dagster.cli.stored_months import last_stage, newest_version
from finops_dagster.settings import Settings
from finops_dagster.terminal import console

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222; }}
  h2 {{ margin-top: 2rem; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ padding: .3rem .7rem; text-align: left; border-bottom: 1px solid #ddd;
    overflow-wrap: anywhere; }}
  .number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{when}</p>
{sections}
</body>
</html>"""
Sections = dict[str, list[Row]]


def report_sections(settings: Settings, on_problem: OnProblem) -> Sections:
    """Return the tables of the report by title; seconds are wall time. An export of which the
    vendor cannot be asked is reported, and what is known of it is counted."""
    exports = [export.name for export in settings.exports]
    with open_history() as history:
        return {
            "progress": _progress(settings, history, on_problem) if exports else [],
            "failures_by_cause": _failures(history, exports),
            "times": list(_times(history, exports)),
            "restarts": [_restarts(history, export) for export in exports],
        }


def _progress(settings: Settings, history: History, on_problem: OnProblem) -> list[Row]:
    """Return a row an export: how many of the months that the vendor has delivered, or that are
    loaded, are at which status."""
    rows: dict[str, list[Row]] = {export.name: [] for export in settings.exports}
    for row in month_rows(settings, Selection(), history):
        rows[row["export"]].append(row)
    months = {export: {row["month"] for row in of_export} for export, of_export in rows.items()}
    for export, _, versions in available_months(settings, Selection(), on_problem):
        months[export.name] |= set(map(str, versions))
    progress = []
    for name, of_export in rows.items():
        count = Counter(_status(row, last_stage(settings)) for row in of_export)
        total, complete = len(months[name]), count["complete"]
        progress.append(
            {
                "export": name,
                "months": total,
                "complete": complete,
                "pending": total - complete - count["running"] - count["failed"],
                "running": count["running"],
                "failed": count["failed"],
                "rate": f"{complete / total:.0%}" if total else None,
                "rows": sum(row["rows"] or 0 for row in of_export),
            }
        )
    return progress


def _status(row: Row, last_stage: str) -> str:
    """Return what a month is: complete where its last stage holds the version that was read last,
    and pending where it holds another, or none."""
    if row["last_run"] != "success":
        return "failed" if row["last_run"] in FAILED else "running"
    has_newest = row[last_stage] is not None and row[last_stage] == newest_version(row)
    return "complete" if has_newest else "pending"


def _failures(history: History, exports: Iterable[str]) -> list[Row]:
    """Return every failed run since the history begins, by its cause, the commonest first."""
    causes: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for export in exports:
        for run in history.of_export(export):
            if run.status == "failure" and (ending := history.endings.get(run.id)):
                message = ending.message if ending.stage else ""
                causes[export, ending.stage or "", ending.cause].append((run.month, message))
    return [
        {
            "export": export,
            "stage": stage,
            "cause": cause,
            "times": len(failures),
            "months": ", ".join(sorted({month for month, _ in failures}, reverse=True)),
            "last": failures[0][1],
        }
        for (export, stage, cause), failures in sorted(causes.items(), key=lambda c: -len(c[1]))
    ]


def _times(history: History, exports: Iterable[str]) -> Iterable[Row]:
    """Yield how long the stages took that had work to do, of the newest that did."""
    for export in exports:
        for stage, seconds in history.stage_seconds(export).items():
            if seconds:
                yield {
                    "export": export,
                    "stage": stage,
                    "times": len(seconds),
                    "median_seconds": round(median(seconds), 2),
                    "longest": round(max(seconds), 2),
                }


def _restarts(history: History, export: str) -> Row:
    """Return how many runs the months took, and how many of them began again after a failure."""
    runs = history.of_export(export)
    ended = Counter(run.status for run in runs)
    after_failure, failed = 0, set[str]()
    for run in reversed(runs):
        after_failure += run.month in failed
        if run.status == "success":
            failed.discard(run.month)
        elif not run.is_in_progress:
            failed.add(run.month)
    return {
        "export": export,
        "runs": len(runs),
        "succeeded": ended["success"],
        "failed": ended["failure"],
        "canceled": ended["canceled"],
        "begun_again_after_a_failure": after_failure,
    }


def print_report(sections: Sections, title: str, shape: str) -> None:
    """Print the report as a `table`, as `json`, or as `html`: one page without other files."""
    if shape == "json":
        print_json(sections)
    elif shape == "html":
        tables = (
            f"<h2>{_escape(heading(section).capitalize())}</h2>\n{_html_table(rows)}"
            for section, rows in sections.items()
        )
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        page = _PAGE.format(title=_escape(title), when=when, sections="\n".join(tables))
        # Whatever the encoding of standard output is, the page is the same.
        print(page.encode("ascii", "xmlcharrefreplace").decode("ascii"))  # noqa: T201
    else:
        console().print(shortened(title), style="bold")
        for section, rows in sections.items():
            console().print(f"\n{heading(section).capitalize()}", style="bold")
            show(rows, as_json=False, empty="none")


def _html_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "<p>None.</p>"
    header = "".join(f"<th>{_escape(heading(name))}</th>" for name in rows[0])
    lines = [f"<tr>{header}</tr>"]
    for row in rows:
        cells = (
            f"<td{' class=number' if is_number(value) else ''}>{_escape(value)}</td>"
            for value in row.values()
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join(["<table>", *lines, "</table>"])


def _escape(value: object) -> str:
    return html.escape(text(value))
