"""The vendor's own word on one version of one billing month: which files, which columns."""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import sha256

from pydantic.dataclasses import dataclass

# `manifest.json` and `version.json` lie beside the versions' folders.
_PLAIN_FOLDER = re.compile(r"(?!(?:manifest|version)\.json)[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def version_folder(version: str) -> str:
    """Return the name of the folder of a version's staged files: the vendor's id where every file
    system takes it as it is, or else what can be kept of it and a digest, so that no two ids share
    a folder."""
    if _PLAIN_FOLDER.fullmatch(version):
        return version
    readable = re.sub(r"[^A-Za-z0-9]+", "-", version)[:80].strip("-")
    return f"{readable or 'version'}~{sha256(version.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Column:
    """A column as the vendor names it in the file's header; `type` is the vendor's word, if any."""

    header: str
    type: str | None = None


@dataclass(frozen=True)
class ManifestFile:
    """The object that a manifest was read from, in the version that the store had; `location` is
    whole, for messages."""

    key: str
    location: str
    etag: str
    last_modified: datetime
    size: int


@dataclass(frozen=True)
class ListedFile:
    """A file as the manifest lists it: its `key` in the store that the manifest was read from, and
    its size in bytes where the vendor gives it."""

    key: str
    size: int | None = None


@dataclass(frozen=True)
class Manifest:
    """One version of one month. Its list of `files` is the only correct one; folders hold more.

    `id` is the vendor's name of the version, `format` the name of the format that read it.
    """

    format: str
    month: str
    id: str
    source: ManifestFile
    columns: tuple[Column, ...]
    files: tuple[ListedFile, ...]

    @property
    def is_overwritten(self) -> bool:
        """Whether the next version may be written over the files of this one: their keys do not
        name the version."""
        return any(self.id not in file.key for file in self.files)

    def columns_added_and_removed(self, previous: Manifest | None) -> tuple[list[str], list[str]]:
        """The headers that this version has more and less than the one before, as far as both
        manifests list them."""
        if previous is None or not self.columns or not previous.columns:
            return [], []
        headers, previous_headers = (
            dict.fromkeys(c.header for c in one.columns) for one in (self, previous)
        )
        return [h for h in headers if h not in previous_headers], [
            h for h in previous_headers if h not in headers
        ]
