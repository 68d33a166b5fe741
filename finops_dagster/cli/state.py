"""`finops state`: show, verify, repair, clean up and move the state of the months."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from finops_dagster.billing.errors import count_text
from finops_dagster.cli.options import (
    CommandGroup,
    Json,
    Options,
    Selection,
    exit_after,
    month_option,
    refuse_both,
)
from finops_dagster.cli.output import NO_MONTHS, NOTHING_LOADED, exit_with_problems, print_rows
from finops_dagster.terminal import print_error, print_line

if TYPE_CHECKING:
    from finops_dagster.pipeline.observations import StageChange
    from finops_dagster.settings import Settings

_MONTH_HELP = "Billing month, as YYYY-MM."
ExportArgument = Annotated[
    str, typer.Argument(metavar="EXPORT", help="Name of the export in the settings.")
]
MonthArgument = Annotated[
    str, typer.Argument(metavar="MONTH", callback=month_option, help=_MONTH_HELP)
]
OptionalExport = Annotated[
    str | None, typer.Argument(metavar="EXPORT", help="Name of the export. Default: all.")
]
OptionalMonth = Annotated[
    str | None,
    typer.Argument(metavar="MONTH", callback=month_option, help=f"{_MONTH_HELP} Default: all."),
]
StateFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="File that ends in .json, .jsonl, .yaml or .yml.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be done.")]
Deep = Annotated[bool, typer.Option("--deep", help="Also read all data, not only the totals.")]
RepairOption = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Restore lost load records, then repair each month that still differs.",
    ),
]
FormerRepairOption = Annotated[bool, typer.Option("--mend", hidden=True)]
ReportFormat = Annotated[
    Literal["table", "json", "html"] | None,
    typer.Option("--format", metavar="FORMAT", help="table, json or html. Default: table."),
]

app = typer.Typer(cls=CommandGroup, no_args_is_help=True)


def _selection(export: str | None = None, month: str | None = None) -> Selection:
    return Selection(None, export, month, month)


@app.command("show")
def show_months(
    context: typer.Context, export: ExportArgument, month: OptionalMonth = None, json: Json = False
) -> None:
    """Show the months of an export, or the stages of one month.

    The column "version" has the newest version that a run has read from the vendor. "stages behind"
    names the stages that do not have that version.

    $ finops state show acme
    $ finops state show acme 2026-01
    """
    settings, selection = Options.of(context).settings(), _selection(export, month)
    if month is None:
        from finops_dagster.cli.status import selected_month_rows

        rows = selected_month_rows(settings, selection)
        from finops_dagster.cli.month_rows import MONTH_HEADINGS as HEADINGS
    else:
        from finops_dagster.cli.month_rows import STAGE_HEADINGS as HEADINGS
        from finops_dagster.cli.month_rows import stage_rows

        rows = stage_rows(settings, selection)
    print_rows(rows, as_json=json, empty=NOTHING_LOADED, headings=HEADINGS)


@app.command("list")
def list_months(
    context: typer.Context,
    active: Annotated[
        bool, typer.Option("--active", help="Only months with a run in progress.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only months whose last run failed or was stopped.")
    ] = False,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale", help="Only months whose last stage lacks the vendor's newest version."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """List the months of all exports.

    Months that were never run are not listed. The column "version" has the newest version that a
    run has read from the vendor. "stages behind" names the stages that do not have that version.
    With --stale, the exit code is 1 if the versions of a month or an export cannot be read from the
    vendor.

    $ finops state list
    $ finops state list --failed
    """
    from finops_dagster.cli.status import selected_month_rows
    from finops_dagster.pipeline.history import FAILED

    settings, problems = Options.of(context).settings(), list[str]()
    rows = selected_month_rows(settings, Selection())
    # After `selected_month_rows`, which imports Dagster: month_rows imports DuckDB.
    from finops_dagster.cli.month_rows import MONTH_HEADINGS

    headings = {**MONTH_HEADINGS, **({"reason": "reason"} if failed else {})}
    if active:
        rows = [row for row in rows if row["last_run"] not in ("success", *FAILED)]
    if failed:
        rows = [row for row in rows if row["last_run"] in FAILED]
    if stale:
        from finops_dagster.cli.available import stale_rows

        rows = stale_rows(settings, rows, problems.append)
    empty = "no such month" if active or failed or stale else NO_MONTHS
    print_rows(rows, as_json=json, empty="" if problems else empty, headings=headings)
    exit_with_problems(problems)


@app.command()
def report(
    context: typer.Context,
    output_format: ReportFormat = None,
    json: Json = False,
) -> None:
    """Report the progress of all exports.

    Counts the months that are complete, pending, running and failed. Counts the failures by cause,
    and the restarts: runs that repeat a failed month. Lists the last restatements, and the duration
    of each stage in seconds. The exit code is 1 if the months of an export cannot be listed.

    $ finops state report --format html > report.html
    """
    from finops_dagster.cli.state_report import print_report, report_sections

    if json and output_format not in (None, "json"):
        refuse_both("--json", f"--format {output_format}")
    chosen = "json" if json else output_format or "table"
    settings, problems = Options.of(context).settings(), list[str]()
    sections = report_sections(settings, problems.append)
    print_report(sections, settings.project.name, chosen)
    exit_with_problems(problems)


@app.command()
def loaded(context: typer.Context, export: OptionalExport = None, json: Json = False) -> None:
    """List the months in the warehouse.

    Reads the load records of each export: in the warehouse, they are the table {table}_loads. If
    there is no warehouse, reads the load records in DuckDB.

    $ finops state loaded acme --backend bigquery
    """
    from finops_dagster.cli.month_rows import loaded_month_rows

    rows = loaded_month_rows(Options.of(context).settings(), _selection(export))
    print_rows(rows, as_json=json, empty="no month is loaded")


@app.command()
def reprocess(context: typer.Context, export: ExportArgument, month: MonthArgument) -> None:
    """Run every stage of a month again, even if it is unchanged.

    Downloads the vendor's files again, so the vendor must still have them.

    $ finops state reprocess acme 2026-01
    """
    from finops_dagster.cli.month_runs import run_months

    settings = Options.of(context).settings()
    exit_after(lambda: run_months(settings, _selection(export, month), force=True))


@app.command()
def reset_failed(context: typer.Context) -> None:
    """Run again every month whose last run failed or was stopped.

    The failed runs stay in the history.

    $ finops state reset-failed
    """
    from finops_dagster.cli.month_runs import run_months
    from finops_dagster.cli.status import selected_month_rows
    from finops_dagster.pipeline.history import FAILED

    settings = Options.of(context).settings()
    failed = [
        row for row in selected_month_rows(settings, Selection()) if row["last_run"] in FAILED
    ]
    typer.echo(f"failed months: {len(failed)}")
    months = [_selection(row["export"], row["month"]) for row in failed]

    def run_failed() -> bool:
        # Every month is run, also after one that fails again.
        results = [run_months(settings, month, force=False) for month in months]
        return all(results)

    exit_after(run_failed)


@app.command()
def verify(
    context: typer.Context,
    export: OptionalExport = None,
    month: OptionalMonth = None,
    deep: Deep = False,
    repair: RepairOption = False,
    json: Json = False,
    former_repair: FormerRepairOption = False,
) -> None:
    """Check that all copies of a month agree.

    Compares Dagster's event log, the load records (the ledger), the DuckDB table, the Parquet
    files, the FOCUS charges and the warehouse. Lists every difference with the command that repairs
    it. If anything differs, the exit code is 1. Standard error says what was checked, and what was
    not.

    With --repair, runs the repairs instead of listing the differences, so it excludes --json. The
    exit code is 1 if a repair fails. To see what still differs, run the command again without
    --repair.

    $ finops state verify
    $ finops state verify acme 2026-01 --deep
    $ finops state verify --repair
    """
    from finops_dagster.cli import verify as verification

    settings, selection = Options.of(context).settings(), _selection(export, month)
    if former_repair:
        print_error("--mend is now called --repair; use that name")
    if repair or former_repair:
        if json:
            refuse_both("--json", "--repair")
        _repair(settings, selection, deep=deep)
    differences, coverage = verification.find_differences(settings, selection, deep=deep)
    rows = [verification.difference_row(*difference) for difference in differences]
    print_rows(rows, as_json=json, empty="all agree", headings=verification.DIFFERENCE_HEADINGS)
    for line in coverage.lines():
        print_error(line)
    raise typer.Exit(bool(differences))


def _repair(settings: Settings, selection: Selection, *, deep: bool) -> NoReturn:
    from finops_dagster.cli.changes import logging_changes
    from finops_dagster.cli.verify import repair_months

    with logging_changes("state verify --repair") as changes:

        def on_restored(line: str, stage: StageChange) -> None:
            changes.add(line, stage)
            print_line(line)

        exit_after(lambda: repair_months(settings, selection, on_restored, deep=deep))


def _age(text: str) -> timedelta:
    """Return the duration of a text such as `30d`, `12h` or `4w`. Raises BadParameter."""
    match = re.fullmatch(r"(\d+)([hdw])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not an age; write it as 12h, 30d or 4w")
    return timedelta(**{{"h": "hours", "d": "days", "w": "weeks"}[match[2]]: int(match[1])})


@app.command()
def cleanup(
    context: typer.Context,
    older_than: Annotated[
        timedelta,
        typer.Option(
            metavar="AGE", parser=_age, help="Delete what is older, such as 12h, 30d or 4w."
        ),
    ] = "30d",  # type: ignore[assignment]  # typer parses the default too
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Only mark runs whose process is gone as failed, and delete their unfinished "
            "files. --older-than is then ignored.",
        ),
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Delete old staged files, runs and records of replaced loads.

    Deletes what is older than --older-than:

    - staged files of versions that are loaded, or that are not the newest
    - local copies of files that several months share
    - ended runs with their logs, except the last run of each stage of each month
    - load records of superseded versions; the time of their load counts

    Also deletes files of the lake that no month, kept version or catalog uses. --older-than does
    not apply to these files: in a folder they are deleted at once, in a bucket a day after they
    were replaced.

    With --stale, deletes none of these. It only marks runs whose process is gone as failed, and
    deletes what they have left: unfinished files, and local copies of the lake's files.

    $ finops state cleanup --older-than 90d --dry-run
    $ finops state cleanup --stale
    """
    from finops_dagster.cli.changes import logging_changes
    from finops_dagster.cli.cleanup import delete_unneeded_data, end_lost_runs_and_clean
    from finops_dagster.pipeline.history import open_history

    settings, rows = Options.of(context).settings(), list[dict[str, Any]]()
    with logging_changes("state cleanup") as changes, open_history() as history:
        clean_rows = (
            end_lost_runs_and_clean
            if stale
            else partial(delete_unneeded_data, older_than=older_than)
        )
        for row, stage in clean_rows(settings, history, dry_run=dry_run):
            rows.append(row)
            if not dry_run:
                changes.add(f"{row['what']} {row['which']}", stage)
    print_rows(rows, as_json=json, empty="nothing to delete")


