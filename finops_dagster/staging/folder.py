"""The staging folder: verified local copies of the vendor's files, and records of them."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from rich.filesize import decimal
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from finops_dagster.billing.content import Content, FileContent, relative_names
from finops_dagster.billing.errors import BillError, FileInvalid
from finops_dagster.billing.manifest import Manifest, staging_folder_name
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Version
from finops_dagster.locks import waiting_lock
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreUnavailable
from finops_dagster.progress import logging_progress, run_logger
from finops_dagster.staging.download import (
    Download,
    crc32_of_file,
    download_verified,
    path_in_errors,
)
from finops_dagster.staging.gzip_check import InflationLimits

_MANIFEST = TypeAdapter(Manifest)
_MAX_DOWNLOADS = 8
# Not the names of `.lock`, `staged.jsonl` and partial downloads, and no number: that is the name of
# a file whose own is not usable.
_USABLE_NAME = re.compile(r"(?!\d+$|\.|staged\.jsonl$|.*\.part)[\w !'()*.@=+,~-]{1,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class StagedFile(Download):
    """A staged file, as `staged.jsonl` records it.

    `delivered` is the size in the store, which differs from the size on disk where the file was
    converted, as a ZIP is. Earlier releases recorded no `delivered` and no `sha256`.
    """

    key: str
    name: str
    etag: str
    mtime_ns: int
    delivered: int | None = None


@dataclass(frozen=True, kw_only=True)
class VersionRecord(Version):
    """A version that was staged whole, as `version.json` records it.

    `rounded` is how many headline costs were rounded to 18 decimals. `content` is None for an
    older load whose files are gone.
    """

    vendor_id: str
    rounded: int = 0


_RECORDS = TypeAdapter(list[VersionRecord])


@dataclass(frozen=True)
class StagingFolder:
    """The staging folder of all exports."""

    root: Path
    limits: InflationLimits

    def month(self, export: str, month: BillingMonth) -> StagedMonth:
        """Return the staged month of an export."""
        return StagedMonth(self.root / export / str(month), self.limits)


class StagedMonth:
    """The staging folder of one month.

    It has `manifest.json`, a folder for each vendor's id with the staged files and the log of their
    downloads, by which a broken download is resumed, and `version.json`, the records of all
    versions that were staged whole, which cleanup keeps.
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
        """Write the manifest for the later stages, under the month's lock."""
        with folder_lock(self._folder):
            self._write(self._manifest_file, _MANIFEST.dump_json(manifest, indent=1))

    def records(self) -> list[VersionRecord]:
        """Return the records of versions that were staged whole, the newest first."""
        # A file of an earlier release is ignored: the files and the lake know as much.
        with suppress(FileNotFoundError, ValidationError):
            return _RECORDS.validate_json(self._record_file.read_bytes())
        return []

    def current_record(self) -> VersionRecord | None:
        """Return the record of the newest manifest's version; None where it is not staged whole."""
        manifest, records = self.manifest(), self.records()
        is_current = manifest and records and records[0].vendor_id == manifest.id
        return records[0] if is_current else None

    def write_record(self, record: VersionRecord) -> None:
        """Record this version as staged whole, before all others.

        Raises BillError if another run has read a newer manifest meanwhile.
        """
        with folder_lock(self._folder):
            manifest, records = self.manifest(), self.records()
            if manifest is not None and manifest.id != record.vendor_id:
                raise BillError(newer_version_message(record.vendor_id, manifest.id))
            older = [known for known in records if known.manifest_id != record.manifest_id]
            document = _RECORDS.dump_json([record, *older], indent=1)
            if _RECORDS.dump_json(records, indent=1) != document:
                self._write(self._record_file, document)

    def _write(self, path: Path, content: bytes) -> None:
        """Replace a file in one step, so that no reader sees half of it."""
        part = path.with_name(f"{path.name}.part")
        with path_in_errors(part):
            part.write_bytes(content)
            part.replace(path)

    def version(self, manifest: Manifest) -> StagedVersion:
        """Return the staged files of a manifest's version."""
        return StagedVersion(
            self._folder / staging_folder_name(manifest.id), manifest, self._limits
        )

    def version_folders(self) -> list[tuple[str, Path]]:
        """Return name and path of each version's folder."""
        if not self._folder.is_dir():
            return []
        return [(path.name, path) for path in sorted(self._folder.iterdir()) if path.is_dir()]

    def remove_other_versions(self, manifest: Manifest) -> None:
        """Delete the files of other versions, except those that a run is staging or loading."""
        with folder_lock(self._folder):
            for name, folder in self.version_folders():
                if name != staging_folder_name(manifest.id):
                    with suppress(Timeout), folder_lock(folder, timeout=0):
                        shutil.rmtree(folder)

    def damage(self) -> list[str] | None:
        """Read the newest version's files whole, and return what is wrong with them.

        None if there is no manifest, or if not all files are staged.
        """
        manifest = self.manifest()
        if manifest is None:
            is_damaged = self._manifest_file.exists()
            return [f"{self._manifest_file} is damaged"] if is_damaged else None
        return self.version(manifest).damage()


