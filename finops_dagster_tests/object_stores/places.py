"""A place in each of the stores, for the tests that all stores pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from finops_dagster.object_stores import WritableStore, open_store
from finops_dagster.object_stores.settings import StoreSettings


def with_a_wrong_byte(body: bytes) -> bytes:
    """Return a body of more than a megabyte with another byte in its middle."""
    middle = len(body) // 2
    wrong = bytes([body[middle] ^ 1]) if len(body) > 1_000_000 else body[middle : middle + 1]
    return body[:middle] + wrong + body[middle + 1 :]


@dataclass
class Place:
    """A store to test, how its objects are written and deleted, and how many it lists at once.

    `damage` changes one byte of each large request on its way to the store. `direct` are the
    variables that lead past a proxy of the tests. Azure lists 5,000 objects, whose writing takes a
    minute: test_azure_blob.py asks it for small pages instead.
    """

    source: str
    settings: dict[str, Any]
    put: Callable[[str, bytes], Any]
    delete: Callable[[str], Any]
    damage: Callable[[], None]
    page: int = 0
    direct: Mapping[str, str] = field(default_factory=dict)

    def open(self, folder: str = "") -> tuple[WritableStore, str]:
        source = f"{self.source}/{folder}".rstrip("/")
        return open_store(StoreSettings(source=source, **self.settings))
