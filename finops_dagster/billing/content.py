"""The content of a version: names, sizes, checksums and ETags of its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_CONTENT_SUFFIX = re.compile(r"\+[0-9a-f]{8}\Z")


@dataclass(frozen=True)
class FileContent:
    """One file as the vendor delivered it.

    `name` is its path below the folder that all files of the version share, so that names in a
    copied bucket are equal. `sha256` is None while the bytes have not been read. `etag` is the
    store's; another store has another ETag for the same bytes. For a shared file, `months` are the
    months of its rows, such as `2026-01`; for any other file it is None.
    """

    name: str
    size: int
    sha256: str | None = None
    etag: str = ""
    months: tuple[str, ...] | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> FileContent:
        """Return the file of a dict that `to_row` returned; old releases recorded no months."""
        months = row.get("months")
        return cls(**{**row, "months": None if months is None else tuple(months)})

    def to_row(self) -> dict[str, Any]:
        """Return a dict, fit for JSON: for the ledger, footers and the index of shared files."""
        return {**asdict(self), "months": None if self.months is None else list(self.months)}


@dataclass(frozen=True)
class Content:
    """The files of one version, sorted by name."""

    files: tuple[FileContent, ...]

    @classmethod
    def of(cls, files: Iterable[FileContent]) -> Content:
        """Return the content of files in any order."""
        return cls(tuple(sorted(files, key=lambda file: file.name)))

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]] | None) -> Content | None:
        """Return the content of dicts that `to_rows` returned.

        None for None, as in records of old releases.
        """
        return None if rows is None else cls.of(map(FileContent.from_row, rows))

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each file, fit for JSON, as the ledger and the footers store them."""
        return [file.to_row() for file in self.files]

    @property
    def byte_count(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def names(self) -> list[str]:
        """The sorted names of the files."""
        return [file.name for file in self.files]

    def file_fields(self, *fields: str) -> list[tuple[Any, ...]]:
        """Return a tuple of these fields for each file, in the order of the names."""
        return [tuple(getattr(file, name) for name in fields) for file in self.files]

    @property
    def checksums(self) -> list[tuple[Any, ...]] | None:
        """The name, size and SHA-256 of each file; None if the SHA-256 of any file is unknown."""
        is_known = all(file.sha256 is not None for file in self.files)
        return self.file_fields("name", "size", "sha256") if is_known else None

    @property
    def digest(self) -> str:
        """The first eight hex digits of a hash of `checksums`.

        If `checksums` is None, the digest means nothing: it is then the same for every content.
        """
        return hashlib.sha256(repr(self.checksums).encode()).hexdigest()[:8]


def relative_names(keys: Sequence[str]) -> list[str]:
    """Return each key's path below the deepest folder that has all keys."""
    paths = [key.split("/") for key in keys]
    shared = 0
    for names in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    return ["/".join(path[shared:]) for path in paths]


def is_version_of(version_id: str, vendor_id: str) -> bool:
    """Return whether a version id is of this vendor's id: `v1` and `v1+1a2b3c4d` are of `v1`."""
    return vendor_id in (version_id, vendor_id_of(version_id))


def vendor_id_of(version_id: str) -> str:
    """Return the vendor's id in a version id: `v1` for `v1` and for `v1+1a2b3c4d`."""
    return _CONTENT_SUFFIX.sub("", version_id)
