"""`finops worker`: list and stop runs. The module also lists the runs of `show-state --runs`."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.options import CommandGroup, ExportName, Json, Selection
from finops_dagster.cli.output import Headings, Row, key_headings, print_rows
from finops_dagster.terminal import print_line

if TYPE_CHECKING:
    from finops_dagster.pipeline.history import History
    from finops_dagster.settings import Settings

app = typer.Typer(cls=CommandGroup, no_args_is_help=True)


@app.command("list")
def list_runs(export: ExportName = None, json: Json = False) -> None:
    """List the runs in progress.

    The column "process" says "lost" if the process of the run is gone. "done by" is the expected
    end of the run, in UTC. "left" has the time left, and the total time. These times are estimated
    from the median duration of each stage in earlier runs.

    $ finops worker list --export acme
    """
    from finops_dagster.pipeline.history import open_history

    with open_history() as history:
        rows = runs_in_progress(history, export)
    print_rows(rows, as_json=json, empty="no run is in progress", headings=IN_PROGRESS_HEADINGS)


@app.command()
def stop(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Id of the run, or its first characters.")
    ],
) -> None:
    """Stop a run in progress.

    If the process of the run is gone, or is not on this machine, the run is only marked as failed.
    A process on another machine goes on.

    $ finops worker stop 6efd03df
    """
    from finops_dagster.cli.changes import logging_changes
    from finops_dagster.pipeline.history import open_history

    with logging_changes("worker stop") as changes, open_history() as history:
        changes.add(line := _stop_run(history, run))
        print_line(line)


def run_rows(settings: Settings, selection: Selection, limit: int | None) -> list[Row]:
    """Return a row for each run and export of the selected months, newest first.

    The keys are `export`, `month`, `run`, `start` in UTC, `seconds`, `status`, and two that may be
    None: `last_stage`, the last that the run reached, and `reason`, why it failed. Runs in progress
    are among them; their `seconds` are those until now. `limit` is the largest number of rows; None
    returns all. Raises BillError if no export is selected.
    """
    from finops_dagster.pipeline.history import open_history

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
        # `reached_stage` queries the event log, so only the rows that are shown get one.
        return [
            {
                "export": export,
                "month": run.month,
                "run": run.id,
                "start": run.started,
                "seconds": round(run.seconds, 1),
                "status": run.status,
                "last_stage": history.reached_stage(run, export),
                "reason": history.failure_message(run),
            }
            for export, run in chosen[:limit]
        ]


def runs_in_progress(history: History, export: str | None = None) -> list[Row]:
    """Return a row for each run that has not ended, of one export or of all, newest first.

    The keys are `run` (its id), `export` (the names of all exports of the run with commas; None if
    it has no stage), `month` (empty if it has none), `status`, `stage` (the last that the first of
    its exports reached, or None), `seconds` since its start or its request, and those below.

    `estimated_completion` is a time in UTC, computed from the median durations of the stages, and
    `seconds_left` are the seconds until then, 0 if it has passed; both are None if they cannot be
    estimated, as for a run that has not started. `process` is the id of the run's process, None if
    it is not known, as on another machine; `lost` is true if the process was on this machine and is
    gone.
    """
    from finops_dagster.processes import is_lost_run, read_run_note
    from finops_dagster.settings import dagster_home

    rows = []
    for run in history.runs:
        if not run.is_in_progress or export not in (None, *run.stages):
            continue
        duration = history.usual_duration(run.stages) if run.status == "started" else None
        seconds_left = None
        if duration is not None:
            seconds_left = max(0, round(duration.total_seconds() - run.seconds))
        stages = (history.reached_stage(run, run_export) for run_export in run.stages)
        rows.append(
            {
                "run": run.id,
                "export": ", ".join(run.stages) or None,
                "month": run.month,
                "status": run.status,
                "stage": next(stages, None),
                "seconds": round(run.seconds),
                "estimated_completion": duration and run.started + duration,
                "seconds_left": seconds_left,
                "process": read_run_note(dagster_home(), run.id).get("process"),
                "lost": is_lost_run(dagster_home(), run.id),
            }
        )
    return rows


def _stop_run(history: History, id_prefix: str) -> str:
    """Interrupt the run's process, or mark the run as failed if this machine has no such process.

    Does not wait for the process to end. `id_prefix` is the run's id or its first characters.
    Returns a line that says what was done. Raises BillError unless exactly one run in progress has
    such an id.
    """
    matches = [row for row in runs_in_progress(history) if row["run"].startswith(id_prefix)]
    if len(matches) != 1:
        found = f"{len(matches)} runs in progress have" if matches else "no run in progress has"
        raise BillError(
            f"{found} an id that begins with {id_prefix!r}; give the id of one run, which finops "
            "worker list shows"
        )
    (row,) = matches
    process = row["process"]
    if process is not None and not row["lost"]:
        # What Ctrl-C sends: the process rolls back its stage and prints how to continue.
        os.kill(int(process), signal.SIGINT)
        return f"run {row['run']}: process {process} is stopping"
    reason = "this machine has no process of it, and one on another machine is not stopped"
    if row["lost"]:
        reason = f"process {process} is gone" if process else "its process is gone"
    # The run was found in the history, so there is an instance, and Dagster has the run.
    assert history.instance is not None
    dagster_run = history.instance.get_run_by_id(row["run"])
    assert dagster_run is not None
    history.instance.report_run_failed(
        dagster_run, f"Ended by finops worker stop: {reason}; run its month again."
    )
    return f"run {row['run']} is marked as failed: {reason}; run its month again"


def time_left_text(row: Row) -> str:
    """Return the time left of a run in progress and its total time: `0:02:00 of 0:05:00`.

    Both are estimated. `row` is one of `runs_in_progress`. Returns `unknown` if its `seconds_left`
    is None.
    """
    seconds_left = row["seconds_left"]
    if seconds_left is None:
        return "unknown"
    whole_time = timedelta(seconds=row["seconds"] + seconds_left)
    return f"{timedelta(seconds=seconds_left)} of {whole_time}"


_SHORT_ID: Headings = {"run": lambda row: row["run"][:8]}
RUN_HEADINGS: Headings = {
    **key_headings("export month"),
    **_SHORT_ID,
    **key_headings("start seconds status last_stage reason"),
}
IN_PROGRESS_HEADINGS: Headings = {
    **_SHORT_ID,
    **key_headings("export month status stage seconds"),
    "done_by": lambda row: row["estimated_completion"] and f"{row['estimated_completion']:%H:%M}Z",
    "left": time_left_text,
    "process": lambda row: "lost" if row["lost"] else row["process"] and str(row["process"]),
}
