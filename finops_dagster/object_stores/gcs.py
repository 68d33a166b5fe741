"""Google Cloud Storage, and emulators of it."""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import google.auth
import google_crc32c
from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud.storage import Blob, Bucket, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException

from finops_dagster.object_stores import ObjectChanged, ObjectInfo, StoreUnavailable, WritableStore
from finops_dagster.object_stores.gcs_errors import gcs_error
from finops_dagster.object_stores.uploads import (
    compare_checksums,
    file_chunks,
    resolve_refused_write,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_EMULATOR = "STORAGE_EMULATOR_HOST"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_CHUNK_BYTES = 8 * 1024 * 1024
_LISTED_FIELDS = "items(name,size,generation,updated),prefixes,nextPageToken"
_SECONDS_OF_RETRIES = 120


class GcsStore(WritableStore):
    """A store in one bucket, with the machine's credentials; an object's generation is its ETag.

    A listing takes one request for every 1,000 objects and folders.
    """

    def __init__(self, bucket: str) -> None:
        self._bucket_name = bucket
        self._retry = DEFAULT_RETRY.with_timeout(_SECONDS_OF_RETRIES)
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._found_credentials: Any = None

    def location(self, key: str) -> str:
        """Return `gs://bucket/key`."""
        return f"gs://{self._bucket_name}/{key}"

    def folder_names(self, folder: str) -> set[str]:
        """Return the names of the folders directly in a folder."""
        prefix = f"{folder}/" if folder else ""
        return {
            name.removeprefix(prefix).rstrip("/")
            for page in self._pages(prefix, "/")
            for name in page.prefixes
        }

    def files(self, folder: str) -> list[ObjectInfo]:
        """Return the objects directly in a folder, sorted by key."""
        return self._files(self._pages(f"{folder}/" if folder else "", "/"))

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """Return the objects in a folder and all folders below it, sorted by key."""
        return self._files(self._pages(f"{folder}/" if folder else "", None))

    def _pages(self, prefix: str, delimiter: str | None) -> Iterator[Any]:
        with self._translated_errors(prefix):
            yield from self._bucket.list_blobs(
                prefix=prefix or None, delimiter=delimiter, fields=_LISTED_FIELDS, retry=self._retry
            ).pages

    def _files(self, pages: Iterable[Any]) -> list[ObjectInfo]:
        # Google's console creates an empty object whose name is the folder's.
        return [self._info(blob) for page in pages for blob in page if not blob.name.endswith("/")]

    def head(self, key: str) -> ObjectInfo:
        """Return an object's size, generation and time, by one GET request for its metadata.

        Raises ObjectMissing.
        """
        with self._translated_errors(key):
            blob = self._bucket.blob(key)
            blob.reload(retry=self._retry)
            return self._info(blob)

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return a small object's bytes and description; None if its ETag is still `known_etag`.

        One GET request for the metadata and, if the ETag is another, others for the bytes. Raises
        ObjectMissing.
        """
        info = self.head(key)
        if info.etag == known_etag:
            return None
        try:
            return b"".join(self.read_chunks(info)), info
        except ObjectChanged:
            # It was replaced between the two requests.
            return self.read(key, known_etag=known_etag)

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the bytes of the generation `info.etag`, by one GET request for every 8 MiB.

        Raises ObjectMissing and ObjectChanged.
        """
        with self._translated_errors(info.key):
            size = 0
            # The bytes count as they are stored, whatever the object's Content-Encoding says.
            with self._bucket.blob(info.key).open(
                "rb",
                chunk_size=_CHUNK_BYTES,
                retry=self._retry,
                raw_download=True,
                if_generation_match=int(info.etag),
            ) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    size += len(chunk)
                    yield chunk
        if size != info.size:
            raise StoreUnavailable(
                f"{info.location}: Google sends {size} bytes, but the object has {info.size} bytes"
            )

    def upload(self, path: Path, key: str) -> ObjectInfo:
        """Upload a file, 8 MiB at a time, and return the object's description.

        A GET request then gets the object's CRC32C, which must be the file's.
        """
        checksum = reduce(google_crc32c.extend, file_chunks(path), 0).to_bytes(4, "big")
        with self._translated_errors(key):
            blob = self._bucket.blob(key, chunk_size=_CHUNK_BYTES)
            # The client, and Google, compare it as well.
            blob.upload_from_filename(path, checksum="crc32c", retry=self._retry)
            blob.reload(retry=self._retry)
            info = self._info(blob)
        compare_checksums(info.location, "CRC32C", b64encode(checksum).decode(), blob.crc32c or "")
        return info

    def replace_if_unchanged(self, key: str, content: bytes, *, etag: str | None) -> str:
        """Write a small object on the condition of its generation; return the new generation.

        One POST request. Raises as `WritableStore.replace_if_unchanged`.
        """
        with self._translated_errors(key):
            blob = self._bucket.blob(key)
            try:
                blob.upload_from_string(
                    content,
                    content_type="application/octet-stream",
                    # For Google, generation 0 means that there is no object.
                    if_generation_match=int(etag or 0),
                    retry=self._retry,
                )
            except PreconditionFailed:
                return resolve_refused_write(self, key, content, etag)
            return str(blob.generation)

    def delete(self, key: str) -> None:
        """Delete an object, by one DELETE request; do nothing if there is none."""
        with self._translated_errors(key), suppress(NotFound):
            self._bucket.blob(key).delete(retry=self._retry)

    def filesystem(self) -> tuple[FileSystem, str]:
        """Return pyarrow's file system, with a token that expires after an hour, and the bucket."""
        from pyarrow.fs import GcsFileSystem

        if host := os.environ.get(_EMULATOR):
            url = urlsplit(host)
            options = {"scheme": url.scheme, "endpoint_override": url.netloc, "anonymous": True}
            return GcsFileSystem(**options), self._bucket_name
        with self._translated_errors(""):
            credentials = self._credentials()
            credentials.refresh(Request())
        return (
            GcsFileSystem(
                access_token=credentials.token,
                credential_token_expiration=credentials.expiry.replace(tzinfo=UTC),
            ),
            self._bucket_name,
        )

    @property
    def _bucket(self) -> Bucket:
        """The bucket, with a client for each thread: a client keeps ten connections only."""
        if not hasattr(self._thread, "bucket"):
            client = Client(project=None, credentials=self._credentials())
            self._thread.bucket = client.bucket(self._bucket_name)
        return self._thread.bucket

    def _credentials(self) -> Any:
        """Return the machine's credentials; None for an emulator, which needs none."""
        with self._lock:
            if not self._found_credentials and not os.environ.get(_EMULATOR):
                self._found_credentials, _ = google.auth.default(scopes=[_SCOPE])
            return self._found_credentials

    def _info(self, blob: Blob) -> ObjectInfo:
        location = self.location(blob.name)
        return ObjectInfo(blob.name, location, blob.size, str(blob.generation), blob.updated)

    @contextmanager
    def _translated_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
            raise gcs_error(error, self.location(key)) from error
