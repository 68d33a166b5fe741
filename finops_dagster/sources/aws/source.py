"""Which version of each month AWS has delivered to a bucket."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from finops_dagster.billing.errors import FileInvalid, ManifestInvalid, ManifestMissing, excerpts
from finops_dagster.billing.manifest import Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import (
    ObjectInfo,
    ObjectMissing,
    ObjectStores,
    StoreError,
    StoreUnavailable,
)
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.sources.aws.data_exports import AwsCur2, AwsFocus
from finops_dagster.sources.aws.format import AwsFormat
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.base import AvailableFiles, AvailableVersion, VersionFolder

_Folders = Callable[[str], set[str]]
# The keys that a month's manifest may have, by the folder whose folders are the months.
_Keys = dict[str, Sequence[str]]

_MAX_REQUESTS = 16
_MAX_NAMES_SHOWN = 12
# AWS writes the manifest last, and the next version some hours later. Stores tell times by the
# second, and not every writer waits for one file before it begins the next.
_OVERWRITTEN_AFTER = timedelta(minutes=1)
# Folders of an account or a region are never taken for one another.
_MONTH_FOLDER = re.compile(r"(billing_period|year|month)=\d", re.I)


def aws_formats(column_names: str = "flat") -> dict[str, AwsFormat]:
    """Return the formats in which AWS exports, by their names in the settings."""
    formats: tuple[AwsFormat, ...] = (AwsCur1(column_names), AwsCur2(), AwsFocus())
    return {format_.name: format_ for format_ in formats}


class AwsSource:
    """One cost export of AWS in a bucket, or in a copy of one. What was read of a
    manifest is kept, so that one which has not changed is not transferred again."""

    # AWS rewrites the month in progress at least daily.
    stale_after = timedelta(days=2)

    def __init__(
        self, export: AwsExport, stores: ObjectStores, formats: Iterable[str] = ()
    ) -> None:
        """`formats` are those that the export may be in, if its settings do not say; else all."""
        self._formats = aws_formats(export.column_names)
        self._export = export
        self._store, prefix = stores.open(export)
        self._formats_by_folder: dict[str, list[AwsFormat]] = {}
        for name in [export.format] if export.format else [*formats] or self._formats:
            home = self._formats[name].months_folder(prefix, export.export_name)
            self._formats_by_folder.setdefault(home, []).append(self._formats[name])
        self._known: dict[str, tuple[str, list[Manifest] | ManifestInvalid]] = {}

    def versions(self, months: Iterable[BillingMonth]) -> dict[BillingMonth, AvailableVersion]:
        """Return the newest manifest of every month, by one GET each, side by side.

        Of several months, a LIST of their folders tells which are not asked for; of one, the
        likeliest keys are tried. Raises the store's error where that is why none can be read.
        """
        folders = functools.cache(self._store.folders)
        keys = {month: self._keys(month) for month in months}
        if len(keys) > 1:
            keys = {month: _existing_keys(of_month, folders) for month, of_month in keys.items()}
        with ThreadPoolExecutor(_MAX_REQUESTS) as pool:
            found = list(pool.map(self._newest_version, keys, keys.values()))
        errors = [v for v in found if isinstance(v, StoreError | StoreUnavailable)]
        if len(errors) == sum(version is not None for version in found) > 0:
            raise errors[0]
        return {
            month: version or ManifestMissing(self._missing_manifest_message(month, folders))
            for month, version in zip(keys, found, strict=True)
        }

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Look at the files by a HEAD each, side by side; those of a copied bucket are one version
        as far as their sizes or their number tell. Raises ObjectMissing."""
        files = self._files(manifest)
        if not (self._export.copied and manifest.is_overwritten):
            return AvailableFiles(files)
        by = "sizes" if all(file.size is not None for file in manifest.files) else "number"
        warning = (
            "copied = true: that all files are of one version is known by their "
            f"{by} alone, as their keys do not name it and their times are those of copying"
        )
        return AvailableFiles(files, (warning,))

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download the files and hold them to the manifest, which may be written over meanwhile."""
        self._check_against_manifest(manifest, available.files)
        size, source = folder.fetch(self._store, available.files, force=force), manifest.source
        if manifest.is_overwritten and self._store.head(source.key).etag != source.etag:
            raise FileInvalid(
                f"{source.location} changed while its files were fetched, and the newer version "
                "lies over the older; run the month again"
            )
        return size

    def _check_against_manifest(self, manifest: Manifest, available: Sequence[ObjectInfo]) -> None:
        """Notice, before they are fetched, files that are not those of the manifest."""
        times_tell = manifest.is_overwritten and not self._export.copied
        for listed_file, file in zip(manifest.files, available, strict=True):
            if listed_file.size not in (None, file.size):
                raise FileInvalid(
                    f"{file.location} has {file.size} bytes, but the manifest says "
                    f"{listed_file.size}"
                )
            newer_by = file.last_modified - manifest.source.last_modified
            if times_tell and newer_by > _OVERWRITTEN_AFTER:
                raise FileInvalid(
                    f"{file.location} is newer than its manifest by {_duration_text(newer_by)}: "
                    "the vendor is writing the next version over this one; run the month again "
                    "when its manifest is there (where this is a copy of the vendor's bucket, set "
                    "copied = true)"
                )

    def _files(self, manifest: Manifest) -> list[ObjectInfo]:
        """What the store has of each file. A copied bucket may have `billing_period=2026-01` where
        the manifest still lists `BILLING_PERIOD=2026-01`, or `month=01` for `month=1`."""
        keys = [file.key for file in manifest.files]
        with ThreadPoolExecutor(_MAX_REQUESTS) as pool:
            try:
                return list(pool.map(self._store.head, keys))
            except ObjectMissing as missing:
                for spelled in self._respelled_keys(keys):
                    with suppress(ObjectMissing):
                        return list(pool.map(self._store.head, spelled))
                raise ObjectMissing(f"{missing}, though the manifest lists it") from None

    def _respelled_keys(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """The keys in the folders of the month that the store spells otherwise: one LIST for each
        part that may be."""
        found = [""]
        parts = keys[0].split("/")[:-1]
        last = max((n for n, part in enumerate(parts, 1) if _MONTH_FOLDER.match(part)), default=0)
        for part in parts[:last]:
            found = [
                f"{folder}{name}/"
                for folder in found
                for name in (
                    sorted(self._store.folders(folder.rstrip("/")))
                    if _MONTH_FOLDER.match(part)
                    else [part]
                )
                if _normalized(name) == _normalized(part)
            ]
        listed_in = "/".join(parts[:last]) + "/"
        for folder in found:
            if last and folder != listed_in:
                yield [
                    f"{folder}{key.removeprefix(listed_in)}" if key.startswith(listed_in) else key
                    for key in keys
                ]

    def _keys(self, month: BillingMonth) -> _Keys:
        name = self._export.export_name
        return {
            home: formats[0].manifest_keys(home, name, month)
            for home, formats in self._formats_by_folder.items()
        }

    def _newest_version(self, month: BillingMonth, keys: _Keys) -> AvailableVersion | None:
        """The manifest at one of the keys, in the format that fits; None where there is none."""
        found: list[list[Manifest]] = []
        try:
            for home, of_home in keys.items():
                for key in of_home:
                    with suppress(ObjectMissing):
                        found.append(self._read(key, self._formats_by_folder[home], month))
                        break
            if len(found) > 1:
                places = " and ".join(f"{m[0].source.location} ({m[0].format})" for m in found)
                raise ManifestInvalid(
                    f"two manifests fit {self._export.name} {month}: {places}; set its format"
                )
            return self._matching_manifest(found[0]) if found else None
        except ManifestInvalid as error:
            error.etag = error.etag or "+".join(one[0].source.etag for one in found)
            return error
        except (StoreError, StoreUnavailable) as error:
            return error

    def _read(self, key: str, formats: Sequence[AwsFormat], month: BillingMonth) -> list[Manifest]:
        manifests: list[Manifest] | ManifestInvalid
        etag, manifests = self._known.get(key, ("", []))
        changed = self._store.read(key, known_etag=etag)
        if changed is not None:
            body, info = changed
            try:
                source = ManifestFile(**vars(info))
                manifests = [f.parse_manifest(body, source, month) for f in formats]
            except ManifestInvalid as error:
                error.etag, manifests = info.etag, error
            self._known[key] = info.etag, manifests
        if isinstance(manifests, ManifestInvalid):
            raise manifests.with_traceback(None)
        return manifests

    def _matching_manifest(self, manifests: Sequence[Manifest]) -> Manifest:
        """Of one manifest as several formats read it, the one whose columns are the format's."""

        def has_cost_column(vendor: AwsFormat, manifest: Manifest) -> bool:
            return any(vendor.column(column.header) == vendor.cost for column in manifest.columns)

        fitting = [m for m in manifests if has_cost_column(self._formats[m.format], m)]
        if len(fitting) == 1:
            return fitting[0]
        location, columns = manifests[0].source.location, manifests[0].columns
        shown = excerpts([column.header for column in columns], _MAX_NAMES_SHOWN)
        if len(manifests) > 1:
            names = " or ".join(manifest.format for manifest in manifests)
            raise ManifestInvalid(
                f"{location}: whether this is {names} cannot be told from its columns, which are: "
                f"{shown or 'none'}; set the format of {self._export.name}"
            )
        folder = self._formats[manifests[0].format].folder
        for other in self._formats.values():
            if other.folder == folder and has_cost_column(other, manifests[0]):
                raise ManifestInvalid(
                    f'{location} has the columns of another format; set format = "{other.name}" '
                    f"for {self._export.name}"
                )
        return manifests[0]

    def _missing_manifest_message(self, month: BillingMonth, folders: _Folders) -> str:
        """Where the manifest was looked for, and what lies there instead."""
        keys = self._keys(month)
        home = next((home for home in reversed(keys) if folders(home)), next(iter(keys)))
        folder = home
        while not folders(folder) and folder:
            folder = folder.rpartition("/")[0]
        advice = (
            f"the vendor delivers the first manifest of {month} within a day or so of its beginning"
            if folder == home
            else f"look at source and export_name of {self._export.name}"
        )
        location = self._store.location
        return (
            f"{self._export.name} has no manifest of {month}: there is no "
            f"{location(keys[home][0])}; {location(folder)} has "
            f"{excerpts(sorted(folders(folder)), _MAX_NAMES_SHOWN) or 'nothing'}; {advice}"
        )


def _duration_text(time: timedelta) -> str:
    hours = time / timedelta(hours=1)
    return f"{hours:.1f} hours" if hours >= 1 else f"{round(hours * 60)} minutes"


def _normalized(folder: str) -> str:
    return re.sub(r"=0+(?=\d)", "=", folder.lower()) if _MONTH_FOLDER.match(folder) else folder


def _existing_keys(keys: _Keys, folders: _Folders) -> _Keys:
    """The keys whose folder exists."""

    def exists(folder: str, home: str) -> bool:
        parent, _, name = folder.rpartition("/")
        return folder == home or (exists(parent, home) and name in folders(parent))

    return {
        home: [key for key in of_home if exists(key.rpartition("/")[0], home)]
        for home, of_home in keys.items()
    }
