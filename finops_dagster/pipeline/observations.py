"""Observations in Dagster's event log of what commands changed or verified, without a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finops_dagster.pipeline.history import open_history

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class StageChange:
    """What a command changed or verified in a stage; `month` is None if it concerns several."""

    export: str
    stage: str
    month: str | None
    text: str


def record_observations(changes: Iterable[StageChange], metadata: Mapping[str, str]) -> None:
    """Record each change as an observation of its asset, with this metadata.

    Does nothing if Dagster has recorded nothing in DAGSTER_HOME yet.
    """
    with open_history() as history:
        if history.instance is not None:
            for change in changes:
                record_observation(history.instance, change, metadata)


def record_observation(
    instance: dg.DagsterInstance, observed: StageChange, metadata: Mapping[str, str]
) -> None:
    """Record one observation of an asset in the event log, without a run."""
    import dagster as dg

    instance.report_runless_asset_event(
        dg.AssetObservation(
            asset_key=dg.AssetKey([observed.export, observed.stage]),
            partition=observed.month,
            description=observed.text,
            metadata=metadata,
        )
    )
