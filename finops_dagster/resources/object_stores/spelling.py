"""Where a month's files lie when the store spells their folder otherwise than the manifest."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from finops_dagster.billing.manifest import ListedFile, Manifest
from finops_dagster.resources.object_stores import ObjectMissing, ObjectStore


def as_the_store_spells(store: ObjectStore, manifest: Manifest) -> Manifest:
    """Return the manifest with its files in the month's folder as the store spells it.

    A copied bucket may have `billing_period=2026-01` where the manifest still lists
    `BILLING_PERIOD=2026-01`, or `month=01` for `month=1`. What is there as it is listed stays.
    """
    named = {part for part in manifest.source.key.split("/") if "=" in part}

    @cache
    def folder_of(listed: str, a_file: str) -> str:
        if _is_there(store, f"{listed}/{a_file}"):
            return listed
        spelled = _spellings(store, listed, named)
        return next(
            (folder for folder in spelled if _is_there(store, f"{folder}/{a_file}")), listed
        )

    files: list[ListedFile] = []
    a_file: dict[str, str] = {}
    for file in manifest.files:
        folder, rest = _month_folder(file.key)
        if folder.rpartition("/")[2] in named or not folder:
            files.append(file)
        else:
            first = a_file.setdefault(folder, rest)
            files.append(replace(file, key=f"{folder_of(folder, first)}/{rest}"))
    return replace(manifest, files=tuple(files))


def _month_folder(key: str) -> tuple[str, str]:
    """A key's folder of a month that is named as in Hive (`month=1`), and what comes after."""
    parts = key.split("/")
    last = max((number for number, part in enumerate(parts[:-1], 1) if "=" in part), default=0)
    return "/".join(parts[:last]), "/".join(parts[last:])


def _spellings(store: ObjectStore, folder: str, named: set[str]) -> list[str]:
    """The folders of the store that differ from this one in the case of letters and in zeros, by
    one LIST for each part that may."""
    found: list[list[str]] = [[]]
    for part in folder.split("/"):
        if "=" not in part or part in named:
            found = [[*parts, part] for parts in found]
        else:
            found = [
                [*parts, name]
                for parts in found
                for name in sorted(store.folders("/".join(parts)))
                if _plain(name) == _plain(part)
            ]
    return ["/".join(parts) for parts in found if "/".join(parts) != folder]


def _plain(name: str) -> str:
    return re.sub(r"=0+(?=\d)", "=", name.lower())


def _is_there(store: ObjectStore, key: str) -> bool:
    try:
        store.head(key)
    except ObjectMissing:
        return False
    return True
