"""What Dagster knows of runs, failures and materializations, by its public API.

To import Dagster and open its storage takes a second: only what needs its word asks for it.
"""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from finops_dagster.pipeline import STAGES
from finops_dagster.processes import INTERRUPTS, read_note
from finops_dagster.settings import dagster_home

if TYPE_CHECKING:
    import dagster as dg


FAILED = ("failure", "canceled")
_RECORDS, _ENDINGS_AT_ONCE = 50, 500


@dataclass(frozen=True)
class Run:
    """A run of a month; `began` is when it was asked for, where it has not begun. `stages` are
    those that it set out to do, by export."""

    id: str
    status: str
    month: str
    began: datetime
    ended: datetime | None
    stages: dict[str, tuple[str, ...]]

    @property
    def is_in_progress(self) -> bool:
        """Whether it is queued, started, or being canceled."""
        return self.status not in ("success", *FAILED)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return ((self.ended or datetime.now(UTC)) - self.began).total_seconds()


@dataclass(frozen=True)
class Ending:
    """Why a run failed or was canceled: the stage and the check, where one failed, and the cause's
    name."""

    stage: str | None
    cause: str
    message: str
    check: str | None = None


@dataclass(frozen=True)
class Materialization:
    """What a stage recorded of a month: its version, when, in which run, and its metadata."""

    version: str | None
    at: datetime
    run: str
    metadata: dict[str, Any]


@contextmanager
def open_history() -> Iterator[History]:
    """Open the history in DAGSTER_HOME; where nothing ever ran, without importing Dagster."""
    home = dagster_home()
    if not (home / "dagster.yaml").exists() and not (home / "history").exists():
        yield History(None)
        return
    from finops_dagster.pipeline.runs import open_instance

    with open_instance() as instance:
        # Python would search all that Dagster imported for garbage, thrice as the process ends,
        # which takes half a second. DuckDB complains of its own that is left: it is imported after.
        if "duckdb" not in sys.modules:
            gc.freeze()
        yield History(instance)


class History:
    """Answers about the months' runs; what was read once is kept."""

    def __init__(self, instance: dg.DagsterInstance | None) -> None:
        self.instance = instance

    @cached_property
    def runs(self) -> list[Run]:
        """All runs of months, the newest first."""
        return list(map(_run, self.instance.get_run_records())) if self.instance else []

    @cached_property
    def by_month(self) -> dict[tuple[str, str], list[Run]]:
        """The runs by export and month, the newest first."""
        runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in self.runs:
            for export in run.stages:
                runs[export, run.month].append(run)
        return runs

    def of_export(self, export: str) -> list[Run]:
        """Return the runs of an export, the newest first."""
        return [run for run in self.runs if export in run.stages]

    @cached_property
    def endings(self) -> dict[str, Ending]:
        """Why each run that failed or was canceled did, by its id."""
        endings: dict[str, Ending] = {}
        if self.instance is None:
            return endings
        import dagster as dg

        for of_type in (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED):
            cursor, has_more = None, True
            while has_more:
                page = self.instance.fetch_run_status_changes(of_type, _ENDINGS_AT_ONCE, cursor)
                cursor, has_more = page.cursor, page.has_more
                for record in page.records:
                    assert record.event_log_entry.dagster_event is not None
                    endings.setdefault(record.run_id, _ending(record.event_log_entry.dagster_event))
        return endings

    def reason(self, run: Run) -> str | None:
        """Return why a run failed or was canceled."""
        return self.endings[run.id].message if run.id in self.endings else None

    def status(self, export: str, month: str) -> tuple[str, str | None]:
        """Return how the newest of a month's runs stands that has a stage to do which no later run
        did, and why it failed where it did."""
        done = set[str]()
        for run in self.by_month.get((export, month), []):
            stages = run.stages[export]
            if run.status == "success":
                done |= set(stages)
                continue
            failed = self.endings[run.id].stage if run.id in self.endings else None
            if set(stages[stages.index(failed) :] if failed in stages else stages) - done:
                return run.status, self.reason(run)
        return "success", None

    def materializations(
        self, export: str, months: Collection[str], stages: Sequence[str] = STAGES
    ) -> dict[str, dict[str, Materialization]]:
        """Return the last materialization of each month, by stage and month: the newest of all
        months are asked for, and then of those that had none among them."""
        found: dict[str, dict[str, Materialization]] = {stage: {} for stage in stages}
        for stage, by_month in found.items():
            while missing := set(months) - by_month.keys():
                newest = self._fetch(export, stage, 2 * len(missing), asset_partitions=[*missing])
                by_month.update(reversed(newest))
                if not newest:
                    break
        return found

    def _fetch(
        self, export: str, stage: str, limit: int = _RECORDS, **filters: Any
    ) -> list[tuple[str, Materialization]]:
        """Return the newest materializations of a stage, each with its month."""
        if self.instance is None:
            return []
        import dagster as dg

        wanted = dg.AssetRecordsFilter(dg.AssetKey([export, stage]), **filters)
        records = self.instance.fetch_materializations(wanted, limit).records
        return [(record.partition_key or "", _materialization(record)) for record in records]

    def last_stage(self, run: Run, export: str) -> str | None:
        """Return the stage that a run is at, or came to before it ended."""
        ending, stages = self.endings.get(run.id), run.stages[export]
        if ending is not None and ending.stage is not None:
            return ending.stage
        if not stages or run.status in ("queued", "not_started", "starting"):
            return None
        if run.status != "success":
            return next((s for s in stages if not self._did(run, export, s)), stages[-1])
        if stages != STAGES:
            return stages[-1]
        # A run of the whole job may be of a chain that ends at Parquet.
        return next((s for s in reversed(stages) if self._did(run, export, s)), None)

    def _did(self, run: Run, export: str, stage: str) -> bool:
        since = run.began.timestamp() - 1
        done = self._fetch(export, stage, after_timestamp=since, asset_partitions=[run.month])
        return run.id in {materialization.run for _, materialization in done}

    def undone(
        self, export: str, month: str, stage: str, last: Materialization | None
    ) -> Ending | None:
        """Return why the newest of a month's runs that had a stage to do has not done it, `last`
        being what the stage did last."""
        runs = self.by_month.get((export, month), [])
        run = next((run for run in runs if stage in run.stages[export]), None)
        if run is None or run.status == "success":
            return None
        if last and (last.run == run.id or last.at > (run.ended or datetime.now(UTC))):
            return None
        if run.id in self.endings:
            return self.endings[run.id]
        retried, reason = read_note(dagster_home(), run.id).get("retry", ("", ""))
        trying = f", trying again: {reason}" if retried == stage else ""
        return Ending(None, "", f"in progress{trying}")

    def stage_seconds(self, export: str) -> dict[str, list[float]]:
        """Return by stage the seconds of the newest times that it had work to do."""
        return {
            stage: [
                materialization.metadata["seconds"]
                for _, materialization in self._fetch(export, stage)
                if "seconds" in materialization.metadata
                and materialization.metadata.get("outcome") != "unchanged"
            ]
            for stage in STAGES
        }

    def usual_time(self, exports: Collection[str]) -> timedelta | None:
        """Return how long a month of the exports takes, by the median of each stage; None where no
        month was ever written to Parquet."""
        seconds = [self.stage_seconds(export) for export in exports]
        if not any(by_stage["parquet"] for by_stage in seconds):
            return None
        medians = [median(took) for by_stage in seconds for took in by_stage.values() if took]
        return timedelta(seconds=sum(medians))


