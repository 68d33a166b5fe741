"""Azure Blob Storage, and emulators of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobPrefix,
    BlobProperties,
    ContainerClient,
    ContentSettings,
    ExponentialRetry,
    StorageStreamDownloader,
)
from requests.adapters import HTTPAdapter

from finops_dagster.object_stores import ObjectInfo, StoreUnavailable, WritableStore
from finops_dagster.object_stores.azure_address import AzureAddress
from finops_dagster.object_stores.azure_credentials import (
    endpoint_and_credential,
    pyarrow_filesystem,
)
from finops_dagster.object_stores.azure_errors import azure_error
from finops_dagster.object_stores.uploads import (
    compare_checksums,
    file_chunks,
    md5,
    resolve_refused_write,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_CONNECTIONS = 32
_MOST_RETRIES = 5
# The client raises the errors that it logs, some of them in twenty lines.
_CLIENT_LOG_LEVEL = logging.ERROR
_CHUNK_BYTES = 8 * 1024 * 1024
_SIGNATURE = re.compile(r"(?i)\b(sig=)[^&\s'\"]+")


class AzureBlobStore(WritableStore):
    """A store in one container, with credentials from the environment.

    A listing takes one request for every 5,000 blobs and folders.
    """

    def __init__(self, address: AzureAddress) -> None:
        _keep_signatures_out_of_logs()
        self._location = address.root
        with self._translated_errors(""):
            self._endpoint, self._credential = endpoint_and_credential(address)
            self._container = _container_client(self._endpoint, address, self._credential)
        self._location = self._container.url.partition("?")[0]

    def location(self, key: str) -> str:
        """Return `https://account.blob.core.windows.net/container/key`."""
        return f"{self._location}/{key}"

    def folder_names(self, folder: str) -> set[str]:
        """Return the names of the folders directly in a folder."""
        prefix = f"{folder}/" if folder else ""
        return {
            entry.name.removeprefix(prefix).rstrip("/")
            for entry in self._entries(prefix)
            if isinstance(entry, BlobPrefix)
        }

    def files(self, folder: str) -> list[ObjectInfo]:
        """Return the blobs directly in a folder, sorted by key."""
        return self._files(self._entries(f"{folder}/" if folder else ""))

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """Return the blobs in a folder and all folders below it, sorted by key."""
        return self._files(self._entries(f"{folder}/" if folder else "", delimiter=""))

    def _entries(self, prefix: str, delimiter: str = "/") -> Iterator[BlobProperties | BlobPrefix]:
        # In an account with a hierarchical namespace, the metadata says which blobs are folders.
        options: dict[str, Any] = {"name_starts_with": prefix, "include": ["metadata"]}
        with self._translated_errors(prefix):
            if delimiter:
                yield from self._container.walk_blobs(**options, delimiter=delimiter)
            else:
                yield from self._container.list_blobs(**options)

    def _files(self, entries: Iterable[BlobProperties | BlobPrefix]) -> list[ObjectInfo]:
        files = [
            self._info(str(entry.name), entry)
            for entry in entries
            if isinstance(entry, BlobProperties) and not _is_folder(entry)
        ]
        return sorted(files, key=lambda file: file.key)

    def head(self, key: str) -> ObjectInfo:
        """Return a blob's size, ETag and time, by a HEAD request. Raises ObjectMissing."""
        with self._translated_errors(key):
            return self._info(key, self._container.get_blob_client(key).get_blob_properties())

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return a small blob and its description; None if its ETag is still `known_etag`.

        One GET request for every 8 MiB, the first with If-None-Match. Raises ObjectMissing, and
        ObjectChanged if a blob of more than 8 MiB changes while it is read.
        """
        with self._translated_errors(key):
            try:
                download = self._download(key, known_etag, MatchConditions.IfModified)
            except HttpResponseError as error:
                if error.status_code == 304:
                    return None
                raise
            return download.readall(), self._info(key, download.properties)

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield a blob's bytes, by one GET request for every 8 MiB, each with If-Match.

        Raises ObjectMissing and ObjectChanged.
        """
        with self._translated_errors(info.key):
            download = self._download(info.key, info.etag, MatchConditions.IfNotModified)
            if download.size != info.size:
                raise StoreUnavailable(
                    f"{info.location}: Azure sends {download.size} bytes, but the blob has "
                    f"{info.size} bytes"
                )
            yield from download.chunks()

    def _download(
        self, key: str, etag: str, condition: MatchConditions
    ) -> StorageStreamDownloader[bytes]:
        conditions: dict[str, Any] = {"etag": f'"{etag}"', "match_condition": condition}
        # The bytes count as they are stored, whatever the blob's Content-Encoding says.
        return self._container.download_blob(key, decompress=False, **(conditions if etag else {}))

    def upload(self, path: Path, key: str) -> ObjectInfo:
        """Upload a file and return the blob's description.

        Sends blocks of 8 MiB, each with its MD5, which Azure compares. A HEAD request then gets the
        blob's MD5, which must be the file's.
        """
        checksum = md5(file_chunks(path))
        settings = ContentSettings(content_md5=bytearray(checksum))
        with self._translated_errors(key), path.open("rb") as file:
            blob = self._container.upload_blob(
                key, file, overwrite=True, validate_content="md5", content_settings=settings
            )
            properties = blob.get_blob_properties()
        info = self._info(key, properties)
        stored = properties.content_settings.content_md5 or b""
        compare_checksums(info.location, "MD5", checksum.hex(), bytes(stored).hex())
        return info

    def replace_if_unchanged(self, key: str, content: bytes, *, etag: str | None) -> str:
        """Write a small blob on the condition of its ETag; return the new ETag.

        One PUT request. Raises as `WritableStore.replace_if_unchanged`.
        """
        condition: dict[str, Any] = {"overwrite": False}
        if etag is not None:
            condition = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
        with self._translated_errors(key):
            blob = self._container.get_blob_client(key)
            try:
                response = blob.upload_blob(content, validate_content="md5", **condition)
            except (ResourceExistsError, ResourceModifiedError):
                return resolve_refused_write(self, key, content, etag)
            return str(response["etag"]).strip('"')

    def delete(self, key: str) -> None:
        """Delete a blob, by one DELETE request; do nothing if there is none."""
        with self._translated_errors(key), suppress(ResourceNotFoundError):
            self._container.delete_blob(key)

    def filesystem(self) -> tuple[FileSystem, str]:
        """Return pyarrow's file system with the client's credentials, and the container.

        pyarrow itself finds credentials of Entra ID. Raises StoreError for anonymous access.
        """
        return pyarrow_filesystem(self._endpoint, self._credential), self._container.container_name

    def _info(self, key: str, blob: BlobProperties) -> ObjectInfo:
        etag = str(blob.etag).strip('"')
        return ObjectInfo(key, self.location(key), blob.size, etag, blob.last_modified)

    @contextmanager
    def _translated_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (AzureError, ValueError) as error:
            # Without its cause: the messages of the client have the request's URL, and so its SAS.
            raise azure_error(error, self.location(key)) from None


