"""A folder with the layout of a bucket: a synced copy, a mounted share, the demo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from finops_dagster.object_stores import (
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreError,
)

_CHUNK_BYTES = 1024 * 1024


class LocalStore(ObjectStore):
    """A store of the files below `folder`; an ETag is made of size and time of change."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def location(self, key: str) -> str:
        return str(self._folder / key.lstrip("/"))

    def folders(self, folder: str) -> set[str]:
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
                    for name in self.folders(folder)
                    for file in self.files_below(f"{folder}/{name}".lstrip("/"))
                ),
            ],
            key=lambda file: file.key,
        )

    def _entries(self, folder: str) -> list[Path]:
        path = self.location(folder)
        with suppress(ObjectMissing), _translated_errors(path):
            return list(Path(path).iterdir())
        return []

    def head(self, key: str) -> ObjectInfo:
        path = self.location(key)
        with _translated_errors(path):
            status = Path(path).stat()
        etag = f"{status.st_size:x}-{status.st_mtime_ns:x}"
        written = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectInfo(key, path, status.st_size, etag, written)

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        info = self.head(key)
        return None if info.etag == known_etag else (b"".join(self.chunks(info)), info)

    def chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        # A file can change while it is read: the ETag is compared again after the last byte.
        with _translated_errors(info.location), Path(info.location).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        if self.head(info.key).etag != info.etag:
            raise ObjectChanged(f"{info.location} changed while it was read; run the month again")


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
