"""Run months from the terminal, with a line for each month and a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from functools import cache, partial
from typing import Any

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finops_dagster.billing.errors import BillError, count_text, shortened
from finops_dagster.cli.available import available_months
from finops_dagster.cli.errors import error_line
from finops_dagster.cli.month_rows import restatement_fields, restatement_text
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import OnProblem, Row, print_json
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths, stages_of
from finops_dagster.focus.exports import charge_sources, completing_exports
from finops_dagster.pipeline import BILL_STAGES, FOCUS_STAGES, PREVIOUS_STAGE
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.instance import end_lost_runs, open_instance
from finops_dagster.pipeline.runs import MonthRun, run_month
from finops_dagster.pipeline.unchanged import UnchangedMonths
from finops_dagster.settings import Settings
from finops_dagster.terminal import console, print_error

# These stages run alone, from what the stage before them stored. Each has the command that runs the
# stage before it.
_RUN_ALONE = {
    "billing_table": "extract-billing",
    "parquet": "load-billing-local",
    "warehouse_table": "export-parquet",
    "focus": "export-parquet",
    "warehouse_focus": "derive-focus",
}


def run_months(
    settings: Settings,
    selection: Selection,
    stage: str | None = None,
    *,
    force: bool,
    as_json: bool = False,
) -> bool:
    """Run the months one by one, print a line as each ends, and return whether all succeeded.

    The months are run export by export, newest month first. The exports that complete the charges
    of others come first. An export that has none of the months counts as a failure too. Lost runs
    are marked as failed before.

    `stage` is the only stage to run, from what the stage before it has stored; `staged_files` also
    runs `manifest`. With None, every stage runs, but an unchanged month is only verified. `force`
    runs unchanged months again.

    `as_json` prints each month as one line of JSON. Without it, all failures are printed again at
    the end, on standard error, unless the last month failed or none ran.

    Raises BillError if no selected export has the stage, and KeyboardInterrupt if Ctrl-C stopped a
    run.
    """
    stages = _stages(settings, selection, stage)
    # Built for the first month that needs a run, without the other exports: a thousand take 14 s.
    definitions = cache(partial(build_definitions, settings, stages))
    failed, last_line = list[str](), ""
    with open_instance() as instance, _Progress(is_hidden=as_json) as progress:
        end_lost_runs(instance)

        def on_problem(line: str) -> None:
            failed.append(line)
            (print_error if as_json else progress.print_line)(line)

        # All months first: the bar shows how many there are.
        months = list(_months_to_run(settings, selection, stage, stages, on_problem))
        completing = completing_exports(settings.exports)
        months.sort(key=lambda month: month.export.name not in completing)
        progress.month_count = len(months)
        progress.stage_count = max(map(len, stages.values()), default=0)
        unchanged = UnchangedMonths(settings, instance)
        for month in months:
            progress.start_month(month)
            month_stages, result = stages[month.export.name], None
            if stage is None and not force:
                result = unchanged.verify_month(
                    Export(month.export), month.month, month_stages, progress.print_warning
                )
            if result is None:
                run_stages = partial(run_month, definitions(), instance, force=force)
                result = _month_run(partial(run_stages, stages=month_stages), month, progress)
            row = _row(month, result)
            last_line = _line(row)
            if result.error is not None:
                failed.append(last_line)
            if as_json:
                print_json(row, indent=None)
            else:
                progress.print_line(last_line)
            progress.end_month()
    if failed and last_line not in ("", failed[-1]) and not as_json:
        for line in failed:
            print_error(line)
    return not failed


def _stages(
    settings: Settings, selection: Selection, stage: str | None
) -> dict[str, tuple[str, ...]]:
    """Return the stages to run, by export; exports that do not have `stage` are left out.

    Raises BillError if none has it.
    """
    if stage in ("warehouse_table", "warehouse_focus") and not settings.database.has_warehouse:
        raise BillError(
            "the backend duckdb has no warehouse; choose another with --backend, or set "
            "database.duckdb.warehouse_path"
        )
    exports = selection.exports(settings)
    if stage is None:
        return {export.name: stages_of(settings, export) for export in exports}
    stages = (stage,) if stage in _RUN_ALONE else BILL_STAGES[: BILL_STAGES.index(stage) + 1]
    by_export = {e.name: stages for e in exports if stage not in FOCUS_STAGES or charge_sources(e)}
    if not by_export:
        names = ", ".join(export.name for export in exports)
        raise BillError(
            f"charges are not derived from {names}; choose another export by --export "
            "(docs/focus.md lists the formats that have charges)"
        )
    return by_export


def _month_run(
    run_stages: Callable[..., MonthRun], month: StoredMonth, progress: _Progress
) -> MonthRun:
    """Run a month; an error outside of its run fails this month and not the others."""
    try:
        return run_stages(
            Export(month.export),
            month.month,
            on_stage=progress.end_stage,
            on_message=progress.show_message,
            on_warning=progress.print_warning,
        )
    except Exception as error:
        return MonthRun(month.month, None, 0, {}, error_line(error))


def _months_to_run(
    settings: Settings,
    selection: Selection,
    stage: str | None,
    stages: Collection[str],
    on_problem: OnProblem,
) -> Iterator[StoredMonth]:
    """Yield the months to run: those that the previous stage has, or that the vendor has.

    `stages` has the exports that have `stage`. `on_problem` is called for one of them
    that has no month.
    """
    stored = StoredMonths(settings)
    if stage not in _RUN_ALONE:
        for export, _, manifests in available_months(settings, selection, on_problem):
            yield from (StoredMonth(export, month, stored) for month in manifests)
        return
    previous_stage, command = PREVIOUS_STAGE[stage], _RUN_ALONE[stage]
    months = [month for month in stored.months(selection) if month.has_stage(previous_stage)]
    for export in selection.exports(settings):
        if export.name not in stages:
            continue
        export_months = [month for month in months if month.export == export]
        if not export_months:
            on_problem(
                f"{export.name}  failed: the stage {previous_stage} has none of the selected "
                f"months; run finops {export.vendor} {command} first"
            )
        yield from export_months


class _Progress(Progress):
    """A progress bar with the months and bytes that are done, their rate, and the time left.

    The bar is shown on a terminal only. Lines are printed above it. `month_count` and `stage_count`
    are set before the first month starts.
    """

    def __init__(self, *, is_hidden: bool) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[summary]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console(),
            disable=is_hidden or not sys.stdout.isatty(),
            transient=True,
        )
        self._bar = self.add_task("looking for months", total=None, summary="")
        self.month_count = self.stage_count = self._staged_bytes = self._ended_months = 0
        self._label, self._started = "", time.monotonic()

    def start_month(self, month: StoredMonth) -> None:
        """Show the name of the month."""
        self._label = str(month)
        self.update(self._bar, total=self.month_count * self.stage_count)
        self.show_message("")

    def show_message(self, text: str) -> None:
        """Show a message of the run beside the month's name."""
        rate = decimal(round(self._staged_bytes / (time.monotonic() - self._started)))
        months = f"{self._ended_months} of {count_text(self.month_count, 'month')}"
        summary = f"{months}, {decimal(self._staged_bytes)}, {rate}/s"
        description = shortened(f"{self._label} {text}".strip())
        self.update(self._bar, description=description, summary=summary)

    def print_warning(self, text: str) -> None:
        """Print a warning of the run to standard error, after the month's name."""
        print_error(f"{self._label}  {text}")

    def end_stage(self, stage: str, metadata: dict[str, Any]) -> None:
        """Advance the bar by a stage; add `metadata["bytes"]` if the stage is `staged_files`."""
        self._staged_bytes += metadata.get("bytes", 0) if stage == "staged_files" else 0
        self.update(self._bar, advance=1)
        self.show_message(stage)

    def end_month(self) -> None:
        """Advance the bar to the end of the month, also if not all of its stages ran."""
        self._ended_months += 1
        self.update(self._bar, completed=self._ended_months * self.stage_count)
        self.show_message("")

    def print_line(self, line: str) -> None:
        """Print a line above the bar, escaped and shortened."""
        # Without soft_wrap, rich would insert line ends at the width of the terminal.
        self.console.print(shortened(line), soft_wrap=True)


