"""Azure Blob Storage, and emulators of it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
from azure.core import MatchConditions
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobPrefix,
    BlobProperties,
    BlobServiceClient,
    ContainerClient,
    ExponentialRetry,
    StorageStreamDownloader,
)
from requests.adapters import HTTPAdapter

from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreError, StoreUnavailable
from finops_dagster.object_stores.azure_address import AZURE_EXAMPLE, AzureAddress
from finops_dagster.object_stores.azure_errors import azure_error, entra_error

_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
_KEY = "AZURE_STORAGE_KEY"
_SAS_TOKEN = "AZURE_STORAGE_SAS_TOKEN"
_ANONYMOUS = "AZURE_STORAGE_ANON"
_ACCOUNT_NAME = "AZURE_STORAGE_ACCOUNT_NAME"
_CONNECTIONS = 32
_MOST_RETRIES = 5
# The client raises the errors that it logs, some of them in twenty lines.
_CLIENT_LOG_LEVEL = logging.ERROR
_CHUNK_BYTES = 8 * 1024 * 1024
_LOGIN_HOSTS = {
    "core.usgovcloudapi.net": "login.microsoftonline.us",
    "core.chinacloudapi.cn": "login.chinacloudapi.cn",
}
_SIGNATURE = re.compile(r"(?i)\b(sig=)[^&\s'\"]+")


class AzureBlobStore(ObjectStore):
    """One container, with credentials from the environment."""

    def __init__(self, address: AzureAddress) -> None:
        _keep_signatures_out_of_logs()
        self._location = address.root
        with self._translated_errors(""):
            self._container = _container_client(address)
        self._location = self._container.url.partition("?")[0]

    def location(self, key: str) -> str:
        """Return `https://account.blob.core.windows.net/container/key`."""
        return f"{self._location}/{key}"

    def folders(self, folder: str) -> set[str]:
        """List the folders in a folder, by one request for every 5,000 files and folders."""
        prefix = f"{folder}/" if folder else ""
        return {
            entry.name.removeprefix(prefix).rstrip("/")
            for entry in self._entries(prefix)
            if isinstance(entry, BlobPrefix)
        }

    def files(self, folder: str) -> list[ObjectInfo]:
        """List the blobs in a folder, by one request for every 5,000 files and folders."""
        return self._files(self._entries(f"{folder}/" if folder else ""))

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """List the blobs below a folder, by one request for every 5,000."""
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
        """Send a HEAD request. Raises ObjectMissing."""
        with self._translated_errors(key):
            return self._info(key, self._container.get_blob_client(key).get_blob_properties())

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Send one GET request for every 8 MiB, with If-None-Match. Raises ObjectMissing."""
        with self._translated_errors(key):
            try:
                download = self._download(key, known_etag, MatchConditions.IfModified)
            except HttpResponseError as error:
                if error.status_code == 304:
                    return None
                raise
            return download.readall(), self._info(key, download.properties)

    def chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Send one GET request for every 8 MiB, each with If-Match. Raises ObjectChanged."""
        with self._translated_errors(info.key):
            download = self._download(info.key, info.etag, MatchConditions.IfNotModified)
            if download.size != info.size:
                raise StoreUnavailable(
                    f"{info.location}: Azure sends {download.size} bytes, but the blob has "
                    f"{info.size}"
                )
            yield from download.chunks()

    def _download(
        self, key: str, etag: str, condition: MatchConditions
    ) -> StorageStreamDownloader[bytes]:
        conditions: dict[str, Any] = {"etag": f'"{etag}"', "match_condition": condition}
        # The bytes count as they are stored, whatever the blob's Content-Encoding says.
        return self._container.download_blob(key, decompress=False, **(conditions if etag else {}))

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


def _container_client(address: AzureAddress) -> ContainerClient:
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    options: dict[str, Any] = {
        "transport": RequestsTransport(session=session, connection_timeout=10, read_timeout=60),
        # The client retries after 5xx and broken connections, with pauses of 1 to 20 seconds.
        "retry_policy": ExponentialRetry(1, 2, retry_total=_MOST_RETRIES, random_jitter_range=1),
        "max_single_get_size": _CHUNK_BYTES,
        "max_chunk_get_size": _CHUNK_BYTES,
    }
    endpoint, credential = _endpoint_and_credential(address)
    return ContainerClient(endpoint, address.container, credential=credential, **options)


def _endpoint_and_credential(address: AzureAddress) -> tuple[str, Any]:
    """Return the account's endpoint, and the environment's credential: None for anonymous access.

    Raises StoreError if the environment has none for this account.
    """
    if text := _variable(_CONNECTION_STRING):
        return _connection_string(text, address)
    account = address.account or _variable(_ACCOUNT_NAME)
    if not account:
        raise StoreError(
            f"{address.root}: the source names no account; write {AZURE_EXAMPLE}, or set "
            f"{_ACCOUNT_NAME} or {_CONNECTION_STRING}"
        )
    endpoint = address.endpoint or f"https://{account}.blob.core.windows.net"
    if key := _variable(_KEY):
        return endpoint, {"account_name": account, "account_key": key}
    if token := _variable(_SAS_TOKEN):
        return endpoint, AzureSasCredential(token.rpartition("?")[2])
    if _variable(_ANONYMOUS).lower() in ("true", "1"):
        return endpoint, None
    if endpoint.startswith("http://"):
        raise StoreError(
            f"{address.root}: Entra ID works over https only; set {_CONNECTION_STRING}, {_KEY}, "
            f"{_SAS_TOKEN} or {_ANONYMOUS}=true"
        )
    return endpoint, _EntraCredential(endpoint)


def _connection_string(text: str, address: AzureAddress) -> tuple[str, Any]:
    """Return the endpoint and the credential of a connection string.

    An endpoint in the address comes first. Raises StoreError if the string is not usable, or is of
    another account than the address.
    """
    try:
        service = BlobServiceClient.from_connection_string(text)
    except ValueError:
        raise StoreError(
            f"{address.root}: {_CONNECTION_STRING} is not a connection string: copy it again from "
            "the account's Access keys"
        ) from None
    if address.account and service.account_name not in (None, address.account):
        raise StoreError(
            f"{address.root}: {_CONNECTION_STRING} is of another account, {service.account_name}: "
            "unset it and use Entra ID, which reads several accounts"
        )
    endpoint, _, token = service.url.partition("?")
    credential = AzureSasCredential(token) if token else service.credential
    return address.endpoint or endpoint.rstrip("/"), credential


class _EntraCredential:
    """Tokens of Entra ID. Errors are the store's: after errors of its own, the client retries."""

    def __init__(self, endpoint: str) -> None:
        from azure.identity import DefaultAzureCredential

        hosts = (host for cloud, host in _LOGIN_HOSTS.items() if endpoint.endswith(cloud))
        authority = _variable("AZURE_AUTHORITY_HOST") or next(hosts, None)
        self._endpoint = endpoint
        self._credential = DefaultAzureCredential(authority=authority)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token. Raises StoreError and StoreUnavailable."""
        try:
            return self._credential.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            raise entra_error(error, self._endpoint) from None


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _keep_signatures_out_of_logs() -> None:
    """Mask signatures in the log of HTTP requests, and let the client log little itself."""
    logging.getLogger("azure").setLevel(_CLIENT_LOG_LEVEL)
    # A SAS is a part of the URLs that urllib3 logs. Adding a filter again changes nothing.
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_mask_signature)


def _mask_signature(record: logging.LogRecord) -> bool:
    record.msg, record.args = _SIGNATURE.sub(r"\1***", record.getMessage()), ()
    return True
