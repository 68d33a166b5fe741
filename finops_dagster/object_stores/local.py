"""A folder with the layout of a bucket: a synced copy, a mounted share, the demo."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from finops_dagster.object_stores import (
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    StoreError,
    WritableStore,
)
from finops_dagster.object_stores.uploads import (
    compare_checksums,
    crc32_base64,
    file_chunks,
    resolve_refused_write,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_CHUNK_BYTES = 1024 * 1024
# The names of locks and unfinished files, which are not objects. They do not end in .parquet, since
# queries read *.parquet.
_HIDDEN_PREFIX = ".finops-"
# The finest time that all usual file systems keep.
_CLOCK_TICK_NS = 1000


class LocalStore(WritableStore):
    """A store of the files below `folder`; an ETag consists of size and modification time.

    Files and folders whose names begin with `.finops-` are not listed. Symbolic links are followed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def location(self, key: str) -> str:
        """Return the path of a file or folder: `/folder/key`."""
        return str(self._folder / key.lstrip("/"))

    def folder_names(self, folder: str) -> set[str]:
        return {entry.name for entry in self._entries(folder) if entry.is_dir()}

    def files(self, folder: str) -> list[ObjectInfo]:
        paths = [entry for entry in self._entries(folder) if entry.is_file()]
        return [self.head(str(path.relative_to(self._folder))) for path in sorted(paths)]

    def files_below(self, folder: str) -> list[ObjectInfo]:
        return sorted(
            [
                *self.files(folder),
                *(
                    file
                    for name in self.folder_names(folder)
                    for file in self.files_below(f"{folder}/{name}".lstrip("/"))
                ),
            ],
            key=lambda file: file.key,
        )

    def _entries(self, folder: str) -> list[Path]:
        path = self.location(folder)
        with suppress(ObjectMissing), _translated_errors(path):
            entries = Path(path).iterdir()
            return [entry for entry in entries if not entry.name.startswith(_HIDDEN_PREFIX)]
        return []

    def head(self, key: str) -> ObjectInfo:
        """Return a file's size, ETag and time, also those of a folder. Raises ObjectMissing."""
        path = self.location(key)
        with _translated_errors(path):
            return self._info(key, Path(path).stat())

    def _info(self, key: str, status: os.stat_result) -> ObjectInfo:
        etag = f"{status.st_size:x}-{status.st_mtime_ns:x}"
        written = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectInfo(key, self.location(key), status.st_size, etag, written)

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return a small file's bytes and description; None if its ETag is still `known_etag`.

        Raises ObjectMissing, and ObjectChanged if the file changes while it is read.
        """
        # The open file stays the same when another one is renamed to its name.
        path = self.location(key)
        with _translated_errors(path), Path(path).open("rb") as file:
            info = self._info(key, os.fstat(file.fileno()))
            if info.etag == known_etag:
                return None
            content = file.read()
            if self._info(key, os.fstat(file.fileno())).etag != info.etag:
                raise ObjectChanged(f"{path} changed while it was read; run the month again")
        return content, info

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        # A file can change while it is read: the ETag is compared again after the last byte.
        with _translated_errors(info.location), Path(info.location).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        if self.head(info.key).etag != info.etag:
            raise ObjectChanged(f"{info.location} changed while it was read; run the month again")

    def upload(self, path: Path, key: str) -> ObjectInfo:
        """Copy the file, verify the copy's checksum, and rename it; return its description.

        Here the old object stays if the checksums differ.
        """
        target, checksum = Path(self.location(key)), crc32_base64(file_chunks(path))
        with _new_file(target) as part:
            shutil.copyfile(path, part)
            compare_checksums(str(target), "CRC32", checksum, crc32_base64(file_chunks(part)))
            part.replace(target)
        return self.head(key)

    def replace_if_unchanged(self, key: str, content: bytes, *, etag: str | None) -> str:
        """Write a small object if the stored one has the ETag `etag`; return the new ETag.

        With None, write it only if none is stored. Raises as `WritableStore.replace_if_unchanged`.
        A lock keeps the processes of this machine apart, but not those of other machines.
        """
        path = Path(self.location(key))
        lock = FileLock(path.with_name(f"{_HIDDEN_PREFIX}{path.name}.lock"))
        with _new_file(path) as part, lock:
            status = path.stat() if path.exists() else None
            if (status and self._info(key, status).etag) != etag:
                return resolve_refused_write(self, key, content, etag)
            part.write_bytes(content)
            if status:
                # Two writes at the same tick of the clock would have the same ETag.
                written = max(part.stat().st_mtime_ns, status.st_mtime_ns + _CLOCK_TICK_NS)
                os.utime(part, ns=(written, written))
            info = self._info(key, part.stat())
            part.replace(path)
        return info.etag

    def delete(self, key: str) -> None:
        path = Path(self.location(key))
        with _translated_write_errors(path):
            path.unlink(missing_ok=True)

    def filesystem(self) -> tuple[FileSystem, str]:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(self._folder)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give the block a path for a file that it renames to `path`; else the file is deleted."""
    part = path.with_name(f"{_HIDDEN_PREFIX}{path.name}-{uuid.uuid4().hex}.new")
    with _translated_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _translated_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}; allow writing it, or check the disk"
        ) from error


@contextmanager
def _translated_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectMissing(f"{path}: there is no such file") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror}; allow reading it, or check the disk"
        ) from error
