"""How long the stages of each export take, and from that when a run should end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import timedelta
from statistics import median

from finops_dagster.cli.event_log import EventLog

_TIMES = 2000


def stage_seconds(log: EventLog) -> dict[tuple[str, str], list[float]]:
    """Return by export and stage the seconds of the newest times that it had work to do."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for export, stage, made in log.newest(_TIMES):
        if "seconds" in made.metadata and made.metadata["outcome"] != "unchanged":
            seconds[export, stage].append(made.metadata["seconds"])
    return seconds


def usual_time(
    seconds: dict[tuple[str, str], list[float]], exports: Collection[str]
) -> timedelta | None:
    """Return how long a month of these exports usually takes, by the median of each stage; None
    where no month was ever written to Parquet."""
    if not any((export, "parquet") in seconds for export in exports):
        return None
    of_stages = [median(took) for (export, _), took in seconds.items() if export in exports]
    return timedelta(seconds=sum(of_stages))
