"""Runs, failures and materializations in Dagster's event log, read by its public API.

Importing Dagster and opening its storage takes a second, so only commands that need the event log
open it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from finops_dagster.pipeline import STAGES, stages_back_from
from finops_dagster.processes import INTERRUPT_ERRORS, read_run_note
from finops_dagster.settings import dagster_home

if TYPE_CHECKING:
    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo


# Dagster's statuses, in lower case, of runs that ended without success.
FAILED = ("failure", "canceled")
_RECORDS, _FAILURES_PER_PAGE = 50, 500


@dataclass(frozen=True)
class Run:
    """A run of Dagster, of one month. Times are in UTC.

    `status` is Dagster's, in lower case, such as `queued`, `started`, `success` or `failure`.
    `month` is empty if the run has no partition. `stages` are the stages that the run was to
    execute, by export: all `STAGES`, also those that the export lacks, if it selected none.
    """

    id: str
    status: str
    month: str
    started: datetime
    """When the run started; when it was requested, if it has not started."""
    ended: datetime | None
    """None while the run is in progress."""
    stages: dict[str, tuple[str, ...]]

    @property
    def is_in_progress(self) -> bool:
        """Whether the run is queued, started, or being canceled."""
        return self.status not in ("success", *FAILED)

    @property
    def seconds(self) -> float:
        """The seconds from the start, or else the request, to the end, or else until now."""
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()


@dataclass(frozen=True)
class RunFailure:
    """Why a run failed or was canceled, or that it is still in progress.

    `stage` is the stage that failed; None if no stage did. `cause` is the name of the error's
    class, "canceled" or "the process was lost"; empty if it is unknown. `message` is one line.
    `check` is the name of the check that failed, if one did.
    """

    stage: str | None
    cause: str
    message: str
    check: str | None = None


@dataclass(frozen=True)
class Materialization:
    """The record in the event log that a run has completed a stage of a month.

    `version` is the data version, `at` is in UTC, `run_id` is that of the run, and `metadata` has
    plain values.
    """

    version: str | None
    at: datetime
    run_id: str
    metadata: dict[str, Any]


@contextmanager
def open_history() -> Iterator[History]:
    """Give the block the history in DAGSTER_HOME, by default in the folder .dagster.

    If nothing was ever recorded there, the history is empty, and Dagster is not imported. Raises
    SettingsError if Dagster cannot open its storage.
    """
    home = dagster_home()
    if not (home / "dagster.yaml").exists() and not (home / "history").exists():
        yield History(None)
        return
    from finops_dagster.pipeline.instance import open_instance

    with open_instance() as instance:
        yield History(instance)


class History:
    """The runs and materializations in a Dagster instance; empty if `instance` is None.

    Runs and failures are read once, when they are first needed. With `since`, a time in UTC, only
    runs that changed later and failures that happened later are read; with `month`, only runs of
    that month, but the failures of all. Neither limits the materializations.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance | None,
        since: datetime | None = None,
        month: str | None = None,
    ) -> None:
        self.instance, self._since, self._month = instance, since, month

    @cached_property
    def runs(self) -> list[Run]:
        """The runs, the newest first by the time of their request.

        Runs of assets that are no stage are among them.
        """
        if self.instance is None:
            return []
        import dagster as dg

        tags = None if self._month is None else {"dagster/partition": self._month}
        wanted = dg.RunsFilter(updated_after=self._since, tags=tags)
        return list(map(_run, self.instance.get_run_records(wanted)))

    @cached_property
    def month_runs(self) -> dict[tuple[str, str], list[Run]]:
        """The runs by export and month, such as `("acme", "2026-01")`, the newest first.

        The month is empty for runs without a partition.
        """
        runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in self.runs:
            for export in run.stages:
                runs[export, run.month].append(run)
        return runs

    def export_runs(self, export: str) -> list[Run]:
        """Return the runs of an export, newest first."""
        return [run for run in self.runs if export in run.stages]

    @cached_property
    def failures(self) -> dict[str, RunFailure]:
        """Why runs failed or were canceled, by the run's id.

        A run that Dagster gave up as lost may have succeeded later, and has an entry too: see its
        status.
        """
        failures: dict[str, RunFailure] = {}
        if self.instance is None:
            return failures
        import dagster as dg

        # Two queries for the failures of all runs are faster than one for each run.
        for event_type in (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED):
            cursor, has_more = None, True
            while has_more:
                page = self.instance.fetch_run_status_changes(
                    event_type, _FAILURES_PER_PAGE, cursor
                )
                cursor, has_more = page.cursor, page.has_more
                for record in page.records:
                    if self._since and record.timestamp < self._since.timestamp():
                        has_more = False
                        break
                    event = record.event_log_entry.dagster_event
                    assert event is not None
                    failures.setdefault(record.run_id, _failure(event))
        return failures

    def failure_message(self, run: Run) -> str | None:
        """Return the message that `failures` has of a run, in one line; None if it has none."""
        return self.failures[run.id].message if run.id in self.failures else None

    def month_status(
        self, export: str, month: str, stages: Collection[str] = STAGES
    ) -> tuple[str, str | None]:
        """Return the month's status by its runs, and the message of its failure or None.

        The status is "success" if there is no run, or if later runs completed all stages that a
        run left undone. Otherwise it is that of the newest run with a stage that is still undone,
        such as "failure", "canceled" or "started". A failed run leaves undone what it did not
        complete, and a run in progress all of its stages. A run is later if it was requested or
        ended later. `stages` are those that the export has; all others are ignored.
        """
        runs = self.month_runs.get((export, month), [])
        for number, run in enumerate(runs):
            # A run of the job selects all stages, also those that the export does not have.
            missing = {stage for stage in run.stages[export] if stage in stages}
            counted = [o for n, o in enumerate(runs) if n <= number or _ended_after(o, run)]
            # Runs that succeeded first: what a failed run completed takes a query.
            for other in sorted(counted, key=lambda other: other.status != "success"):
                if missing:
                    missing -= self._completed_stages(other, export)
            if missing:
                return run.status, self.failure_message(run)
        return "success", None

    def _completed_stages(self, run: Run, export: str) -> set[str]:
        """Return the stages that a run completed; none of a run in progress."""
        selected = run.stages[export]
        if run.status == "success":
            return set(selected)
        failed = self.failures[run.id].stage if run.id in self.failures else None
        if failed not in selected:
            return set()  # any may be missing
        return {stage for stage in selected if self._stage_failure(run, stage) is None}

    def _stage_failure(self, run: Run, stage: str) -> RunFailure | None:
        """Return why a failed run did not complete a stage: the failure of it or of one before it.

        None if it completed the stage.
        """
        first = self.failures[run.id]
        if first.stage is None or first.stage in stages_back_from(stage):
            return first
        if STAGES.index(stage) < STAGES.index(first.stage):
            return None
        failures = self._step_failures(run.id)
        return next((failures[s] for s in stages_back_from(stage) if s in failures), None)

    def _step_failures(self, run_id: str) -> dict[str | None, RunFailure]:
        """Return all failures of a run by stage; the run's own event has the first one alone."""
        assert self.instance is not None
        import dagster as dg

        records = self.instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.STEP_FAILURE
        )
        events = (record.event_log_entry.dagster_event for record in records.records)
        failures = [_step_failure(event) for event in events if event is not None]
        return {failure.stage: failure for failure in failures}

    def materializations(
        self, export: str, months: Collection[str], stages: Sequence[str] = STAGES
    ) -> dict[str, dict[str, Materialization]]:
        """Return the last materialization of each stage in each month, by stage, then by month.

        Every stage has an entry; it lacks the months that were never materialized.
        """
        latest: dict[str, dict[str, Materialization]] = {stage: {} for stage in stages}
        for stage, by_month in latest.items():
            # One query for the newest of all months is faster than one query a month. Months whose
            # last materialization is too old to be among them are queried again.
            while missing := set(months) - by_month.keys():
                newest = self._fetch(export, stage, 2 * len(missing), asset_partitions=[*missing])
                by_month.update(reversed(newest))  # the oldest first, so that the newest stays
                if not newest:
                    break
        return latest

    def _fetch(
        self, export: str, stage: str, limit: int = _RECORDS, **filters: Any
    ) -> list[tuple[str, Materialization]]:
        """Return the newest materializations of a stage, each with its month."""
        if self.instance is None:
            return []
        import dagster as dg

        records_filter = dg.AssetRecordsFilter(dg.AssetKey([export, stage]), **filters)
        records = self.instance.fetch_materializations(records_filter, limit).records
        return [(record.partition_key or "", _materialization(record)) for record in records]

    def reached_stage(self, run: Run, export: str) -> str | None:
        """Return the stage that a run is at, failed at or ended with; None before the first.

        The run must have stages of the export.
        """
        failure, stages = self.failures.get(run.id), run.stages[export]
        if failure is not None and failure.stage is not None:
            return failure.stage
        if not stages or run.status in ("queued", "not_started", "starting"):
            return None
        if run.status != "success":
            return next(
                (s for s in stages if not self._has_materialized(run, export, s)), stages[-1]
            )
        if stages != STAGES:
            return stages[-1]
        # A run of the job selects all stages, also where the pipeline ends at Parquet.
        return next((s for s in reversed(stages) if self._has_materialized(run, export, s)), None)

    def _has_materialized(self, run: Run, export: str, stage: str) -> bool:
        # A second earlier, since the filter excludes its own time; the run's id decides.
        since = run.started.timestamp() - 1
        events = self._fetch(export, stage, after_timestamp=since, asset_partitions=[run.month])
        return run.id in {materialization.run_id for _, materialization in events}

    def why_not_materialized(
        self, export: str, month: str, stage: str, last: Materialization | None
    ) -> RunFailure | None:
        """Return why the newest run that includes a month's stage did not materialize it, or None.

        None if it did, if it succeeded without a result of this stage, if another run has
        materialized it since, or if no run included it. `last` is the stage's last materialization
        of the month. The failure may be of an earlier stage. For a run in progress, the message
        says so, and which error is being retried.
        """
        runs = self.month_runs.get((export, month), [])
        run = next((run for run in runs if stage in run.stages[export]), None)
        if run is None or run.status == "success":
            return None
        if last and (last.run_id == run.id or last.at > (run.ended or datetime.now(UTC))):
            return None
        if run.id in self.failures:
            return self._stage_failure(run, stage)
        error = read_run_note(dagster_home(), run.id).get("retried", {}).get(stage)
        return RunFailure(
            None, "", f"in progress, trying again: {error}" if error else "in progress"
        )

    def stage_seconds(self, export: str) -> dict[str, list[float]]:
        """Return the seconds of each stage's newest materializations, without unchanged ones.

        At most the newest 50 of a stage are read; its list may be empty.
        """
        return {
            stage: [
                materialization.metadata["seconds"]
                for _, materialization in self._fetch(export, stage)
                if "seconds" in materialization.metadata
                and materialization.metadata.get("outcome") != "unchanged"
            ]
            for stage in STAGES
        }

    def usual_duration(self, exports: Collection[str]) -> timedelta | None:
        """Return how long it usually takes to load one month of each of these exports in turn.

        It is the sum of the medians of all their stages. None without exports, or if none of the
        newest 50 results of `parquet` of an export wrote a file, as the sum would lack stages.
        """
        stage_seconds = [self.stage_seconds(export) for export in exports]
        if not stage_seconds or not all(by_stage["parquet"] for by_stage in stage_seconds):
            return None
        medians = [
            median(seconds)
            for by_stage in stage_seconds
            for seconds in by_stage.values()
            if seconds
        ]
        return timedelta(seconds=sum(medians))


