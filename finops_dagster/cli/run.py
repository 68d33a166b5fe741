"""`finops aws` and the same commands for every other vendor."""

from __future__ import annotations

from typing import Annotated

import typer

from finops_dagster.cli.options import Force, Json, Options, VendorGroup, exit_after
from finops_dagster.cli.output import (
    NO_MONTHS,
    NOTHING_LOADED,
    Headings,
    Row,
    exit_with_problems,
    key_headings,
    print_rows,
)
from finops_dagster.terminal import print_error

_RUNS_ALONE = (
    "Runs only this stage. It reads what the stage before it has stored. Sends no request to the "
    "vendor."
)
_RUNS_SHOWN = 100
# Each command runs one stage, extract-billing also the stage before it: name, stage, help.
_COMMANDS = [
    (
        "extract-manifests",
        "manifest",
        "Record the newest manifest of each month.\n\nRuns only the first stage. To list the "
        "manifests without recording them, use discover-manifests.",
    ),
    (
        "extract-billing",
        "staged_files",
        "Download and verify the files of each month.\n\nAlso records the newest manifest, as "
        "extract-manifests does.",
    ),
    (
        "load-billing-local",
        "billing_table",
        f"Load the staged files of each month into DuckDB.\n\n{_RUNS_ALONE}",
    ),
    (
        "export-parquet",
        "parquet",
        f"Write each month's Parquet file from DuckDB.\n\n{_RUNS_ALONE}",
    ),
    (
        "load-billing-remote",
        "warehouse_table",
        f"Load each month's Parquet file into the warehouse.\n\n{_RUNS_ALONE}",
    ),
    (
        "derive-focus",
        "focus",
        f"Derive FOCUS charges from each month's Parquet file.\n\n{_RUNS_ALONE}",
    ),
    (
        "load-focus-remote",
        "warehouse_focus",
        f"Load each month's charges into the warehouse.\n\n{_RUNS_ALONE}",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show which stages would run.")]
Runs = Annotated[
    bool, typer.Option("--runs", help="Show the runs instead: start, duration, result.")
]

app = typer.Typer(cls=VendorGroup, no_args_is_help=True)


def _covered_days(row: Row) -> str:
    first, last = row["first_day"], row["last_day"]
    return f"{first.day}-{last.day}" if first and last else ""


# Of a vendor that delivers a month in runs, the time and the days of the run say more than the
# time of the manifest.
_RUN_HEADINGS: Headings = {
    **key_headings("export month version files bytes"),
    "submitted": "submitted_at",
    "days": _covered_days,
    "loaded": "loaded",
}


def group_help(vendor: str) -> str:
    """Return the help text of a vendor's group of commands."""
    return (
        f'Load the months of exports that have vendor = "{vendor}".\n\n'
        "Each month is loaded in stages: manifest, staged files, DuckDB table, Parquet file, and "
        "warehouse table. Two more stages write the month's FOCUS charges: to a Parquet file, and "
        "to the warehouse. The stages of the warehouse run only if the settings name one."
    )


@app.command()
def discover_manifests(context: typer.Context, json: Json = False) -> None:
    """List the vendor's newest version of each month.

    The column "loaded" says whether that version is loaded, or which other one is. The exit code is
    1 if the versions of a month or an export cannot be read.

    $ finops aws discover-manifests --export acme --start-date 2026-01
    """
    from finops_dagster.cli.available import discovery_rows

    problems: list[str] = []
    rows = list(discovery_rows(*Options.settings_and_selection(context), problems.append))
    headings = _RUN_HEADINGS if rows and "submitted_at" in rows[0] else None
    print_rows(rows, as_json=json, empty="" if problems else NO_MONTHS, headings=headings)
    exit_with_problems(problems)


def _add_command(name: str, stage: str, summary: str) -> None:
    @app.command(name, help=f"{summary}\n\n$ finops aws {name} --start-date 2026-01")
    def run_stage(context: typer.Context, force: Force = False) -> None:
        from finops_dagster.cli.month_runs import run_months

        settings, months = Options.settings_and_selection(context)
        exit_after(lambda: run_months(settings, months, stage, force=force))


# Each call makes a function of its own: in a loop, all commands would share the last stage.
for _command in _COMMANDS:
    _add_command(*_command)


@app.command()
def run_pipeline(
    context: typer.Context, force: Force = False, dry_run: DryRun = False, json: Json = False
) -> None:
    """Run every stage of each month, newest month first.

    The exports run one after the other. An unchanged month is only verified. If a month fails, the
    others still run, and the exit code is 1. --json prints one line of JSON for each month, as soon
    as the month's run has ended.

    $ finops aws run-pipeline
    $ finops aws run-pipeline --export acme --start-date 2026-01 --dry-run
    """
    settings, months = Options.settings_and_selection(context)
    if dry_run:
        from finops_dagster.cli.available import plan_rows

        problems: list[str] = []
        print_rows(
            list(plan_rows(settings, months, problems.append, force=force)),
            as_json=json,
            empty="" if problems else NO_MONTHS,
        )
        exit_with_problems(problems)
    from finops_dagster.cli.month_runs import run_months

    exit_after(lambda: run_months(settings, months, force=force, as_json=json))


@app.command()
def show_state(context: typer.Context, runs: Runs = False, json: Json = False) -> None:
    """List the months, and which stages are behind.

    The column "version" has the newest version that a run has read from the vendor. "stages behind"
    names the stages that do not have that version: staged files, DuckDB table, Parquet file,
    warehouse table or FOCUS charges. Months that were never run are not listed. To see what the
    vendor has now, use discover-manifests.

    $ finops aws show-state
    $ finops aws show-state --runs --export acme --start-date 2026-01
    """
    settings, months = Options.settings_and_selection(context)
    if not runs:
        from finops_dagster.cli.status import selected_month_rows

        rows = selected_month_rows(settings, months)
        # After `selected_month_rows`, which imports Dagster: month_rows imports DuckDB.
        from finops_dagster.cli.month_rows import MONTH_HEADINGS

        print_rows(rows, as_json=json, empty=NOTHING_LOADED, headings=MONTH_HEADINGS)
        return
    from finops_dagster.cli.worker import RUN_HEADINGS, run_rows

    rows = run_rows(settings, months, None if json else _RUNS_SHOWN + 1)
    shown = rows if json else rows[:_RUNS_SHOWN]
    print_rows(shown, as_json=json, empty="no runs yet", headings=RUN_HEADINGS)
    if len(rows) > len(shown):
        print_error(f"only the newest {_RUNS_SHOWN} runs are shown; use --json for all")
