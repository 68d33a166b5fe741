"""Stage 1: the vendor's newest manifest of the month, the only correct list of its files."""

import dagster as dg

from finops_dagster.billing.errors import ManifestInvalid, ManifestMissing, listed
from finops_dagster.billing.manifest import Manifest, Source
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectMissing
from finops_dagster.pipeline.checks import FRESH, manifest_is_fresh
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.stage import StageEvents, kept_metadata, month_of, stage
from finops_dagster.sources.aws.spelling import as_the_store_spells
from finops_dagster.sources.formats import VendorFormat
from finops_dagster.staging.folder import StagingFolder

_HEADERS_SHOWN = 50
_FOLDERS_SHOWN = 12


def manifest_asset(export: Export) -> dg.AssetsDefinition:
    """The manifest of a month of this export."""

    @stage(export, kinds={export.settings.vendor, "json"}, checks=[FRESH])
    def manifest(context: dg.AssetExecutionContext, staging: StagingFolder) -> StageEvents:
        """The vendor's newest manifest of the month: which files, which columns, which version."""
        month = month_of(context)
        staged = staging.month(export.name, month)
        before = staged.manifest()
        store, _ = export.store
        now = as_the_store_spells(store, read_manifest(export, month))
        is_unchanged = before is not None and (before.id, before.files) == (now.id, now.files)
        added, removed = now.columns_added_and_removed(before)
        kept = kept_metadata(context, now.id, "columns_added", "columns_removed")
        result: dg.MaterializeResult[None] = dg.MaterializeResult(
            data_version=dg.DataVersion(now.id),
            metadata={
                "outcome": "unchanged" if is_unchanged else "read",
                "format": now.format,
                "manifest_id": now.id,
                "manifest": now.source.location,
                "files": len(now.files),
                "columns": len(now.columns),
                "columns_added": listed(added, _HEADERS_SHOWN),
                "columns_removed": listed(removed, _HEADERS_SHOWN),
                **(kept if is_unchanged else {}),
                "bytes": now.source.size,
                "last_modified": dg.MetadataValue.timestamp(now.source.last_modified),
            },
            check_results=[manifest_is_fresh(now, month)],
        )
        staged.write_manifest(now)
        yield result

    return manifest


def read_manifest(export: Export, month: BillingMonth) -> Manifest:
    """Read the month's current manifest, by one GET where the format is known. Raises
    ManifestMissing where there is none, and ManifestInvalid where it cannot be read or where the
    layouts of two formats have one."""
    store, prefix = export.store
    found: dict[str, list[Manifest]] = {}
    for home, formats in homes(export, prefix).items():
        for key in formats[0].manifest_keys(home, export.aws.export_name, month):
            try:
                body, info = store.read(key)
            except ObjectMissing:
                continue
            source = Source(key, info.location, info.etag, info.last_modified, info.size)
            found[home] = [one.parse_manifest(body, source, month) for one in formats]
            break
    if not found:
        raise ManifestMissing(what_is_there(export, month))
    if len(found) > 1:
        places = " and ".join(f"{m[0].source.location} ({m[0].format})" for m in found.values())
        raise ManifestInvalid(f"two manifests fit {export.name} {month}: {places}; set its format")
    ((manifests),) = found.values()
    return _of_the_format(export, manifests)


def _of_the_format(export: Export, manifests: list[Manifest]) -> Manifest:
    """Of one manifest as several formats read it, the one whose columns are the format's own."""

    def fits(one: VendorFormat, manifest: Manifest) -> bool:
        return any(one.column(column.header) == one.cost for column in manifest.columns)

    fitting = [m for m in manifests if fits(export.formats[m.format], m)]
    if len(fitting) == 1:
        return fitting[0]
    shown = listed([column.header for column in manifests[0].columns], _FOLDERS_SHOWN)
    location = manifests[0].source.location
    if len(manifests) > 1:
        names = " or ".join(manifest.format for manifest in manifests)
        raise ManifestInvalid(
            f"{location}: whether this is {names} cannot be told from its columns, which are: "
            f"{shown or 'none'}; set the format of {export.name}"
        )
    name = export.aws.export_name
    laid_out_so = export.formats[manifests[0].format].home("", name)
    for other in export.formats.values():
        if other.home("", name) == laid_out_so and fits(other, manifests[0]):
            raise ManifestInvalid(
                f'{location} has the columns of another format; set format = "{other.name}" '
                f"for {export.name}"
            )
    return manifests[0]


def homes(export: Export, prefix: str) -> dict[str, list[VendorFormat]]:
    """The folders in which the export's months may lie, with the formats that are laid out so."""
    by_home: dict[str, list[VendorFormat]] = {}
    for one in export.candidates:
        by_home.setdefault(one.home(prefix, export.aws.export_name), []).append(one)
    return by_home


def what_is_there(export: Export, month: BillingMonth) -> str:
    """Why there is no manifest: where it was looked for, and what lies there instead."""
    store, prefix = export.store
    name = export.aws.export_name
    by_home = homes(export, prefix)
    home = next((home for home in reversed(by_home) if store.folders(home)), next(iter(by_home)))
    key = by_home[home][0].manifest_keys(home, name, month)[0]
    folder = home
    while not (there := store.folders(folder)) and folder:
        folder = folder.rpartition("/")[0]
    advice = (
        f"the vendor delivers the first manifest of {month} within a day or so of its beginning"
        if folder == home
        else f"look at source and export_name of {export.name}"
    )
    return (
        f"{export.name} has no manifest of {month}: there is no {store.location(key)}; "
        f"{store.location(folder)} has {listed(sorted(there), _FOLDERS_SHOWN) or 'nothing'}; "
        f"{advice}"
    )
