"""Fixtures of the tests that all object stores pass."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from pathlib import Path

import pytest

from finops_dagster_tests.object_stores.places import Place, with_a_wrong_byte
from finops_dagster_tests.servers.azurite import AzureServer
from finops_dagster_tests.servers.gcs import GcsServer
from finops_dagster_tests.servers.s3 import S3Server

_times = itertools.count(1_700_000_000)


@pytest.fixture(params=["file", "s3", "azure", "gcs"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture
def file_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    def copy(source: Path, target: Path) -> None:
        target.write_bytes(with_a_wrong_byte(source.read_bytes()))

    def put(key: str, body: bytes) -> None:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        # Two writes may come at the same tick of the file system's clock.
        os.utime(path, (next(_times),) * 2)

    return Place(
        f"file://{tmp_path}",
        {},
        put,
        lambda key: (tmp_path / key).unlink(),
        lambda: monkeypatch.setattr(shutil, "copyfile", copy),
    )


@pytest.fixture
def s3_place(s3: S3Server, bucket: str) -> Place:
    client = s3.client()

    def damage(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(with_a_wrong_byte(body))
        # S3 compares the checksum of a request; moto keeps it as the object's, and compares none.
        environ.pop("HTTP_X_AMZ_CHECKSUM_CRC32", None)
        return s3.serve(environ, start_response)

    return Place(
        f"s3://{bucket}",
        {"endpoint_url": s3.url},
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        lambda key: client.delete_object(Bucket=bucket, Key=key),
        lambda: setattr(s3, "fault", damage),
        1000,
    )


@pytest.fixture
def azure_place(azure: AzureServer, container: str) -> Place:
    client = azure.container(container)
    return Place(
        f"{azure.url}/{container}",
        {},
        lambda key, body: client.upload_blob(key, body, overwrite=True),
        client.delete_blob,
        lambda: setattr(azure, "damage", with_a_wrong_byte),
    )


@pytest.fixture
def gcs_place(gcs: GcsServer, gcs_bucket: str) -> Place:
    bucket = gcs.bucket(gcs_bucket)
    return Place(
        f"gs://{gcs_bucket}",
        {},
        lambda key, body: bucket.blob(key).upload_from_string(body),
        lambda key: bucket.blob(key).delete(),
        lambda: setattr(gcs, "damage", with_a_wrong_byte),
        1000,
        {"STORAGE_EMULATOR_HOST": gcs.server_url},
    )
