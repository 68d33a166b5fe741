"""Months run from the terminal, with what comes of each, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finops_dagster.assets import STAGES
from finops_dagster.assets.export import Export
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.delivered import delivered
from finops_dagster.cli.errors import one_line
from finops_dagster.code_location import build_definitions
from finops_dagster.runs import MonthRun, end_lost_runs, open_instance, run_month
from finops_dagster.settings import Settings


def run(settings: Settings, asked: Asked, until: str, *, force: bool) -> bool:
    """Run the months one after the other up to a stage, and say of each what came of it; whether
    all went well. An export that cannot be looked at delays no other."""
    if until == "warehouse_table" and not settings.database.has_warehouse:
        raise BillError(
            "backend is duckdb, which ends at Parquet; choose another with --backend, or set "
            "warehouse_path"
        )
    definitions = build_definitions(settings)
    stages = STAGES[: STAGES.index(until) + 1]
    ended_well = True
    with open_instance() as instance, _Progress() as progress:
        end_lost_runs(instance)

        def fail(line: str) -> None:
            nonlocal ended_well
            ended_well = False
            progress.say(line)

        there = list(delivered(settings, asked, fail))
        months = [(export, month) for export, months in there for month in months]
        progress.begin(len(months), len(stages))
        for export, month in months:
            progress.month(export, month)
            try:
                done = run_month(
                    definitions,
                    instance,
                    export,
                    month,
                    stages=stages,
                    force=force,
                    on_stage=progress.stage,
                    on_message=progress.message,
                    on_warning=progress.warn,
                )
                if done.error is None:
                    progress.say(_line(export, done))
                else:
                    fail(f"{export.name} {month}  failed: {done.error}")
            except Exception as error:
                fail(f"{export.name} {month}  failed: {one_line(error)}")
            progress.month_ended()
    return ended_well


class _Progress(Progress):
    """On a terminal a bar with the months and bytes that are done, their rate, and the time left;
    in a log, nothing but the lines that are printed above it."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(),
            disable=not sys.stdout.isatty(),
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
        """Show what the month's run says."""
        self.update(self._bar, description=f"{self._label} {text}".strip(), done=self._done())

    def warn(self, text: str) -> None:
        """Print what a person should know while the month's run goes on, to standard error."""
        print(f"{self._label}  {text}", file=sys.stderr, flush=True)  # noqa: T201

    def stage(self, stage: str, metadata: dict[str, Any]) -> None:
        """Count a stage, and the bytes that it says it has read."""
        self._bytes += metadata.get("bytes", 0) if stage == "staged_files" else 0
        self.update(self._bar, advance=1)
        self.message(stage)

    def month_ended(self) -> None:
        """Count the month, whichever stage it came to."""
        self._months += 1
        self.update(self._bar, completed=self._months * self._of_stages, done=self._done())

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _done(self) -> str:
        rate = self._bytes / (time.monotonic() - self._began)
        return (
            f"{self._months} of {self._of_months} months, {decimal(self._bytes)}, "
            f"{decimal(round(rate))}/s"
        )


def _line(export: Export, done: MonthRun) -> str:
    last = list(done.stages.values())[-1]
    version = [m["manifest_id"] for m in done.stages.values() if "manifest_id" in m][-1]
    copies = [m for m in done.stages.values() if "dagster/partition_row_count" in m] or [last]
    changes = [m["outcome"] for m in copies if m["outcome"] != "unchanged"]
    what = changes[-1] if changes else "unchanged"
    totals = (
        f"  {last['dagster/partition_row_count']:,} rows  {last['total_cost']:,.2f}"
        if "dagster/partition_row_count" in last
        else ""
    )
    return f"{export.name} {done.month}  {what}  {version}{totals}  {done.seconds:.1f} s"
