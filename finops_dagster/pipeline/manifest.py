"""Stage 1: the vendor's newest manifest of the month, the only list of its files."""

import dagster as dg

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.checks import FRESH, manifest_is_fresh
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import manifest_metadata
from finops_dagster.pipeline.stage import billing_month, previous_metadata, stage, stage_result
from finops_dagster.sources.base import Source
from finops_dagster.staging.folder import StagingFolder


def manifest_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset of a month's manifest."""

    @stage(export, "manifest", kinds={export.settings.vendor, "json"}, checks=[FRESH])
    def manifest(
        context: dg.AssetExecutionContext,
        staging: dg.ResourceParam[StagingFolder],
        stores: dg.ResourceParam[ObjectStores],
        lake: dg.ResourceParam[Lake],  # noqa: ARG001 for the message of a failure
    ) -> dg.MaterializeResult[Manifest]:
        """Read the vendor's newest manifest of the month: its version, files and columns."""
        month, source = billing_month(context), export.source(stores)
        staged = staging.month(export.name, month)
        previous, newest = staged.manifest(), newest_manifest(source, month)
        outcome, metadata = "read", manifest_metadata(newest, previous)
        if previous is not None and (previous.id, previous.files) == (newest.id, newest.files):
            outcome = "unchanged"
            metadata |= previous_metadata(context, newest.id, "columns_added", "columns_removed")
        is_fresh = manifest_is_fresh(newest, month, source.stale_after)
        result = stage_result(newest, outcome, metadata, [is_fresh])
        staged.write_manifest(newest)
        return result

    return manifest


def newest_manifest(source: Source, month: BillingMonth) -> Manifest:
    """Return the month's newest manifest, or raise the error that says why there is none."""
    manifest = source.newest_manifests([month])[month]
    if isinstance(manifest, Exception):
        raise manifest
    return manifest
