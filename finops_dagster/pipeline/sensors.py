"""The sensors that derive charges again, write the report, and mark lost runs."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from finops_dagster.pipeline import FOCUS_STAGES, RUN_TAGS
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.instance import end_lost_runs
from finops_dagster.pipeline.report_alerts import REPORT


def focus_automation_sensor(
    exports: Iterable[Export], *, has_warehouse: bool, prefix: str = ""
) -> list[dg.SensorDefinition]:
    """Return the sensor that derives charges and writes the report after other runs, in a list.

    It derives the charges of months whose bill was changed without them, such as by a run of
    `parquet` alone, but only of exports with `sensor = true` in the settings. It writes the report
    when no run that derives charges is left. The list is empty if no export has charges. `prefix`
    begins the sensor's name.
    """
    with_focus = [export for export in exports if export.has_focus]
    if not with_focus:
        return []
    stages = FOCUS_STAGES if has_warehouse else FOCUS_STAGES[:1]
    followed = (export for export in with_focus if export.settings.sensor)
    keys = [REPORT, *(export.asset_key(stage) for export in followed for stage in stages)]
    return [
        dg.AutomationConditionSensorDefinition(
            f"{prefix}focus_automation",
            target=dg.AssetSelection.assets(*keys),
            run_tags=RUN_TAGS,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Derives the charges of months whose bill was loaded without them, for "
            "exports with sensor = true. Writes the report after charges were derived.",
        )
    ]


def lost_runs_sensor(prefix: str = "") -> dg.SensorDefinition:
    """Return the sensor that marks runs as failed whose process on this machine was killed.

    Otherwise such a run would occupy a place in Dagster's queue for hours. `prefix` begins the
    sensor's name.
    """

    @dg.sensor(
        name=f"{prefix}lost_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks runs of finops on this machine as failed if their process is gone.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        run_ids = end_lost_runs(context.instance)
        return dg.SkipReason(
            "runs marked as failed, because their process is gone; run their months again: "
            + ", ".join(run_ids)
            if run_ids
            else "no run is lost"
        )

    return sensor
