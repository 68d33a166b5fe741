"""`finops state` and `finops worker`: what every month and every run is at, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.cli.options import Options, check_month, exit_after

if TYPE_CHECKING:
    from finops_dagster.cli.months import Asked

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ExportName = Annotated[str, typer.Argument(help="The export's name in the settings.")]
Month = Annotated[str, typer.Argument(metavar="YYYY-MM", callback=check_month)]
AnyMonth = Annotated[str | None, typer.Argument(metavar="[YYYY-MM]", callback=check_month)]

app = typer.Typer(no_args_is_help=True)
worker_app = typer.Typer(no_args_is_help=True)


def _asked(export: str | None = None, month: str | None = None) -> Asked:
    from finops_dagster.cli.months import Asked

    return Asked(None, export, month, month)


@app.command()
def show(
    context: typer.Context, export: ExportName, month: AnyMonth = None, json: Json = False
) -> None:
    """Show one month, stage by stage; or all months of an export.

    Example: finops state show acme 2026-01
    """
    from finops_dagster.billing.months import BillingMonth
    from finops_dagster.cli import history, months
    from finops_dagster.cli.show import show as show_rows

    settings, asked = Options.of(context).settings(), _asked(export, month)
    if month is None:
        rows = months.state(settings, asked)
        show_rows(rows if json else months.at_a_glance(rows), as_json=json, empty="nothing yet")
    else:
        stages = history.stages_of(settings, asked.exports(settings)[0], BillingMonth.parse(month))
        show_rows(stages, as_json=json, empty="no stages")


@app.command("list")
def list_months(
    context: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Only months that run now.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only months that failed.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Only months of which the vendor has a newer version.")
    ] = False,
    json: Json = False,
) -> None:
    """List the months of all exports.

    Example: finops state list --failed
    """
    from finops_dagster.cli import months
    from finops_dagster.cli.show import show as show_rows

    settings = Options.of(context).settings()
    rows = months.state(settings, _asked())
    if active:
        rows = [row for row in rows if row["last run"] not in ("success", "failure", "canceled")]
    if failed:
        rows = [row for row in rows if row["last run"] in ("failure", "canceled")]
    if stale:
        rows = months.stale(settings, rows)
    show_rows(rows if json else months.at_a_glance(rows), as_json=json, empty="no such months")


@app.command()
def reprocess(context: typer.Context, export: ExportName, month: Month) -> None:
    """Do every stage of a month again, also where nothing changed.

    Example: finops state reprocess acme 2026-01
    """
    from finops_dagster.cli import months

    settings = Options.of(context).settings()
    ended_well = months.run(
        settings, _asked(export, month), months.last_stage(settings), force=True
    )
    raise typer.Exit(not ended_well)


@app.command()
def reset_failed(context: typer.Context) -> None:
    """Run every month again whose last run failed; what happened stays in the history.

    Example: finops state reset-failed
    """
    from finops_dagster.cli import months

    settings = Options.of(context).settings()
    rows = months.state(settings, _asked())
    failed = [row for row in rows if row["last run"] in ("failure", "canceled")]
    until = months.last_stage(settings)
    typer.echo(f"failed months: {len(failed)}")

    def run() -> bool:
        ended_well = True
        for row in failed:
            asked = _asked(row["export"], row["month"])
            ended_well &= months.run(settings, asked, until, force=False)
        return ended_well

    exit_after(run)


@app.command()
def verify(
    context: typer.Context,
    export: Annotated[str | None, typer.Argument(help="One export; all without.")] = None,
    month: AnyMonth = None,
    json: Json = False,
) -> None:
    """Hold the event log, the ledger, the tables and the files against each other. What differs is
    a line with the command that mends it, and exit code 1.

    Example: finops state verify acme
    """
    from finops_dagster.cli.show import show as show_rows
    from finops_dagster.cli.verify import differences

    settings, asked = Options.of(context).settings(), _asked(export, month)
    found = differences(settings, asked)
    show_rows(found, as_json=json, empty="all agree")
    raise typer.Exit(bool(found))


@worker_app.command("list")
def list_runs(json: Json = False) -> None:
    """List the runs in progress; one whose process is gone is lost.

    Example: finops worker list
    """
    from finops_dagster.cli import history
    from finops_dagster.cli.show import show as show_rows

    show_rows(history.runs_in_progress(), as_json=json, empty="no run is in progress")


@worker_app.command()
def stop(run: Annotated[str, typer.Argument(help="The run's id, or how it begins.")]) -> None:
    """Stop a run; one whose process is gone is marked failed, with the reason.

    Example: finops worker stop 6efd03df
    """
    from finops_dagster.cli import history

    typer.echo(history.stop_run(run))
