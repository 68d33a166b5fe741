"""Fixtures of the tests that all object stores pass."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from finops_dagster_tests.object_stores.places import Place
from finops_dagster_tests.servers.azurite import AzureServer
from finops_dagster_tests.servers.gcs import GcsServer
from finops_dagster_tests.servers.s3 import S3Server

_times = itertools.count(1_700_000_000)


@pytest.fixture(params=["file", "s3", "azure", "gcs"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture
def file_place(tmp_path: Path) -> Place:
    def put(key: str, body: bytes) -> None:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        # Two writes may come at the same tick of the file system's clock.
        os.utime(path, (next(_times),) * 2)

    return Place(f"file://{tmp_path}", {}, put, lambda key: (tmp_path / key).unlink())


@pytest.fixture
def s3_place(s3: S3Server, bucket: str) -> Place:
    client = s3.client()
    return Place(
        f"s3://{bucket}",
        {"endpoint_url": s3.url},
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        lambda key: client.delete_object(Bucket=bucket, Key=key),
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
        5000,
    )


@pytest.fixture
def gcs_place(gcs: GcsServer, gcs_bucket: str) -> Place:
    bucket = gcs.bucket(gcs_bucket)
    return Place(
        f"gs://{gcs_bucket}",
        {},
        lambda key, body: bucket.blob(key).upload_from_string(body),
        lambda key: bucket.blob(key).delete(),
        1000,
        {"STORAGE_EMULATOR_HOST": gcs.server_url},
    )
