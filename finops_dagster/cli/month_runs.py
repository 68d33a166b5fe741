"""Months run from the terminal, with what comes of each, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finops_dagster.billing.errors import BillError, for_people
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.discovery import available_months
from finops_dagster.cli.errors import one_line
from finops_dagster.cli.months import (
    Records,
    Report,
    restatement_of,
    restatement_text,
    stages_of,
)
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Row, print_json
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import (
    MonthOptions,
    MonthRun,
    end_lost_runs,
    open_instance,
    run_month,
)
from finops_dagster.settings import Settings
from finops_dagster.terminal import complain, console

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
    if until == "warehouse_table" and not settings.database.has_warehouse:
        raise BillError(
            "backend is duckdb, which ends at Parquet; choose another with --backend, or set "
            "warehouse_path"
        )
    stages = (str(until),) if until in _FROM_THE_STAGE_BEFORE else stages_of(settings, until)
    definitions = build_definitions(settings)
    ended_well = True
    with open_instance() as instance, _Progress(is_hidden=as_json) as progress:
        end_lost_runs(instance)

        def fail(line: str) -> None:
            nonlocal ended_well
            ended_well = False
            (complain if as_json else progress.say)(line)

        months = _months(settings, selection, until, fail)
        progress.begin(len(months), len(stages))
        options: MonthOptions = {
            "stages": stages,
            "force": force,
            "on_stage": progress.stage,
            "on_message": progress.message,
            "on_warning": progress.warn,
        }
        for export, month in months:
            progress.month(export, month)
            try:
                done = run_month(definitions, instance, export, month, **options)
            except Exception as error:
                done = MonthRun(month, None, 0, {}, one_line(error))
            ended_well &= done.error is None
            if as_json:
                print_json(_row(export, done), indent=None)
            else:
                progress.say(_line(_row(export, done)))
            progress.month_ended()
    return ended_well


def _months(
    settings: Settings, selection: Selection, until: str | None, report: Report
) -> list[tuple[Export, BillingMonth]]:
    """The months that the stage before holds, or else those that the vendor has."""
    if until in _FROM_THE_STAGE_BEFORE:
        return list(_held_months(settings, selection, until, report))
    return [
        (Export(export), month)
        for export, _, versions in available_months(settings, selection, report)
        for month in versions
    ]


def _held_months(
    settings: Settings, selection: Selection, stage: str, report: Report
) -> Iterator[tuple[Export, BillingMonth]]:
    """Yield the months that the stage before holds; an export of which it holds none is
    reported."""
    before, command = _FROM_THE_STAGE_BEFORE[stage]
    months = list(Records(settings).months(selection))
    for export in selection.exports(settings):
        held = [month for month in months if month.export == export and month.holds(before)]
        if not held:
            report(
                f"{export.name}  failed: no month of it is in {before}; "
                f"finops {export.vendor} {command} comes first"
            )
        for month in held:
            yield Export(export), month.month


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
        self._bytes = self._months = self._of_months = self._of_stages = 0
        self._label = ""
        self._began = time.monotonic()

    def begin(self, months: int, stages: int) -> None:
        """Say how much there is to do."""
        self._of_months, self._of_stages = months, stages
        self.update(self._bar, total=months * stages)

    def month(self, export: Export, month: BillingMonth) -> None:
        """Say which month comes now."""
        self._label = f"{export.name} {month}"
        self.message("")

    def message(self, text: str) -> None:
        """Show what the month's run logs."""
        description = for_people(f"{self._label} {text}".strip())
        self.update(self._bar, description=description, done=self._done())

    def warn(self, text: str) -> None:
        """Print what a person should know while the month's run goes on, to standard error."""
        complain(f"{self._label}  {text}")

    def stage(self, stage: str, metadata: dict[str, Any]) -> None:
        """Count a stage, and the bytes that it has read."""
        self._bytes += metadata.get("bytes", 0) if stage == "staged_files" else 0
        self.update(self._bar, advance=1)
        self.message(stage)

    def month_ended(self) -> None:
        """Count the month, whichever stage it came to."""
        self._months += 1
        self.update(self._bar, completed=self._months * self._of_stages, done=self._done())

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(for_people(line), soft_wrap=True)

    def _done(self) -> str:
        rate = decimal(round(self._bytes / (time.monotonic() - self._began)))
        return f"{self._months} of {self._of_months} months, {decimal(self._bytes)}, {rate}/s"


def _row(export: Export, done: MonthRun) -> Row:
    """Return what came of a month; `outcome` is `unchanged`, `failed`, or what its last stage that
    had work to do did."""
    stages = list(done.stages.values())
    copies = [stage for stage in stages if "dagster/partition_row_count" in stage]
    changes = [one["outcome"] for one in copies or stages[-1:] if one["outcome"] != "unchanged"]
    totals = copies[-1] if copies and done.error is None else {}
    table = done.stages.get("billing_table", {})
    return {
        "export": export.name,
        "month": str(done.month),
        "outcome": "failed" if done.error is not None else (changes or ["unchanged"])[-1],
        "version": ([one["manifest_id"] for one in stages if "manifest_id" in one] or [None])[-1],
        "rows": totals.get("dagster/partition_row_count"),
        "cost": totals.get("total_cost_exact"),
        **restatement_of(table if table.get("outcome") == "loaded" else {}),
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
