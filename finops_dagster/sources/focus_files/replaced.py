"""The source of FOCUS files in a folder for each month, which the provider replaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from finops_dagster.billing.errors import FileInvalid, ManifestInvalid, ManifestMissing, excerpts
from finops_dagster.billing.manifest import ListedFile, Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import (
    ObjectInfo,
    ObjectMissing,
    ObjectStores,
    StoreError,
    StoreUnavailable,
)
from finops_dagster.sources.base import AvailableFiles, ManifestOrError, Source, VersionFolder
from finops_dagster.sources.focus_files.data_files import (
    folder_as_manifest_file,
    newest_files,
    relative_path,
    version_digest,
)
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster.sources.focus_files.month_folders import EXAMPLES, month_folders
from finops_dagster.sources.focus_files.settings import FocusFilesExport

_MAX_PARALLEL_REQUESTS = 16
_MAX_NAMES_SHOWN = 12


class ReplacedFiles(Source):
    """A folder of FOCUS files for each month, with its newest version.

    The version is all files below the folder. If they all are in folders named by a time, each of
    these has the whole month, and the version is the files of the latest one.

    No manifest says which files belong together. So the listing is the manifest: the version's id
    is a digest of the names, sizes and ETags, and a version is only taken if the listing is the
    same before and after its files were fetched.
    """

    max_manifest_age = timedelta(days=3)

    def __init__(self, export: FocusFilesExport, stores: ObjectStores) -> None:
        """Open the export's store."""
        self._export = export
        self._store, self._root = stores.open(export)

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        """Return the manifest of each month's folder, or an error as its value.

        The error is ManifestMissing if the folder is missing or empty, ManifestInvalid if the month
        has two folders, or the store's. Lists the folders first, then the files of each in
        parallel. Raises the store's error if it fails for the folders, or for the files of every
        month that has a folder.
        """
        months, folders = list(months), month_folders(self._store, self._root)
        with ThreadPoolExecutor(_MAX_PARALLEL_REQUESTS) as pool:
            manifests = list(
                pool.map(lambda month: self._newest(month, folders.get(month, ())), months)
            )
        errors = [m for m in manifests if isinstance(m, StoreError | StoreUnavailable)]
        if errors and len(errors) == sum(month in folders for month in months):
            raise errors[0]
        missing = self._missing_message(folders)
        return {
            month: manifest or ManifestMissing(f"{self._export.name} has no {month}: {missing}")
            for month, manifest in zip(months, manifests, strict=True)
        }

    def _newest(self, month: BillingMonth, folders: Sequence[str]) -> ManifestOrError | None:
        """Return the manifest of a month's folder; None if there is no file in it."""
        if len(folders) > 1:
            locations = " and ".join(map(self._store.location, folders))
            error = ManifestInvalid(
                f"{self._export.name} {month} has two folders, {locations}; move away the one "
                "that is not the bill"
            )
            error.etag = version_digest([(folder,) for folder in folders])
            return error
        try:
            files = newest_files(self._store, folders[0]) if folders else []
        except (StoreError, StoreUnavailable) as error:
            return error
        return self._manifest(month, folders[0], files) if files else None

    def _manifest(self, month: BillingMonth, folder: str, files: Sequence[ObjectInfo]) -> Manifest:
        version = version_digest(
            [(relative_path(file.key, folder), file.size, file.etag) for file in files]
        )
        return Manifest(
            FocusFilesFormat.name,
            str(month),
            version,
            folder_as_manifest_file(self._store, folder, version, files),
            (),
            tuple(ListedFile(file.key, file.size) for file in files),
        )

    def _missing_message(self, folders: Mapping[BillingMonth, object]) -> str:
        month_names = excerpts([str(month) for month in sorted(folders)], _MAX_NAMES_SHOWN)
        folder_names = excerpts(sorted(self._store.folder_names(self._root)), _MAX_NAMES_SHOWN)
        return (
            f"{self._store.location(self._root)} has files of {month_names}; wait for the provider"
            if month_names
            else f"{self._store.location(self._root)} has no folder of a month ({EXAMPLES}), but "
            f"{folder_names or 'nothing'}; check source of {self._export.name}"
        )

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return the files of the newest version in the month's folder, by one LIST.

        Raises ObjectMissing if some of the manifest's files are gone. Raises FileInvalid if the
        folder has changed otherwise, as by the folder of a later time.
        """
        folder = manifest.source.key
        files = newest_files(self._store, folder)
        present = {file.key for file in files}
        missing = [listed.key for listed in manifest.files if listed.key not in present]
        # If a folder of a later time has come, all are missing: they exist, but no longer count.
        if missing and (len(missing) < len(manifest.files) or not files):
            raise ObjectMissing(f"{self._store.location(missing[0])}: there is no such file")
        self._require_version(manifest, files)
        return AvailableFiles(files)

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        Raises FileInvalid if a file is damaged, or if the vendor has changed the folder meanwhile,
        and the store's errors.
        """
        size = folder.fetch(self._store, available.files, force=force)
        self._require_version(manifest, newest_files(self._store, manifest.source.key))
        return size

    def _require_version(self, manifest: Manifest, files: Sequence[ObjectInfo]) -> None:
        month = BillingMonth.parse(manifest.month)
        if not files or self._manifest(month, manifest.source.key, files).id != manifest.id:
            raise FileInvalid(
                f"{manifest.source.location} has changed since {month} was listed: the vendor is "
                "writing the next version; run the month again"
            )
