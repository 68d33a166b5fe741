"""The staging folder: verified local copies of the vendor's files, and records of them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.manifest import Manifest, staging_folder_name
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Version
from finops_dagster.object_stores import ObjectInfo, ObjectStore
from finops_dagster.staging.download import path_in_errors
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster.staging.staged_files import StagedFiles

_MANIFEST = TypeAdapter(Manifest)
# `.lock`, `staged.jsonl` and `*.part` are other files of the folder. A number is the name of a file
# whose own name is not usable.
_USABLE_NAME = re.compile(r"(?!\d+$|\.|staged\.jsonl$|.*\.part)[\w !'()*.@=+,~-]{1,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class VersionRecord(Version):
    """The record in `version.json` of a version whose files were all staged.

    `rounded` is how many headline costs were rounded to 18 decimals. `content` is None if the
    version was loaded by an earlier release and its files are gone.
    """

    vendor_id: str
    rounded: int = 0


_RECORDS = TypeAdapter(list[VersionRecord])


@dataclass(frozen=True)
class StagingFolder:
    """The staging folder of all exports; `limits` say how far compressed files may inflate."""

    root: Path
    limits: InflationLimits

    def shared_copies(self, export: str) -> StagedFiles:
        """Return the folder of downloaded copies of an export's shared files.

        The months of their rows are read from these copies. A month that stages such a file links
        the copy instead of downloading it.
        """
        return StagedFiles(_shared_folder(self.root / export), self.limits)

    def staged_month(self, export: str, month: BillingMonth) -> StagedMonth:
        """Return the staged month of an export, which need not exist."""
        return StagedMonth(self.root / export / str(month), self.limits)


class StagedMonth:
    """The staging folder of one month.

    It has `manifest.json`, and a folder for each vendor's id, with the staged files and the log of
    their downloads, by which a download that was cut off is resumed. `version.json` has the records
    of all versions whose files were ever all staged; cleanup keeps it.
    """

    def __init__(self, folder: Path, limits: InflationLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._manifest_file = folder / "manifest.json"
        self._record_file = folder / "version.json"

    def manifest(self) -> Manifest | None:
        """Return the manifest that the manifest stage wrote last; None if missing or damaged."""
        with suppress(FileNotFoundError, ValidationError):
            return _MANIFEST.validate_json(self._manifest_file.read_bytes())
        return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest for the later stages. Takes the month's lock."""
        with _folder_lock(self._folder):
            replace_file(self._manifest_file, _MANIFEST.dump_json(manifest, indent=1))

    def version_records(self) -> list[VersionRecord]:
        """Return the records of all versions whose files were ever all staged, the newest first.

        The list is empty if `version.json` is missing, damaged, or of an earlier release.
        """
        # A `version.json` of an earlier release is ignored: the staged files and the lake have the
        # same facts.
        with suppress(FileNotFoundError, ValidationError):
            return _RECORDS.validate_json(self._record_file.read_bytes())
        return []

    def current_record(self) -> VersionRecord | None:
        """Return the newest record if it has the vendor's id of the manifest, else None.

        The files may have been deleted since; `StagedVersion.content` then returns None.
        """
        manifest, records = self.manifest(), self.version_records()
        is_current = manifest and records and records[0].vendor_id == manifest.id
        return records[0] if is_current else None

    def write_record(self, record: VersionRecord) -> None:
        """Add a version's record as the newest; an older one of the same version id is replaced.

        Takes the month's lock. Raises BillError if the month has a manifest whose id is not the
        `vendor_id` of the record, as another run has written it meanwhile.
        """
        with _folder_lock(self._folder):
            manifest, records = self.manifest(), self.version_records()
            if manifest is not None and manifest.id != record.vendor_id:
                raise BillError(newer_version_message(record.vendor_id, manifest.id))
            older = [other for other in records if other.manifest_id != record.manifest_id]
            document = _RECORDS.dump_json([record, *older], by_alias=True, indent=1)
            if _RECORDS.dump_json(records, by_alias=True, indent=1) != document:
                replace_file(self._record_file, document)

    def staged_version(self, manifest: Manifest) -> StagedVersion:
        """Return the staged files of a manifest's version, which need not exist."""
        name = staging_folder_name(manifest.id)
        copies = [
            StagedFiles(folder, self._limits)
            for other, folder in self.version_folders()
            if other != name
        ]
        shared = StagedFiles(_shared_folder(self._folder.parent), self._limits)
        return StagedVersion(self._folder / name, manifest, self._limits, [*copies, shared])

    def version_folders(self) -> list[tuple[str, Path]]:
        """Return the name and the path of each folder of staged files, sorted by name.

        A name is that of `staging_folder_name`, which may differ from the vendor's id. Empty if the
        month has no folder.
        """
        if not self._folder.is_dir():
            return []
        return [(path.name, path) for path in sorted(self._folder.iterdir()) if path.is_dir()]

    def remove_other_versions(self, manifest: Manifest) -> None:
        """Delete the files of all versions but the manifest's; their records stay.

        Files that another run is staging or loading stay too. Takes the month's lock.
        """
        with _folder_lock(self._folder):
            for name, folder in self.version_folders():
                if name != staging_folder_name(manifest.id):
                    with suppress(Timeout), _folder_lock(folder, timeout=0):
                        shutil.rmtree(folder)

    def find_damage(self) -> list[str] | None:
        """Return a text for each problem of the manifest and its files, which are all read.

        The list is empty if there is none. None if there is no manifest, or if
        `StagedVersion.find_damage` returns None.
        """
        manifest = self.manifest()
        if manifest is None:
            is_damaged = self._manifest_file.exists()
            return [f"{self._manifest_file} is damaged"] if is_damaged else None
        return self.staged_version(manifest).find_damage()


