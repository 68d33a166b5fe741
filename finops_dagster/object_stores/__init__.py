"""Object stores: one file for each kind, which the scheme of the export's source selects."""

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
    """The object was replaced, created or deleted after its ETag was read."""


class StoreUnavailable(Exception):
    """A transient error of a store or of the network."""


@dataclass(frozen=True)
class ObjectInfo:
    """The description of an object by its store; `location` is its full address, for messages.

    `size` is in bytes, and `last_modified` has a zone. `etag` is without quotes, and changes when
    other bytes are written; in S3 it may stay when the same bytes are written again. The same bytes
    have other ETags in other stores.
    """

    key: str
    location: str
    size: int
    etag: str
    last_modified: datetime


class ObjectStore(Protocol):
    """A store whose objects can be listed and read.

    A folder is given as a key without a slash at its end; the empty text is the root of the store.
    Empty objects that stand for folders are not listed as objects. Methods that send requests
    raise StoreError or StoreUnavailable.
    """

    def location(self, key: str) -> str:
        """Return the full address of a key, for messages."""
        ...

    def folder_names(self, folder: str) -> set[str]:
        """Return the names of the folders directly in a folder; none if it does not exist."""
        ...

    def files(self, folder: str) -> list[ObjectInfo]:
        """Return the objects directly in a folder, sorted by key; none if it does not exist."""
        ...

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """Return the objects in a folder and all folders below it, sorted by key; empty if none."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return an object's size, ETag and time by one small request. Raises ObjectMissing."""
        ...

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return a small object's bytes and description; None if its ETag is still `known_etag`.

        Raises ObjectMissing, and ObjectChanged if the object changes while it is read.
        """
        ...

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the bytes of the object that `info` describes, in order.

        Raises ObjectMissing, and ObjectChanged if it no longer has the ETag of `info`; perhaps only
        after the last byte, so use no bytes before the end.
        """
        ...


class WritableStore(ObjectStore, Protocol):
    """A store whose objects can also be written and deleted."""

    def upload(self, path: Path, key: str) -> ObjectInfo:
        """Upload a file, verify the checksum of the stored object, and return its description.

        An object with this key is replaced, even if the upload damages the bytes: use a new key for
        each upload. Files of any size need little memory. Raises StoreError if the checksums
        differ.
        """
        ...

    def replace_if_unchanged(self, key: str, content: bytes, *, etag: str | None) -> str:
        """Write a small object if the stored one has the ETag `etag`; return the new ETag.

        With None, write it only if there is no object with this key. Of several writers with the
        same `etag`, one succeeds, and all others raise ObjectChanged, or StoreUnavailable while
        that write is in progress. Each writer's content must be unique: a writer that finds its own
        content stored takes it for its own write, whose answer was lost.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; do nothing if there is none."""
        ...

    def filesystem(self) -> tuple[FileSystem, str]:
        """Return pyarrow's file system of the store, and the path in it that precedes `/key`.

        Its credentials may expire after an hour: call this for each query.
        """
        ...


class ObjectStores:
    """Opens the stores of exports, with one client for equal settings."""

    def __init__(self) -> None:
        self._opened: dict[StoreSettings, tuple[ObjectStore, str]] = {}

    def open(self, settings: StoreSettings) -> tuple[ObjectStore, str]:
        """Return the store of an export and the prefix of its keys, without a slash at its end.

        A second call with equal settings returns the same client. The prefix and the errors are
        those of `open_store`.
        """
        if settings not in self._opened:
            self._opened[settings] = open_store(settings)
        return self._opened[settings]


def open_store(settings: StoreSettings) -> tuple[WritableStore, str]:
    """Return a new client of the store at `settings.source`, and the prefix of its keys.

    The prefix has no slash at its end; that of a folder is empty. Sends no requests: that the store
    exists and accepts the credentials is known at the first one. Raises StoreError if the client
    of Azure is not installed, or if credentials in the settings or the environment are not usable.
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
