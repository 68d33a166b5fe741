"""The sensor that writes the metrics to a file, for the node exporter of Prometheus."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import dagster as dg

from finops_dagster.pipeline.history import History
from finops_dagster.pipeline.metrics import Metrics
from finops_dagster.settings import Settings


def metrics_sensor(settings: Settings, file: Path, prefix: str = "") -> dg.SensorDefinition:
    """Return the sensor that writes the metrics to a file every minute.

    `prefix` begins the sensor's name. A tick fails only if the file cannot be written. Metrics that
    cannot be read are left out of the file; the tick's message names their source.
    """
    problems: list[str] = []
    # It remembers from tick to tick what takes long to read.
    metrics = Metrics(settings, problems.append)

    @dg.sensor(
        name=f"{prefix}metrics",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Writes metrics for Prometheus to {file}: docs/monitoring.md says which.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        problems.clear()
        history = History(context.instance)
        metrics.open_history = lambda: nullcontext(history)
        metrics.write_file(file)
        return dg.SkipReason("; ".join([f"{file} is written", *problems]))

    return sensor
