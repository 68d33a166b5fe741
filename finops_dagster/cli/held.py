"""What each month holds, stage by stage, and how its last run ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from finops_dagster.billing.content import is_version_of
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog
from finops_dagster.cli.failures import reason
from finops_dagster.lake.footer import month_path, read_footer
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import Settings

FAILED = ("failure", "canceled")


def state(settings: Settings, asked: Asked) -> list[dict[str, Any]]:
    """What each month holds by stage: the event log's versions, and the Parquet file's totals."""
    log = EventLog()
    stages = STAGES[: STAGES.index(last_stage(settings)) + 1]
    rows: list[dict[str, Any]] = []
    for export in asked.exports(settings):
        versions, unfinished = log.versions(export.name), log.unfinished_months(export.name)
        for month in asked.months(export):
            held = {stage: versions[stage].get(str(month)) for stage in stages}
            if not any(held.values()) and str(month) not in unfinished:
                continue
            last_run = unfinished.get(str(month), "success")
            footer = read_footer(month_path(settings.storage.parquet_dir, export.name, month))
            rows.append(
                {
                    "export": export.name,
                    "month": str(month),
                    **held,
                    "rows": footer and footer.totals.rows,
                    "cost": footer and footer.totals.cost,
                    "last_run": last_run,
                    "reason": _why_failed(log, export.name, str(month), stages)
                    if last_run in FAILED
                    else None,
                }
            )
    return rows


def _why_failed(log: EventLog, export: str, month: str, stages: Sequence[str]) -> str | None:
    """The reason of the first stage that the month's last run has not done."""
    runs = log.unfinished_runs(export)
    return next((reason(log, runs[s][month], s) for s in stages if month in runs[s]), None)


def at_a_glance(rows: list[dict[str, Any]], *, reasons: bool = False) -> list[dict[str, Any]]:
    """Return the state for a table: the version that was read last, the stages that are behind it,
    and with `reasons` why the last run failed."""
    names = ("rows", "cost", "last_run", *(["reason"] if reasons else []))
    return [
        {
            "export": row["export"],
            "month": row["month"],
            "version": newest_version(row),
            "behind": _behind(row),
            **{name: row[name] for name in names},
        }
        for row in rows
    ]


def newest_version(row: dict[str, Any]) -> str | None:
    """Return the version that was found in the files of the manifest that was read last, or the
    manifest's own id where they have not been looked at since."""
    manifest: str | None = row["manifest"]
    staged: str | None = row.get("staged_files")
    return staged if manifest and staged and is_version_of(staged, manifest) else manifest


def _behind(row: dict[str, Any]) -> str | None:
    """The stages that hold another version than the one that was read last, and which."""
    newest = newest_version(row)
    if newest is None:
        return None
    stages_of: dict[str, list[str]] = defaultdict(list)
    for stage in STAGES[1:]:
        if stage in row and row[stage] != newest:
            stages_of[row[stage] or "nothing"].append(stage)
    return "; ".join(f"{', '.join(stages)}: {held}" for held, stages in stages_of.items())


def last_stage(settings: Settings) -> str:
    """Where the chain ends."""
    return "warehouse_table" if settings.database.has_warehouse else "parquet"
