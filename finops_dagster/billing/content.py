"""The content of a version: its list of files, their sizes, and the checksums of their bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_CONTENT_SUFFIX = re.compile(r"(\+[0-9a-f]{8})?")


@dataclass(frozen=True)
class FileContent:
    """One file as the vendor delivered it. `name` is its path below the folder that all files of
    the version share, so that a copied bucket has the same names. `sha256` is None where nobody has
    read the bytes. `etag` is what the store said of them, which another store says differently."""

    name: str
    size: int
    sha256: str | None = None
    etag: str = ""


@dataclass(frozen=True)
class Content:
    """The files of one version, in the order of their names."""

    files: tuple[FileContent, ...]

    @classmethod
    def of(cls, files: Iterable[FileContent]) -> Content:
        """Return the content of these files, in whatever order they come."""
        return cls(tuple(sorted(files, key=lambda file: file.name)))

    @classmethod
    def of_rows(cls, rows: Iterable[dict[str, Any]] | None) -> Content | None:
        """Return what `rows` gave; None for what was kept before contents were."""
        return None if rows is None else cls.of(FileContent(**row) for row in rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a file, as the ledger and the lake's files keep them."""
        return [asdict(file) for file in self.files]

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return [file.name for file in self.files]

    def file_fields(self, *fields: str) -> list[tuple[Any, ...]]:
        """Return these fields of each file."""
        return [tuple(getattr(file, name) for name in fields) for file in self.files]

    @property
    def checksums(self) -> list[tuple[Any, ...]] | None:
        """The name, size and checksum of each file; None where one is not known."""
        is_known = all(file.sha256 is not None for file in self.files)
        return self.file_fields("name", "size", "sha256") if is_known else None

    @property
    def digest(self) -> str:
        """Eight hex digits that stand for names, sizes and checksums."""
        return hashlib.sha256(repr(self.checksums).encode()).hexdigest()[:8]


def relative_names(keys: Sequence[str]) -> list[str]:
    """Return the path of each key below the folder that all of them share."""
    paths = [key.split("/") for key in keys]
    shared = 0
    for names in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    return ["/".join(path[shared:]) for path in paths]


def is_version_of(version: str, manifest_id: str) -> bool:
    """Whether a version has this id of the vendor's: `v1` and `v1+1a2b3c4d` have `v1`."""
    suffix = version.removeprefix(manifest_id)
    return version.startswith(manifest_id) and bool(_CONTENT_SUFFIX.fullmatch(suffix))
