"""The stages of one export, one file each: from the manifest to the warehouse, and to FOCUS."""

from collections.abc import Mapping
from typing import Final

BILL_STAGES: Final = ("manifest", "staged_files", "billing_table", "parquet", "warehouse_table")
"""The stages of the bill, each after the one before it."""
FOCUS_STAGES: Final = ("focus", "warehouse_focus")
"""The stages of the charges, of exports that have a mapping to FOCUS."""
STAGES: Final = (*BILL_STAGES, *FOCUS_STAGES)

PREVIOUS_STAGE: Final[Mapping[str, str]] = {
    **dict(zip(BILL_STAGES[1:], BILL_STAGES, strict=False)),
    "focus": "parquet",
    "warehouse_focus": "focus",
}
"""The stage from which each stage reads; the manifest has none."""

ASSETS_WITHOUT_MONTHS: Final = ("report", "state_backup")
"""Further assets, of all exports together."""

RUN_TAGS: Final[Mapping[str, str]] = {"dagster/retry_strategy": "ALL_STEPS"}
"""Tags of every run that is requested here.

When Dagster repeats a run whose process died, it would begin with the stage that was cut off. In a
new pod nothing is left of the stages before it, so all are run; those with the version do no work.
"""

STAGES_TAG: Final = "finops/stages"
"""The tag of a run of an export's job: its stages, or `all`."""


def export_stages(*, has_warehouse: bool, has_focus: bool) -> tuple[str, ...]:
    """Return the stages of an export in order: those of the bill, then those of the charges.

    Without a warehouse, `warehouse_table` and `warehouse_focus` are left out. Without `has_focus`,
    all stages of the charges are.
    """
    bill = BILL_STAGES if has_warehouse else BILL_STAGES[:-1]
    charges = FOCUS_STAGES if has_warehouse else FOCUS_STAGES[:1]
    return (*bill, *(charges if has_focus else ()))


def last_bill_stage(*, has_warehouse: bool) -> str:
    """Return the last stage of the bill: `warehouse_table`, or without a warehouse `parquet`."""
    return export_stages(has_warehouse=has_warehouse, has_focus=False)[-1]


def stages_back_from(stage: str) -> tuple[str, ...]:
    """Return the stage, the one that it reads from, and so on back to `manifest`."""
    if stage not in PREVIOUS_STAGE:
        return (stage,)
    return (stage, *stages_back_from(PREVIOUS_STAGE[stage]))
