"""`finops worker`: the runs in progress."""

from __future__ import annotations

from typing import Annotated

import typer

from finops_dagster.cli.options import Group, Json

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command("list")
def list_runs(
    export: Annotated[
        str | None, typer.Option("--export", help="Only the runs of this export.")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs in progress.

    A run whose process is gone is lost. When a run should be done is told by the median times of
    the stages of earlier runs.

    Example: finops worker list --export acme
    """
    from finops_dagster.cli.history import at_a_glance, runs_in_progress
    from finops_dagster.cli.show import show

    rows = runs_in_progress(export)
    show(rows if json else at_a_glance(rows), as_json=json, empty="no run is in progress")


@app.command()
def stop(run: Annotated[str, typer.Argument(help="The run's id, or how it begins.")]) -> None:
    """Stop a run.

    One whose process is gone is marked failed, with the reason.

    Example: finops worker stop 6efd03df
    """
    from finops_dagster.cli.changes import recorded
    from finops_dagster.cli.history import stop_run
    from finops_dagster.terminal import say

    with recorded("worker stop") as changes:
        changes.append(stop_run(run))
        say(changes[0])
