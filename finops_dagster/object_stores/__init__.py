"""Object stores: one file for each kind, chosen by the scheme of the export's source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from finops_dagster.object_stores.azure_address import AzureAddress
from finops_dagster.object_stores.settings import StoreSettings, is_azure, split_source

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


class StoreError(Exception):
    """A permanent error of a store, in one line."""


class ObjectMissing(StoreError):
    """The object does not exist."""


class ObjectChanged(StoreError):
    """The object was replaced, or created, after its ETag was read."""


class StoreUnavailable(Exception):
    """A transient error of a store or of the network."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object as the store has it now; `location` is its full address, for messages."""

    key: str
    location: str
    size: int
    etag: str
    last_modified: datetime


class ObjectStore(Protocol):
    """A store to list and read. Methods that read it raise StoreError or StoreUnavailable."""

    def location(self, key: str) -> str:
        """Return the full address of a key, for messages."""
        ...

    def folders(self, folder: str) -> set[str]:
        """Return the names of the folders directly in a folder, none where it does not exist."""
        ...

    def files(self, folder: str) -> list[ObjectInfo]:
        """Return the objects directly in a folder, sorted by key; none where it does not exist."""
        ...

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """Return the objects in a folder and in all folders below it, sorted by key."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return an object's size, ETag and time by one small request. Raises ObjectMissing."""
        ...

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return a small object's bytes and description; None if it still has the known ETag.

        Raises ObjectMissing.
        """
        ...

    def chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the object's bytes. Raises ObjectChanged unless it has the ETag of `info`.

        The error may come after the last byte.
        """
        ...


class WritableStore(ObjectStore, Protocol):
    """A store to write as well. Methods raise StoreError or StoreUnavailable."""

    def upload(self, path: Path, key: str) -> ObjectInfo:
        """Upload a file, and compare the checksum that the store then has with the file's.

        An object with this key is replaced, also by damaged bytes: use a new key for each upload.
        Memory is bounded. Raises StoreError with both checksums if they differ.
        """
        ...

    def replace(self, key: str, content: bytes, *, etag: str | None) -> str:
        """Write a small object if it has this ETag, or with None if there is none; return its ETag.

        Of several writers that give the same ETag, one succeeds, and all others raise
        ObjectChanged. The contents of writers must differ: a writer that finds its own content
        takes it for its own write, whose answer was lost.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object, unless it is missing."""
        ...

    def filesystem(self) -> tuple[FileSystem, str]:
        """Return pyarrow's file system for queries, and the path in it that precedes `/key`.

        Its credentials may end after an hour: ask again for each query.
        """
        ...


class ObjectStores:
    """The stores of all exports: one client for each of them, created at first use."""

    def __init__(self) -> None:
        self._opened: dict[StoreSettings, tuple[ObjectStore, str]] = {}

    def open(self, settings: StoreSettings) -> tuple[ObjectStore, str]:
        """Return the store of an export and the prefix in it, without a slash at its end.

        Does not connect. Raises StoreError for a client or credentials that are missing.
        """
        if settings not in self._opened:
            self._opened[settings] = open_store(settings)
        return self._opened[settings]


def open_store(settings: StoreSettings) -> tuple[WritableStore, str]:
    """Return the store of some settings, to write as well, and the prefix in it.

    Does not connect. Raises StoreError for a client or credentials that are missing.
    """
    root, prefix = split_source(settings.source)
    if root == "file://":
        from finops_dagster.object_stores.local import LocalStore

        return LocalStore(prefix), ""
    if is_azure(root):
        return _open_azure_store(settings.source), prefix
    if root.startswith("gs://"):
        from finops_dagster.object_stores.gcs import GcsStore

        return GcsStore(root.removeprefix("gs://")), prefix
    from finops_dagster.object_stores.s3 import S3Store

    return S3Store(root.removeprefix("s3://"), settings), prefix


def _open_azure_store(source: str) -> WritableStore:
    try:
        from finops_dagster.object_stores.azure_blob import AzureBlobStore
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{source}: the client of Azure is not installed ({error.name} is missing); run pip "
            "install '.[azure]' in the folder from which finops_dagster was installed"
        ) from error
    return AzureBlobStore(AzureAddress.parse(source))
