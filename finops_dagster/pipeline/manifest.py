"""Stage 1: the vendor's manifest of the month, the only list of its files."""

import dagster as dg

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion, versions_with_vendor_id
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.checks import (
    FILES_AVAILABLE,
    FRESH,
    files_still_available,
    manifest_is_fresh,
)
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import (
    manifest_metadata,
    manifest_object_metadata,
    warnings_metadata,
)
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import StageMonth, stage, stage_result
from finops_dagster.sources.base import Source
from finops_dagster.staging.folder import StagingFolder
from finops_dagster.tables.database import BillingDatabase


def manifest_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset that stores a month's newest manifest in the staging folder.

    The newest of the vendor's runs in the store may be older than the loaded one, if later runs
    were deleted. Then the manifest of the loaded version stays; if that is not staged any more, the
    stage fails. It also fails if the newest run covers fewer days than the loaded one. With the
    option `force` of Dagster's run, the newest is always accepted.
    """
    kinds = {export.settings.vendor, "json"}
    checks = [FRESH, FILES_AVAILABLE] if export.settings.shares_files else [FRESH]

    @stage(export, "manifest", kinds=kinds, checks=checks)
    def manifest(
        context: dg.AssetExecutionContext,
        staging: dg.ResourceParam[StagingFolder],
        stores: dg.ResourceParam[ObjectStores],
        database: dg.ResourceParam[BillingDatabase],
        lake: dg.ResourceParam[Lake],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[Manifest]:
        """Read the vendor's newest manifest of the month: its version, files and columns.

        An Azure export's newest runs may be deleted. If the newest that is left is older than the
        loaded one, the loaded version stays, with a warning. If it covers fewer days than the
        loaded one, the stage fails.
        """
        at = StageMonth.of_run(context, export, run_options)
        source = export.source(stores, staging, lake, database)
        result = manifest_result(at, source, staging, lake)
        staging.staged_month(export.name, at.month).write_manifest(result.value)
        return result

    return manifest


def manifest_result(
    at: StageMonth, source: Source, staging: StagingFolder, lake: Lake
) -> dg.MaterializeResult[Manifest]:
    """Read the vendor's newest manifest, and return the stage's result; nothing is staged.

    The result has the staged manifest instead if that stays, as `manifest_asset` says. The source
    may download shared files to read their months. Raises BillError where the stage fails for the
    reasons that `manifest_asset` gives, and what `newest_manifest` raises.
    """
    export, month = at.export, at.month
    previous, newest = (
        staging.staged_month(export.name, month).manifest(),
        newest_manifest(source, month),
    )
    accepted, warnings = newest, newest.warnings
    loaded = None if at.force else lake.file(export.name, month).version()
    if loaded is not None:
        accepted, warnings = _accepted_manifest(export, newest, previous, loaded)
    outcome, metadata = "read", manifest_metadata(accepted, previous)
    if previous is not None and (previous.id, previous.files) == (accepted.id, accepted.files):
        outcome = "unchanged"
        metadata |= at.previous_metadata(accepted.id, "columns_added", "columns_removed")
    metadata |= manifest_object_metadata(newest.source) | warnings_metadata(warnings)
    results = [manifest_is_fresh(newest, month, source.max_manifest_age)]
    if export.settings.shares_files:
        results.append(files_still_available(accepted))
    return stage_result(accepted, outcome, metadata, results)


def newest_manifest(source: Source, month: BillingMonth) -> Manifest:
    """Return the month's newest manifest, read from the store.

    Raises ManifestMissing if there is none, another BillError for one that is damaged or not
    usable, StoreError, and StoreUnavailable.
    """
    manifest = source.newest_manifests([month])[month]
    if isinstance(manifest, Exception):
        raise manifest
    return manifest


def _accepted_manifest(
    export: Export, newest: Manifest, previous: Manifest | None, loaded: LoadedVersion
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest that the month is loaded from, and the warnings about it.

    A run of the vendor that is older than the loaded one is not loaded, as the newer may have been
    deleted: then the manifest is the `previous` one, of the loaded version. Raises BillError if
    that is not staged, and if the newest run covers fewer days than the loaded one.
    """
    delivery, loaded_delivery = newest.delivery, loaded.delivery
    if delivery is None or loaded_delivery is None or versions_with_vendor_id([loaded], newest.id):
        return newest, newest.warnings
    location, advice = (
        newest.source.location,
        f"finops state reprocess {export.name} {newest.month} loads the newest run all the same",
    )
    if delivery.is_older_than(loaded_delivery):
        reason = (
            f"the vendor's newest run, {location}, was submitted at {delivery.submitted_at} UTC, "
            f"before the loaded version {loaded.manifest_id} "
            f"({loaded_delivery.submitted_at} UTC), which stays; {advice}"
        )
        if previous is None or not versions_with_vendor_id([loaded], previous.id):
            raise BillError(reason)
        return previous, (reason,)
    if delivery.misses_days_of(loaded_delivery):
        raise BillError(
            f"{location} covers {delivery.covered_days}, fewer days than the loaded version "
            f"{loaded.manifest_id}, which covers {loaded_delivery.covered_days}; wait for the "
            f"vendor's next run; {advice}"
        )
    return newest, newest.warnings
