"""Stage 1: the vendor's newest manifest of the month, the only correct list of its files."""

import dagster as dg

from finops_dagster.assets.checks import FRESH, manifest_is_fresh
from finops_dagster.assets.export import Export
from finops_dagster.assets.stage import StageEvents, month_of, stage
from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.billing.manifest import Manifest, Source
from finops_dagster.billing.months import BillingMonth
from finops_dagster.resources.object_stores import ObjectMissing
from finops_dagster.resources.staging import StagingFolder

_HEADERS_SHOWN = 50


def manifest_asset(export: Export) -> dg.AssetsDefinition:
    """The manifest of a month of this export."""

    @stage(export, kinds={export.settings.vendor, "json"}, checks=[FRESH])
    def manifest(context: dg.AssetExecutionContext, staging: StagingFolder) -> StageEvents:
        """The vendor's newest manifest of the month: which files, which columns, which version."""
        month = month_of(context)
        staged = staging.month(export.name, month)
        before = staged.manifest()
        now = read_manifest(export, month)
        staged.write_manifest(now)
        added, removed = now.columns_added_and_removed(before)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(now.id),
            metadata={
                "outcome": "unchanged" if before is not None and before.id == now.id else "read",
                "manifest_id": now.id,
                "manifest": now.source.location,
                "files": len(now.files),
                "columns": len(now.columns),
                "columns_added": _listed(added),
                "columns_removed": _listed(removed),
                "bytes": now.source.size,
                "last_modified": dg.MetadataValue.timestamp(now.source.last_modified),
            },
            check_results=[manifest_is_fresh(now, month)],
        )

    return manifest


def read_manifest(export: Export, month: BillingMonth) -> Manifest:
    """Read the month's current manifest by one GET. Raises ManifestMissing, ManifestInvalid."""
    store, prefix = export.store
    key = export.vendor.manifest_key(prefix, export.settings.export_name, month)
    try:
        body, found = store.read(key)
    except ObjectMissing as missing:
        raise ManifestMissing(
            f"{missing}: {export.name} has no manifest of {month}; the vendor delivers a month's "
            "first one within a day or so. If it should be there, look at source and export_name"
        ) from None
    source = Source(key, found.location, found.etag, found.last_modified, found.size)
    return export.vendor.parse_manifest(body, source, month)


def _listed(headers: list[str]) -> str:
    shown = ", ".join(headers[:_HEADERS_SHOWN])
    return (
        f"{shown} and {len(headers) - _HEADERS_SHOWN} more"
        if len(headers) > _HEADERS_SHOWN
        else shown
    )
