"""Verified local copies of the vendor's files, one folder a version of a month."""

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
from finops_dagster.billing.manifest import Manifest, version_folder
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
# Not `.lock`, `staged.jsonl`, a file that is still coming, or another's number in the manifest.
_USABLE_NAME = re.compile(r"(?!\d+$|\.|staged\.jsonl$|.*\.part)[\w !'()*.@=+,~-]{1,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class StagedFile(Download):
    """A file of a version as it lies on disk; the store sent it as `delivered` bytes with this
    `etag`. Of a ZIP these are others than on disk, and earlier releases kept no checksum."""

    key: str
    name: str
    etag: str
    mtime_ns: int
    delivered: int | None = None


@dataclass(frozen=True, kw_only=True)
class VersionRecord(Version):
    """A version that was staged whole: `manifest_id` is the vendor's id, with the digest of its
    content after it where the vendor gave that id to other files before; `rounded` is how many
    costs were rounded to 18 decimals. `content` is None where the files are gone that an older load
    was made of."""

    vendor_id: str
    rounded: int = 0


_RECORDS = TypeAdapter(list[VersionRecord])


@dataclass(frozen=True)
class StagingFolder:
    """The folder that all exports stage below."""

    root: Path
    limits: InflationLimits

    def month(self, export: str, month: BillingMonth) -> StagedMonth:
        """Return where one month of one export is staged."""
        return StagedMonth(self.root / export / str(month), self.limits)


class StagedMonth:
    """The staged files of one month: `manifest.json`, a folder for each of the vendor's ids with
    the files and a log of what was fetched, so that a broken download goes on where it stopped,
    and `version.json`, the record of every version that was staged whole, which outlives them."""

    def __init__(self, folder: Path, limits: InflationLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._manifest_file = folder / "manifest.json"
        self._record_file = folder / "version.json"

    def manifest(self) -> Manifest | None:
        """Return the manifest that the first stage read last."""
        with suppress(FileNotFoundError, ValidationError):
            return _MANIFEST.validate_json(self._manifest_file.read_bytes())
        return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Keep the manifest for the stages after."""
        with folder_lock(self._folder):
            self._write(self._manifest_file, _MANIFEST.dump_json(manifest, indent=1))

    def records(self) -> list[VersionRecord]:
        """Return the versions that were staged whole, the newest first; what earlier releases kept
        says nothing that the files and the lake do not."""
        with suppress(FileNotFoundError, ValidationError):
            return _RECORDS.validate_json(self._record_file.read_bytes())
        return []

    def current_record(self) -> VersionRecord | None:
        """Return the record of the newest manifest's files; None where they are not all staged."""
        manifest, records = self.manifest(), self.records()
        is_current = manifest and records and records[0].vendor_id == manifest.id
        return records[0] if is_current else None

    def write_record(self, record: VersionRecord) -> None:
        """Record that this version is staged, and is the newest. Raises BillError where another
        run has read a newer manifest meanwhile."""
        with folder_lock(self._folder):
            manifest, records = self.manifest(), self.records()
            if manifest is not None and manifest.id != record.vendor_id:
                raise BillError(newer_version_message(record.vendor_id, manifest.id))
            others = [other for other in records if other.manifest_id != record.manifest_id]
            document = _RECORDS.dump_json([record, *others], indent=1)
            if _RECORDS.dump_json(records, indent=1) != document:
                self._write(self._record_file, document)

    def _write(self, path: Path, content: bytes) -> None:
        part = path.with_name(f"{path.name}.part")
        with path_in_errors(part):
            part.write_bytes(content)
            part.replace(path)

    def version(self, manifest: Manifest) -> StagedVersion:
        """Return the files of one version."""
        return StagedVersion(self._folder / version_folder(manifest.id), manifest, self._limits)

    def version_folders(self) -> list[tuple[str, Path]]:
        """Return the name of every version's folder (`version_folder`), with its path."""
        if not self._folder.is_dir():
            return []
        return [(path.name, path) for path in sorted(self._folder.iterdir()) if path.is_dir()]

    def remove_other_versions(self, manifest: Manifest) -> None:
        """Delete the files of the month's other versions, unless a run stages or loads them."""
        with folder_lock(self._folder):
            for version, folder in self.version_folders():
                if version != version_folder(manifest.id):
                    with suppress(Timeout), folder_lock(folder, timeout=0):
                        shutil.rmtree(folder)

    def damage(self) -> list[str] | None:
        """Return what is wrong with what is staged of the newest version, each file read to its
        last byte; None where none is kept, or not all are fetched yet."""
        manifest = self.manifest()
        if manifest is None:
            is_damaged = self._manifest_file.exists()
            return [f"{self._manifest_file} is damaged"] if is_damaged else None
        return self.version(manifest).damage()


class StagedVersion:
    """The files of one version of a month, and the log `staged.jsonl` of what arrived."""

    def __init__(self, folder: Path, manifest: Manifest, limits: InflationLimits) -> None:
        self._folder, self.manifest, self._limits = folder, manifest, limits
        self._log = folder / "staged.jsonl"
        keys = [file.key for file in manifest.files]
        self._names = dict(zip(_local_names(keys), relative_names(keys), strict=True))
        self._inflated, self._write_lock = 0, Lock()

    @property
    def paths(self) -> list[Path]:
        """Where each file lies, in the manifest's order."""
        return [self._folder / name for name in self._names]

    @property
    def has_files(self) -> bool:
        """Whether any of the files was fetched, and not cleaned away since."""
        return self._log.exists()

    def lock(self) -> AbstractContextManager[object]:
        """Wait until no other run stages or loads this version, and let none until the block
        ends."""
        return waiting_lock(self._folder / ".lock", f"staging the files in {self._folder}")

    def content(self) -> Content | None:
        """Return the content of the files, if all are here as they were fetched."""
        files = self._intact_files()
        if files.keys() != self._names.keys() or not all(file.sha256 for file in files.values()):
            return None
        return Content.of(
            FileContent(self._names[name], file.delivered or 0, file.sha256, file.etag)
            for name, file in files.items()
        )

    def fetch(
        self, store: ObjectStore, available: Sequence[ObjectInfo], *, force: bool = False
    ) -> int:
        """Download what is not here yet, side by side; return the number of bytes that took.

        `available` are the manifest's files, in its order. Raises FileInvalid where a file is no
        whole gzip, and what the store raises.
        """
        with self.lock(), ThreadPoolExecutor(_MAX_DOWNLOADS) as pool:
            if force:
                self._log.unlink(missing_ok=True)
            missing = dict(zip(self._names, available, strict=True))
            self._inflated = 0
            for name, file in self._intact_files().items():
                is_same = (file.delivered, file.etag) == (missing[name].size, missing[name].etag)
                if is_same and file.sha256 is not None:
                    self._inflated += file.inflated
                    del missing[name]
            size, here = sum(file.size for file in missing.values()), _bytes_below(self._folder)
            run_logger().info(f"fetching {len(missing)} of {len(available)} files, {decimal(size)}")
            downloads = [
                pool.submit(self._download, store, file, name) for name, file in missing.items()
            ]
            try:
                with logging_progress(
                    "fetched", size, decimal, lambda: _bytes_below(self._folder) - here
                ):
                    return sum(download.result() for download in as_completed(downloads))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _download(self, store: ObjectStore, version: ObjectInfo, name: str) -> int:
        path, part = self._folder / name, self._folder / f"{name}.part"
        again = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(4),
            wait=wait_exponential_jitter(multiplier=0.5, max=20),
            reraise=True,
        )
        try:
            download = again(download_verified, store, version, part, self._limits)
            self._check_month_size(version, download)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        file = StagedFile(
            **vars(download),
            key=version.key,
            name=name,
            etag=version.etag,
            mtime_ns=path.stat().st_mtime_ns,
            delivered=version.size,
        )
        with (
            self._write_lock,
            path_in_errors(self._log),
            self._log.open("a", encoding="utf-8") as log,
        ):
            log.write(f"\n{json.dumps(asdict(file))}")  # on a line of its own also after a crash
        return version.size

    def _check_month_size(self, version: ObjectInfo, download: Download) -> None:
        """Notice files of which each is small enough and all together are not."""
        with self._write_lock:
            self._inflated += download.inflated
            problem = self._limits.month_problem(self._inflated)
        if problem:
            raise FileInvalid(f"{version.location}: {problem}")

    def damage(self) -> list[str] | None:
        """Return what is wrong with the files that were fetched, each read to its last byte; None
        where they are not kept, or not all fetched yet."""
        fetched = {file.name: file for file in self._logged_files()}
        if not self.has_files or not self._names.keys() <= fetched.keys():
            return None
        problems = (self._problem(fetched[name], read_all=True) for name in self._names)
        return list(filter(None, problems))

    def _logged_files(self) -> Iterator[StagedFile]:
        """The log's files; a line that a killed process left half-written is none, nor is what
        earlier releases wrote of what they had counted."""
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
        """What is wrong with a file: by size and time of change, and by checksum where the time
        differs, or the file `read_all` anyway."""
        path = self._folder / file.name
        try:
            status = path.stat()
        except FileNotFoundError:
            return f"{path} is gone"
        if status.st_size != file.size:
            return f"{path} has {status.st_size:,} bytes, and had {file.size:,} when it was fetched"
        is_intact = not read_all and status.st_mtime_ns == file.mtime_ns
        if is_intact or crc32_of_file(path) == file.crc32:
            return None
        return f"{path} has other bytes than when it was fetched"


def newer_version_message(version: str, newer: str) -> str:
    """Say that a run may not go on with its version."""
    return (
        f"{version} was the month's newest version when this run began, and {newer} is by now: "
        "another run has brought a newer version; run the month again"
    )


def folder_lock(folder: Path, timeout: float = -1) -> FileLock:
    """Return the lock of a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock", timeout=timeout)


def _bytes_below(folder: Path) -> int:
    """The bytes of the files in the folder, of which some may just be renamed."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _local_names(keys: Sequence[str]) -> list[str]:
    """A file name for each key: its last part, where that tells it apart from the others and from
    what else lies in the folder, or else its number in the manifest."""
    tails = [key.rpartition("/")[2] for key in keys]
    shared = {tail for tail, count in Counter(tails).items() if count > 1}
    return [
        tail if tail not in shared and _USABLE_NAME.fullmatch(tail) else f"{number:06}"
        for number, tail in enumerate(tails)
    ]
