"""Metrics of runs, from Dagster's event log: states of months, failures, the queue, durations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from statistics import median

from prometheus_client.core import Metric

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline import export_stages
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.history import FAILED, History, Materialization
from finops_dagster.pipeline.month_metrics import LakeMonth, Months, gauge
from finops_dagster.settings import Settings

RUNS_READ = timedelta(days=14)
"""How long ago a run may have changed to be counted."""
_STATES = ("complete", "stale", "in_progress", "failed")
_IN_PROGRESS = ("queued", "not_started", "starting", "started", "canceling")


@dataclass(frozen=True)
class RunMetrics:
    """Metrics of the runs in a history, which `recent_history` must have returned.

    `months` are those of each export for which there are metrics. `lake_months` are those in the
    lake, whose versions decide whether a month is complete. It is None if the lake cannot be read;
    then months have no state.
    """

    settings: Settings
    history: History
    months: Months
    lake_months: Collection[LakeMonth] | None

    def metrics(self) -> Iterator[Metric]:
        """Yield states and manifest times of months, failed runs, the queue, and durations."""
        exports = [export.name for export in self.settings.exports]
        yield from self._month_metrics()
        yield self._failures(exports)
        yield from self._queue(exports)
        yield self._durations(exports)

    def _month_metrics(self) -> Iterator[Metric]:
        delivered = gauge(
            "month_delivered_timestamp_seconds",
            "When the vendor wrote the newest version that a run has read.",
            "export",
            "month",
        )
        newest_delivery = gauge(
            "export_delivered_timestamp_seconds",
            "When the vendor wrote the newest version of an export whose last month is not over.",
            "export",
        )
        state = gauge(
            "month_state", "1 for the state that the month is in.", "export", "month", "state"
        )
        for export in self.settings.exports:
            months = self.months[export.name]
            names, stages = list(map(str, months)), self._bill_stages()
            last = self.history.materializations(export.name, names, stages)
            times = _manifest_times(last["manifest"])
            for month, time in times.items():
                delivered.add_metric((export.name, month), time)
            if times and months[-1] >= BillingMonth.current():
                newest_delivery.add_metric((export.name,), max(times.values()))
            for month in names:
                records = {stage: by_month.get(month) for stage, by_month in last.items()}
                month_state = self._state(Export(export), month, records)
                for name in _STATES if month_state else ():
                    state.add_metric((export.name, month, name), month_state == name)
        yield from (delivered, newest_delivery, state)

    def _bill_stages(self) -> tuple[str, ...]:
        """Return the stages that tell which version a month has."""
        is_warehouse = self.settings.database.has_warehouse
        return ("manifest", "staged_files", *(["warehouse_table"] if is_warehouse else []))

    @cached_property
    def _lake_versions(self) -> dict[tuple[str, str], str]:
        return {month.labels: month.load.manifest_id for month in self.lake_months or ()}

    def _state(
        self, export: Export, month: str, last: Mapping[str, Materialization | None]
    ) -> str | None:
        """Return the state of a month; None if it is unknown, or if no run has read a version."""
        if self.lake_months is None:
            return None
        stages = export_stages(
            has_warehouse=self.settings.database.has_warehouse, has_focus=export.has_focus
        )
        status, _ = self.history.month_status(export.name, month, stages)
        if status in FAILED:
            return "failed"
        if status != "success":
            return "in_progress"
        versions = {s: record.version if record else None for s, record in last.items()}
        manifest, staged = versions.pop("manifest"), versions.pop("staged_files")
        if manifest is None:
            return None
        newest = staged if staged and is_version_of(staged, manifest) else manifest
        loaded = {self._lake_versions.get((export.name, month)), *versions.values()}
        return "complete" if loaded == {newest} else "stale"

    def _failures(self, exports: Sequence[str]) -> Metric:
        failed = gauge(
            "failed_runs",
            f"Runs of the last {RUNS_READ.days} days that failed.",
            "export",
            "stage",
            "cause",
        )
        causes: Counter[tuple[str, str, str]] = Counter()
        for export in exports:
            for run in self.history.export_runs(export):
                # A run that Dagster gave up may still have succeeded after its failure.
                failure = self.history.failures.get(run.id)
                if run.status == "failure" and failure:
                    causes[export, failure.stage or "(none)", failure.cause or "(none)"] += 1
        for labels, runs in causes.items():
            failed.add_metric(labels, runs)
        return failed

    def _queue(self, exports: Sequence[str]) -> Iterator[Metric]:
        runs = gauge("runs_in_progress", "Runs that have not ended.", "export", "status")
        oldest = gauge(
            "oldest_queued_run_timestamp_seconds",
            "When the run that has waited longest was requested.",
            "export",
        )
        for export in exports:
            by_status: dict[str, list[datetime]] = defaultdict(list)
            for run in self.history.export_runs(export):
                by_status[run.status].append(run.started)
            for status in _IN_PROGRESS:
                runs.add_metric((export, status), len(by_status[status]))
            if by_status["queued"]:
                oldest.add_metric((export,), min(by_status["queued"]).timestamp())
        yield from (runs, oldest)

    def _durations(self, exports: Sequence[str]) -> Metric:
        seconds = gauge(
            "stage_duration_seconds",
            "Median seconds of the stage's last runs that had work to do.",
            "export",
            "stage",
        )
        for export in exports:
            for stage, durations in self.history.stage_seconds(export).items():
                if durations:
                    seconds.add_metric((export, stage), median(durations))
        return seconds


def recent_history(history: History) -> History:
    """Return a history with only the runs that changed in the last 14 days, `RUNS_READ`.

    It has the materializations of all times.
    """
    return History(history.instance, since=datetime.now(UTC) - RUNS_READ)


def _manifest_times(manifests: Mapping[str, Materialization]) -> dict[str, float]:
    """Return when the vendor wrote each month's newest version that a run has read, by month.

    `manifests` are materializations of the stage `manifest`. Times are in seconds since 1970.
    """
    return {
        month: manifest.metadata["last_modified"]
        for month, manifest in manifests.items()
        if "last_modified" in manifest.metadata
    }
