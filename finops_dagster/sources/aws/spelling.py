"""Where a month's files lie when the store spells their folder otherwise than the manifest."""

from __future__ import annotations

import re
from dataclasses import replace

from finops_dagster.billing.manifest import Manifest
from finops_dagster.object_stores import ObjectMissing, ObjectStore

# Folders of an account or a region are never taken for one another.
_OF_A_MONTH = re.compile(r"(billing_period|year|month)=\d", re.I)


def as_the_store_spells(store: ObjectStore, manifest: Manifest) -> Manifest:
    """Return the manifest with its files in the month's folder as the store spells it, by one HEAD
    where there is such a folder and it is as it is listed.

    A copied bucket may have `billing_period=2026-01` where the manifest still lists
    `BILLING_PERIOD=2026-01`, or `month=01` for `month=1`.
    """
    listed = [_month_folder(file.key) for file in manifest.files]
    a_file = {folder: name for folder, name in listed if folder}
    spelled = {folder: _spelled(store, folder, name) for folder, name in a_file.items()}
    files = tuple(
        replace(file, key=f"{spelled[folder]}/{name}") if folder else file
        for file, (folder, name) in zip(manifest.files, listed, strict=True)
    )
    return replace(manifest, files=files)


def _spelled(store: ObjectStore, listed: str, name: str) -> str:
    """The folder that has the file; the listed one where none has."""
    if _is_there(store, f"{listed}/{name}"):
        return listed
    others = _other_spellings(store, listed)
    return next((folder for folder in others if _is_there(store, f"{folder}/{name}")), listed)


def _month_folder(key: str) -> tuple[str, str]:
    """A key's folder of a month that is named as in Hive (`month=1`), and what comes after."""
    parts = key.split("/")
    spelled = [number for number, part in enumerate(parts[:-1], 1) if _OF_A_MONTH.match(part)]
    last = max(spelled, default=0)
    return "/".join(parts[:last]), "/".join(parts[last:])


def _other_spellings(store: ObjectStore, folder: str) -> list[str]:
    """The folders of the store that differ from this one in the case of letters and in zeros, by
    one LIST for each part that may."""
    found: list[list[str]] = [[]]
    for part in folder.split("/"):
        if not _OF_A_MONTH.match(part):
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
