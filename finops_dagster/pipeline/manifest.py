"""Stage 1: the vendor's newest manifest of the month, the only correct list of its files."""

import dagster as dg

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.checks import FRESH, manifest_is_fresh
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import manifest_metadata
from finops_dagster.pipeline.stage import (
    checks_metadata,
    kept_metadata,
    month_of,
    shows_failures,
    stage,
)
from finops_dagster.sources.base import Source
from finops_dagster.staging.folder import StagingFolder


def manifest_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset of a month's manifest."""

    @dg.asset(**stage(export, "manifest", kinds={export.settings.vendor, "json"}, checks=[FRESH]))
    @shows_failures
    def manifest(
        context: dg.AssetExecutionContext,
        staging: dg.ResourceParam[StagingFolder],
        stores: dg.ResourceParam[ObjectStores],
    ) -> dg.MaterializeResult[Manifest]:
        """The vendor's newest manifest of the month: which files, which columns, which version."""
        month = month_of(context)
        staged = staging.month(export.name, month)
        before = staged.manifest()
        source = export.source(stores)
        now = newest_manifest(source, month)
        is_unchanged = before is not None and (before.id, before.files) == (now.id, now.files)
        kept = kept_metadata(context, now.id, "columns_added", "columns_removed")
        results = [manifest_is_fresh(now, month, source.stale_after)]
        result = dg.MaterializeResult(
            value=now,
            data_version=dg.DataVersion(now.id),
            metadata={
                "outcome": "unchanged" if is_unchanged else "read",
                **manifest_metadata(now, before),
                **(kept if is_unchanged else {}),
                **checks_metadata(results),
            },
            check_results=results,
        )
        staged.write_manifest(now)
        return result

    return manifest


def newest_manifest(source: Source, month: BillingMonth) -> Manifest:
    """Return the month's newest manifest. Raises what says why there is none."""
    version = source.versions([month])[month]
    if isinstance(version, Exception):
        raise version
    return version
