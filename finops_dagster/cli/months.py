"""Months of exports as the `finops` command speaks of them: which there are, what they hold, and
running them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dagster as dg
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from finops_dagster.assets.export import Export
from finops_dagster.assets.manifest import read_manifest, what_is_there
from finops_dagster.assets.stage import STAGES
from finops_dagster.billing.errors import BillError, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import read_footer
from finops_dagster.definitions import build_definitions
from finops_dagster.resources.object_stores import StoreError, StoreUnavailable
from finops_dagster.resources.parquet_lake import ParquetLake
from finops_dagster.runs import MonthRun, open_instance, run_month
from finops_dagster.sensors import manifest_versions
from finops_dagster.settings import Settings

_REQUESTS_AT_ONCE = 16


@dataclass(frozen=True)
class Asked:
    """The months that a command is for: of one export or of all, of one vendor or of all, from
    `start` to `end`."""

    vendor: str | None
    export: str | None
    start: str | None
    end: str | None

    def exports(self, settings: Settings) -> list[Export]:
        """The exports. Raises BillError where there are none."""
        of_vendor = [Export(one) for one in settings.exports if self.vendor in (None, one.vendor)]
        chosen = [one for one in of_vendor if self.export in (None, one.name)]
        if not chosen:
            names = ", ".join(export.name for export in of_vendor) or "none"
            raise BillError(
                f"there is no export {self.export!r}; the settings have {names}"
                if self.export
                else f"the settings have no export of {self.vendor or 'any vendor'}"
            )
        return chosen

    def months(self, export: Export) -> list[BillingMonth]:
        """The export's months in the range."""
        return [
            month
            for month in export.months()
            if (self.start or "") <= str(month) <= (self.end or "9999-12")
        ]


def delivered(export: Export, asked: Asked) -> list[BillingMonth]:
    """The months in the range that the vendor has delivered. Raises BillError where there are
    none, and what the store raises."""
    months = asked.months(export)
    if not months:
        raise BillError(
            f"{export.name} has no month from {asked.start} to {asked.end}; its first is "
            f"{export.settings.start_month}"
        )
    problems: list[str] = []
    there = list(manifest_versions(export, months, problems.append))
    if problems:
        raise StoreError("; ".join(problems))
    if not there:
        raise ManifestMissing(what_is_there(export, months[-1]))
    return there


def versions_by_stage(
    instance: dg.DagsterInstance, export: Export, stages: Sequence[str] = STAGES
) -> dict[str, dict[str, str]]:
    """By stage and month, the version that the event log has last, in one query a stage."""
    versions: dict[str, dict[str, str]] = {}
    for stage in stages:
        tags = instance.event_log_storage.get_latest_tags_by_partition(
            export.key(stage),
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            tag_keys=["dagster/data_version"],
        )
        versions[stage] = {month: found["dagster/data_version"] for month, found in tags.items()}
    return versions


def unfinished_runs(instance: dg.DagsterInstance, export: Export, stage: str) -> dict[str, str]:
    """By month, the run that set out to do the stage and has not: it goes on, or it failed."""
    log = instance.event_log_storage
    attempts = log.get_latest_asset_partition_materialization_attempts_without_materializations(
        export.key(stage)
    )
    return {month: run_id for month, (run_id, _) in attempts.items()}


def unfinished_months(instance: dg.DagsterInstance, export: Export) -> dict[str, str]:
    """By month, how the last run that did not end well stands: started, failure, canceled."""
    runs: dict[str, str] = {}
    for stage in STAGES:
        runs |= unfinished_runs(instance, export, stage)
    found = {run_id: instance.get_run_by_id(run_id) for run_id in set(runs.values())}
    return {
        month: run.status.value.lower()
        for month, run_id in runs.items()
        if (run := found[run_id]) is not None
    }


