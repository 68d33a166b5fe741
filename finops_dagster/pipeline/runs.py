"""Runs of months in this process, for the `finops` command and the demo."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack
from uuid import uuid4

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline import BILL_STAGES, STAGES_TAG
from finops_dagster.pipeline.export import Export

# Other projects' code may import it from here, where it was in earlier releases.
from finops_dagster.pipeline.instance import open_instance as open_instance
from finops_dagster.processes import run_lock

MetadataValues = dict[str, Any]
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class MonthRun:
    """The result of a run of one month: the metadata of the stages that succeeded, and the error.

    `run_id` is the run's id; for a month that needed no run, that of the run that recorded its last
    stage. It is None if an error came before a run. `seconds` is how long this took.
    `metadata_by_stage` has plain values by key. `error` is a line of text, or None if all stages
    succeeded. The stages of the bill may have succeeded although `focus` is among the
    `failed_stages`.
    """

    month: BillingMonth
    run_id: str | None
    seconds: float
    metadata_by_stage: dict[str, MetadataValues]
    error: str | None
    failed_check_names: tuple[str, ...] = ()
    failed_stages: tuple[str, ...] = ()

    @property
    def is_unchanged(self) -> bool:
        """Whether the run succeeded, and every stage already had the version."""
        outcomes = {metadata["outcome"] for metadata in self.metadata_by_stage.values()}
        return self.error is None and outcomes == {"unchanged"}


class MonthOptions(TypedDict, total=False):
    """Options of `run_month`.

    `stages` are the stages to run; None runs all. `force` runs them again where they have the
    version already. `on_stage` gets each stage that succeeds, with its metadata. `on_warning` gets
    the stages' log lines of level WARNING, `on_message` those of all other levels.
    """

    stages: Sequence[str] | None
    force: bool
    on_stage: Callable[[str, MetadataValues], None]
    on_message: Callable[[str], None]
    on_warning: Callable[[str], None]


def run_month(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    export: Export,
    month: BillingMonth,
    **options: Unpack[MonthOptions],
) -> MonthRun:
    """Run the stages of one month in this process, and return what they did.

    `definitions` must have the export's job; `options` are those of MonthOptions. The failure of a
    stage is returned as `error`, not raised. The caller must not hold the instance lock. Raises
    Dagster's error for a month that is no partition of the export, and KeyboardInterrupt if Ctrl-C
    stopped the run; Dagster itself would only record that.
    """
    job = definitions.resolve_job_def(f"{export.settings.dagster_name}_month")
    run_id, stages = str(uuid4()), options.get("stages")
    resources = {"run_options": {"config": {"force": options.get("force", False)}}}
    instance.add_event_listener(run_id, _listener(options))
    started = time.monotonic()
    # The stages take the lock too; taken here, it also covers the start and the end of the run.
    with run_lock(Path(instance.root_directory), run_id):
        result = job.execute_in_process(
            partition_key=str(month),
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            asset_selection=None
            if stages is None
            else [export.asset_key(stage) for stage in stages],
            run_config={**_QUIET, "resources": resources},
            tags=None if stages is None else {STAGES_TAG: ", ".join(stages)},
        )
    return MonthRun(
        month,
        run_id,
        time.monotonic() - started,
        {
            event.asset_key.path[-1]: plain_values(event.materialization.metadata)
            for event in result.get_asset_materialization_events()
            if event.asset_key is not None
        },
        _failure_reason(result),
        tuple(
            check.check_name for check in result.get_asset_check_evaluations() if not check.passed
        ),
        tuple(map(_stage, result.get_step_failure_events())),
    )


def _listener(options: MonthOptions) -> Callable[[dg.EventLogEntry], None]:
    """Return an event listener that calls the callbacks of `options`."""

    def listen(event: dg.EventLogEntry) -> None:
        if (materialization := event.asset_materialization) is not None:
            if "on_stage" in options:
                stage = materialization.asset_key.path[-1]
                options["on_stage"](stage, plain_values(materialization.metadata))
        elif event.dagster_event is None:
            # What has no Dagster event is a line that the stages logged themselves.
            is_warning = int(event.level) == logging.WARNING
            callback = options.get("on_warning") if is_warning else options.get("on_message")
            if callback is not None:
                callback(event.user_message)

    return listen


def plain_values(metadata: Mapping[str, dg.MetadataValue[Any]]) -> MetadataValues:
    """Return metadata as plain Python values, by key."""
    return {name: value.value for name, value in metadata.items()}


def _failure_reason(result: dg.ExecuteInProcessResult) -> str | None:
    """Return why the run failed, None if it did not. Raises KeyboardInterrupt."""
    if result.success:
        return None
    reasons = {_stage(e): _step_reason(e, result.run_id) for e in result.get_step_failure_events()}
    if len(reasons) == 1 and reasons.keys() <= {*BILL_STAGES}:
        return next(iter(reasons.values()))
    if reasons:
        return "; ".join(f"{stage}: {reason}" for stage, reason in reasons.items())
    errors = [event.job_failure_data.error for event in result.all_events if event.is_run_failure]
    return (
        _error_line(errors[-1] if errors else None, result.run_id)
        or f"the run failed without a message; see the log of run {result.run_id} in the UI"
    )


def _stage(event: dg.DagsterEvent) -> str:
    # Dagster joins the parts of an asset key by two underscores: acme__billing_table.
    return str(event.step_key).rpartition("__")[2]


def _step_reason(event: dg.DagsterEvent, run_id: str) -> str:
    """Return why a stage failed. Raises KeyboardInterrupt."""
    failure = event.step_failure_data
    if failure.error_source is not None and failure.error_source.name == "INTERRUPT":
        raise KeyboardInterrupt
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    without_message = f"a stage failed without a message; see the log of run {run_id} in the UI"
    return _error_line(failure.error, run_id) or without_message


def _error_line(error: SerializableErrorInfo | None, run_id: str) -> str:
    """Return one line for an error that Dagster caught outside of the stages."""
    if error is None:
        return ""
    while error.cause is not None:
        error = error.cause
    line = error.message.strip().partition("\n")[0]
    return (
        f"{line} (unexpected error: report it, with the trace in the log of run {run_id} in the UI)"
    )