def _run(record: dg.RunRecord) -> Run:
    run = record.dagster_run
    paths = [tuple(key.path) for key in run.asset_selection or ()]
    # The job of an export has it as a tag; a run of assets, as the UI begins it, has none.
    tag = run.tags.get("finops/export")
    began = record.start_time or record.create_timestamp.replace(tzinfo=UTC).timestamp()
    return Run(
        run.run_id,
        run.status.value.lower(),
        run.tags.get("dagster/partition", ""),
        datetime.fromtimestamp(began, UTC),
        None if record.end_time is None else datetime.fromtimestamp(record.end_time, UTC),
        {
            export: tuple(stage for stage in STAGES if not paths or (export, stage) in paths)
            for export in sorted({tag} if tag else {path[0] for path in paths})
        },
    )


def _ending(event: dg.DagsterEvent) -> Ending:
    """Read why a run ended from the event of its end, which has that of the first failed step."""
    step = getattr(event.event_specific_data, "first_step_failure_event", None)
    if step is None:
        return Ending(None, "the process was lost", event.message or "")
    stage = str(step.step_key).rpartition("__")[2]
    failure, error = step.step_failure_data.user_failure_data, step.step_failure_data.error
    if failure is not None and failure.description:
        metadata = {name: str(value.value) for name, value in failure.metadata.items()}
        cause = metadata.get("cause") or (error.cls_name if error else "")
        return Ending(stage, str(cause), failure.description, metadata.get("check"))
    if error is None:
        return Ending(stage, "", event.message or "")
    if error.cls_name in INTERRUPTS:
        return Ending(stage, error.cls_name, "stopped by a person")
    while error.cause is not None:
        error = error.cause
    return Ending(stage, str(error.cls_name), error.message.strip().partition("\n")[0])


def _materialization(record: dg.EventLogRecord) -> Materialization:
    made = record.asset_materialization
    assert made is not None
    return Materialization(
        (made.tags or {}).get("dagster/data_version"),
        datetime.fromtimestamp(record.timestamp, UTC),
        record.run_id,
        {name: value.value for name, value in made.metadata.items()},
    )
