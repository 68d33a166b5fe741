"""The search for exports in a store that no settings name yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStore, ObjectStores
from finops_dagster.object_stores.settings import StoreSettings, join_source, split_source
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class FoundExport:
    """An export that was found: its settings, and its months, the oldest first.

    `problem` says why the format is not known, such as a newest manifest that cannot be read; it is
    empty if the format is known. With a problem, `settings.format` is None or, for Azure, missing.
    `note` says what was guessed; empty if nothing was.
    """

    settings: ExportSettings
    months: Sequence[BillingMonth]
    problem: str = ""
    note: str = ""


class _CachedListings:
    """A store that lists each folder only once."""

    def __init__(self, store: ObjectStore) -> None:
        self.folder_names, self.files = cache(store.folder_names), cache(store.files)
        self.files_below = cache(store.files_below)
        self.location, self.head = store.location, store.head
        self.read, self.read_chunks = store.read, store.read_chunks


class SearchedStore(ObjectStores):
    """The store in which exports are searched, from `folder` downwards; its listings are cached.

    It replaces the `ObjectStores` of each export that is found, so that all share the cache.
    """

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__()
        self.settings = settings
        self._root, folder = split_source(settings.source)
        self.folder = folder.strip("/")
        is_local = self._root == "file://"
        store, _ = super().open(StoreSettings(source="file:///") if is_local else settings)
        self.store: ObjectStore = _CachedListings(store)

    def source_setting(self, folder: str) -> str:
        """Return the setting `source` for an export in a folder of the store: `s3://bucket/a/b`.

        `folder` is relative to the root of the store; for a local folder, its path without the
        first slash.
        """
        return join_source(self._root, folder)

    def open(self, settings: StoreSettings) -> tuple[ObjectStore, str]:
        """Return the searched store, and the prefix of the settings' source in it.

        Unlike in the base class, a local folder has a prefix: its path without the first slash.
        """
        return self.store, split_source(settings.source)[1].strip("/")