@app.command("export")
def export_state(context: typer.Context, file: StateFile, export: OptionalExport = None) -> None:
    """Write the load records and the run history to a file.

    The file has no rows of the bill. It has the costs of each month, and the costs by service and
    account that restatements changed. An existing file is replaced.

    $ finops state export state.json
    $ finops state export acme.json acme
    """
    from finops_dagster.cli.state_export import state_records
    from finops_dagster.cli.state_file import write_records
    from finops_dagster.pipeline.history import open_history

    settings, kinds = Options.of(context).settings(), Counter[str]()
    with open_history() as history:
        records = state_records(settings, _selection(export), history)
        write_records((record for record in records if kinds.update([record.kind]) is None), file)
    exports = count_text(kinds["export"], "export")
    print_line(f"{file}: {exports}, {count_text(kinds['run'], 'run')}")


@app.command("import")
def import_state(context: typer.Context, file: StateFile) -> None:
    """Import the records that finops state export wrote.

    First copy data/ to this machine, or load the months here. If the data of a stage has another
    version than the file says, the records of that stage are refused. A line says why, and the exit
    code is 1.

    $ finops state import state.json
    """
    from finops_dagster.cli.state_import import record_materializations, restore_ledgers_in_child

    restored = restore_ledgers_in_child(Options.of(context), file)
    from finops_dagster.cli.changes import logging_changes  # not before: it imports DuckDB

    with logging_changes("state import") as changes:
        record_materializations(restored.months, changes.add)
    print_line(f"months imported: {len(changes.lines)}")
    exit_with_problems(restored.refused)


@app.command()
def changes(json: Json = False) -> None:
    """List imports, cleanups, repairs and stopped runs.

    Shows the time, the user, the machine, the command, and what it changed.

    $ finops state changes
    """
    from finops_dagster.cli.changes import CHANGE_HEADINGS, change_rows

    empty = "no changes yet"
    print_rows(change_rows(), as_json=json, empty=empty, headings=CHANGE_HEADINGS)
