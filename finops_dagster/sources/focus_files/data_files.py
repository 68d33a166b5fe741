"""Which objects are FOCUS files, and the parts of the manifest that is built from their list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from hashlib import sha256

from finops_dagster.billing.manifest import ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStore

# What writers leave beside their files: Spark's `_SUCCESS`, Hadoop's `.part-0.crc`, manifests.
_MARKERS = ("_", ".")
_OTHER_SUFFIXES = (".json", ".md", ".txt", ".md5", ".sha256")

# A folder such as `202601310312`, `20260131T031200Z` or `time=2026-01-31T03:12`.
_TIME = re.compile(r"(?:[A-Za-z_]+=)?\d{4}-?\d\d-?\d\d[T _-]?\d\d[-:_.]?\d\d.*")

# The day in Oracle's `FOCUS Reports/2026/01/31/`, and in names such as `focus-20260131.csv`.
_DAY = re.compile(r"(?<!\d)([1-9]\d{3})([-/_]?)(0[1-9]|1[0-2])\2(?:0[1-9]|[12]\d|3[01])(?!\d)")


def data_files(store: ObjectStore, folder: str) -> list[ObjectInfo]:
    """Return the FOCUS files in a folder and in all folders below it, sorted by key.

    Files that `is_data_file` rejects are left out.
    """
    return [
        file for file in store.files_below(folder) if is_data_file(relative_path(file.key, folder))
    ]


def newest_files(store: ObjectStore, folder: str) -> list[ObjectInfo]:
    """Return the FOCUS files of a month's newest version in the month's folder, sorted by key.

    If every file is in a folder named by a time, each such folder has the whole month: then only
    the files of the latest one are returned, else all.
    """
    files = {file: relative_path(file.key, folder) for file in data_files(store, folder)}
    times = {path.rpartition("/")[0].partition("/")[0] for path in files.values()}
    if not times or not all(map(_TIME.fullmatch, times)):
        return list(files)
    return [file for file, path in files.items() if path.startswith(f"{max(times)}/")]


def is_data_file(path: str) -> bool:
    """Return whether a path below an export's folder is that of a file with charges.

    False if the file, or a folder in the path, has a name that begins with `_` or `.`. Also False
    for the endings `.json`, `.md`, `.txt`, `.md5` and `.sha256`; every other ending is accepted.
    """
    is_marker = any(name.startswith(_MARKERS) for name in path.split("/"))
    return not is_marker and not path.lower().endswith(_OTHER_SUFFIXES)


def relative_path(key: str, folder: str) -> str:
    """Return the path of a key below `folder`, which is the same in a copy of the bucket."""
    return key.removeprefix(folder).lstrip("/")


def version_digest(files: Sequence[tuple[object, ...]]) -> str:
    """Return an id of the version with these files: 16 hex digits, whatever their order.

    A manifest has it in place of a vendor's id. Each of `files` is a name, and values that
    differ if the bytes do, such as size, ETag and SHA-256.
    """
    return sha256(repr(sorted(files)).encode()).hexdigest()[:16]


def folder_as_manifest_file(
    store: ObjectStore, folder: str, version: str, files: Sequence[ObjectInfo]
) -> ManifestFile:
    """Return a folder in place of the object from which a vendor's manifest is read.

    Its time is that of the newest of `files`, of which there is at least one. Its size is the sum
    of their sizes. Its ETag is `version`, the id that `version_digest` returns.
    """
    return ManifestFile(
        folder,
        store.location(folder),
        version,
        max(file.last_modified for file in files),
        sum(file.size for file in files),
    )


def month_of_file(file: ObjectInfo) -> BillingMonth:
    """Return the month that a file's key names, else that in which it was written, in UTC.

    The key names it by a date with a day, such as `2026/01/31` or `20260131`; the last date in the
    key counts. The rows may be of other months.
    """
    *_, day = [None, *_DAY.finditer(file.key)]
    if day is None:
        return BillingMonth.of(file.last_modified.astimezone(UTC))
    return BillingMonth(int(day[1]), int(day[3]))
