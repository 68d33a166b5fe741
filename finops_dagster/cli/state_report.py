"""`finops state report`: progress, restatements, failures, durations, restarts of all exports."""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import median

from finops_dagster.billing.errors import shortened
from finops_dagster.billing.restatement import Restatement
from finops_dagster.cli.available import available_months
from finops_dagster.cli.month_rows import change_text, month_rows
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import (
    OnProblem,
    Row,
    heading_text,
    is_number,
    print_json,
    print_rows,
    value_text,
)
from finops_dagster.cli.stored_months import StoredMonths, newest_read_version
from finops_dagster.pipeline import last_bill_stage
from finops_dagster.pipeline.history import FAILED, History, open_history
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
<p>{created}</p>
{sections}
</body>
</html>"""
# JSON keeps the keys of earlier releases, in which "times" is the title of the durations, and a
# number of runs or loads.
_SECTION_HEADINGS = {"times": "durations"}
_COLUMN_HEADINGS = {
    "failures_by_cause": {"times": "runs"},
    "times": {"times": "loads", "longest": "longest_seconds"},
    "restarts": {"begun_again_after_a_failure": "after_a_failure"},
}
_RESTATEMENTS_SHOWN = 10
Sections = dict[str, list[Row]]
"""The tables of the report, by the key that each has in JSON."""


def report_sections(settings: Settings, on_problem: OnProblem) -> Sections:
    """Return the tables of the report: progress, restatements, failures, durations, restarts.

    Their keys are `progress`, `restatements`, `failures_by_cause`, `times` (the durations) and
    `restarts`. Reads from the vendors which months they have. If those of an export cannot be
    listed, `on_problem` gets a line, and only the stored months of the export are counted. The
    restatements are the ten newest, with a row for each currency. Durations are in seconds of wall
    time. Raises BillError if the settings have no export.
    """
    exports = [export.name for export in settings.exports]
    with open_history() as history:
        return {
            "progress": _progress(settings, history, on_problem),
            "restatements": _restatements(settings),
            "failures_by_cause": _failures(history, exports),
            "times": list(_durations(history, exports)),
            "restarts": [_restarts(history, export) for export in exports],
        }


def _progress(settings: Settings, history: History, on_problem: OnProblem) -> list[Row]:
    """Return a row for each export that counts its months by status.

    A month counts if the vendor has delivered it or if it is stored.
    """
    rows: dict[str, list[Row]] = {export.name: [] for export in settings.exports}
    for row in month_rows(settings, Selection(), history):
        rows[row["export"]].append(row)
    months = {export: {row["month"] for row in stored} for export, stored in rows.items()}
    for export, _, manifests in available_months(settings, Selection(), on_problem):
        months[export.name] |= set(map(str, manifests))
    last_stage, progress = last_bill_stage(has_warehouse=settings.database.has_warehouse), []
    for name, stored in rows.items():
        statuses = Counter(_status(row, last_stage) for row in stored)
        total, complete = len(months[name]), statuses["complete"]
        progress.append(
            {
                "export": name,
                "months": total,
                "complete": complete,
                "pending": total - complete - statuses["running"] - statuses["failed"],
                "running": statuses["running"],
                "failed": statuses["failed"],
                "rate": f"{complete / total:.0%}" if total else None,
                "rows": sum(row["rows"] or 0 for row in stored),
            }
        )
    return progress


def _status(row: Row, last_stage: str) -> str:
    """Return the status of a month: complete if its last stage has the newest version."""
    if row["last_run"] != "success":
        return "failed" if row["last_run"] in FAILED else "running"
    has_newest = row[last_stage] is not None and row[last_stage] == newest_read_version(row)
    return "complete" if has_newest else "pending"


def _restatements(settings: Settings) -> list[Row]:
    """Return a row for each currency of the newest restatements in the lake, the newest first."""
    restatements = [
        (month, restatement)
        for month in StoredMonths(settings).months(Selection())
        for restatement in month.restatements
    ]
    restatements.sort(key=lambda found: found[1].restated_at, reverse=True)
    return [
        {
            "export": month.key[0],
            "month": month.key[1],
            "restated_at": restatement.restated_at,
            "currency": total.currency,
            "cost_before": total.cost_before,
            "cost_after": total.cost_after,
            "largest_change": _largest_change(restatement, total.currency),
        }
        for month, restatement in restatements[:_RESTATEMENTS_SHOWN]
        for total in restatement.changes_by_currency
    ]


def _largest_change(restatement: Restatement, currency: str | None) -> str | None:
    changes = (change for change in restatement.listed_changes if change.currency == currency)
    return next(map(change_text, changes), None)


def _failures(history: History, exports: Iterable[str]) -> list[Row]:
    """Return a row for each cause of failed runs, the most frequent first."""
    causes: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for export in exports:
        for run in history.export_runs(export):
            if run.status == "failure" and (failure := history.failures.get(run.id)):
                message = failure.message if failure.stage else ""
                causes[export, failure.stage or "", failure.cause].append((run.month, message))
    return [
        {
            "export": export,
            "stage": stage,
            "cause": cause,
            "times": len(failures),
            "months": ", ".join(sorted({month for month, _ in failures}, reverse=True)),
            "last": failures[0][1],  # runs are read newest first
        }
        for (export, stage, cause), failures in sorted(causes.items(), key=lambda c: -len(c[1]))
    ]


def _durations(history: History, exports: Iterable[str]) -> Iterable[Row]:
    """Yield a row for each stage with the durations of its recent runs that had work to do."""
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
    """Return the number of runs, and how many repeat a month that failed or was canceled."""
    runs = history.export_runs(export)
    statuses = Counter(run.status for run in runs)
    restarts, failed_months = 0, set[str]()
    for run in reversed(runs):  # oldest first
        restarts += run.month in failed_months
        if run.status == "success":
            failed_months.discard(run.month)
        elif not run.is_in_progress:
            failed_months.add(run.month)
    return {
        "export": export,
        "runs": len(runs),
        "succeeded": statuses["success"],
        "failed": statuses["failure"],
        "canceled": statuses["canceled"],
        "begun_again_after_a_failure": restarts,
    }


def print_report(sections: Sections, title: str, output_format: str) -> None:
    """Print the report as `table`, `json` or `html`, which is one page without other files.

    `title` is the heading of the report; JSON has none.
    """
    if output_format == "json":
        print_json(sections)
    elif output_format == "html":
        tables = (
            f"<h2>{_escape(_section_heading(section))}</h2>\n"
            f"{_html_table(rows, _column_headings(section, rows))}"
            for section, rows in sections.items()
        )
        created = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        page = _PAGE.format(title=_escape(title), created=created, sections="\n".join(tables))
        # The page says UTF-8, but a terminal or a pipe may use another encoding.
        print(page.encode("ascii", "xmlcharrefreplace").decode("ascii"))  # noqa: T201
    else:
        console().print(shortened(title), style="bold")
        for section, rows in sections.items():
            console().print(f"\n{_section_heading(section)}", style="bold")
            print_rows(rows, as_json=False, empty="none", headings=_column_headings(section, rows))


def _section_heading(section: str) -> str:
    return heading_text(_SECTION_HEADINGS.get(section, section)).capitalize()


def _column_headings(section: str, rows: Sequence[Row]) -> dict[str, str]:
    """Return the headings of a section's table, each with the key of its rows."""
    headings = _COLUMN_HEADINGS.get(section, {})
    return {headings.get(key, key): key for row in rows[:1] for key in row}


def _html_table(rows: Sequence[Row], headings: dict[str, str]) -> str:
    if not rows:
        return "<p>None.</p>"
    header = "".join(f"<th>{_escape(heading_text(name))}</th>" for name in headings)
    lines = [f"<tr>{header}</tr>"]
    for row in rows:
        cells = (
            f"<td{' class=number' if is_number(value) else ''}>{_escape(value)}</td>"
            for value in (row[key] for key in headings.values())
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join(["<table>", *lines, "</table>"])


def _escape(value: object) -> str:
    return html.escape(value_text(value))
