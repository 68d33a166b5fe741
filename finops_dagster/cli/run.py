"""`finops aws` and the same commands for every other vendor."""

from __future__ import annotations

from typing import Annotated

import typer

from finops_dagster.cli.options import Force, Json, Options, VendorGroup, exit_after
from finops_dagster.cli.output import exit_with, show
from finops_dagster.terminal import print_error

_RUNS_SHOWN = 100
# Each command runs the pipeline up to a stage: its name, the stage, its help.
_COMMANDS = [
    ("extract-manifests", "manifest", "Find and read the newest manifest of each month."),
    ("extract-billing", "staged_files", "Download and verify the files of each month."),
    ("load-billing-local", "billing_table", "Load each month that is staged into DuckDB."),
    ("export-parquet", "parquet", "Write the Parquet file of each month in DuckDB."),
    ("load-billing-remote", "warehouse_table", "Load each Parquet file into the warehouse."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")]
Runs = Annotated[
    bool, typer.Option("--runs", help="Show every run instead: when, how long, result.")
]

app = typer.Typer(cls=VendorGroup, no_args_is_help=True)


@app.command()
def discover_manifests(context: typer.Context, json: Json = False) -> None:
    """List the vendor's newest version of each month.

    The column "loaded" says whether DuckDB has it.

    $ finops aws discover-manifests --export acme --start-date 2026-01
    """
    from finops_dagster.cli.available import discovery_rows

    problems: list[str] = []
    rows = list(discovery_rows(*Options.settings_and_months(context), problems.append))
    show(rows, as_json=json, empty="no months found")
    exit_with(problems)


def _add_command(name: str, until: str, summary: str) -> None:
    @app.command(name, help=f"{summary}\n\n$ finops aws {name} --start-date 2026-01")
    def run_until(context: typer.Context, force: Force = False) -> None:
        from finops_dagster.cli.month_runs import run_months

        settings, months = Options.settings_and_months(context)
        exit_after(lambda: run_months(settings, months, until, force=force))


for _command in _COMMANDS:
    _add_command(*_command)


@app.command()
def run_pipeline(
    context: typer.Context, force: Force = False, dry_run: DryRun = False, json: Json = False
) -> None:
    """Run every stage of each month, newest month first.

    Unchanged months are verified and not loaded again. --json prints one line of JSON as each
    month ends.

    $ finops aws run-pipeline
    $ finops aws run-pipeline --export acme --start-date 2026-01 --dry-run
    """
    settings, months = Options.settings_and_months(context)
    if dry_run:
        from finops_dagster.cli.available import plan_rows

        problems: list[str] = []
        show(
            list(plan_rows(settings, months, problems.append)),
            as_json=json,
            empty="no months found",
        )
        exit_with(problems)
    from finops_dagster.cli.month_runs import run_months

    exit_after(lambda: run_months(settings, months, force=force, as_json=json))


@app.command()
def show_state(context: typer.Context, runs: Runs = False, json: Json = False) -> None:
    """Show the version that each stage of each month has.

    $ finops aws show-state
    $ finops aws show-state --runs --export acme --start-date 2026-01
    """
    settings, months = Options.settings_and_months(context)
    if not runs:
        from finops_dagster.cli.status import month_status

        rows = month_status(settings, months)
        # After `month_status`, which imports Dagster: month_rows imports DuckDB.
        from finops_dagster.cli.month_rows import MONTH_HEADINGS

        show(rows, as_json=json, empty="nothing is loaded yet", headings=MONTH_HEADINGS)
        return
    from finops_dagster.cli.worker import RUN_HEADINGS, past_runs

    rows = past_runs(settings, months, None if json else _RUNS_SHOWN + 1)
    shown = rows if json else rows[:_RUNS_SHOWN]
    show(shown, as_json=json, empty="no runs yet", headings=RUN_HEADINGS)
    if len(rows) > len(shown):
        print_error(f"only the newest {_RUNS_SHOWN} runs are shown; use --json for all")
