"""Months run through Dagster in this process: by `make demo`, and by the `finops` command."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
from filelock import FileLock

from finops_dagster.assets.export import Export
from finops_dagster.billing.months import BillingMonth

_TELEMETRY_OFF = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class MonthRun:
    """What came of a run: the metadata of each stage that ended well, and why the next did not."""

    month: BillingMonth
    run_id: str
    seconds: float
    stages: dict[str, dict[str, Any]]
    error: str | None

    @property
    def is_unchanged(self) -> bool:
        """Whether every stage held the month already."""
        outcomes = {metadata["outcome"] for metadata in self.stages.values()}
        return self.error is None and outcomes == {"unchanged"}


def open_instance() -> dg.DagsterInstance:
    """The Dagster instance of DAGSTER_HOME, or else of `.dagster` in the working directory, which
    `make dev` shows too."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(Path(".dagster").resolve())))
    home.mkdir(parents=True, exist_ok=True)
    # Two processes that make Dagster's SQLite files at once leave them broken for good.
    with FileLock(home / ".finops.lock"):
        instance = home / "dagster.yaml"
        if not instance.exists():
            own = Path("dagster.yaml")
            instance.write_text(own.read_text() if own.is_file() else _TELEMETRY_OFF)
        return dg.DagsterInstance.get()


def run_month(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    export: Export,
    month: BillingMonth,
    *,
    stages: Sequence[str] | None = None,
    force: bool = False,
    on_stage: Callable[[str], None] = lambda _: None,
) -> MonthRun:
    """Run the chain of one month, or some of its stages; `on_stage` is told each that has ended.

    Raises KeyboardInterrupt where a person stopped it, which Dagster itself only writes down.
    """
    job = definitions.resolve_job_def(f"{export.settings.group}_month")
    run_id = str(uuid4())

    def listen(event: dg.EventLogEntry) -> None:
        if event.asset_materialization is not None:
            on_stage(event.asset_materialization.asset_key.path[-1])

    instance.add_event_listener(run_id, listen)
    started = time.monotonic()
    result = job.execute_in_process(
        partition_key=str(month),
        instance=instance,
        run_id=run_id,
        raise_on_error=False,
        asset_selection=None if stages is None else [export.key(stage) for stage in stages],
        run_config={**_QUIET, "resources": {"run_options": {"config": {"force": force}}}},
    )
    return MonthRun(
        month,
        run_id,
        time.monotonic() - started,
        {
            event.asset_key.path[-1]: {
                name: value.value for name, value in event.materialization.metadata.items()
            }
            for event in result.get_asset_materialization_events()
            if event.asset_key is not None
        },
        _reason(result),
    )


def _reason(result: dg.ExecuteInProcessResult) -> str | None:
    for event in result.get_step_failure_events():
        told = event.step_failure_data.user_failure_data
        error = event.step_failure_data.error
        if error is not None and error.cls_name in INTERRUPTS:
            raise KeyboardInterrupt
        if told is not None and told.description:
            return told.description
        return error.message.strip().partition("\n")[0] if error else "the step failed"
    return None if result.success else "the run failed"
