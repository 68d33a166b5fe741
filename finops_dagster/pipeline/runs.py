"""Months run through Dagster in this process: by `make demo`, and by the `finops` command."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack
from uuid import uuid4

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.postgres_history import check_driver
from finops_dagster.processes import instance_lock, lost_runs, remove_lock, run_lock
from finops_dagster.settings import dagster_home

Metadata = dict[str, Any]
_INSTANCE = Path(__file__).parent.parent / "dagster.yaml"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class MonthRun:
    """What came of a run: the metadata of each stage that ended well, and why the next did not."""

    month: BillingMonth
    run_id: str | None
    seconds: float
    stages: dict[str, Metadata]
    error: str | None
    failed_checks: tuple[str, ...] = ()

    @property
    def is_unchanged(self) -> bool:
        """Whether every stage held the month already."""
        outcomes = {metadata["outcome"] for metadata in self.stages.values()}
        return self.error is None and outcomes == {"unchanged"}


def open_instance() -> dg.DagsterInstance:
    """The Dagster instance of `dagster_home`. Raises SettingsError."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(dagster_home())))
    # Two processes that make Dagster's SQLite files at once leave them broken for good.
    with instance_lock(home):
        instance = home / "dagster.yaml"
        if not instance.exists():
            own, part = Path("dagster.yaml"), home / "dagster.yaml.part"
            part.write_text((own if own.is_file() else _INSTANCE).read_text())
            part.replace(instance)
        check_driver(instance)
        return dg.DagsterInstance.get()


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the lost runs that Dagster takes for going on, so that none of them keeps a
    place in the queue; return their ids, and not those of lost runs that have ended."""
    home, ended = Path(instance.root_directory), []
    with instance_lock(home):
        for lost in lost_runs(home):
            run = instance.get_run_by_id(lost)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, "The process of this run is gone.")
                ended.append(lost)
            remove_lock(home, lost)
    return ended


class MonthOptions(TypedDict, total=False):
    """The stages to run, whether they are done again where they hold the month, and callbacks: for
    each stage that has ended with its metadata, for progress, and for waiting and retries."""

    stages: Sequence[str] | None
    force: bool
    on_stage: Callable[[str, Metadata], None]
    on_message: Callable[[str], None]
    on_warning: Callable[[str], None]


def run_month(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    export: Export,
    month: BillingMonth,
    **options: Unpack[MonthOptions],
) -> MonthRun:
    """Run the chain of one month in this process.

    Raises KeyboardInterrupt where a person stopped it, which Dagster itself only writes down.
    """
    job = definitions.resolve_job_def(f"{export.settings.group}_month")
    run_id, stages = str(uuid4()), options.get("stages")
    resources = {"run_options": {"config": {"force": options.get("force", False)}}}
    instance.add_event_listener(run_id, _listener(options))
    started = time.monotonic()
    with run_lock(Path(instance.root_directory), run_id):
        result = job.execute_in_process(
            partition_key=str(month),
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            asset_selection=None if stages is None else [export.key(stage) for stage in stages],
            run_config={**_QUIET, "resources": resources},
        )
    return MonthRun(
        month,
        run_id,
        time.monotonic() - started,
        {
            event.asset_key.path[-1]: _plain(event.materialization.metadata)
            for event in result.get_asset_materialization_events()
            if event.asset_key is not None
        },
        _reason(result),
        tuple(
            check.check_name for check in result.get_asset_check_evaluations() if not check.passed
        ),
    )


def _listener(options: MonthOptions) -> Callable[[dg.EventLogEntry], None]:
    """Return what passes the run's events on to the callbacks."""

    def listen(event: dg.EventLogEntry) -> None:
        if (ended := event.asset_materialization) is not None:
            if "on_stage" in options:
                options["on_stage"](ended.asset_key.path[-1], _plain(ended.metadata))
        elif event.dagster_event is None:
            is_warning = int(event.level) == logging.WARNING
            tell = options.get("on_warning") if is_warning else options.get("on_message")
            if tell is not None:
                tell(event.user_message)

    return listen


def _plain(metadata: Mapping[str, dg.MetadataValue[Any]]) -> Metadata:
    return {name: value.value for name, value in metadata.items()}


def _reason(result: dg.ExecuteInProcessResult) -> str | None:
    if result.success:
        return None
    for event in result.get_step_failure_events():
        failure = event.step_failure_data
        if failure.error_source is not None and failure.error_source.name == "INTERRUPT":
            raise KeyboardInterrupt
        if failure.user_failure_data is not None and failure.user_failure_data.description:
            return failure.user_failure_data.description
        return _in_one_line(failure.error, result.run_id) or "the step failed"
    ended = [event.job_failure_data.error for event in result.all_events if event.is_run_failure]
    return _in_one_line(ended[-1] if ended else None, result.run_id) or "the run failed"


def _in_one_line(error: SerializableErrorInfo | None, run_id: str) -> str:
    """What Dagster caught outside of our stages, or of what they foresee."""
    if error is None:
        return ""
    while error.cause is not None:
        error = error.cause
    line = error.message.strip().partition("\n")[0]
    return f"{line} (the full trace is in the log of run {run_id} in the UI)"
