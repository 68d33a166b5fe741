"""Months run from the terminal, with what comes of each, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finops_dagster.billing.errors import BillError, shortened
from finops_dagster.cli.available import available_months
from finops_dagster.cli.errors import one_line
from finops_dagster.cli.month_rows import restatement_fields, restatement_text
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import OnProblem, Row, print_json
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths, stages_until
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import MonthRun, end_lost_runs, open_instance, run_month
from finops_dagster.settings import Settings
from finops_dagster.terminal import console, print_error

# What these stages load, and the command that brings it; the vendor is not asked.
_FROM_THE_STAGE_BEFORE = {
    "billing_table": ("staged_files", "extract-billing"),
    "parquet": ("billing_table", "load-billing-local"),
    "warehouse_table": ("parquet", "export-parquet"),
}


def run_months(
    settings: Settings,
    selection: Selection,
    until: str | None = None,
    *,
    force: bool,
    as_json: bool = False,
) -> bool:
    """Run the months one after the other up to a stage, or the last, and print a line for each as
    it ends; return whether all went well. An export that cannot be looked at delays no other.

    Stages that load what lies here already run alone, also where the vendor cannot be reached.
    """
    stages = _stages(settings, until)
    definitions = build_definitions(settings)
    ended_well = True
    with open_instance() as instance, _Progress(is_hidden=as_json) as progress:
        end_lost_runs(instance)

        def fail(line: str) -> None:
            nonlocal ended_well
            ended_well = False
            (print_error if as_json else progress.say)(line)

        months = list(_months(settings, selection, until, fail))
        progress.of_months, progress.of_stages = len(months), len(stages)
        run = partial(run_month, definitions, instance, stages=stages, force=force)
        for month in months:
            progress.begin(month)
            done = _run(run, month, progress)
            ended_well &= done.error is None
            row = _row(month, done)
            if as_json:
                print_json(row, indent=None)
            else:
                progress.say(_line(row))
            progress.end()
    return ended_well


def _stages(settings: Settings, until: str | None) -> tuple[str, ...]:
    if until == "warehouse_table" and not settings.database.has_warehouse:
        raise BillError(
            "backend is duckdb, which ends at Parquet; choose another with --backend, or set "
            "warehouse_path"
        )
    return (until,) if until and until in _FROM_THE_STAGE_BEFORE else stages_until(settings, until)


def _run(run: Callable[..., MonthRun], month: StoredMonth, progress: _Progress) -> MonthRun:
    """Run a month; an error that is none of its run's ends it alone."""
    try:
        return run(
            Export(month.export),
            month.month,
            on_stage=progress.stage,
            on_message=progress.message,
            on_warning=progress.warn,
        )
    except Exception as error:
        return MonthRun(month.month, None, 0, {}, one_line(error))


def _months(
    settings: Settings, selection: Selection, until: str | None, on_problem: OnProblem
) -> Iterator[StoredMonth]:
    """Yield the months that the stage before holds, or else those that the vendor has; an export of
    which the stage before holds none is reported."""
    stored = StoredMonths(settings)
    if until not in _FROM_THE_STAGE_BEFORE:
        for export, _, versions in available_months(settings, selection, on_problem):
            yield from (StoredMonth(export, month, stored) for month in versions)
        return
    before, command = _FROM_THE_STAGE_BEFORE[until]
    months = [month for month in stored.months(selection) if month.has_stage(before)]
    for export in selection.exports(settings):
        of_export = [month for month in months if month.export == export]
        if not of_export:
            on_problem(
                f"{export.name}  failed: no month of it is in {before}; "
                f"finops {export.vendor} {command} comes first"
            )
        yield from of_export


class _Progress(Progress):
    """On a terminal a bar with the months and bytes that are done, their rate, and the time left;
    in a log, nothing but the lines that are printed above it."""

    def __init__(self, *, is_hidden: bool) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[done]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console(),
            disable=is_hidden or not sys.stdout.isatty(),
            transient=True,
        )
        self._bar = self.add_task("looking for months", total=None, done="")
        self.of_months = self.of_stages = self._bytes = self._months = 0
        self._label, self._began = "", time.monotonic()

    def begin(self, month: StoredMonth) -> None:
        """Say which month comes now."""
        self._label = str(month)
        self.update(self._bar, total=self.of_months * self.of_stages)
        self.message("")

    def message(self, text: str) -> None:
        """Show what the month's run logs."""
        rate = decimal(round(self._bytes / (time.monotonic() - self._began)))
        done = f"{self._months} of {self.of_months} months, {decimal(self._bytes)}, {rate}/s"
        self.update(self._bar, description=shortened(f"{self._label} {text}".strip()), done=done)

    def warn(self, text: str) -> None:
        """Print what a person should know while the month's run goes on, to standard error."""
        print_error(f"{self._label}  {text}")

    def stage(self, stage: str, metadata: dict[str, Any]) -> None:
        """Count a stage, and the bytes that it has read."""
        self._bytes += metadata.get("bytes", 0) if stage == "staged_files" else 0
        self.update(self._bar, advance=1)
        self.message(stage)

    def end(self) -> None:
        """Count the month, whichever stage it came to."""
        self._months += 1
        self.update(self._bar, completed=self._months * self.of_stages)
        self.message("")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(shortened(line), soft_wrap=True)


def _row(month: StoredMonth, done: MonthRun) -> Row:
    """Return what came of a month; `outcome` is `unchanged`, `failed`, or what its last stage that
    had work to do did."""
    stages = list(done.stages.values())
    copies = [stage for stage in stages if "dagster/partition_row_count" in stage]
    changes = [one["outcome"] for one in copies or stages[-1:] if one["outcome"] != "unchanged"]
    totals = copies[-1] if copies and done.error is None else {}
    table = done.stages.get("billing_table", {})
    return {
        "export": month.key[0],
        "month": month.key[1],
        "outcome": "failed" if done.error is not None else (changes or ["unchanged"])[-1],
        "version": ([one["manifest_id"] for one in stages if "manifest_id" in one] or [None])[-1],
        "rows": totals.get("dagster/partition_row_count"),
        "cost": totals.get("total_cost_exact"),
        **restatement_fields(table if table.get("outcome") == "loaded" else {}),
        "failed_checks": list(done.failed_checks),
        "seconds": round(done.seconds, 1),
        "run": done.run_id,
        "reason": done.error,
    }


def _line(row: Row) -> str:
    month = f"{row['export']} {row['month']}"
    if row["outcome"] == "failed":
        return f"{month}  failed: {row['reason']}"
    line = f"{month}  {row['outcome']}  {row['version']}"
    if row["rows"] is not None:
        line += f"  {row['rows']:,} rows  {Decimal(row['cost']):,.2f}"
    line += f"  {row['seconds']:.1f} s"
    if restatement := restatement_text(row):
        line += f"  restated: {restatement}"
    if row["failed_checks"]:
        line += f"  failed checks: {', '.join(row['failed_checks'])}"
    return line
