"""Stage 2: verified local copies of the files that the manifest lists, counted from their text, and
which version of the month they are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dagster as dg
from rich.filesize import decimal

from finops_dagster.billing.content import Content
from finops_dagster.billing.errors import FileInvalid, StageMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import Totals, plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import recovery as proof
from finops_dagster.lake.folder import ParquetLake
from finops_dagster.object_stores import ObjectInfo, ObjectMissing, ObjectStore, ObjectStores
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.stage import (
    RunOptions,
    StageEvents,
    hold_to_one_version,
    month_of,
    stage,
    warnings,
)
from finops_dagster.staging.folder import (
    Counted,
    CurrentVersion,
    StagedMonth,
    StagedVersion,
    StagingFolder,
)
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase, watched
from finops_dagster.tables.files import count, read_files
from finops_dagster.tables.ledger import Load
from finops_dagster.tables.load import held_version, prepare_casts
from finops_dagster.tables.version import is_unchanged, of_vendor_id, version_id


@dataclass(frozen=True)
class Staged:
    """Which version the manifest's files are, what they hold, and what was done to know it.
    `content` is None where the files are gone that an older load was made of."""

    version: str
    totals: Totals
    files: int
    bytes: int
    content: Content | None
    rounded: int = 0
    did: str = "unchanged"
    fetched: int = 0


@dataclass(frozen=True)
class Known:
    """The loads under the manifest's id, by the ledger and the lake, the last one first; which of
    them the ledger says is loaded, and the same where the table was measured and holds it."""

    loads: Sequence[Load]
    loaded: Load | None
    held: Load | None


def staged_files_asset(export: Export) -> dg.AssetsDefinition:
    """The files of a month of this export."""

    @stage(export, after="manifest", kinds={"file"})
    def staged_files(
        context: dg.AssetExecutionContext,
        staging: StagingFolder,
        database: dg.ResourceParam[BillingDatabase],
        lake: ParquetLake,
        run_options: RunOptions,
        stores: dg.ResourceParam[ObjectStores],
    ) -> StageEvents:
        """Local copies of the month's files, checked to their last byte and counted."""
        month = month_of(context)
        manifest = staged_manifest(staging, export, month)
        hold_to_one_version(context, manifest.id)
        staged = staging.month(export.name, month)
        started = time.monotonic()
        store, _ = stores.open(export.aws)
        done, messages = stage_files(
            export, month, manifest, staged, database, lake, run_options, store
        )
        seconds = time.monotonic() - started
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(done.version),
            metadata={
                "outcome": done.did,
                "manifest_id": done.version,
                "files": done.files,
                "bytes": done.bytes,
                "bytes_fetched": done.fetched,
                "seconds": round(seconds, 3),
                "MB_per_second": round(done.fetched / 1e6 / seconds, 1),
                "rows": done.totals.rows,
                "total_cost": float(done.totals.cost),
                "total_cost_exact": plain(done.totals.cost),
                "costs_rounded": done.rounded,
                **warnings(messages),
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


def stage_files(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    staged: StagedMonth,
    database: BillingDatabase,
    lake: ParquetLake,
    run_options: RunOptions,
    store: ObjectStore,
) -> tuple[Staged, list[str]]:
    """Look at what the store has of the manifest's files, fetch and count them unless that is done,
    and find which version they are; with it go the warnings. Raises FileInvalid, and what the store
    raises."""
    files, force = staged.version(manifest), run_options.force
    available, missing = _look(export, files, store)
    counted = None if force else files.counted(available)
    is_measured = counted is None and not force
    known = _known(export, month, manifest, database, lake, is_measured=is_measured)
    if known.held is not None and _is_unchanged(known.held, files, available):
        delivered = None if available is None else files.content_of(available)
        done = _still_loaded(known.held, delivered, export.formats[known.held.format].cost)
    elif counted is not None:
        done = _identified(manifest, counted, known)
    elif available is not None:
        counted, fetched = fetch_and_count(
            export, manifest, files, available, database, store, force=force
        )
        done = replace(_identified(manifest, counted, known, did="staged"), fetched=fetched)
    else:
        raise FileInvalid(f"{missing}; the month was left as it was")
    _complete(export, month, database, known, done)
    digest = done.content and done.content.checksums and done.content.digest
    staged.write_current_version(CurrentVersion(manifest.id, done.version, digest or None))
    return done, _warnings(export, manifest, done, missing)


def _look(
    export: Export, files: StagedVersion, store: ObjectStore
) -> tuple[Sequence[ObjectInfo] | None, ObjectMissing | None]:
    """What the store has of the files, or which of them is gone."""
    try:
        return files.look(store, copied=export.aws.copied), None
    except ObjectMissing as missing:
        return None, ObjectMissing(f"{missing}, though the manifest lists it")


def _known(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    database: BillingDatabase,
    lake: ParquetLake,
    *,
    is_measured: bool,
) -> Known:
    with database.connect(export.name, month) as connection:
        recorded = ledger.versions_of_month(connection, export.name, month)
        loaded = next((one.load for one in recorded if one.state == "loaded"), None)
        held = is_measured and held_version(connection, export.name, month, export.formats)
    loads = [one.load for one in recorded]
    in_lake = proof.load_of(lake.path(export.name, month), export.name, month, export.table)
    if in_lake and in_lake.load.manifest_id not in {load.manifest_id for load in loads}:
        loads.append(in_lake.load)
    loads = of_vendor_id(loads, manifest.id)
    return Known(loads, loaded, held if held in loads else None)


def _is_unchanged(held: Load, files: StagedVersion, available: Sequence[ObjectInfo] | None) -> bool:
    """Whether the store has what the table holds; by the list alone where files are gone."""
    if available is not None:
        return is_unchanged(held, files.content_of(available))
    if held.content is None:
        return held.files == len(files.names)
    return held.content.names == files.names


def _still_loaded(held: Load, available: Content | None, cost: str) -> Staged:
    """What the load says that the table holds, without a look into a file."""
    content = held.content or available
    rounded = sum(column.cells for column in held.rounded or () if column.name == cost)
    return Staged(held.manifest_id, held.totals, held.files, held.bytes, content, rounded)


def _identified(
    manifest: Manifest, counted: Counted, known: Known, did: str = "unchanged"
) -> Staged:
    """Which version the files are that were counted."""
    content, totals = counted.content, counted.totals
    version = version_id(manifest.id, content, totals, known.loads)
    loaded = known.loaded
    if loaded and loaded.manifest_id == version and not is_unchanged(loaded, content):
        did = "unchanged"
    return Staged(version, totals, len(content.files), content.bytes, content, counted.rounded, did)


def _complete(
    export: Export, month: BillingMonth, database: BillingDatabase, known: Known, done: Staged
) -> None:
    """Give the ledger the files of a version where it has none, or the ETags that they have now."""
    for load in known.loads:
        if load.manifest_id == done.version and done.content not in (None, load.content):
            assert done.content is not None
            with database.connect(export.name, month) as connection:
                ledger.record_content(connection, load, done.content)


def _warnings(
    export: Export,
    manifest: Manifest,
    done: Staged,
    missing: ObjectMissing | None,
) -> list[str]:
    messages = []
    if done.version != manifest.id:
        messages.append(
            f"other files were delivered under the id {manifest.id}; these are version "
            f"{done.version}"
        )
    if missing is not None:
        messages.append(f"{missing}; {done.version} stays as it was fetched before")
    elif done.fetched and done.did == "unchanged":
        messages.append(f"the files have other ETags than before; their bytes are {done.version}'s")
    if export.aws.copied and manifest.is_overwritten:
        by = "sizes" if all(file.size is not None for file in manifest.files) else "number"
        messages.append(
            "copied = true: that all files are of one version is known by their "
            f"{by} alone, as their keys do not name it and their times are those of copying"
        )
    return messages


def fetch_and_count(
    export: Export,
    manifest: Manifest,
    version: StagedVersion,
    available: Sequence[ObjectInfo],
    database: BillingDatabase,
    store: ObjectStore,
    *,
    force: bool,
) -> tuple[Counted, int]:
    """Download what is missing, then count line items and cost in all files."""
    with version.turn():
        fetched = version.fetch(store, available, force=force)
        vendor = export.formats[manifest.format]
        size = sum(path.stat().st_size for path in version.paths)
        with (
            database.duckdb.scratch() as connection,
            watched(connection, "counted", size, decimal),
        ):
            prepare_casts(connection)
            files = read_files(version.paths, vendor)
            totals, rounded = count(connection, files, vendor, round_money=export.rounds_money)
        return version.finish(totals, rounded), fetched
