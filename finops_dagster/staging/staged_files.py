"""Verified copies of the vendor's files in one folder, and the log of their downloads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from rich.filesize import decimal
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from finops_dagster.billing.errors import FileInvalid
from finops_dagster.locks import waiting_lock
from finops_dagster.object_stores import ObjectInfo, ObjectMissing, ObjectStore, StoreUnavailable
from finops_dagster.progress import logging_progress, run_logger
from finops_dagster.staging.download import (
    DownloadedFile,
    crc32_of_file,
    download_verified,
    path_in_errors,
)
from finops_dagster.staging.gzip_check import InflationLimits

MAX_DOWNLOADS = 8
LOG_NAME = "staged.jsonl"


@dataclass(frozen=True, kw_only=True)
class StagedFile(DownloadedFile):
    """A staged file, as `staged.jsonl` records it.

    `delivered` is the size in the store, which differs from the size on disk where the file was
    converted, as a ZIP is. Earlier releases recorded no `delivered` and no `sha256`.
    """

    key: str
    name: str
    etag: str
    mtime_ns: int
    delivered: int | None = None

    def is_copy_of(self, info: ObjectInfo) -> bool:
        """Return whether this is a copy of the object `info`, by its size and its ETag.

        False for a file that an earlier release recorded without a SHA-256.
        """
        is_same = (self.delivered, self.etag) == (info.size, info.etag)
        return is_same and self.sha256 is not None


class StagedFiles:
    """A folder of verified files, with `staged.jsonl`, the log of their downloads.

    A file is not downloaded if one of the folders `copies` has it, with the same key, size and
    ETag. `limits` say how far files may inflate. Hold `lock` to download; it creates the folder.
    """

    def __init__(
        self, folder: Path, limits: InflationLimits, copies: Sequence[StagedFiles] = ()
    ) -> None:
        self._folder, self._limits, self._copies = folder, limits, copies
        self._log = folder / LOG_NAME
        self._inflated, self._write_lock = 0, Lock()

    @property
    def has_download_log(self) -> bool:
        """Whether the folder has a log of downloads; the files themselves may be deleted."""
        return self._log.exists()

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock to hold while these files are staged or loaded, for a `with` statement.

        Entering it creates the folder, and waits for another run without a limit.
        """
        return waiting_lock(self._folder / ".lock", f"staging the files in {self._folder}")

    def path(self, name: str) -> Path:
        """Return the path of a file, which need not exist."""
        return self._folder / name

    def existing_paths(self) -> list[Path]:
        """Return the paths of all files that were downloaded, and not deleted since."""
        names = {file.name for file in self._logged_files()}
        return [path for path in map(self.path, sorted(names)) if path.exists()]

    def intact_files(self) -> dict[str, StagedFile]:
        """Return the files that are unchanged since their download, by name.

        A file is read only if its size is the same and its modification time is not.
        """
        logged = {file.name: file for file in self._logged_files()}
        return {
            name: file
            for name, file in logged.items()
            if self._problem(file, read_all=False) is None
        }

    def download_missing(
        self, store: ObjectStore, files: Mapping[str, ObjectInfo], *, force: bool = False
    ) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        `files` are all files, by their names in the folder; the caller holds `lock`. A file that
        one of the folders `copies` has is linked or copied instead, unless `force`. If the store
        has deleted a file, its intact copy stays, without an error. Raises FileInvalid if a file is
        damaged or the files inflate too far, and the store's errors.
        """
        staged, missing = self.intact_files(), dict(files)
        copies = {} if force else self._available_copies()
        if force:
            self._log.unlink(missing_ok=True)
        self._inflated = 0
        for name, info in files.items():
            file = staged.get(name)
            if not force and file is not None and file.is_copy_of(info):
                self._inflated += file.inflated
                del missing[name]
            elif self._take_copy(name, info, copies.get(info.key, ())):
                del missing[name]
        size, size_before = sum(info.size for info in missing.values()), _bytes_in(self._folder)
        run_logger().info(f"fetching {len(missing)} of {len(files)} files, {decimal(size)}")
        with (
            ThreadPoolExecutor(MAX_DOWNLOADS) as pool,
            logging_progress(
                "fetched", size, decimal, lambda: _bytes_in(self._folder) - size_before
            ),
        ):
            try:
                downloads = [
                    pool.submit(self._fetch, store, info, name, staged.get(name))
                    for name, info in missing.items()
                ]
                return sum(download.result() for download in as_completed(downloads))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(
        self, store: ObjectStore, info: ObjectInfo, name: str, staged: StagedFile | None
    ) -> int:
        try:
            return self.download(store, info, name)
        except ObjectMissing:
            # Where the vendor has deleted a file, its verified copy is all that is left.
            if staged is None or not staged.is_copy_of(info):
                raise
            self._log_file(self._folder / name, info, staged)
            return 0

    def download(self, store: ObjectStore, info: ObjectInfo, name: str) -> int:
        """Download and verify the object `info` as the file `name`; return its size in the store.

        The caller holds `lock`. Adds the file to the log. A transient error is retried three times.
        Raises FileInvalid if the file is damaged or inflates too far, and the store's errors; an
        older copy then stays. All downloads of this StagedFiles since `download_missing` began, or
        since it was created, count together against the limit of a month.
        """
        path, part = self._folder / name, self._folder / f"{name}.part"
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(4),
            wait=wait_exponential_jitter(multiplier=0.5, max=20),
            reraise=True,
        )
        try:
            download = retrying(download_verified, store, info, part, self._limits)
            self._check_total_size(info, download)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self._log_file(path, info, download)
        return info.size

    def _available_copies(self) -> dict[str, list[tuple[StagedFiles, StagedFile]]]:
        """Return the intact files of the other folders by key."""
        copies: dict[str, list[tuple[StagedFiles, StagedFile]]] = {}
        for folder in self._copies:
            for file in folder.intact_files().values():
                copies.setdefault(file.key, []).append((folder, file))
        return copies

    def _take_copy(
        self,
        name: str,
        info: ObjectInfo,
        copies: Iterable[tuple[StagedFiles, StagedFile]],
    ) -> bool:
        """Link or copy a file from another folder, and log it; return whether there is one."""
        path, part = self._folder / name, self._folder / f"{name}.part"
        for folder, file in copies:
            if not file.is_copy_of(info):
                continue
            # Another run may delete the folder of an older version meanwhile.
            with suppress(FileNotFoundError):
                _link_or_copy(folder.path(file.name), part)
                if part.stat().st_size != file.size or crc32_of_file(part) != file.crc32:
                    part.unlink()
                    continue
                # To rename a link to another link of the same file does nothing.
                path.unlink(missing_ok=True)
                part.replace(path)
                self._check_total_size(info, file)
                self._log_file(path, info, file)
                return True
        return False

    def _log_file(self, path: Path, info: ObjectInfo, download: DownloadedFile) -> None:
        file = StagedFile(
            size=download.size,
            crc32=download.crc32,
            inflated=download.inflated,
            sha256=download.sha256,
            key=info.key,
            name=path.name,
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

    def _check_total_size(self, info: ObjectInfo, download: DownloadedFile) -> None:
        """Raise FileInvalid where the month's files together inflate beyond the limit."""
        with self._write_lock:
            self._inflated += download.inflated
            problem = self._limits.month_problem(self._inflated)
        if problem:
            raise FileInvalid(f"{info.location}: {problem}")

    def _logged_files(self) -> Iterator[StagedFile]:
        """Yield the files in the log."""
        # Half a line of a killed process is skipped, and so are entries of earlier releases for
        # what they had counted.
        lines = self._log.read_text(encoding="utf-8").splitlines() if self.has_download_log else []
        for line in lines:
            with suppress(ValueError):
                entry = json.loads(line)
                if "key" in entry:
                    yield StagedFile(**entry)

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


def _link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def _bytes_in(folder: Path) -> int:
    """Return the size of a folder's files while downloads write and rename them."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
