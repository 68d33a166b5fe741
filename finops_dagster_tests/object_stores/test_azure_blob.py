"""Azure Blob Storage: addresses, credentials, and refusals in one line that has no secret.

Azurite answers. Where Azurite has nothing like it, an answer comes over HTTP in its place: of
network rules, of an account's switches, and of an account with folders, each as Azure's
documentation and its users show it. Entra ID is a server that issues a token which only Azurite
takes.
"""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import logging
import re
import ssl
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import jwt
import pytest
from azure.storage.blob import (
    ContainerClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_container_sas,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from finops_dagster.object_stores import (
    ObjectChanged,
    ObjectMissing,
    ObjectStore,
    ObjectStores,
    StoreError,
    StoreUnavailable,
    azure_blob,
    open_store,
)
from finops_dagster.object_stores.settings import StoreSettings, join_source, split_source
from finops_dagster.settings import load_settings
from finops_dagster_tests.exposure import SECRETS, leaks
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.azurite import ACCOUNT, KEY, AzureServer, Azurite
from finops_dagster_tests.servers.proxy import Answer

CONTOSO = "https://contoso.blob.core.windows.net/costs"
ADDRESSES = {
    CONTOSO: (CONTOSO, ""),
    f"{CONTOSO}/": (CONTOSO, ""),
    f"{CONTOSO}/exports/daily/": (CONTOSO, "exports/daily"),
    f"{CONTOSO}/my%20exports/100%25": (CONTOSO, "my exports/100%"),
    f"{CONTOSO}/my exports/a#b": (CONTOSO, "my exports/a#b"),
    "HTTPS://Contoso.Blob.core.windows.net:443/costs/x": (CONTOSO, "x"),
    "http://contoso.blob.core.windows.net/costs/x": (CONTOSO, "x"),
    "https://contoso.dfs.core.windows.net/costs/x": (CONTOSO, "x"),
    "abfss://costs@contoso.dfs.core.windows.net/x/y": (CONTOSO, "x/y"),
    "abfs://costs@contoso.dfs.core.windows.net/x": (CONTOSO, "x"),
    "abfss://costs@contoso.blob.core.windows.net": (CONTOSO, ""),
    "abfss://contoso.dfs.core.windows.net/costs/x": (CONTOSO, "x"),
    "wasbs://costs@contoso.blob.core.windows.net/x": (CONTOSO, "x"),
    "wasb://costs@contoso.blob.core.windows.net/x": (CONTOSO, "x"),
    "az://contoso.blob.core.windows.net/costs/x": (CONTOSO, "x"),
    "azure://costs/x": ("az://costs", "x"),
    "az://costs/x/y": ("az://costs", "x/y"),
    "abfs://costs": ("az://costs", ""),
    "https://contoso.blob.core.usgovcloudapi.net/costs/x": (
        "https://contoso.blob.core.usgovcloudapi.net/costs",
        "x",
    ),
    "abfss://costs@contoso.dfs.core.chinacloudapi.cn/x": (
        "https://contoso.blob.core.chinacloudapi.cn/costs",
        "x",
    ),
    "https://contoso.z12.blob.storage.azure.net/costs/x": (
        "https://contoso.z12.blob.storage.azure.net/costs",
        "x",
    ),
    "http://127.0.0.1:10000/devstoreaccount1/costs/x": (
        "http://127.0.0.1:10000/devstoreaccount1/costs",
        "x",
    ),
    "http://azurite:10000/account/costs": ("http://azurite:10000/account/costs", ""),
    "https://localhost/account/$web/x": ("https://localhost/account/$web", "x"),
    "http://[::1]:10000/account/costs/x": ("http://[::1]:10000/account/costs", "x"),
}


@pytest.mark.parametrize(("source", "parts"), ADDRESSES.items())
def test_every_form_of_an_address_names_an_endpoint_a_container_and_a_prefix(
    source: str, parts: tuple[str, str]
) -> None:
    assert split_source(StoreSettings(source=source).source) == parts


@pytest.mark.parametrize("prefix", ["", "a", "a/b c", "100%", "%41", "a#b", "a?b", "é"])
def test_an_address_that_is_made_of_a_folder_names_the_folder(prefix: str) -> None:
    for root in (CONTOSO, "az://costs"):
        assert split_source(join_source(root, prefix)) == (root, prefix)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("https://contoso.blob.core.windows.net", "names no container; write https://account.blob"),
        ("https://contoso.blob.core.windows.net/", "names no container; write https://account.blo"),
        ("az://", "names no container"),
        ("http://127.0.0.1:10000/costs", "write http://127.0.0.1:10000/account/container/folder"),
        ("https://contoso.file.core.windows.net/costs", "is no host of Azure Blob Storage"),
        ("https://portal.azure.com/#view/costs", "'portal.azure.com' is no host of Azure Blob"),
        ("https://contoso/costs/x", "'contoso' is no host of Azure Blob Storage"),
        ("abfss://costs@contoso/x", "'contoso' is no host of Azure Blob Storage; write https://"),
        ("https://contoso.blob.core.windows.net/Costs/x", "'Costs' cannot be the name of a cont"),
        ("az://costs_2024/x", "cannot be the name of a container, which has 3 to 63 lower-case"),
        (f"{CONTOSO}?restype=container", "is followed by a query; remove it"),
        ("oss://acme/x", "is not the address of a store; write s3://bucket/prefix, gs://bucket"),
        ("acme-costs", "is not the address of a store"),
        ("s3://", "is not the address of a store"),
    ],
)
def test_an_address_that_names_no_container_is_refused_with_what_is_wrong(
    source: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        StoreSettings(source=source)


SAS = "sv=2024-11-04&sp=rl&sig=U0VDUkVU%3D"


@pytest.mark.parametrize(
    "source",
    [f"{CONTOSO}/x?{SAS}", f"{CONTOSO}/x%3Fsv=1&sig=U0VDUkVU", f"az://costs?{SAS}\n"],
)
def test_a_sas_in_an_address_is_refused_and_not_repeated(
    project: Project, finops: Finops, source: str
) -> None:
    project.export["source"] = source
    with pytest.raises(ValueError, match="source") as caught:
        project.settings()
    output = finops("config", "discover", source, code=1)
    assert ("AZURE_STORAGE_SAS_TOKEN" in output) is not source.endswith("\n")
    for text in (str(caught.value), output):
        assert "U0VDUkVU" not in text


def test_keys_of_s3_are_refused_in_azure_and_ignored_for_a_folder() -> None:
    keys = {"region": "eu-west-1", "requester_pays": True}
    with pytest.raises(ValueError, match="region, requester_pays: only for a source in S3; remove"):
        StoreSettings(source=CONTOSO, **keys)
    assert StoreSettings(source="file:///bills", **keys).region == "eu-west-1"


def opened(
    monkeypatch: pytest.MonkeyPatch, source: str, **environment: str
) -> tuple[ObjectStore, str]:
    """Return the store of a source, with these variables in place of the connection string."""
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return ObjectStores().open(StoreSettings(source=source))


@pytest.fixture
def source(azure: AzureServer, container: str) -> str:
    """Return the address of a container with one blob."""
    azure.container(container).upload_blob("a/1", b"one")
    return f"{azure.url}/{container}"


@pytest.fixture
def store(source: str) -> ObjectStore:
    return ObjectStores().open(StoreSettings(source=source))[0]


def assert_reads(store: ObjectStore) -> None:
    (file,) = store.files("a")
    assert (store.head("a/1"), b"".join(store.read_chunks(file))) == (file, b"one")


def sas(container: str, hours: int = 1, permissions: str = "rl", key: str = KEY) -> str:
    """Return a SAS of a container that ends in some hours."""
    now = datetime.now(UTC)
    return generate_container_sas(
        ACCOUNT,
        container,
        account_key=key,
        permission=ContainerSasPermissions.from_string(permissions),
        start=now - timedelta(days=1),
        expiry=now + timedelta(hours=hours),
    )


def test_a_connection_string_has_the_account_and_the_endpoint(
    azure: AzureServer, source: str, store: ObjectStore
) -> None:
    assert_reads(store)
    container = source.rpartition("/")[2]
    without_account, prefix = ObjectStores().open(StoreSettings(source=f"az://{container}/a"))
    assert prefix == "a"
    assert without_account.location("a/1") == f"{source}/a/1"
    assert_reads(without_account)


def test_a_key_reads(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    assert_reads(opened(monkeypatch, source, AZURE_STORAGE_KEY=KEY)[0])


@pytest.mark.parametrize("mark", ["", "?"])
def test_a_sas_that_reads_and_lists_is_enough(
    monkeypatch: pytest.MonkeyPatch, source: str, container: str, mark: str
) -> None:
    store, _ = opened(monkeypatch, source, AZURE_STORAGE_SAS_TOKEN=mark + sas(container))
    assert_reads(store)


def test_a_public_container_is_read_anonymously(
    monkeypatch: pytest.MonkeyPatch, azure: AzureServer, source: str, container: str
) -> None:
    azure.container(container).set_container_access_policy({}, public_access="container")
    assert_reads(opened(monkeypatch, source, AZURE_STORAGE_ANON="true")[0])


@pytest.mark.parametrize(
    ("source", "environment", "problem"),
    [
        (
            CONTOSO,
            {"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"},
            "no Azure credentials were found: run az login",
        ),
        ("http://127.0.0.1:1/x/costs", {}, "Entra ID works over https only; set AZURE_STORAGE_CON"),
        ("az://costs/x", {}, "az://costs: the source names no account; write https://account.blo"),
        (CONTOSO, {"AZURE_STORAGE_KEY": "cut"}, "the account key is cut short or mistyped: copy"),
        (
            CONTOSO,
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountKey"},
            "AZURE_STORAGE_CONNECTION_STRING is not a connection string: copy it again",
        ),
        (
            CONTOSO,
            {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=fabrikam;AccountKey={KEY}"},
            "AZURE_STORAGE_CONNECTION_STRING is for another account, fabrikam: unset it and use",
        ),
    ],
)
def test_missing_and_mistaken_credentials_are_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    azure: AzureServer,
    source: str,
    environment: dict[str, str],
    problem: str,
) -> None:
    with pytest.raises(StoreError) as caught:
        opened(monkeypatch, source, **environment)[0].folder_names("")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_the_account_of_a_bare_container_is_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, azure: AzureServer
) -> None:
    account = {"AZURE_STORAGE_ACCOUNT_NAME": "contoso", "AZURE_STORAGE_ANON": "true"}
    store, prefix = opened(monkeypatch, "az://costs/x", **account)
    assert (store.location("x"), prefix) == (f"{CONTOSO}/x", "x")


def test_a_missing_container_is_named(azure: AzureServer) -> None:
    store, _ = ObjectStores().open(StoreSettings(source=f"{azure.url}/nobodys"))
    for look in (store.folder_names, store.head, store.read):
        with pytest.raises(StoreError) as caught:
            look("key")
        assert not isinstance(caught.value, ObjectMissing)
        assert str(caught.value).endswith("the container does not exist: check the source")


def test_a_bad_key_and_a_bad_sas_are_told(
    monkeypatch: pytest.MonkeyPatch, source: str, container: str
) -> None:
    for environment in (
        {"AZURE_STORAGE_KEY": "YWJj"},
        {"AZURE_STORAGE_SAS_TOKEN": sas(container, key="YWJj")},
        {"AZURE_STORAGE_SAS_TOKEN": sas(container, hours=-1)},
    ):
        with monkeypatch.context() as patch:
            store, _ = opened(patch, source, **environment)
            with pytest.raises(StoreError, match="check the clock"):
                store.folder_names("")


def test_a_sas_without_the_right_to_list_is_told(
    monkeypatch: pytest.MonkeyPatch, source: str, container: str
) -> None:
    store, _ = opened(monkeypatch, source, AZURE_STORAGE_SAS_TOKEN=sas(container, permissions="r"))
    assert store.head("a/1").size == 3
    with pytest.raises(StoreError, match="a SAS needs the permissions Read and List"):
        store.files("a")


def test_a_sas_without_the_right_to_write_is_told(
    monkeypatch: pytest.MonkeyPatch, source: str, container: str, tmp_path: Path
) -> None:
    settings = StoreSettings(source=source)
    opened(monkeypatch, source, AZURE_STORAGE_SAS_TOKEN=sas(container))
    store, _ = open_store(settings)
    for write in (
        lambda: store.replace_if_unchanged("a", b"", etag=None),
        lambda: store.delete("a/1"),
    ):
        with pytest.raises(StoreError, match=r"Storage Blob Data Contributor .* Create, Write and"):
            write()


def test_queries_have_the_credentials_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, source: str, container: str
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    for environment in ({"AZURE_STORAGE_SAS_TOKEN": sas(container)}, {"AZURE_STORAGE_KEY": KEY}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        filesystem, root = open_store(StoreSettings(source=source))[0].filesystem()
        assert filesystem.open_input_file(f"{root}/a/1").read() == b"one"
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    monkeypatch.setenv("AZURE_STORAGE_ANON", "true")
    with pytest.raises(StoreError, match="queries need credentials: unset AZURE_STORAGE_ANON"):
        open_store(StoreSettings(source=source))[0].filesystem()


def test_each_look_is_one_request(azure: AzureServer, store: ObjectStore, container: str) -> None:
    azure.requests.clear()
    info = store.head("a/1")
    store.read("a/1")
    store.read("a/1", known_etag=info.etag)
    list(store.read_chunks(info))
    store.folder_names("")
    store.files("a")
    store.files_below("")
    assert [method for method, _ in azure.requests] == ["HEAD", *["GET"] * 6]
    assert all(path.startswith(f"/{ACCOUNT}/{container}") for _, path in azure.requests)


def test_a_long_listing_comes_in_pages(
    monkeypatch: pytest.MonkeyPatch, azure: AzureServer, source: str, container: str
) -> None:
    names = [f"{number:02}/x" for number in range(25)]
    for name in names:
        azure.container(container).upload_blob(f"runs/{name}", b"")
    store, _ = opened(monkeypatch, source, AZURE_STORAGE_SAS_TOKEN=sas(container))
    azure.more_query = "&maxresults=10"
    azure.requests.clear()
    assert [file.key for file in store.files_below("runs")] == [f"runs/{name}" for name in names]
    assert len(azure.requests) == 3
    assert store.folder_names("runs") == {name[:2] for name in names}
    assert len(azure.requests) == 6


def test_an_object_that_is_overwritten_during_its_download_is_not_mixed(
    azure: AzureServer, store: ObjectStore, container: str
) -> None:
    client = azure.container(container)
    client.upload_blob("big", b"a" * 20_000_000)
    chunks = store.read_chunks(store.head("big"))
    assert set(next(chunks)) == {ord("a")}
    client.upload_blob("big", b"b" * 20_000_000, overwrite=True)
    with pytest.raises(ObjectChanged, match="big changed while it was read; run the month again"):
        for chunk in chunks:
            assert set(chunk) == {ord("a")}


def test_stored_bytes_are_read_whatever_the_content_encoding_says(
    azure: AzureServer, store: ObjectStore, container: str
) -> None:
    body = gzip.compress(b"a" * 1000)
    settings = ContentSettings(content_encoding="gzip")
    azure.container(container).upload_blob("a.csv.gz", body, content_settings=settings)
    assert (store.read("a.csv.gz") or [b""])[0] == body
    assert b"".join(store.read_chunks(store.head("a.csv.gz"))) == body


def test_entries_that_stand_for_folders_are_not_files(
    azure: AzureServer, store: ObjectStore, container: str
) -> None:
    client = azure.container(container)
    client.upload_blob("runs", b"", metadata={"hdi_isfolder": "true"})
    client.upload_blob("runs/1", b"", metadata={"Hdi_isfolder": "true"})
    client.upload_blob("runs/1/part.csv", b"x")
    client.upload_blob("runs/2/", b"")
    assert store.folder_names("") == {"a", "runs"}
    assert store.folder_names("runs") == {"1", "2"}
    assert store.files("") == store.files("runs") == store.files("runs/2") == []
    assert [file.key for file in store.files_below("runs")] == ["runs/1/part.csv"]


# What List Blobs answers in an account with a hierarchical namespace, by its documentation: folders
# are entries with a ResourceType, and children come before siblings whose names sort earlier.
HIERARCHICAL = """<?xml version="1.0" encoding="utf-8"?><EnumerationResults
ServiceEndpoint="https://contoso.blob.core.windows.net/" ContainerName="costs"><Blobs>{}</Blobs>
<NextMarker /></EnumerationResults>"""
ENTRY = """<Blob><Name>{name}</Name><Properties><Creation-Time>Tue, 02 Jan 2024 00:00:00 GMT
</Creation-Time><Last-Modified>Tue, 02 Jan 2024 00:00:00 GMT</Last-Modified><Etag>0x8DC</Etag>
<ResourceType>{kind}</ResourceType><Content-Length>{size}</Content-Length><BlobType>BlockBlob
</BlobType></Properties>{metadata}</Blob>""".replace("\n", "")
FOLDER = "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>"


def answer_all(azure: AzureServer, body: str, status: int = 200, **headers: str) -> None:
    """Answer every request with a body, as Azure does: HEAD has none."""

    def answer(method: str, path: str, request_headers: Mapping[str, str]) -> Answer:
        return status, headers, b"" if method == "HEAD" else body.encode()

    azure.fault = answer


def test_a_hierarchical_account_lists_its_folders_as_folders(
    azure: AzureServer, store: ObjectStore
) -> None:
    entries = (
        ENTRY.format(name="runs", kind="directory", size=0, metadata=FOLDER),
        ENTRY.format(name="runs/1", kind="directory", size=0, metadata=FOLDER),
        ENTRY.format(name="runs/1/part.csv", kind="file", size=7, metadata=""),
        ENTRY.format(name="runs/1-old.csv", kind="file", size=8, metadata=""),
    )
    content_type = {"content-type": "application/xml"}
    answer_all(azure, HIERARCHICAL.format("".join(entries)), **content_type)
    files = [(file.key, file.size, file.etag) for file in store.files_below("runs")]
    assert files == [("runs/1-old.csv", 8, "0x8DC"), ("runs/1/part.csv", 7, "0x8DC")]
    prefix = "<BlobPrefix><Name>runs/1/</Name><Properties><Etag>0x8DC</Etag><ResourceType>directory"
    prefix += "</ResourceType><Content-Length>0</Content-Length></Properties></BlobPrefix>"
    answer_all(azure, HIERARCHICAL.format(prefix + entries[3]), **content_type)
    assert store.folder_names("runs") == {"1"}
    assert [file.key for file in store.files("runs")] == ["runs/1-old.csv"]


FAILED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is "
    "formed correctly including the signature."
)
DENIED = "This request is not authorized to perform this operation"
# Azure's status, code, message and detail; and the advice in the error that it becomes.
REFUSALS = f"""
403 AuthorizationPermissionMismatch: {DENIED} using this permission.
the identity needs the role Storage Blob Data Reader on the container or the account
403 AuthorizationFailure: {DENIED}.
the account's network rules do not let this machine in
403 AuthenticationFailed: {FAILED} | The MAC signature found in the HTTP request 'c2ln=' is not it.
the account key is not this account's, or was renewed
403 AuthenticationFailed: {FAILED} | Signature did not match. String to sign used was rl
the SAS is not this account's, was cut or changed, or its key was renewed
403 AuthenticationFailed: {FAILED} | Signature not valid in the specified time frame: Start [x]
the SAS has expired, is not valid yet, or this machine's clock is wrong
403 AuthenticationFailed: {FAILED} | Request date header too old: 'Mon, 01 Jan 2024 00:00:00 GMT'
this machine's clock is wrong: set it
401 InvalidAuthenticationInfo: {FAILED} | Issuer validation failed. Issuer did not match.
the credentials are of another tenant than the account
403 AuthenticationFailed: {FAILED}
set the key or the SAS again, and check the clock
403 KeyBasedAuthenticationNotPermitted: Key based authentication is not permitted on this account.
the account does not allow access by keys: use Entra ID
409 PublicAccessNotPermitted: Public access is not permitted on this storage account.
the account does not allow anonymous access: set credentials
401 NoAuthenticationInformation: {FAILED} Please refer to the information in the www-authenticate.
the container allows no anonymous access, or does not exist
404 ResourceNotFound: The specified resource does not exist.
the container allows no anonymous access, or does not exist
403 AuthorizationSourceIPMismatch: {DENIED} using this source IP 203.0.113.7.
the SAS is only for other IP addresses
403 AuthorizationResourceTypeMismatch: {DENIED} using this resource type.
make one for the container, or for the Blob service with the resource types Container and Object
400 AccountRequiresHttps: The account being accessed does not support http.
only https is allowed: write the source with https://
404 ContainerNotFound: The specified container does not exist.
the container does not exist: check the source
409 ContainerBeingDeleted: The specified container is being deleted. Try operation later.
the container is being deleted
403 AccountIsDisabled: The specified account is disabled.
the account is disabled: ask the owner of its subscription
409 BlobArchived: This operation is not permitted on an archived blob.
the file is in the archive tier: rehydrate it
403 SomethingNew: {DENIED}.
the identity needs the role Storage Blob Data Reader on the container, and the account's
""".strip().split("\n")


def refuse(azure: AzureServer, refusal: str) -> None:
    """Refuse every request as Azure does: with the code in a header, and in XML unless HEAD."""
    answer, _, detail = refusal.partition(" | ")
    status, code, message = re.fullmatch(r"(\d+) (\w+): (.*)", answer).groups()
    message = f"{message}\nRequestId:0c0d\nTime:2024-01-01T00:00:00.0000000Z"
    detail = detail and f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail>"
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{detail}"
    answer_all(
        azure,
        f"{body}</Error>",
        int(status),
        **{"content-type": "application/xml", "x-ms-error-code": code},
    )


@pytest.mark.parametrize(("refusal", "advice"), [*zip(REFUSALS[::2], REFUSALS[1::2], strict=True)])
def test_a_refusal_has_azures_code_and_advice(
    azure: AzureServer, store: ObjectStore, refusal: str, advice: str
) -> None:
    refuse(azure, refusal)
    reason = refusal.partition(" ")[2].partition(" | ")[0].rstrip(".")
    for look in (store.folder_names, store.read):
        with pytest.raises(StoreError) as caught:
            look("key")
        assert f": Azure refuses ({reason}); " in str(caught.value)
        assert advice in str(caught.value)
        assert "\n" not in str(caught.value)
    # An answer to HEAD has the code, but neither the message nor the detail.
    with pytest.raises(
        StoreError, match=rf": Azure refuses \({reason.partition(':')[0]}\b"
    ) as caught:
        store.head("key")
    assert "; " in str(caught.value)


def test_a_busy_store_is_tried_again(azure: AzureServer, store: ObjectStore) -> None:
    def fault(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        azure.fault = None
        return 503, {"x-ms-error-code": "ServerBusy"}, b""

    azure.fault = fault
    assert store.head("a/1").size == 3


def test_a_body_that_is_cut_short_is_fetched_again(azure: AzureServer, store: ObjectStore) -> None:
    info = store.head("a/1")

    def fault(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        azure.fault = None
        return (
            206,
            {"content-length": "3", "content-range": "bytes 0-2/3", "etag": f'"{info.etag}"'},
            b"on",
        )

    azure.fault = fault
    assert b"".join(store.read_chunks(info)) == b"one"
    assert azure.fault is None


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_blob, "_MOST_RETRIES", 0)


def test_a_store_that_stays_busy_is_a_transient_error(
    no_retries: None, azure: AzureServer, source: str
) -> None:
    store, _ = ObjectStores().open(StoreSettings(source=source))
    refuse(azure, "503 ServerBusy: The server is busy.")
    with pytest.raises(StoreUnavailable, match=r"ServerBusy: The server is busy\); Azure may be"):
        store.folder_names("")


def test_an_unreachable_store_is_a_transient_error(
    no_retries: None, azure: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = "http://127.0.0.1:1/contoso/costs"
    store, _ = opened(monkeypatch, unreachable, AZURE_STORAGE_ANON="true")
    with pytest.raises(StoreUnavailable, match=r"1:1/contoso/costs/key: .*refused"):
        store.head("key")


@pytest.fixture
def bill(project: Project, azure: AzureServer, container: str) -> Project:
    """Return a project whose export is AWS's, in a container."""
    client = azure.container(container)
    project.put = lambda key, body: client.upload_blob(key, body, overwrite=True) and None
    project.export["source"] = f"{azure.url}/{container}"
    project.deliver("1.25", "2")
    return project


def test_a_bill_in_a_container_is_loaded_and_then_unchanged(bill: Project) -> None:
    assert bill.load().success
    assert bill.totals() == (2, Decimal("3.25"))
    assert set(bill.load().outcomes().values()) == {"unchanged"}


@pytest.mark.parametrize("folder", ["exports", "a b/100%/c#d"])
def test_exports_in_a_container_are_found_and_the_printed_settings_read_them(
    project: Project, azure: AzureServer, container: str, finops: Finops, folder: str
) -> None:
    client = azure.container(container)
    project.put = lambda key, body: client.upload_blob(f"{folder}/{key}", body) and None
    project.deliver("1")
    file = project.folder / "found.toml"
    file.write_text(finops("config", "discover", f"{azure.url}/{container}"))
    (export,) = load_settings(file).exports
    store, prefix = ObjectStores().open(export)
    assert prefix == folder
    assert store.folder_names(prefix) == {"acme-cur"}


@pytest.mark.parametrize("outcome", ["read", "refused", "unreachable"])
def test_no_signature_is_logged_printed_or_written(
    bill: Project,
    container: str,
    outcome: str,
    no_retries: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = base64.b64encode(b"another").decode()
    token = sas(container, key=key if outcome == "refused" else KEY)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    # The longest part of it that is the same in every encoding.
    signature = max(re.findall(r"[A-Za-z0-9]+", unquote(token.rpartition("sig=")[2])), key=len)
    monkeypatch.setitem(SECRETS, "AZURE_STORAGE_SAS_TOKEN", signature)
    source = bill.export["source"]
    if outcome == "unreachable":
        source = f"http://127.0.0.1:1/{ACCOUNT}/{container}"
    finops = Finops(bill)
    file = bill.folder / "finops.toml"
    file.write_text(file.read_text().replace("file://source", source))
    # The client's own log is off, unless somebody turns it on.
    monkeypatch.setattr(azure_blob, "_CLIENT_LOG_LEVEL", logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    result = finops.run("aws", "run-pipeline", "--end-date", "2024-01")
    assert (result.exit_code == 0) is (outcome == "read"), result.output
    assert ("sig=***" in caplog.text) is (outcome != "unreachable")
    assert any(record.name.startswith("azure.") for record in caplog.records)
    trace = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    folders = [bill.folder / name for name in ("data", ".dagster")]
    assert leaks(folders, result.output, trace, caplog.text) == []


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    monkeypatch.delitem(sys.modules, "finops_dagster.object_stores.azure_blob")
    monkeypatch.delattr("finops_dagster.object_stores.azure_blob")
    with pytest.raises(StoreError, match=r"run pip install '\.\[azure\]' in the folder"):
        ObjectStores().open(StoreSettings(source=CONTOSO))


class EntraId:
    """A server on a free port that issues tokens over https; `answer` is JSON."""

    def __init__(self, folder: Path) -> None:
        self.status, self.answer = 200, {}
        entra = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps(entra.answer).encode()
                self.send_response(entra.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def entra(azure: AzureServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[EntraId]:
    """Return Entra ID for this machine, which has a federated identity, as in Kubernetes."""
    write_certificate(tmp_path)
    (tmp_path / "federated").write_text("assertion")
    entra = EntraId(tmp_path)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    for name, value in {
        "AZURE_AUTHORITY_HOST": f"https://127.0.0.1:{entra.http.server_port}",
        "AZURE_TENANT_ID": "ab1f708d-50f6-404c-a006-d71b2ac7a606",
        "AZURE_CLIENT_ID": "f997392c-e15a-4ad8-af9e-cd6966caba7f",
        "AZURE_FEDERATED_TOKEN_FILE": f"{tmp_path}/federated",
        "REQUESTS_CA_BUNDLE": f"{tmp_path}/cert.pem",
    }.items():
        monkeypatch.setenv(name, value)
    yield entra
    entra.http.shutdown()
    entra.http.server_close()


def token() -> str:
    """Return a token of Entra ID for Azure Storage, with the claims that Azurite looks at."""
    now = datetime.now(UTC).timestamp()
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": int(now - 60),
        "nbf": int(now - 60),
        "exp": int(now + 86400),
    }
    return jwt.encode(claims, "x" * 32)


def write_certificate(folder: Path) -> None:
    """Write a certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *private))


def test_a_token_of_entra_id_reads(entra: EntraId, tmp_path: Path) -> None:
    options = ["--cert", f"{tmp_path}/cert.pem", "--key", f"{tmp_path}/key.pem"]
    azurite = Azurite(*options, "--oauth", "basic")
    try:
        account = f"{azurite.url}/{ACCOUNT}"
        key = {"account_name": ACCOUNT, "account_key": KEY}
        client = ContainerClient(account, "costs", credential=key)
        client.create_container()
        client.upload_blob("a/1", b"one")
        entra.answer = {"access_token": token(), "expires_in": 86400, "token_type": "Bearer"}
        assert_reads(ObjectStores().open(StoreSettings(source=f"{account}/costs"))[0])
    finally:
        azurite.close()


def test_a_refusal_of_entra_id_is_told_without_its_trace(entra: EntraId) -> None:
    entra.status = 400
    reason = "AADSTS700016: Application with identifier 'x' was not found in the directory 'y'"
    trace = "Trace ID: 1 Correlation ID: 2 Timestamp: 3"
    entra.answer = {"error": "unauthorized_client", "error_description": f"{reason}. {trace}"}
    store, _ = ObjectStores().open(StoreSettings(source=CONTOSO))
    with pytest.raises(StoreError) as caught:
        store.folder_names("")
    assert str(caught.value).endswith(
        f"Entra ID refuses ({reason}); set the credentials again, or run az login"
    )


@pytest.mark.thorough
def test_an_unreachable_entra_id_is_a_transient_error(
    entra: EntraId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    store, _ = ObjectStores().open(StoreSettings(source=CONTOSO))
    with pytest.raises(StoreUnavailable, match="Entra ID cannot be reached"):
        store.folder_names("")
