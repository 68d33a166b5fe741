"""Stage 2: verified local copies of the files that the manifest lists, counted from their text."""

import time
from dataclasses import dataclass

import dagster as dg

from finops_dagster.assets.stage import Export, RunOptions, StageEvents, month_of, stage
from finops_dagster.billing.csv_files import count_text, group_by_header
from finops_dagster.billing.errors import FileInvalid, StageMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import Totals, plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.table import held_version
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.resources.object_stores import ObjectMissing
from finops_dagster.resources.staging import StagedVersion, StagingFolder


@dataclass(frozen=True)
class Staged:
    """What the files of one version hold, and what it took to know."""

    totals: Totals
    files: int
    bytes: int
    bytes_fetched: int
    outcome: str


def staged_files_asset(export: Export) -> dg.AssetsDefinition:
    """The files of a month of this export."""

    @stage(export, after="manifest", kinds={"csv"})
    def staged_files(
        context: dg.AssetExecutionContext,
        staging: StagingFolder,
        database: BillingDatabase,
        run_options: RunOptions,
    ) -> StageEvents:
        """Local copies of the month's files, checked to their last byte and counted."""
        month = month_of(context)
        manifest = staged_manifest(staging, export, month)
        version = staging.month(export.name, month).version(manifest)
        started = time.monotonic()
        staged = (
            None if run_options.force else already_known(export, month, manifest, version, database)
        )
        staged = staged or fetch_and_count(export, version, database, force=run_options.force)
        seconds = time.monotonic() - started
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(manifest.id),
            metadata={
                "outcome": staged.outcome,
                "files": staged.files,
                "bytes": staged.bytes,
                "bytes_fetched": staged.bytes_fetched,
                "seconds": round(seconds, 3),
                "MB_per_second": round(staged.bytes_fetched / 1e6 / seconds, 1),
                "rows": staged.totals.rows,
                "total_cost": float(staged.totals.cost),
                "total_cost_exact": plain(staged.totals.cost),
            },
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


def already_known(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    version: StagedVersion,
    database: BillingDatabase,
) -> Staged | None:
    """What is known of this version without a download: from the files as they arrived, or, when
    those were cleaned away, from the table that was loaded from them and still holds them."""
    totals = version.totals()
    if totals is not None:
        files = version.files()
        return Staged(totals, len(files), sum(file.size for file in files), 0, "unchanged")
    with database.connect(export.name, month) as connection:
        load = held_version(connection, export.name, month, export.vendor)
    if load is None or load.manifest_id != manifest.id:
        return None
    return Staged(load.totals, load.files, load.bytes, 0, "unchanged")


def fetch_and_count(
    export: Export, version: StagedVersion, database: BillingDatabase, *, force: bool
) -> Staged:
    """Download what is missing, then count line items and cost in the text of all files."""
    store, _ = export.store
    try:
        fetched = version.fetch(store, force=force)
    except ObjectMissing as missing:
        raise FileInvalid(
            f"{missing}, though the manifest lists it; the month was left as it was"
        ) from None
    with database.scratch() as connection:
        totals = count_text(connection, group_by_header(version.paths), export.vendor.cost)
    version.finish(totals)
    files = version.files()
    return Staged(totals, len(files), sum(file.size for file in files), fetched, "staged")
