"""Observations in Dagster's event log of what commands changed in stages, without a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finops_dagster.pipeline.history import open_history


@dataclass(frozen=True)
class StageChange:
    """What a command changed in a stage of a month; `month` is None if it changed several."""

    export: str
    stage: str
    month: str | None
    text: str


def report_changes(changes: Iterable[StageChange], metadata: Mapping[str, str]) -> None:
    """Record each change as an observation of its asset, with this metadata.

    Does nothing if Dagster has recorded nothing in DAGSTER_HOME yet.
    """
    with open_history() as history:
        if history.instance is None:
            return
        import dagster as dg

        for change in changes:
            history.instance.report_runless_asset_event(
                dg.AssetObservation(
                    asset_key=dg.AssetKey([change.export, change.stage]),
                    partition=change.month,
                    description=change.text,
                    metadata=metadata,
                )
            )
