"""The commands over months, the same for every vendor: `finops aws ...` is this under a name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from finops_dagster.cli.options import Group, Json, Options, check_month, exit_after

if TYPE_CHECKING:
    from finops_dagster.cli.asked import Asked
    from finops_dagster.cli.delivered import Report

ExportName = Annotated[str | None, typer.Option("--export", help="Only this export. Default: all.")]
Start = Annotated[
    str | None,
    typer.Option("--start-date", metavar="YYYY-MM", callback=check_month, help="First month."),
]
End = Annotated[
    str | None,
    typer.Option("--end-date", metavar="YYYY-MM", callback=check_month, help="Last month."),
]
Force = Annotated[bool, typer.Option("--force", help="Load unchanged months again.")]

_RUNS_SHOWN = 100

app = typer.Typer(cls=Group, no_args_is_help=True)


def _asked(context: typer.Context, export: str | None, start: str | None, end: str | None) -> Asked:
    """The months that were asked for; the vendor is the name under which this app was called."""
    from finops_dagster.cli.asked import Asked

    assert context.parent is not None
    return Asked(str(context.parent.info_name), export, start, end)


def _run(
    context: typer.Context, asked: Asked, until: str, *, force: bool, as_json: bool = False
) -> None:
    from finops_dagster.cli.months import run

    settings = Options.of(context).settings()
    exit_after(lambda: run(settings, asked, until, force=force, as_json=as_json))


def _show_with_problems(rows: Callable[[Report], list[dict[str, Any]]], json: bool) -> NoReturn:
    """Show what could be looked at, say what could not, and exit with 1 where there is any."""
    from finops_dagster.cli.show import show
    from finops_dagster.terminal import complain

    problems: list[str] = []
    show(rows(problems.append), as_json=json, empty="no months")
    for problem in problems:
        complain(problem)
    raise typer.Exit(bool(problems))


@app.command()
def discover_manifests(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    json: Json = False,
) -> None:
    """List the newest version of each month.

    Beside it stands whether the table holds it.

    Example: finops aws discover-manifests --export acme --start-date 2026-01
    """
    from finops_dagster.cli.delivered import discover

    asked = _asked(context, export, start, end)
    _show_with_problems(partial(discover, Options.of(context).settings(), asked), json)


@app.command()
def extract_manifests(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Read the newest manifest of each month.

    Example: finops aws extract-manifests --start-date 2026-01
    """
    _run(context, _asked(context, export, start, end), "manifest", force=force)


@app.command()
def extract_billing(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Download and verify the files of each month.

    Example: finops aws extract-billing --start-date 2026-01 --end-date 2026-03
    """
    _run(context, _asked(context, export, start, end), "staged_files", force=force)


@app.command()
def load_billing_local(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Load each month into DuckDB.

    Example: finops aws load-billing-local --export acme
    """
    _run(context, _asked(context, export, start, end), "billing_table", force=force)


@app.command()
def export_parquet(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write unchanged months again.")
    ] = False,
) -> None:
    """Write the Parquet file of each month.

    Example: finops aws export-parquet --start-date 2026-01 --overwrite
    """
    _run(context, _asked(context, export, start, end), "parquet", force=overwrite)


@app.command()
def load_billing_remote(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Load each month into the warehouse.

    Example: finops aws load-billing-remote --backend bigquery
    """
    _run(context, _asked(context, export, start, end), "warehouse_table", force=force)


@app.command()
def run_pipeline(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    force: Force = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    json: Json = False,
) -> None:
    """Run every stage of each month, the newest first.

    A month that is unchanged is verified, and not loaded again. With --json a line of JSON is
    printed as each month ends.

    Example: finops aws run-pipeline --export acme --start-date 2026-01 --dry-run
    """
    from finops_dagster.cli.delivered import plan
    from finops_dagster.cli.held import last_stage

    settings, asked = Options.of(context).settings(), _asked(context, export, start, end)
    if not dry_run:
        _run(context, asked, last_stage(settings), force=force, as_json=json)
    _show_with_problems(partial(plan, settings, asked), json)


@app.command()
def show_state(
    context: typer.Context,
    export: ExportName = None,
    start: Start = None,
    end: End = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="List the runs of these months instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Show which version each stage of each month holds.

    With --runs, every run of these months: when it began, how long it took, how far it came, and
    why it failed.

    Example: finops aws show-state --runs --export acme --start-date 2026-01
    """
    from finops_dagster.cli.held import at_a_glance, state
    from finops_dagster.cli.past_runs import past_runs
    from finops_dagster.cli.show import show
    from finops_dagster.terminal import complain

    settings, asked = Options.of(context).settings(), _asked(context, export, start, end)
    if runs:
        rows = past_runs(settings, asked, None if json else _RUNS_SHOWN + 1)
        shown = [{**row, "run": row["run"][:8]} for row in rows[:_RUNS_SHOWN]]
        show(rows if json else shown, as_json=json, empty="no run yet")
        if not json and len(rows) > _RUNS_SHOWN:
            complain(f"the newest {_RUNS_SHOWN} runs; --json shows all")
        return
    rows = state(settings, asked)
    show(rows if json else at_a_glance(rows), as_json=json, empty="nothing is loaded yet")
