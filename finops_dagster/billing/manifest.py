"""The manifest: the vendor's list of the files and columns of one version."""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import sha256

from pydantic.dataclasses import dataclass

from finops_dagster.billing.content import relative_names
from finops_dagster.billing.delivery import Delivery

# Ids that every file system takes as a folder's name. `manifest.json` and `version.json` are files
# beside the folders.
_PLAIN_FOLDER = re.compile(r"(?!(?:manifest|version)\.json)[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def staging_folder_name(vendor_id: str) -> str:
    """Return the name of the staging folder of the version with a vendor's id.

    It is the id itself, or its plain characters and a digest, so that no two ids share a folder.
    """
    if _PLAIN_FOLDER.fullmatch(vendor_id):
        return vendor_id
    readable = re.sub(r"[^A-Za-z0-9]+", "-", vendor_id)[:80].strip("-")
    return f"{readable or 'version'}~{sha256(vendor_id.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class ListedColumn:
    """A column that a manifest lists; `type` is the vendor's, None where it declares none."""

    header: str
    type: str | None = None


@dataclass(frozen=True)
class ManifestFile:
    """The object that a manifest was read from; `location` is its full address, for messages."""

    key: str
    location: str
    etag: str
    last_modified: datetime
    size: int


@dataclass(frozen=True)
class ListedFile:
    """A file that a manifest lists: its key in the store, and its size in bytes if declared.

    `etag` and `months` are those of a shared file: the store's ETag of the bytes that were read,
    and the months of its rows.
    """

    key: str
    size: int | None = None
    etag: str = ""
    months: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Manifest:
    """The vendor's list of the files and columns of one version.

    `id` is the vendor's id, `format` the name of the format that read the manifest, `month` is
    such as `2026-01`. Only `files` says what belongs to the version: vendors leave other files in
    the same folders. `row_count` is the number of rows in all files, None where the vendor does not
    say it. `warnings` are texts of the source, such as that an older run covers more days.
    `shared_folder` is the folder with the files of all months, where files hold rows of several;
    None where the files are the month's own. `deleted_files` are those of `file_names` that the
    store no longer has; their rows stay in the month.
    """

    format: str
    month: str
    id: str
    source: ManifestFile
    columns: tuple[ListedColumn, ...]
    files: tuple[ListedFile, ...]
    delivery: Delivery | None = None
    row_count: int | None = None
    warnings: tuple[str, ...] = ()
    shared_folder: str | None = None
    deleted_files: tuple[str, ...] = ()

    @property
    def file_names(self) -> list[str]:
        """The names of `files` in the ledger and the footers, in the order of `files`.

        A name is the path below `shared_folder` or, without one, below the deepest folder that has
        all of the files.
        """
        keys = [file.key for file in self.files]
        if self.shared_folder is None:
            return relative_names(keys)
        return [key.removeprefix(self.shared_folder).lstrip("/") for key in keys]

    @property
    def will_be_overwritten(self) -> bool:
        """Whether the vendor may write the next version over these files.

        True if the key of any file does not contain the vendor's id.
        """
        return any(self.id not in file.key for file in self.files)

    def columns_added_and_removed(self, previous: Manifest | None) -> tuple[list[str], list[str]]:
        """Return the headers that the previous version did not have, and those that only it had.

        Both lists are empty where either manifest lists no columns, and without a previous one.
        """
        if previous is None or not self.columns or not previous.columns:
            return [], []
        headers, previous_headers = (
            dict.fromkeys(c.header for c in manifest.columns) for manifest in (self, previous)
        )
        added = [header for header in headers if header not in previous_headers]
        removed = [header for header in previous_headers if header not in headers]
        return added, removed