def _row(month: StoredMonth, result: MonthRun) -> Row:
    """Return the result of a month as a row.

    `outcome` is `failed`, `unchanged`, or the outcome of the last stage of the bill that had work
    to do, or else that of the charges. Rows and cost are those of the bill, also if only a stage of
    the charges failed.
    """
    stages = list(result.metadata_by_stage.values())
    # Only the stages that store the month's rows have this key: table, Parquet file, warehouse.
    with_rows = {
        s: m for s, m in result.metadata_by_stage.items() if "dagster/partition_row_count" in m
    }
    loads = [m for s, m in with_rows.items() if s in BILL_STAGES] or list(with_rows.values())
    # The last stage of the bill that had work to do counts, or else that of the charges.
    in_order = sorted(with_rows, key=lambda stage: stage in BILL_STAGES)
    outcomes = [with_rows[stage]["outcome"] for stage in in_order]
    outcomes = outcomes or [metadata["outcome"] for metadata in stages[-1:]]
    changes = [outcome for outcome in outcomes if outcome != "unchanged"]
    versions = [metadata["manifest_id"] for metadata in stages if "manifest_id" in metadata]
    failed = {*result.failed_stages}
    has_bill = result.error is None or (failed and failed <= {*FOCUS_STAGES})
    totals = loads[-1] if loads and has_bill else {}
    table = result.metadata_by_stage.get("billing_table", {})
    return {
        "export": month.key[0],
        "month": month.key[1],
        "outcome": "failed" if result.error is not None else (changes or ["unchanged"])[-1],
        "version": versions[-1] if versions else None,
        "rows": totals.get("dagster/partition_row_count"),
        "cost": totals.get("total_cost_exact"),
        # An unchanged table repeats the restatement of an earlier run.
        **restatement_fields(table if table.get("outcome") == "loaded" else {}),
        "failed_checks": list(result.failed_check_names),
        "seconds": round(result.seconds, 1),
        "run": result.run_id,
        "reason": result.error,
    }


def _line(row: Row) -> str:
    month = f"{row['export']} {row['month']}"
    if row["outcome"] == "failed":
        return f"{month}  failed: {row['reason']}{_loaded_bill(row)}"
    line = f"{month}  {row['outcome']}  {row['version']}"
    if row["rows"] is not None:
        line += f"  {count_text(row['rows'], 'row')}  {Decimal(row['cost']):,.2f}"
    line += f"  {row['seconds']:.1f} s"
    if restatement := restatement_text(row):
        line += f"  restated: {restatement}"
    if row["failed_checks"]:
        line += f"  failed checks: {', '.join(row['failed_checks'])}"
    return line


def _loaded_bill(row: Row) -> str:
    """Return the end of the line of a month of which only the charges failed."""
    if row["rows"] is None:
        return ""
    rows, cost = count_text(row["rows"], "row"), Decimal(row["cost"])
    return f"; the bill is loaded: {row['version']}  {rows}  {cost:,.2f}"