def _ended_after(run: Run, other: Run) -> bool:
    return run.ended is not None and other.ended is not None and run.ended > other.ended


def _run(record: dg.RunRecord) -> Run:
    run = record.dagster_run
    paths = [tuple(key.path) for key in run.asset_selection or ()]
    # A run of an export's job has the export as a tag. A run of assets, which the UI starts, has
    # none.
    tag = run.tags.get("finops/export")
    # Dagster has seconds since 1970 for the start, but a UTC time without a zone for the request.
    started = record.start_time or record.create_timestamp.replace(tzinfo=UTC).timestamp()
    return Run(
        run.run_id,
        run.status.value.lower(),
        run.tags.get("dagster/partition", ""),
        datetime.fromtimestamp(started, UTC),
        None if record.end_time is None else datetime.fromtimestamp(record.end_time, UTC),
        {
            export: tuple(stage for stage in STAGES if not paths or (export, stage) in paths)
            for export in sorted({tag} if tag else {path[0] for path in paths})
        },
    )


def _failure(event: dg.DagsterEvent) -> RunFailure:
    # The event of a run's end has the event of the first failed step, or an error outside of steps.
    step = getattr(event.event_specific_data, "first_step_failure_event", None)
    if step is None:
        if event.event_type_value == "PIPELINE_CANCELED":
            return RunFailure(None, "canceled", event.message or "")
        error = getattr(event.event_specific_data, "error", None)
        if error is None:
            return RunFailure(None, "the process was lost", event.message or "")
        cause, message = _innermost(error)
        return RunFailure(None, cause, message or event.message or "")
    return _step_failure(step)


