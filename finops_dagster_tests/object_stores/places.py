"""A place in each of the stores, for the tests that all stores pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finops_dagster.object_stores import WritableStore, open_store
from finops_dagster.object_stores.settings import StoreSettings


@dataclass
class Place:
    """A store to test, how its objects are written and deleted, and how many it lists at once.

    `direct` are the variables that lead past a proxy of the tests.
    """

    source: str
    settings: dict[str, Any]
    put: Callable[[str, bytes], Any]
    delete: Callable[[str], Any]
    page: int = 0
    direct: Mapping[str, str] = field(default_factory=dict)

    def open(self, folder: str = "") -> tuple[WritableStore, str]:
        source = f"{self.source}/{folder}".rstrip("/")
        return open_store(StoreSettings(source=source, **self.settings))