def _is_folder(blob: BlobProperties) -> bool:
    """Return whether an empty blob stands for a folder, as tools and Azure itself create them."""
    metadata = {name.lower(): text for name, text in (blob.metadata or {}).items()}
    return str(blob.name).endswith("/") or metadata.get("hdi_isfolder") == "true"


def _container_client(endpoint: str, address: AzureAddress, credential: Any) -> ContainerClient:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    options: dict[str, Any] = {
        "transport": RequestsTransport(session=session, connection_timeout=10, read_timeout=60),
        # The client retries after 5xx and broken connections, with pauses of 1 to 20 seconds.
        "retry_policy": ExponentialRetry(1, 2, retry_total=_MOST_RETRIES, random_jitter_range=1),
        "max_single_get_size": _CHUNK_BYTES,
        "max_chunk_get_size": _CHUNK_BYTES,
        "max_single_put_size": _CHUNK_BYTES,
        "max_block_size": _CHUNK_BYTES,
    }
    return ContainerClient(endpoint, address.container, credential=credential, **options)


def _keep_signatures_out_of_logs() -> None:
    """Mask signatures in the log of HTTP requests, and let the client log little itself."""
    logging.getLogger("azure").setLevel(_CLIENT_LOG_LEVEL)
    # A SAS is a part of the URLs that urllib3 logs. Adding a filter again changes nothing.
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_mask_signature)


def _mask_signature(record: logging.LogRecord) -> bool:
    record.msg, record.args = _SIGNATURE.sub(r"\1***", record.getMessage()), ()
    return True
