"""Stage 2: verified local copies of the files that the manifest lists, counted from their text."""

import time

import dagster as dg
from rich.filesize import decimal

from finops_dagster.assets.export import Export
from finops_dagster.assets.stage import RunOptions, StageEvents, month_of, one_version, stage
from finops_dagster.billing.errors import FileInvalid, StageMissing
from finops_dagster.billing.files import count, read_files
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.table import held_version
from finops_dagster.resources.duckdb import BillingDatabase, watched
from finops_dagster.resources.object_stores import ObjectMissing
from finops_dagster.resources.staging import Counted, StagedVersion, StagingFolder


def staged_files_asset(export: Export) -> dg.AssetsDefinition:
    """The files of a month of this export."""

    @stage(export, after="manifest", kinds={"file"})
    def staged_files(
        context: dg.AssetExecutionContext,
        staging: StagingFolder,
        database: BillingDatabase,
        run_options: RunOptions,
    ) -> StageEvents:
        """Local copies of the month's files, checked to their last byte and counted."""
        month = month_of(context)
        manifest = staged_manifest(staging, export, month)
        is_one_version = one_version(context, manifest.id)
        version = staging.month(export.name, month).version(manifest)
        started = time.monotonic()
        counted, fetched = stage_files(export, month, manifest, version, database, run_options)
        seconds = time.monotonic() - started
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(manifest.id),
            metadata={
                "outcome": "unchanged" if fetched is None else "staged",
                "files": counted.files,
                "bytes": counted.bytes,
                "bytes_fetched": fetched or 0,
                "seconds": round(seconds, 3),
                "MB_per_second": round((fetched or 0) / 1e6 / seconds, 1),
                "rows": counted.totals.rows,
                "total_cost": float(counted.totals.cost),
                "total_cost_exact": plain(counted.totals.cost),
                "costs_rounded": counted.rounded,
            },
            check_results=[is_one_version],
        )

    return staged_files


def staged_manifest(staging: StagingFolder, export: Export, month: BillingMonth) -> Manifest:
    """The manifest that the first stage left. Raises StageMissing."""
    manifest = staging.month(export.name, month).manifest()
    if manifest is None:
        raise StageMissing(
            f"no manifest of {export.name} {month} is staged; materialize {export.name}/manifest"
        )
    return manifest


def stage_files(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    version: StagedVersion,
    database: BillingDatabase,
    run_options: RunOptions,
) -> tuple[Counted, int | None]:
    """What the files of this version hold, and how many bytes were fetched to know it; None where
    nothing had to be."""
    if not run_options.force:
        known = version.counted() or table_holds(export, month, manifest, database)
        if known is not None:
            return known, None
    return fetch_and_count(export, manifest, version, database, force=run_options.force)


def table_holds(
    export: Export, month: BillingMonth, manifest: Manifest, database: BillingDatabase
) -> Counted | None:
    """What the table that was loaded from the files, and still holds them, knows of them."""
    with database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.formats)
    if load is None or load.manifest_id != manifest.id:
        return None
    return Counted(load.totals, load.files, load.bytes)


def fetch_and_count(
    export: Export,
    manifest: Manifest,
    version: StagedVersion,
    database: BillingDatabase,
    *,
    force: bool,
) -> tuple[Counted, int]:
    """Download what is missing, then count line items and cost in all files."""
    store, _ = export.store
    with version.turn():
        try:
            fetched = version.fetch(store, force=force)
        except ObjectMissing as missing:
            raise FileInvalid(
                f"{missing}, though the manifest lists it; the month was left as it was"
            ) from None
        vendor = export.formats[manifest.format]
        size = sum(path.stat().st_size for path in version.paths)
        with database.scratch() as connection, watched(connection, "counted", size, decimal):
            totals, rounded = count(connection, read_files(version.paths, vendor), vendor)
        return version.finish(totals, rounded), fetched
