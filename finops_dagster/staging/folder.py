"""Verified local copies of the vendor's files, one folder a version of a month."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import dagster as dg
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from rich.filesize import decimal
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from finops_dagster.billing.content import Content, FileContent, relative_names
from finops_dagster.billing.errors import FileInvalid
from finops_dagster.billing.manifest import Manifest, version_folder
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.locks import waiting_lock
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreUnavailable
from finops_dagster.staging.download import Arrived, crc32_of_file, named, write_checked
from finops_dagster.staging.gzip_check import InflationLimits

_MANIFEST = TypeAdapter(Manifest)
_VERSION_FILE = "version.json"
_DOWNLOADS_AT_ONCE = 8
_REQUESTS_AT_ONCE = 16
_SECONDS_BETWEEN_WORDS = 5
# Not `.lock`, `staged.jsonl`, a file that is still coming, or another's number in the manifest.
_USABLE_NAME = re.compile(r"(?!\d+$|\.|staged\.jsonl$|.*\.part)[\w !'()*.@=+,~-]{1,200}", re.ASCII)
# AWS writes the manifest last, and the next version some hours later. Stores tell times by the
# second, and not every writer waits for one file before it begins the next.
_OVERWRITTEN_AFTER = timedelta(minutes=1)


@dataclass(frozen=True)
class StagedFile:
    """A file that arrived whole: what lies on disk, which is `size` bytes with this `crc32` that
    hold `inflated` bytes in gzip; and what the store sent, which is `delivered` bytes with this
    `sha256` and `etag`. Of a ZIP the two differ."""

    key: str
    name: str
    size: int
    etag: str
    crc32: int
    mtime_ns: int
    inflated: int = 0
    delivered: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Counted:
    """The files of one version, what they hold, and how many costs were rounded to 18 decimals."""

    totals: Totals
    content: Content
    rounded: int = 0


@dataclass(frozen=True)
class CurrentVersion:
    """The version that was staged last: its id, which is the vendor's own or has the digest of its
    content after it, and that digest, where the files were read."""

    manifest_id: str
    id: str
    digest: str | None


class StagingFolder(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that all exports stage below."""

    root: str
    max_inflation: int
    max_inflated_bytes: int

    def month(self, export: str, month: BillingMonth) -> StagedMonth:
        """Where one month of one export is staged."""
        limits = InflationLimits(self.max_inflation, self.max_inflated_bytes)
        return StagedMonth(Path(self.root) / export / str(month), limits)