class StagedVersion(StagedFiles):
    """The staged files of one version, as its manifest lists them."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        limits: InflationLimits,
        copies: Sequence[StagedFiles] = (),
    ) -> None:
        super().__init__(folder, limits, copies)
        self.manifest = manifest
        self._listed = dict(
            zip(_local_names([file.key for file in manifest.files]), manifest.files, strict=True)
        )

    @property
    def paths(self) -> list[Path]:
        """The paths of the manifest's files, in its order; a file need not exist."""
        return [self.path(name) for name in self._listed]

    @property
    def month_by_shared_file(self) -> dict[Path, BillingMonth]:
        """The manifest's month by path, for each file of which only that month's rows are loaded.

        These are the shared files, without those that have rows of this month alone. A shared file
        without rows is among them. All other files are loaded in full.
        """
        month = self.manifest.month
        return {
            self.path(name): BillingMonth.parse(month)
            for name, file in self._listed.items()
            if file.months not in (None, (month,))
        }

    def content(self) -> Content | None:
        """Return names, sizes and checksums of the files; None unless all are staged and intact.

        Sizes and checksums are those in the store, before a file was converted. A file is read only
        if its modification time has changed since its download. Also None if an earlier release
        recorded a file without its SHA-256.
        """
        files = self.intact_files()
        staged = [files[name] for name in self._listed if name in files]
        if len(staged) < len(self._listed) or not all(file.sha256 for file in staged):
            return None
        rows = zip(self.manifest.file_names, staged, self.manifest.files, strict=True)
        return Content.of(
            FileContent(name, file.delivered or 0, file.sha256, file.etag, listed.months)
            for name, file, listed in rows
        )

    def fetch(self, store: ObjectStore, files: Sequence[ObjectInfo], *, force: bool = False) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        `files` are all files of the manifest, in its order. Takes the version's lock. Raises the
        errors of `download_missing`.
        """
        with self.lock():
            return self.download_missing(
                store, dict(zip(self._listed, files, strict=True)), force=force
            )

    def find_damage(self) -> list[str] | None:
        """Read all files, and return a text for each problem, such as a missing file.

        The list is empty if all are intact. None if the files were never all downloaded, or if
        their folder was deleted.
        """
        fetched = {file.name: file for file in self._logged_files()}
        if not self.has_download_log or not self._listed.keys() <= fetched.keys():
            return None
        problems = (self._problem(fetched[name], read_all=True) for name in self._listed)
        return list(filter(None, problems))


def _shared_folder(export_folder: Path) -> Path:
    """Return the folder for the copies of an export's shared files, which need not exist."""
    return export_folder / "shared"


def newer_version_message(version: str, newer: str) -> str:
    """Return the message for a run whose version is no longer the newest, but `newer` is."""
    return (
        f"version {version} is no longer the month's newest: another run has staged {newer} since "
        "this run began; nothing needs to be done, unless that run fails"
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step, so that no reader sees half of it; its folder must exist.

    Writers of the same file must hold a lock: they use the same temporary file, `<name>.part`.
    """
    part = path.with_name(f"{path.name}.part")
    with path_in_errors(part):
        part.write_bytes(content)
        part.replace(path)


def _folder_lock(folder: Path, timeout: float = -1) -> FileLock:
    """Return the lock of a folder, to use in a `with` statement; creates the folder.

    Entering it waits `timeout` seconds for another process, and then raises filelock's Timeout; -1
    waits without a limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock", timeout=timeout)


def _local_names(keys: Sequence[str]) -> list[str]:
    """Return a file name for each key: its last part if unique and usable, else its number."""
    names = [key.rpartition("/")[2] for key in keys]
    ambiguous = {name for name, count in Counter(names).items() if count > 1}
    return [
        name if name not in ambiguous and _USABLE_NAME.fullmatch(name) else f"{number:06}"
        for number, name in enumerate(names)
    ]
