"""The source of FOCUS files that are never changed and add up, as Oracle's daily files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from finops_dagster.billing.content import FileContent
from finops_dagster.billing.errors import (
    BillError,
    FileInvalid,
    ManifestInvalid,
    ManifestMissing,
    excerpts,
)
from finops_dagster.billing.manifest import ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectMissing, ObjectStores
from finops_dagster.sources.base import (
    AvailableFiles,
    ManifestOrError,
    SharedFiles,
    SharedFilesReader,
    Source,
    VersionFolder,
)
from finops_dagster.sources.focus_files.data_files import (
    data_files,
    month_of_file,
    relative_path,
    version_digest,
)
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster.sources.focus_files.settings import FocusFilesExport

_MAX_NAMES_SHOWN = 5


class IncrementalFiles(Source):
    """FOCUS files whose rows say their month; a file may hold rows of several.

    The version of a month is the set of files that hold rows of it: its id is a digest of their
    names, sizes and SHA-256s. These are known, as each file is read once, and unlike ETags they
    stay when the bucket is copied. A loaded file that the store no longer has stays in the version:
    providers delete old files, and restate nothing by that.
    """

    max_manifest_age = timedelta(days=3)

    def __init__(
        self, export: FocusFilesExport, stores: ObjectStores, reader: SharedFilesReader | None
    ) -> None:
        """Open the export's store.

        Without a reader, the day in each key is taken for the month of the file's rows: then the
        manifests only show which months there are, and must not be loaded.
        """
        self._export, self._reader = export, reader
        self._store, self._root = stores.open(export)

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        """Return the newest manifest of each month, or the error that says why there is none.

        Sends one LIST, and one GET for each file that is new; without a reader, no GET. A file that
        cannot be read may hold rows of any month: then the month of the day in its key, and each
        month whose files differ from the loaded ones, has ManifestInvalid. Raises the store's error
        if any request fails, for whatever month.
        """
        files = data_files(self._store, self._root)
        if self._reader is None:
            shared = SharedFiles(_contents_by_day(files), {}, {})
        else:
            shared = self._reader.read(self._store, self._root, files, FocusFilesFormat())
        available = {relative_path(file.key, self._root): file for file in files}
        return {month: self._newest(month, available, shared) for month in months}

    def _newest(
        self, month: BillingMonth, available: Mapping[str, ObjectInfo], shared: SharedFiles
    ) -> ManifestOrError:
        loaded_content = shared.recorded.get(month)
        loaded = {file.name: file for file in loaded_content.files} if loaded_content else {}
        version = _MonthFiles.of(month, available, shared, loaded)
        for key, problem in shared.problems.items():
            file = available[relative_path(key, self._root)]
            if version.files != loaded or month_of_file(file) == month:
                return self._refused(problem, file, version)
        if version.files:
            return self._manifest(month, available, version)
        return ManifestMissing(
            f"{self._export.name} has no {month}: none of the {len(available)} files below "
            f"{self._store.location(self._root)} has rows of it; wait for the provider's next file"
        )

    def _refused(
        self, problem: BillError, file: ObjectInfo, version: _MonthFiles
    ) -> ManifestInvalid:
        error = ManifestInvalid(
            f"{problem}; the file may have rows of this month: to load the month, repair the file "
            "or move it away"
        )
        error.etag = f"{version.id}+{file.etag}"
        return error

    def _manifest(
        self, month: BillingMonth, available: Mapping[str, ObjectInfo], version: _MonthFiles
    ) -> Manifest:
        present = [available[name] for name in version.files if name in available]
        first_day = datetime(month.year, month.month, 1, tzinfo=UTC)
        source = ManifestFile(
            self._root,
            self._store.location(self._root),
            version.id,
            max((file.last_modified for file in present), default=first_day),
            sum(file.size for file in version.files.values()),
        )
        files = [
            ListedFile(f"{self._root}/{name}".lstrip("/"), file.size, file.etag, file.months)
            for name, file in sorted(version.files.items())
        ]
        return Manifest(
            FocusFilesFormat.name,
            str(month),
            version.id,
            source,
            (),
            tuple(files),
            warnings=tuple(version.warnings(self._store.location(self._root))),
            shared_folder=self._root,
            deleted_files=tuple(version.deleted),
        )

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return the listed files as the store has them, by one LIST.

        A file that the store no longer has is returned as it was when it was read, with a warning.
        Raises FileInvalid for a file whose ETag has changed since it was read.
        """
        available = {file.key: file for file in data_files(self._store, self._root)}
        files, warnings = [], []
        for listed in manifest.files:
            location = self._store.location(listed.key)
            file = available.get(listed.key)
            if file is None:
                warnings.append(
                    f"{location} is no longer there; the copy that was read is used, and nothing "
                    "needs to be done"
                )
                file = ObjectInfo(
                    listed.key,
                    location,
                    listed.size or 0,
                    listed.etag,
                    manifest.source.last_modified,
                )
            elif file.etag != listed.etag:
                raise FileInvalid(
                    f"{location} has changed since its months were read; run the month again"
                )
            files.append(file)
        return AvailableFiles(files, tuple(warnings))

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        Raises FileInvalid if a file is damaged, or if neither the store nor the staging folder has
        it: the month without its rows would be another. Raises the store's other errors.
        """
        try:
            return folder.fetch(self._store, available.files, force=force)
        except ObjectMissing as missing:
            raise FileInvalid(
                f"{missing}; {manifest.month} has rows of this file, and no copy of it is staged: "
                "put the file back to load the month's newest version"
            ) from missing


@dataclass(frozen=True)
class _MonthFiles:
    """The files of a month's newest version by name, and which of them are not as loaded."""

    month: BillingMonth
    files: Mapping[str, FileContent]
    deleted: Sequence[str]
    changed: Sequence[str]

    @classmethod
    def of(
        cls,
        month: BillingMonth,
        available: Mapping[str, ObjectInfo],
        shared: SharedFiles,
        loaded: Mapping[str, FileContent],
    ) -> _MonthFiles:
        """Return the files that hold rows of the month, and those of its loaded version.

        `available` are the store's files and `loaded` those of the loaded version, by their paths
        below the export's folder. A loaded file with other bytes stays in the list even if it holds
        no more rows of the month.
        """
        contents = {
            name: shared.contents[file.key]
            for name, file in available.items()
            if file.key in shared.contents
        }
        deleted = [name for name in loaded if name not in available]
        changed = [
            name
            for name, file in loaded.items()
            if name in contents and contents[name].sha256 != file.sha256
        ]
        files = {
            name: file
            for name, file in contents.items()
            if name in loaded or str(month) in (file.months or ())
        }
        return cls(month, {**files, **{name: loaded[name] for name in deleted}}, deleted, changed)

    @property
    def id(self) -> str:
        """The id of the version."""
        return version_digest([(file.name, file.size, file.sha256) for file in self.files.values()])

    def warnings(self, location: str) -> list[str]:
        """Return a warning about the changed files, if there are any."""
        if not self.changed:
            return []
        return [
            f"files in {location} were changed after they were loaded: "
            f"{excerpts(self.changed, _MAX_NAMES_SHOWN)}; {self.month} is restated; ask the "
            "provider why: with this layout, files are never changed"
        ]


def _contents_by_day(files: Sequence[ObjectInfo]) -> dict[str, FileContent]:
    """Return contents of unread files, of which the day in the key says the month."""
    return {
        file.key: FileContent(file.key, file.size, None, file.etag, (str(month_of_file(file)),))
        for file in files
    }
