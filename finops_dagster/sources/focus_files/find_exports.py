"""The search for folders of FOCUS files, by the names of folders and the header of one file."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreError
from finops_dagster.sources.find_exports import FoundExport, SearchedStore
from finops_dagster.sources.focus_files.data_files import (
    data_files,
    is_data_file,
    month_of_file,
    relative_path,
)
from finops_dagster.sources.focus_files.month_folders import month_folders
from finops_dagster.sources.focus_files.settings import FocusFilesExport

_MAX_LEVELS = 5
_MAX_FOLDERS = 500
_GZIP, _GZIP_OR_ZLIB = b"\x1f\x8b", 47
_HEADER_BYTES = 1024 * 1024
_PARQUET = b"PAR1"
# Parquet has its columns at its end. A larger file is taken for FOCUS by its ending.
_MAX_PARQUET_BYTES = 256 * 1024 * 1024
# The folders of CUR v1, and of Azure's exports, which may have no manifest.
_OF_OTHER_VENDORS = re.compile(r"\d{8}-\d{8}")
_DAY_FOLDER = re.compile(r"(?:[A-Za-z]+=)?(?:0?[1-9]|[12]\d|3[01])")
_NOTES = {
    "replaced": "layout: a folder for each month, whose newest files are taken to be the whole "
    "month; if the provider only adds files to it, and replaces none, set layout to incremental",
    "incremental": "layout: files of days, whose rows are added up; if each file has the whole "
    "month so far, neither layout fits, and costs would count twice",
}


def discover(searched: SearchedStore) -> Iterator[FoundExport]:
    """Yield an export for each folder of FOCUS files in a store, the nearest first.

    Such a folder has folders of months, or files and no folders. Of each, one file is read, to see
    if it is FOCUS: the last of its newest month, or of all. Folders with manifests, and those with
    names such as `20260101-20260131`, are other vendors' and left out. So is a folder whose file
    the store refuses to read. Searches at most five levels and 500 folders, then ends without an
    error. Raises the store's error if a listing fails, and a transient error of the one file.
    """
    level, searched_folders = [searched.folder], 0
    for _ in range(_MAX_LEVELS):
        next_level: list[str] = []
        for folder in level[: _MAX_FOLDERS - searched_folders]:
            searched_folders += 1
            layout, files = _layout_and_files(searched.store, folder)
            if layout and (export := _found_export(searched, folder, layout, files)):
                yield export
            elif not layout:
                names = searched.store.folder_names(folder)
                # AWS has its files in `data` and its manifests in `metadata`.
                below = sorted(names - ({"data", "metadata"} if "metadata" in names else set()))
                next_level += [f"{folder}/{name}".lstrip("/") for name in below]
        level = next_level


def _layout_and_files(store: ObjectStore, folder: str) -> tuple[str, Sequence[ObjectInfo]]:
    """Return the layout of a folder, and the files of its newest month or all; "" if it has none.

    The files are empty where another vendor's source reads the folder.
    """
    months = month_folders(store, folder)
    if not months:
        if store.folder_names(folder):
            return "", []
        files = [
            file for file in store.files(folder) if is_data_file(relative_path(file.key, folder))
        ]
        return ("incremental" if files else ""), files
    newest = months[max(months)][0]
    if _OF_OTHER_VENDORS.fullmatch(newest.rpartition("/")[2]):
        return "replaced", []
    if any(file.key.lower().endswith("manifest.json") for file in store.files_below(newest)):
        return "replaced", []
    days = store.folder_names(newest)
    has_days = days and all(map(_DAY_FOLDER.fullmatch, days)) and not store.files(newest)
    return ("incremental" if has_days else "replaced"), data_files(store, newest)


def _found_export(
    searched: SearchedStore, folder: str, layout: str, files: Sequence[ObjectInfo]
) -> FoundExport | None:
    """Return the export of a folder; None if its last file is not FOCUS."""
    if not files or not _is_focus(searched.store, files[-1]):
        return None
    months: Sequence[BillingMonth] = sorted(month_folders(searched.store, folder))
    if layout == "incremental":
        months = sorted({month_of_file(file) for file in data_files(searched.store, folder)})
    name = re.sub("[^A-Za-z0-9_-]+", "-", folder.rpartition("/")[2]).strip("-_")[:63]
    table = searched.settings.model_dump(exclude_defaults=True) | {
        "name": name or "focus",
        "vendor": "focus-files",
        "layout": layout,
        "source": searched.source_setting(folder),
        "start_month": str(months[0]),
    }
    export = FocusFilesExport.model_validate(table)
    return FoundExport(export, months, note=_NOTES[layout])


def _is_focus(store: ObjectStore, file: ObjectInfo) -> bool:
    """Return whether a file has FOCUS's BilledCost, in the header of CSV or anywhere in Parquet."""
    try:
        chunks = store.read_chunks(file)
        first = next(chunks, b"")
        if first.startswith(_PARQUET):
            is_large = file.size > _MAX_PARQUET_BYTES
            return is_large or b"BilledCost" in b"".join([first, *chunks])
        if first.startswith(_GZIP):
            first = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(first, _HEADER_BYTES)
    except (zlib.error, StoreError):  # such as an object in an archive
        return False
    return b"BilledCost" in first.partition(b"\n")[0]
