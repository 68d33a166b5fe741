"""The search for exports in a store that no settings name yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStore, ObjectStores
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class FoundExport:
    """An export that was found, and the months that have a manifest, the oldest first.

    `problem` is empty, or says why the newest manifest cannot be read: then `settings` have no
    format.
    """

    settings: ExportSettings
    months: Sequence[BillingMonth]
    problem: str = ""


class _CachedListings:
    """A store that lists each folder only once."""

    def __init__(self, store: ObjectStore) -> None:
        self.folders, self.files = cache(store.folders), cache(store.files)
        self.files_below = cache(store.files_below)
        self.location, self.head = store.location, store.head
        self.read, self.chunks = store.read, store.chunks


class SearchedStore(ObjectStores):
    """The stores of a search: all exports share the searched store, whose listings are cached.

    The search begins in `folder`. `root`, a slash and a folder are the `source` of an export.
    """

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__()
        self.settings, self.root = settings, "file://"
        if settings.source.startswith("file://"):
            store, _ = super().open(StoreSettings(source="file:///"))
            self.folder = settings.source.removeprefix("file://").strip("/")
        else:
            store, self.folder = super().open(settings)
            self.root = settings.source.rstrip("/").removesuffix(self.folder).rstrip("/")
        self.store: ObjectStore = _CachedListings(store)

    def open(self, settings: StoreSettings) -> tuple[ObjectStore, str]:
        """Return the searched store, and the prefix of the settings' source in it."""
        return self.store, settings.source.removeprefix(self.root).strip("/")
