"""How far all exports are: their progress, what failed and why, how long stages take, restarts."""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median

from finops_dagster.billing.errors import for_people
from finops_dagster.cli.discovery import available_months
from finops_dagster.cli.history import FAILED, History, Run, open_history
from finops_dagster.cli.months import Report, last_stage, month_rows, newest_version
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Row, heading, print_json, show, text
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
<p>{when}</p>"""
Sections = dict[str, list[Row]]
Runs = Mapping[str, Sequence[Run]]


def report_sections(settings: Settings, report: Report) -> Sections:
    """Return the tables of the report by title; seconds are wall time. An export of which the
    vendor cannot be asked is reported, and what is known of it is counted."""
    with open_history() as history:
        runs = {
            export.name: [run for run in history.runs if export.name in run.stages]
            for export in settings.exports
        }
        return {
            "progress": list(_progress(settings, history, report)),
            "failures_by_cause": _failures(history, runs),
            "times": list(_times(history, runs)),
            "restarts": list(_restarts(runs)),
        }


def _progress(settings: Settings, history: History, report: Report) -> Iterable[Row]:
    """Yield a row an export: how many of the months that the vendor has delivered, or that are
    loaded, are at which status."""
    if not settings.exports:
        return
    rows, months = defaultdict[str, list[Row]](list), defaultdict[str, set[str]](set)
    for row in month_rows(settings, Selection(), history):
        rows[row["export"]].append(row)
        months[row["export"]].add(row["month"])
    for export, _, versions in available_months(settings, Selection(), report):
        months[export.name] |= set(map(str, versions))
    for name in (export.name for export in settings.exports):
        count = Counter(_status(row, last_stage(settings)) for row in rows[name])
        total = len(months[name])
        yield {
            "export": name,
            "months": total,
            "complete": count["complete"],
            "pending": total - count["complete"] - count["running"] - count["failed"],
            "running": count["running"],
            "failed": count["failed"],
            "rate": f"{count['complete'] / total:.0%}" if total else None,
            "rows": sum(row["rows"] or 0 for row in rows[name]),
        }


def _status(row: Row, last_stage: str) -> str:
    """Return what a month is: complete where its last stage holds the version that was read last,
    and pending where it holds another, or none."""
    if row["last_run"] != "success":
        return "failed" if row["last_run"] in FAILED else "running"
    has_newest = row[last_stage] is not None and row[last_stage] == newest_version(row)
    return "complete" if has_newest else "pending"


def _failures(history: History, runs: Runs) -> list[Row]:
    """Return every failed run since the history begins, by its cause, the commonest first."""
    by_cause: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for export, of_export in runs.items():
        for run in of_export:
            if run.status == "failure" and (ending := history.endings.get(run.id)):
                message = ending.message if ending.stage else ""
                by_cause[export, ending.stage or "", ending.cause].append((run.month, message))
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


def _times(history: History, exports: Iterable[str]) -> Iterable[Row]:
    """Yield how long the stages took that had work to do, of the newest that did."""
    for export in exports:
        for stage, took in history.stage_seconds(export).items():
            if took:
                yield {
                    "export": export,
                    "stage": stage,
                    "times": len(took),
                    "median_seconds": round(median(took), 2),
                    "longest": round(max(took), 2),
                }


def _restarts(runs: Runs) -> Iterable[Row]:
    """Yield how many runs the months took, and how many of them began again after a failure."""
    for export, of_export in runs.items():
        ended = Counter(run.status for run in of_export)
        after_failure, failed = 0, set[str]()
        for run in reversed(of_export):
            after_failure += run.month in failed
            if run.status == "success":
                failed.discard(run.month)
            elif not run.is_in_progress:
                failed.add(run.month)
        yield {
            "export": export,
            "runs": len(of_export),
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
        # Whatever the encoding of standard output is, the page is the same.
        page = _html(sections, title).encode("ascii", "xmlcharrefreplace")
        print(page.decode("ascii"))  # noqa: T201
    else:
        console().print(for_people(title), style="bold")
        for section, rows in sections.items():
            console().print(f"\n{heading(section).capitalize()}", style="bold")
            show(rows, as_json=False, empty="none")


def _html(sections: Sections, title: str) -> str:
    parts = [_PAGE.format(title=_escape(title), when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")]
    for section, rows in sections.items():
        parts.append(f"<h2>{_escape(heading(section).capitalize())}</h2>")
        parts.append(_html_table(rows) if rows else "<p>None.</p>")
    return "\n".join([*parts, "</body>\n</html>"])


def _html_table(rows: Sequence[Row]) -> str:
    header = "".join(f"<th>{_escape(heading(name))}</th>" for name in rows[0])
    lines = [f"<table>\n<tr>{header}</tr>"]
    for row in rows:
        cells = [
            f"<td{' class=number' if isinstance(value, int | float) else ''}>{_escape(value)}</td>"
            for value in row.values()
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])


def _escape(value: object) -> str:
    return html.escape(text(value))
