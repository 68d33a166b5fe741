"""`finops worker`: the runs in progress, and how one is ended; and the runs of before."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.options import ExportName, Group, Json, Selection
from finops_dagster.cli.output import Headings, Row, key_headings, show
from finops_dagster.terminal import print_line

if TYPE_CHECKING:
    from finops_dagster.cli.history import History
    from finops_dagster.settings import Settings

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command("list")
def list_runs(export: ExportName = None, json: Json = False) -> None:
    """List the runs in progress.

    A run is "lost" if its process is gone. "done by" is estimated from the median duration of
    each stage in earlier runs.

    $ finops worker list --export acme
    """
    from finops_dagster.cli.history import open_history

    with open_history() as history:
        rows = runs_in_progress(history, export)
    show(rows, as_json=json, empty="no run is in progress", headings=IN_PROGRESS_HEADINGS)


@app.command()
def stop(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Id of the run, or its first characters.")
    ],
) -> None:
    """Stop a run in progress.

    A run whose process is gone is marked as failed.

    $ finops worker stop 6efd03df
    """
    from finops_dagster.cli.changes import recorded
    from finops_dagster.cli.history import open_history

    with recorded("worker stop") as changes, open_history() as history:
        changes.append(stop_run(history, run))
        print_line(changes[0])


def past_runs(settings: Settings, selection: Selection, most: int | None) -> list[Row]:
    """Return the runs of the months, the newest run first: a row for each export of a run. Times
    are in UTC; of a run that has not ended, `seconds` are those until now."""
    from finops_dagster.cli.history import open_history

    months = {
        export.name: set(map(str, selection.months(export)))
        for export in selection.exports(settings)
    }
    with open_history() as history:
        chosen = [
            (export, run)
            for run in history.runs
            for export in run.stages
            if run.month in months.get(export, ())
        ]
        return [
            {
                "export": export,
                "month": run.month,
                "run": run.id,
                "start": run.started,
                "seconds": round(run.seconds, 1),
                "status": run.status,
                "last_stage": history.last_stage(run, export),
                "reason": history.reason(run),
            }
            for export, run in chosen[:most]
        ]


def runs_in_progress(history: History, export: str | None = None) -> list[Row]:
    """Return every run that has not ended, or those of one export: its month, the stage that it is
    at, its age in seconds, when it should end by the median times of its stages, and its process on
    this machine, which is `lost` when it is gone."""
    from finops_dagster.processes import is_lost, read_note
    from finops_dagster.settings import dagster_home

    rows = []
    for run in history.runs:
        if not run.is_in_progress or export not in (None, *run.stages):
            continue
        usual = history.usual_duration(run.stages) if run.status == "started" else None
        rows.append(
            {
                "run": run.id,
                "export": ", ".join(run.stages) or None,
                "month": run.month,
                "status": run.status,
                "stage": next((history.last_stage(run, one) for one in run.stages), None),
                "seconds": round(run.seconds),
                "estimated_completion": usual and run.started + usual,
                "process": read_note(dagster_home(), run.id).get("process"),
                "lost": is_lost(dagster_home(), run.id),
            }
        )
    return rows


def stop_run(history: History, run: str) -> str:
    """Ask the run's process to stop, or mark the run failed where it is gone; return what was done.
    `run` may be the beginning of an id. Raises BillError."""
    found = [row for row in runs_in_progress(history) if row["run"].startswith(run)]
    if len(found) != 1:
        raise BillError(f"{len(found)} runs in progress have an id that begins with {run!r}")
    (row,) = found
    process = row["process"]
    if process is not None and not row["lost"]:
        os.kill(int(process), signal.SIGINT)
        return f"process {process} of run {row['run']} is asked to stop"
    why = "no process of this machine has it"
    if row["lost"]:
        why = f"process {process} is gone" if process else "its process is gone"
    assert history.instance is not None
    lost = history.instance.get_run_by_id(row["run"])
    assert lost is not None
    history.instance.report_run_failed(lost, f"Ended by finops worker stop: {why}.")
    return f"run {row['run']} is marked failed: {why}; run its month again"


_SHORT_ID: Headings = {"run": lambda row: row["run"][:8]}
RUN_HEADINGS: Headings = {
    **key_headings("export month"),
    **_SHORT_ID,
    **key_headings("start seconds status last_stage reason"),
}
IN_PROGRESS_HEADINGS: Headings = {
    **_SHORT_ID,
    **key_headings("export month status stage seconds"),
    "done_by": lambda row: (end := row["estimated_completion"]) and f"{end:%H:%M}Z",
    "process": lambda row: "lost" if row["lost"] else row["process"] and str(row["process"]),
}
