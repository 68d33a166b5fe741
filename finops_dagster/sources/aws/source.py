"""The source of AWS's cost exports: manifests and files in a bucket."""

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
from finops_dagster.sources.base import AvailableFiles, ManifestOrError, Source, VersionFolder

_ListFolders = Callable[[str], set[str]]
# The possible keys of a month's manifest, by the months' folder.
_ManifestKeys = dict[str, Sequence[str]]

_MAX_PARALLEL_REQUESTS = 16
_MAX_NAMES_SHOWN = 12
# AWS writes a version's manifest last, and the next version hours later: a file that is newer than
# the manifest by more than this is the next version's. Stores tell times by the second, and not
# every writer waits for one file before it begins the next.
_OVERWRITTEN_AFTER = timedelta(minutes=1)
# Only these folders may have another spelling; folders of an account or a region never have.
_MONTH_FOLDER = re.compile(r"(billing_period|year|month)=\d", re.I)


def aws_formats(column_names: str = "flat") -> dict[str, AwsFormat]:
    """Return AWS's formats by their names in the settings.

    `column_names` is that of the export's settings: "flat" or "athena". Only CUR v1 uses it.
    """
    formats: tuple[AwsFormat, ...] = (AwsCur1(column_names), AwsCur2(), AwsFocus())
    return {format_.name: format_ for format_ in formats}