class StagedMonth:
    """The staged files of one month: `manifest.json`, `version.json`, and a folder for each of the
    vendor's ids with the files and a log of what arrived, so that a broken download goes on where
    it stopped."""

    def __init__(self, folder: Path, limits: InflationLimits) -> None:
        self._folder = folder
        self._limits = limits

    def manifest(self) -> Manifest | None:
        """The manifest that the first stage read last."""
        try:
            return _MANIFEST.validate_json(self._manifest_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def damage(self) -> list[str] | None:
        """Return what is wrong with what is staged of the newest version, each file read to its
        last byte; None where none is kept, or not all are fetched yet."""
        manifest = self.manifest()
        if manifest is None:
            is_damaged = self._manifest_file.exists()
            return [f"{self._manifest_file} is damaged"] if is_damaged else None
        return self.version(manifest).damage()

    @property
    def _manifest_file(self) -> Path:
        return self._folder / "manifest.json"

    def write_manifest(self, manifest: Manifest) -> None:
        """Keep the manifest for the stages after."""
        self._write("manifest.json", _MANIFEST.dump_json(manifest, indent=1))

    def current_version(self, manifest: Manifest) -> CurrentVersion:
        """Return the version that the second stage found the manifest's files to be; the vendor's
        own where it has not looked at them."""
        try:
            current = CurrentVersion(**json.loads((self._folder / _VERSION_FILE).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            current = None
        if current is None or current.manifest_id != manifest.id:
            return CurrentVersion(manifest.id, manifest.id, None)
        return current

    def write_current_version(self, current: CurrentVersion) -> None:
        """Keep for the stages after which version the manifest's files are."""
        self._write(_VERSION_FILE, json.dumps(asdict(current)).encode())

    def _write(self, name: str, content: bytes) -> None:
        part = self._folder / f"{name}.part"
        with _turn_at(self._folder), named(part):
            part.write_bytes(content)
            part.replace(self._folder / name)

    def version(self, manifest: Manifest) -> StagedVersion:
        """The files of one version."""
        return StagedVersion(self._folder / version_folder(manifest.id), manifest, self._limits)

    def versions(self) -> list[tuple[str, Path]]:
        """The name of every version's folder (`version_folder`), with its path."""
        if not self._folder.is_dir():
            return []
        return [(path.name, path) for path in sorted(self._folder.iterdir()) if path.is_dir()]

    def remove_other_versions(self, manifest: Manifest) -> None:
        """Delete what other versions of the month left, unless a run is staging them."""
        with _turn_at(self._folder):
            for version, folder in self.versions():
                if version != version_folder(manifest.id):
                    with suppress(Timeout), _turn_at(folder, timeout=0):
                        shutil.rmtree(folder)


class StagedVersion:
    """The files of one version of a month, and the log `staged.jsonl` of what arrived."""

    def __init__(self, folder: Path, manifest: Manifest, limits: InflationLimits) -> None:
        self._folder = folder
        self._log = folder / "staged.jsonl"
        self._manifest = manifest
        keys = [file.key for file in manifest.files]
        self._names = dict(zip(keys, _local_names(keys), strict=True))
        self._relative_names = dict(zip(keys, relative_names(keys), strict=True))
        self._limits = limits
        self._inflated = 0
        self._writing = Lock()

    @property
    def paths(self) -> list[Path]:
        """Where each file lies, in the manifest's order."""
        return [self._folder / name for name in self._names.values()]

    @property
    def names(self) -> list[str]:
        """The names of the files in the version's content."""
        return sorted(self._relative_names.values())

    def turn(self) -> AbstractContextManager[object]:
        """Wait until no other run stages this version, and let none until the block ends."""
        return waiting_lock(self._folder / ".lock", f"staging the files in {self._folder}")

    def look(self, store: ObjectStore, *, copied: bool) -> list[ObjectInfo]:
        """Return what the store has of each file, by a HEAD request each, side by side.

        `copied` is of a bucket in which the times are those of copying. Raises ObjectMissing, and
        FileInvalid where the files are not those of the manifest.
        """
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            available = list(pool.map(store.head, self._names))
        self._hold_to_manifest(available, copied=copied)
        return available

    def content_of(self, available: Iterable[ObjectInfo]) -> Content:
        """Return the content as far as it is known before it is read: without checksums."""
        return Content.of(
            FileContent(self._relative_names[file.key], file.size, etag=file.etag)
            for file in available
        )

    def counted(self, available: Sequence[ObjectInfo] | None = None) -> Counted | None:
        """Return what was counted in the text of the files, if all are here as they were counted,
        and the store has no others where it was looked at."""
        entries = self._entries()
        content = self._content(entries)
        if not entries or content is None or entries[-1].get("content") != content.digest:
            return None
        if available is not None and content.etags != self.content_of(available).etags:
            return None
        return Counted(Totals.of_record(entries[-1]), content, entries[-1].get("rounded", 0))

    def fetch(
        self, store: ObjectStore, available: Sequence[ObjectInfo], *, force: bool = False
    ) -> int:
        """Download what is not here yet, side by side; the number of bytes that took.

        Raises FileInvalid where a file is no whole gzip, and what the store raises.
        """
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            if force:
                self._log.unlink(missing_ok=True)
            here = self._intact_files(self._entries())
            missing = [one for one in available if not _is_of(here.get(one.key), one)]
            coming = {version.key for version in missing}
            self._inflated = sum(here[key].inflated for key in here.keys() - coming)
            dg.get_dagster_logger().info(
                f"fetching {len(missing)} of {len(available)} files, "
                f"{decimal(sum(version.size for version in missing))}"
            )
            downloads = [pool.submit(self._download, store, version) for version in missing]
            try:
                fetched = self._finished(downloads, sum(version.size for version in missing))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._hold_to_store(store)
        return fetched

    def _finished(self, downloads: Sequence[Future[int]], size: int) -> int:
        """Wait for the downloads and return their bytes; meanwhile say how far they are, which the
        run's log and the terminal show. Raises what the first of them to fail raises."""
        started = time.monotonic()
        here = _bytes_below(self._folder)
        while True:
            done, pending = wait(downloads, _SECONDS_BETWEEN_WORDS, FIRST_EXCEPTION)
            fetched = sum(download.result() for download in done)
            if not pending:
                return fetched
            arrived = max(_bytes_below(self._folder) - here, 1)
            rate = arrived / (time.monotonic() - started)
            dg.get_dagster_logger().info(
                f"fetched {decimal(arrived)} of {decimal(size)}, {decimal(round(rate))}/s, "
                f"{timedelta(seconds=round(max(size - arrived, 0) / rate))} left"
            )

    def finish(self, totals: Totals, rounded: int) -> Counted:
        """Keep what was counted in the files that `fetch` left here. Raises FileInvalid."""
        content = self._content(self._entries())
        if content is None:
            raise FileInvalid(f"{self._folder}: a file was changed meanwhile; run the month again")
        counts = {**totals.record(), "rounded": rounded}
        self._append({**counts, "content": content.digest})
        return Counted(totals, content, rounded)

    def _hold_to_manifest(self, available: Sequence[ObjectInfo], *, copied: bool) -> None:
        """Notice, before they are fetched, files that are not those of the manifest."""
        source = self._manifest.source
        times_tell = self._manifest.is_overwritten and not copied
        for listed, version in zip(self._manifest.files, available, strict=True):
            if listed.size not in (None, version.size):
                raise FileInvalid(
                    f"{version.location} has {version.size} bytes, but the manifest says "
                    f"{listed.size}; the month was left as it was"
                )
            newer_by = version.last_modified - source.last_modified
            if times_tell and newer_by > _OVERWRITTEN_AFTER:
                raise FileInvalid(
                    f"{version.location} is newer than its manifest by {_shown(newer_by)}: the "
                    "vendor is writing the next version over this one; run the month again when "
                    "its manifest is there (where this is a copy of the vendor's bucket, set "
                    "copied = true)"
                )

    def _hold_to_store(self, store: ObjectStore) -> None:
        """Notice that the vendor wrote a newer version over the files while they were fetched."""
        source = self._manifest.source
        if self._manifest.is_overwritten and store.head(source.key).etag != source.etag:
            raise FileInvalid(
                f"{source.location} changed while its files were fetched, and the newer version "
                "lies over the older; run the month again"
            )

    def _download(self, store: ObjectStore, version: ObjectInfo) -> int:
        path = self._folder / self._names[version.key]
        part = path.with_name(f"{path.name}.part")
        again = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(4),
            wait=wait_exponential_jitter(multiplier=0.5, max=20),
            reraise=True,
        )
        try:
            arrived = again(write_checked, store, version, part, self._limits)
            self._hold_to_limits(version, arrived)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        lies = path.stat()
        file = StagedFile(
            version.key,
            path.name,
            lies.st_size,
            version.etag,
            arrived.crc32,
            lies.st_mtime_ns,
            arrived.inflated,
            version.size,
            arrived.sha256,
        )
        self._append(asdict(file))
        return version.size

    def _hold_to_limits(self, version: ObjectInfo, arrived: Arrived) -> None:
        """Notice files of which each is small enough and all together are not."""
        with self._writing:
            self._inflated += arrived.inflated
            broken = self._limits.broken_by_month(self._inflated)
        if broken:
            raise FileInvalid(f"{version.location}: {broken}; the month was left as it was")

    def damage(self) -> list[str] | None:
        """Return what is wrong with the files that were fetched, each read to its last byte; None
        where they are not kept, or not all fetched yet."""
        entries = self._entries()
        if not any("rows" in entry for entry in entries[-1:]):
            return None
        fetched = {entry["key"]: StagedFile(**entry) for entry in entries if "key" in entry}
        problems = (
            self._problem(self._folder / name, fetched.get(key))
            for key, name in self._names.items()
        )
        return list(filter(None, problems))

    def _problem(self, path: Path, fetched: StagedFile | None) -> str | None:
        if fetched is None:
            return f"{self._log} does not have {path.name}"
        if not path.is_file():
            return f"{path} is gone"
        size = path.stat().st_size
        if size != fetched.size:
            return f"{path} has {size:,} bytes, and had {fetched.size:,} when it was fetched"
        is_intact = crc32_of_file(path) == fetched.crc32
        return None if is_intact else f"{path} has other bytes than when it was fetched"

    def _append(self, entry: dict[str, Any]) -> None:
        with self._writing, named(self._log), self._log.open("a", encoding="utf-8") as log:
            log.write("\n" + json.dumps(entry))  # first, lest a line cut by a crash swallow it

    def _entries(self) -> list[dict[str, Any]]:
        """The log's entries; a line that a killed process left half-written is none."""
        if not self._log.exists():
            return []
        entries = []
        for line in self._log.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                entries.append(json.loads(line))
        return entries

    def _content(self, entries: Sequence[dict[str, Any]]) -> Content | None:
        """What the files hold, if all are here as they arrived."""
        files = self._intact_files(entries)
        if files.keys() != self._names.keys():
            return None
        if not all(file.sha256 for file in files.values()):
            return None  # staged before checksums were kept
        return Content.of(
            FileContent(self._relative_names[key], file.delivered or 0, file.sha256, file.etag)
            for key, file in files.items()
        )

    def _intact_files(self, entries: Iterable[dict[str, Any]]) -> dict[str, StagedFile]:
        files = [StagedFile(**entry) for entry in entries if "key" in entry]
        return {f.key: f for f in files if self._names.get(f.key) == f.name and self._is_intact(f)}

    def _is_intact(self, file: StagedFile) -> bool:
        """By size and time of change; where the time differs, by checksum."""
        path = self._folder / file.name
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if status.st_size != file.size:
            return False
        return status.st_mtime_ns == file.mtime_ns or crc32_of_file(path) == file.crc32


def _turn_at(folder: Path, timeout: float = -1) -> FileLock:
    """The lock of a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock", timeout=timeout)


def _is_of(file: StagedFile | None, available: ObjectInfo) -> bool:
    """Whether this file is what the store has, and its checksum is known."""
    if file is None or file.sha256 is None:
        return False
    return (file.delivered, file.etag) == (available.size, available.etag)


def _shown(time: timedelta) -> str:
    hours = time / timedelta(hours=1)
    return f"{hours:.1f} hours" if hours >= 1 else f"{round(hours * 60)} minutes"


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
