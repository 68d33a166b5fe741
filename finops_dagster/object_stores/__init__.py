"""Where vendors deliver: one file a kind of store, chosen by the scheme of the export's source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from finops_dagster.object_stores.settings import ACCESS_POINT, StoreSettings


class StoreError(Exception):
    """The store said no, in one line; asking again would not help."""


class ObjectMissing(StoreError):
    """There is no such object."""


class ObjectChanged(StoreError):
    """The object is no longer the one that was asked for."""


class StoreUnavailable(Exception):
    """The store or the way to it failed; asking again may help."""


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object; `size` in bytes, `location` whole, for messages."""

    key: str
    location: str
    size: int
    etag: str
    last_modified: datetime


class ObjectStore(Protocol):
    """What the chain asks of a store. Every method raises StoreError or StoreUnavailable."""

    def location(self, key: str) -> str:
        """The whole address of a key, for messages."""
        ...

    def folders(self, folder: str) -> set[str]:
        """The names of the folders directly below a folder, without slashes; none where there is
        no such folder."""
        ...

    def files(self, folder: str) -> list[ObjectInfo]:
        """Return the objects directly below a folder, in the order of their keys."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """The object's current version, by one small request. Raises ObjectMissing."""
        ...

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return a small object whole, and its version, by one request; None where it still has the
        ETag `known_etag`. Raises ObjectMissing."""
        ...

    def chunks(self, version: ObjectInfo) -> Iterator[bytes]:
        """The bytes of this very version. Raises ObjectChanged where it is no longer there."""
        ...


class ObjectStores:
    """The stores of all exports: one client of each in a process, made when it is first needed."""

    def __init__(self) -> None:
        self._opened: dict[StoreSettings, tuple[ObjectStore, str]] = {}

    def open(self, settings: StoreSettings) -> tuple[ObjectStore, str]:
        """Return the store that the settings name, and the prefix in it without slashes at its
        end."""
        if settings not in self._opened:
            self._opened[settings] = _open_store(settings)
        return self._opened[settings]


def _open_store(settings: StoreSettings) -> tuple[ObjectStore, str]:
    scheme, _, rest = settings.source.partition("://")
    if scheme == "file":
        from finops_dagster.object_stores.local import LocalStore

        return LocalStore(rest), ""
    from finops_dagster.object_stores.s3 import S3Store

    access_point = ACCESS_POINT.match(rest)
    bucket = access_point[0] if access_point else rest.partition("/")[0]
    return S3Store(bucket, settings), rest.removeprefix(bucket).removeprefix("/").rstrip("/")