def _step_failure(step: dg.DagsterEvent) -> RunFailure:
    # Dagster joins the parts of an asset key by two underscores: acme__billing_table.
    stage = str(step.step_key).rpartition("__")[2]
    failure, error = step.step_failure_data.user_failure_data, step.step_failure_data.error
    if failure is not None and failure.description:
        metadata = {name: str(value.value) for name, value in failure.metadata.items()}
        cause = metadata.get("cause") or (error.cls_name if error else "")
        return RunFailure(stage, str(cause), failure.description, metadata.get("check"))
    if error is None:
        return RunFailure(stage, "", step.message or "")
    if error.cls_name in INTERRUPT_ERRORS:
        message = "stopped by Ctrl-C or a signal; run the month again"
        return RunFailure(stage, error.cls_name, message)
    return RunFailure(stage, *_innermost(error))


def _innermost(error: SerializableErrorInfo) -> tuple[str, str]:
    """Return the class and the message of the error that Dagster wraps in its own."""
    while error.cause is not None:
        error = error.cause
    return str(error.cls_name), error.message.strip().partition("\n")[0]


def _materialization(record: dg.EventLogRecord) -> Materialization:
    event = record.asset_materialization
    assert event is not None
    return Materialization(
        (event.tags or {}).get("dagster/data_version"),
        datetime.fromtimestamp(record.timestamp, UTC),
        record.run_id,
        {name: value.value for name, value in event.metadata.items()},
    )