class StagedVersion:
    """The staged files of one version, and `staged.jsonl`, the log of their downloads."""

    def __init__(self, folder: Path, manifest: Manifest, limits: InflationLimits) -> None:
        self._folder, self.manifest, self._limits = folder, manifest, limits
        self._log = folder / "staged.jsonl"
        keys = [file.key for file in manifest.files]
        self._names = dict(zip(_local_names(keys), relative_names(keys), strict=True))
        self._inflated, self._write_lock = 0, Lock()

    @property
    def paths(self) -> list[Path]:
        """The paths of the files, in the manifest's order."""
        return [self._folder / name for name in self._names]

    @property
    def has_files(self) -> bool:
        """Whether any file was downloaded, and its folder not deleted since."""
        return self._log.exists()

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock that a run holds while it stages or loads this version."""
        return waiting_lock(self._folder / ".lock", f"staging the files in {self._folder}")

    def content(self) -> Content | None:
        """Return the content; None unless all files are staged and unchanged since.

        A file is read only if its time of change differs.
        """
        files = self._intact_files()
        if files.keys() != self._names.keys() or not all(file.sha256 for file in files.values()):
            return None
        return Content.of(
            FileContent(self._names[name], file.delivered or 0, file.sha256, file.etag)
            for name, file in files.items()
        )

    def fetch(self, store: ObjectStore, files: Sequence[ObjectInfo], *, force: bool = False) -> int:
        """Download the missing files, or all with `force`; return the bytes downloaded.

        `files` are the manifest's, in its order. Holds the version's lock. Raises FileInvalid if a
        file is damaged, and the store's errors.
        """
        with self.lock(), ThreadPoolExecutor(_MAX_DOWNLOADS) as pool:
            if force:
                self._log.unlink(missing_ok=True)
            missing = dict(zip(self._names, files, strict=True))
            self._inflated = 0
            for name, file in self._intact_files().items():
                is_same = (file.delivered, file.etag) == (missing[name].size, missing[name].etag)
                if is_same and file.sha256 is not None:
                    self._inflated += file.inflated
                    del missing[name]
            size = sum(file.size for file in missing.values())
            size_before = _bytes_below(self._folder)
            run_logger().info(f"fetching {len(missing)} of {len(files)} files, {decimal(size)}")
            downloads = [
                pool.submit(self._download, store, file, name) for name, file in missing.items()
            ]
            try:
                with logging_progress(
                    "fetched", size, decimal, lambda: _bytes_below(self._folder) - size_before
                ):
                    return sum(download.result() for download in as_completed(downloads))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _download(self, store: ObjectStore, info: ObjectInfo, name: str) -> int:
        path, part = self._folder / name, self._folder / f"{name}.part"
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(4),
            wait=wait_exponential_jitter(multiplier=0.5, max=20),
            reraise=True,
        )
        try:
            download = retrying(download_verified, store, info, part, self._limits)
            self._check_month_size(info, download)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        file = StagedFile(
            **vars(download),
            key=info.key,
            name=name,
            etag=info.etag,
            mtime_ns=path.stat().st_mtime_ns,
            delivered=info.size,
        )
        with (
            self._write_lock,
            path_in_errors(self._log),
            self._log.open("a", encoding="utf-8") as log,
        ):
            log.write(f"\n{json.dumps(asdict(file))}")  # a killed process may have left half a line
        return info.size

    def _check_month_size(self, info: ObjectInfo, download: Download) -> None:
        """Raise FileInvalid where the month's files together inflate beyond the limit."""
        with self._write_lock:
            self._inflated += download.inflated
            problem = self._limits.month_problem(self._inflated)
        if problem:
            raise FileInvalid(f"{info.location}: {problem}")

    def damage(self) -> list[str] | None:
        """Read the files whole, and return a text for each problem.

        None if not all files are staged.
        """
        fetched = {file.name: file for file in self._logged_files()}
        if not self.has_files or not self._names.keys() <= fetched.keys():
            return None
        problems = (self._problem(fetched[name], read_all=True) for name in self._names)
        return list(filter(None, problems))

    def _logged_files(self) -> Iterator[StagedFile]:
        """Yield the files in the log."""
        # Half a line of a killed process is skipped, and so are entries of earlier releases for
        # what they had counted.
        lines = self._log.read_text(encoding="utf-8").splitlines() if self.has_files else []
        for line in lines:
            with suppress(ValueError):
                entry = json.loads(line)
                if "key" in entry:
                    yield StagedFile(**entry)

    def _intact_files(self) -> dict[str, StagedFile]:
        return {
            file.name: file
            for file in self._logged_files()
            if file.name in self._names and self._problem(file, read_all=False) is None
        }

    def _problem(self, file: StagedFile, *, read_all: bool) -> str | None:
        """Return what is wrong with a file, if anything.

        Its checksum is compared where its time of change differs, or with `read_all`.
        """
        path = self._folder / file.name
        try:
            status = path.stat()
        except FileNotFoundError:
            return f"{path} is missing"
        if status.st_size != file.size:
            return f"{path} has {status.st_size:,} bytes, and had {file.size:,} when it was fetched"
        is_intact = not read_all and status.st_mtime_ns == file.mtime_ns
        if is_intact or crc32_of_file(path) == file.crc32:
            return None
        return f"{path} has changed since it was fetched: its checksum differs"


def newer_version_message(version: str, newer: str) -> str:
    """Return the message for a run whose version is no longer the newest."""
    return (
        f"version {version} is no longer the month's newest: another run has staged {newer} since "
        "this run began; run the month again"
    )


def folder_lock(folder: Path, timeout: float = -1) -> FileLock:
    """Create a folder if it is missing, and return its lock."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock", timeout=timeout)


def _bytes_below(folder: Path) -> int:
    """Return the size of a folder's files while downloads write and rename them."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _local_names(keys: Sequence[str]) -> list[str]:
    """Return a file name for each key: its last part if unique and usable, else its number."""
    names = [key.rpartition("/")[2] for key in keys]
    ambiguous = {name for name, count in Counter(names).items() if count > 1}
    return [
        name if name not in ambiguous and _USABLE_NAME.fullmatch(name) else f"{number:06}"
        for number, name in enumerate(names)
    ]
