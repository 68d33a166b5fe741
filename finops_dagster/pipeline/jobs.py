"""One job an export, for backfills of its months."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from finops_dagster.pipeline.export import Export

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )


def month_job(export: Export) -> UnresolvedAssetJobDefinition:
    """The whole chain of one month; a backfill is one run a month, so a bad month fails alone."""
    return dg.define_asset_job(
        f"{export.settings.group}_month",
        selection=dg.AssetSelection.groups(export.settings.group),
        description=f"Load a billing month of {export.name}, from manifest to warehouse.",
        tags={"finops/export": export.name},
    )