def discover(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """The newest version of each month: what the vendor has, and whether the table holds it."""
    rows: list[dict[str, Any]] = []
    with open_instance() as instance:
        for export in asked.exports(settings):
            held = versions_by_stage(instance, export, ["billing_table"])["billing_table"]
            for month in delivered(export, asked):
                manifest = read_manifest(export, month)
                rows.append(
                    {
                        "export": export.name,
                        "month": str(month),
                        "version": manifest.id,
                        "format": manifest.format,
                        "files": len(manifest.files),
                        "bytes": _bytes(export, manifest),
                        "last modified": f"{manifest.source.last_modified:%Y-%m-%d %H:%M}",
                        "loaded": _loaded(held.get(str(month)), manifest.id),
                    }
                )
    return rows


def _loaded(held: str | None, newest: str) -> str:
    return "no" if held is None else "yes" if held == newest else f"older: {held}"


def _bytes(export: Export, manifest: Manifest) -> int:
    store, _ = export.store
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        return sum(pool.map(lambda file: file.size or store.head(file.key).size, manifest.files))


def state(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """What each month holds by stage: the event log's versions, and the Parquet file's totals."""
    lake = ParquetLake(root=str(settings.storage.parquet_dir))
    rows: list[dict[str, Any]] = []
    with open_instance() as instance:
        for export in asked.exports(settings):
            versions = versions_by_stage(instance, export)
            unfinished = unfinished_months(instance, export)
            for month in map(str, asked.months(export)):
                held = {stage: versions[stage].get(month) for stage in STAGES}
                if not any(held.values()) and month not in unfinished:
                    continue
                footer = read_footer(lake.path(export.name, BillingMonth.parse(month)))
                rows.append(
                    {
                        "export": export.name,
                        "month": month,
                        **held,
                        "rows": footer and footer.totals.rows,
                        "cost": footer and f"{footer.totals.cost:,.2f}",
                        "last run": unfinished.get(month, "success"),
                    }
                )
    if not settings.database.has_warehouse:
        for row in rows:
            del row["warehouse_table"]
    return rows


def at_a_glance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The state for a table: the version once, and of each stage whether it is the one."""
    return [
        {
            "export": row["export"],
            "month": row["month"],
            "version": row["manifest"],
            **{
                stage: "same" if row[stage] == row["manifest"] else row[stage]
                for stage in STAGES[1:]
                if stage in row
            },
            **{name: row[name] for name in ("rows", "cost", "last run")},
        }
        for row in rows
    ]


def plan(settings: Settings, asked: Asked, until: str) -> list[dict[str, Any]]:
    """What a run would do for each month, by the versions that the event log has."""
    rows: list[dict[str, Any]] = []
    stages = _stages(settings, until)
    with open_instance() as instance:
        for export in asked.exports(settings):
            versions = versions_by_stage(instance, export, stages)
            for month in delivered(export, asked):
                newest = read_manifest(export, month).id
                behind = [s for s in stages if versions[s].get(str(month)) != newest]
                rows.append(
                    {
                        "export": export.name,
                        "month": str(month),
                        "version": newest,
                        "would run": ", ".join(behind) or "nothing: unchanged",
                    }
                )
    return rows


def run(settings: Settings, asked: Asked, until: str, *, force: bool) -> bool:
    """Run the months one after the other up to a stage, and say of each what came of it; whether
    all went well. An export that cannot be looked at delays no other."""
    definitions = build_definitions(settings)
    stages = _stages(settings, until)
    ended_well = True
    with open_instance() as instance, _progress() as progress:
        bar = progress.add_task("looking for months", total=None)
        months: list[tuple[Export, BillingMonth]] = []
        for export in asked.exports(settings):
            try:
                months += [(export, month) for month in delivered(export, asked)]
            except (BillError, StoreError, StoreUnavailable) as error:
                ended_well = False
                progress.console.print(f"{export.name}  failed: {error}", highlight=False)
        progress.update(bar, total=len(months) * len(stages))
        for number, (export, month) in enumerate(months):

            def advance(stage: str, label: str = f"{export.name} {month}") -> None:
                progress.update(bar, advance=1, description=f"{label} {stage}")

            done = run_month(
                definitions, instance, export, month, stages=stages, force=force, on_stage=advance
            )
            ended_well &= done.error is None
            progress.update(bar, completed=(number + 1) * len(stages))
            progress.console.print(_line(export, done), highlight=False, soft_wrap=True)
    return ended_well


def _progress() -> Progress:
    """A bar on a terminal; in a log, nothing but the lines that are printed above it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(),
        disable=not sys.stdout.isatty(),
        transient=True,
    )


def _line(export: Export, done: MonthRun) -> str:
    label = f"{export.name} {done.month}"
    if done.error is not None:
        return f"{label}  failed: {done.error}"
    last = list(done.stages.values())[-1]
    version = next(m["manifest_id"] for m in done.stages.values() if "manifest_id" in m)
    what = "unchanged" if done.is_unchanged else last["outcome"]
    totals = (
        f"  {last['dagster/partition_row_count']:,} rows  {last['total_cost']:,.2f}"
        if "dagster/partition_row_count" in last
        else ""
    )
    return f"{label}  {what}  {version}{totals}  {done.seconds:.1f} s"


def last_stage(settings: Settings) -> str:
    """Where the chain ends."""
    return "warehouse_table" if settings.database.has_warehouse else "parquet"


def stale(settings: Settings, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `state` whose last stage does not hold the vendor's newest version."""
    exports = {one.name: Export(one) for one in settings.exports}
    stage = last_stage(settings)
    return [
        row
        for row in rows
        if read_manifest(exports[row["export"]], BillingMonth.parse(row["month"])).id != row[stage]
    ]


def _stages(settings: Settings, until: str) -> list[str]:
    """The stages up to one. Raises BillError for a warehouse that the settings do not have."""
    if until == "warehouse_table" and not settings.database.has_warehouse:
        raise BillError("backend is duckdb, which ends at Parquet; choose another with --backend")
    return list(STAGES[: STAGES.index(until) + 1])