class AwsSource(Source):
    """One cost export of AWS in a bucket, or in a copy of one.

    Parsed manifests are cached by their ETags, so that an unchanged one is not transferred again.
    """

    # AWS restates the month in progress at least daily.
    max_manifest_age = timedelta(days=2)

    def __init__(
        self, export: AwsExport, stores: ObjectStores, formats: Iterable[str] = ()
    ) -> None:
        """Open the export's store.

        If the settings name no format, manifests are read as each of `formats`; by default as all.
        """
        self._formats = aws_formats(export.column_names)
        self._export = export
        self._store, prefix = stores.open(export)
        self._formats_by_folder: dict[str, list[AwsFormat]] = {}
        for name in [export.format] if export.format else [*formats] or self._formats:
            months_folder = self._formats[name].months_folder(prefix, export.export_name)
            self._formats_by_folder.setdefault(months_folder, []).append(self._formats[name])
        self._manifest_cache: dict[str, tuple[str, list[Manifest] | ManifestInvalid]] = {}

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        """Return each month's newest manifest, or the error that says why there is none.

        Sends GETs in parallel: usually one a month, more if the settings name no format or the
        manifest is not at its likeliest key. For several months, LISTs first show which of the
        folders exist, which saves GETs. Raises the store's error if a LIST fails, or if the GETs
        fail for all months that exist.
        """
        folders = functools.cache(self._store.folder_names)
        keys = {month: self._manifest_keys(month) for month in months}
        if len(keys) > 1:
            keys = {
                month: _existing_keys(month_keys, folders) for month, month_keys in keys.items()
            }
        with ThreadPoolExecutor(_MAX_PARALLEL_REQUESTS) as pool:
            manifests = list(pool.map(self._newest_manifest, keys, keys.values()))
        errors = [m for m in manifests if isinstance(m, StoreError | StoreUnavailable)]
        if len(errors) == sum(manifest is not None for manifest in manifests) > 0:
            raise errors[0]
        return {
            month: manifest or ManifestMissing(self._missing_manifest_message(month, folders))
            for month, manifest in zip(keys, manifests, strict=True)
        }

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return the listed files as the store has them, by a HEAD for each, in parallel.

        If a copied bucket spells the month's folder differently, the returned keys are the store's.
        With `copied = true`, a warning says if nothing but the sizes or the number of the files
        shows that they are of this version. Raises ObjectMissing, and the store's other errors.
        """
        files = self._stored_files(manifest)
        if not (self._export.copied and manifest.will_be_overwritten):
            return AvailableFiles(files)
        evidence = "size" if all(file.size is not None for file in manifest.files) else "number"
        warning = (
            "copied = true: the keys of the files do not name their version, and their times are "
            f"those of copying; only their {evidence} shows that all are of one version: let the "
            "copy end before a run begins"
        )
        return AvailableFiles(files, (warning,))

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        Raises FileInvalid if a file is damaged, has another size than the manifest says, or was
        overwritten by AWS with that of a newer version, and the store's errors.
        """
        self._check_against_manifest(manifest, available.files)
        size, source = folder.fetch(self._store, available.files, force=force), manifest.source
        if manifest.will_be_overwritten and self._store.head(source.key).etag != source.etag:
            raise FileInvalid(
                f"{source.location} changed while its files were fetched: the vendor is writing "
                "the next version over this one; run the month again"
            )
        return size

    def _check_against_manifest(self, manifest: Manifest, available: Sequence[ObjectInfo]) -> None:
        """Raise FileInvalid if a size or a time shows that a file is not the manifest's."""
        compares_times = manifest.will_be_overwritten and not self._export.copied
        for listed_file, file in zip(manifest.files, available, strict=True):
            if listed_file.size not in (None, file.size):
                raise FileInvalid(
                    f"{file.location} has {file.size} bytes, but the manifest says "
                    f"{listed_file.size}; run the month again when the vendor's next manifest is "
                    "there (where this is a copy of the vendor's bucket, copy the file again)"
                )
            age_difference = file.last_modified - manifest.source.last_modified
            if compares_times and age_difference > _OVERWRITTEN_AFTER:
                raise FileInvalid(
                    f"{file.location} is newer than its manifest by "
                    f"{_duration_text(age_difference)}: the vendor is writing the next version "
                    "over this one; run the month again when its manifest is there (where this is "
                    "a copy of the vendor's bucket, set copied = true)"
                )

    def _stored_files(self, manifest: Manifest) -> list[ObjectInfo]:
        """Return the listed files as the store has them. Raises ObjectMissing."""
        keys = [file.key for file in manifest.files]
        with ThreadPoolExecutor(_MAX_PARALLEL_REQUESTS) as pool:
            try:
                return list(pool.map(self._store.head, keys))
            except ObjectMissing as missing:
                # A copied bucket may have `billing_period=2026-01` where the manifest still lists
                # `BILLING_PERIOD=2026-01`, or `month=01` for `month=1`.
                for respelled in self._respelled_keys(keys):
                    with suppress(ObjectMissing):
                        return list(pool.map(self._store.head, respelled))
                raise ObjectMissing(f"{missing}, though the manifest lists it") from None

    def _respelled_keys(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Yield the keys with the month's folder spelled as in the store, for each such folder.

        Sends a LIST for each part of the path that may have another spelling.
        """
        month_folders = [""]
        parts = keys[0].split("/")[:-1]
        last = max((n for n, part in enumerate(parts, 1) if _MONTH_FOLDER.match(part)), default=0)
        for part in parts[:last]:
            month_folders = [
                f"{folder}{name}/"
                for folder in month_folders
                for name in (
                    sorted(self._store.folder_names(folder.rstrip("/")))
                    if _MONTH_FOLDER.match(part)
                    else [part]
                )
                if _normalized(name) == _normalized(part)
            ]
        listed = "/".join(parts[:last]) + "/"
        for folder in month_folders:
            if last and folder != listed:
                yield [
                    f"{folder}{key.removeprefix(listed)}" if key.startswith(listed) else key
                    for key in keys
                ]

    def _manifest_keys(self, month: BillingMonth) -> _ManifestKeys:
        name = self._export.export_name
        return {
            folder: formats[0].manifest_keys(folder, name, month)
            for folder, formats in self._formats_by_folder.items()
        }

    def _newest_manifest(self, month: BillingMonth, keys: _ManifestKeys) -> ManifestOrError | None:
        """Return the manifest at the first existing key, or the error that says what is wrong.

        None if no key exists.
        """
        readings: list[list[Manifest]] = []  # of each manifest, by every possible format
        try:
            for folder, folder_keys in keys.items():
                for key in folder_keys:
                    with suppress(ObjectMissing):
                        readings.append(
                            self._read_manifest(key, self._formats_by_folder[folder], month)
                        )
                        break
            if len(readings) > 1:
                locations = " and ".join(
                    f"{reading[0].source.location} ({reading[0].format})" for reading in readings
                )
                raise ManifestInvalid(
                    f"{self._export.name} {month} has two manifests, {locations}; set the format "
                    f"of {self._export.name}"
                )
            return self._matching_manifest(readings[0]) if readings else None
        except ManifestInvalid as error:
            error.etag = error.etag or "+".join(reading[0].source.etag for reading in readings)
            return error
        except (StoreError, StoreUnavailable) as error:
            return error

    def _read_manifest(
        self, key: str, formats: Sequence[AwsFormat], month: BillingMonth
    ) -> list[Manifest]:
        """Return a manifest as each of the formats reads it. Raises ManifestInvalid."""
        manifests: list[Manifest] | ManifestInvalid
        etag, manifests = self._manifest_cache.get(key, ("", []))
        changed_object = self._store.read(key, known_etag=etag)
        if changed_object is not None:
            body, info = changed_object
            try:
                source = ManifestFile(**vars(info))
                manifests = [f.parse_manifest(body, source, month) for f in formats]
            except ManifestInvalid as error:
                error.etag, manifests = info.etag, error
            self._manifest_cache[key] = info.etag, manifests
        if isinstance(manifests, ManifestInvalid):
            # The cached error would otherwise collect a traceback each time that it is raised.
            raise manifests.with_traceback(None)
        return manifests

    def _matching_manifest(self, manifests: Sequence[Manifest]) -> Manifest:
        """Return the manifest as read by the format whose cost column it lists.

        `manifests` are one manifest, read by each possible format. A single one is also returned if
        it lists no cost column. Raises ManifestInvalid if the columns do not show which format it
        is, or if they are those of a format that the settings exclude.
        """

        def has_cost_column(aws_format: AwsFormat, manifest: Manifest) -> bool:
            headers = (column.header for column in manifest.columns)
            return any(aws_format.column(header) == aws_format.cost for header in headers)

        matching = [m for m in manifests if has_cost_column(self._formats[m.format], m)]
        if len(matching) == 1:
            return matching[0]
        location, columns = manifests[0].source.location, manifests[0].columns
        headers = excerpts([column.header for column in columns], _MAX_NAMES_SHOWN)
        if len(manifests) > 1:
            names = " or ".join(manifest.format for manifest in manifests)
            raise ManifestInvalid(
                f"{location}: its columns do not show whether it is {names} (columns: "
                f"{headers or 'none'}); set the format of {self._export.name}"
            )
        subfolder = self._formats[manifests[0].format].subfolder
        for other in self._formats.values():
            if other.subfolder == subfolder and has_cost_column(other, manifests[0]):
                raise ManifestInvalid(
                    f'{location} has the columns of another format; set format = "{other.name}" '
                    f"for {self._export.name}"
                )
        return manifests[0]

    def _missing_manifest_message(self, month: BillingMonth, folders: _ListFolders) -> str:
        """Return the message for a missing manifest: its key, and the folders that exist there."""
        keys = self._manifest_keys(month)
        months_folder = next(
            (folder for folder in reversed(keys) if folders(folder)), next(iter(keys))
        )
        folder = months_folder
        while not folders(folder) and folder:
            folder = folder.rpartition("/")[0]
        advice = (
            "the vendor delivers a month's first manifest about a day after the month begins"
            if folder == months_folder
            else f"check source and export_name of {self._export.name}"
        )
        location = self._store.location
        return (
            f"{self._export.name} has no manifest of {month}: "
            f"{location(keys[months_folder][0])} does not exist; {location(folder)} has "
            f"{excerpts(sorted(folders(folder)), _MAX_NAMES_SHOWN) or 'nothing'}; {advice}"
        )


def _duration_text(duration: timedelta) -> str:
    hours = duration / timedelta(hours=1)
    return f"{hours:.1f} hours" if hours >= 1 else f"{round(hours * 60)} minutes"


def _normalized(folder: str) -> str:
    """Return a month's folder in lower case and without leading zeros; any other as it is."""
    return re.sub(r"=0+(?=\d)", "=", folder.lower()) if _MONTH_FOLDER.match(folder) else folder


def _existing_keys(keys: _ManifestKeys, folders: _ListFolders) -> _ManifestKeys:
    """Return the keys whose folder exists."""

    def exists(folder: str, months_folder: str) -> bool:
        parent, _, name = folder.rpartition("/")
        is_root = folder == months_folder
        return is_root or (exists(parent, months_folder) and name in folders(parent))

    return {
        months_folder: [key for key in paths if exists(key.rpartition("/")[0], months_folder)]
        for months_folder, paths in keys.items()
    }
