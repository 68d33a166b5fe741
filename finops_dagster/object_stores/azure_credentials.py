"""Finds the credentials of Azure Blob Storage in the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken, AzureSasCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import BlobServiceClient

from finops_dagster.object_stores import StoreError
from finops_dagster.object_stores.azure_address import AZURE_EXAMPLE, AzureAddress
from finops_dagster.object_stores.azure_errors import entra_error

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
_KEY = "AZURE_STORAGE_KEY"
_SAS_TOKEN = "AZURE_STORAGE_SAS_TOKEN"
_ANONYMOUS = "AZURE_STORAGE_ANON"
_ACCOUNT_NAME = "AZURE_STORAGE_ACCOUNT_NAME"
_LOGIN_HOSTS = {
    "core.usgovcloudapi.net": "login.microsoftonline.us",
    "core.chinacloudapi.cn": "login.chinacloudapi.cn",
}


def endpoint_and_credential(address: AzureAddress) -> tuple[str, Any]:
    """Return the account's endpoint, and the credential from the environment.

    The credential is one for ContainerClient, of the first variable that is set: the connection
    string, the account key, the SAS token, AZURE_STORAGE_ANON (None, for anonymous access). Without
    any, it is that of Entra ID. No request is sent. Raises StoreError if no account is named, or if
    a variable is not usable for this address.
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
            f"{_SAS_TOKEN} or {_ANONYMOUS}=true, or write the source with https://"
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
            f"{address.root}: {_CONNECTION_STRING} is for another account, {service.account_name}: "
            "unset it and use Entra ID, which reads several accounts, or set it to the string of "
            f"{address.account}"
        )
    endpoint, _, token = service.url.partition("?")
    credential = AzureSasCredential(token) if token else service.credential
    return address.endpoint or endpoint.rstrip("/"), credential


def pyarrow_filesystem(endpoint: str, credential: Any) -> FileSystem:
    """Return pyarrow's file system of an account, whose paths begin with a container.

    The arguments are what `endpoint_and_credential` returns. Raises StoreError for anonymous
    access, which pyarrow does not support.
    """
    from pyarrow.fs import AzureFileSystem

    if credential is None:
        raise StoreError(
            f"{endpoint}: queries need credentials: unset {_ANONYMOUS}, and set {_KEY} or "
            f"{_SAS_TOKEN}, or run az login"
        )
    url = urlsplit(endpoint)
    # An emulator has the account in the path.
    account = url.path.strip("/") or url.netloc.partition(".")[0]
    authority = url.netloc if url.path else url.netloc.removeprefix(account)
    options: dict[str, Any] = {}
    if isinstance(credential, AzureSasCredential):
        options["sas_token"] = f"?{credential.signature}"
    elif not isinstance(credential, _EntraCredential):
        options["account_key"] = (
            credential["account_key"] if isinstance(credential, dict) else credential.account_key
        )
    return AzureFileSystem(
        account,
        blob_storage_authority=authority,
        blob_storage_scheme=url.scheme,
        dfs_storage_authority=authority.replace(".blob.", ".dfs."),
        dfs_storage_scheme=url.scheme,
        **options,
    )


class _EntraCredential:
    """Gets tokens of Entra ID. Its errors are those of the store, after which no client retries."""

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
