"""What every object store does: the same facts about a folder, S3, and Azure Blob Storage."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.object_stores import (
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    ObjectStores,
)
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster_tests.servers.azurite import AzureServer
from finops_dagster_tests.servers.s3 import S3Server

_times = itertools.count(1_700_000_000)


@dataclass
class Place:
    """A store to test, how its objects are written and deleted, and how many it lists at once."""

    source: str
    settings: dict[str, Any]
    put: Callable[[str, bytes], Any]
    delete: Callable[[str], Any]
    page: int = 0

    def open(self, folder: str = "") -> tuple[ObjectStore, str]:
        source = f"{self.source}/{folder}".rstrip("/")
        return ObjectStores().open(StoreSettings(source=source, **self.settings))


@pytest.fixture(params=["file", "s3", "azure"])
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


def put_all(place: Place, *keys: str) -> None:
    """Write objects whose bytes are their keys."""
    for key in keys:
        place.put(key, key.encode())


def keys_of(files: list[ObjectInfo]) -> list[str]:
    return [file.key for file in files]


def test_a_folder_is_listed_without_the_files_of_its_subfolders(place: Place) -> None:
    put_all(place, "a/2", "a/1", "a/b/3", "ab/4", "top")
    store, _ = place.open()
    assert store.folders("") == {"a", "ab"}
    assert store.folders("a") == {"b"}
    assert keys_of(store.files("")) == ["top"]
    assert store.files("a") == [store.head("a/1"), store.head("a/2")]


def test_everything_below_a_folder_is_listed_in_one_order(place: Place) -> None:
    put_all(place, "a/b/3", "a/b.c", "a/1", "a/b/c/d/4", "ab/5", "6")
    store, _ = place.open()
    below = store.files_below("a")
    assert keys_of(below) == ["a/1", "a/b.c", "a/b/3", "a/b/c/d/4"]
    assert below == [store.head(file.key) for file in below]
    assert len(store.files_below("")) == 6


def test_the_prefix_of_a_source_is_a_folder_of_the_store(place: Place) -> None:
    put_all(place, "exports/cur/1", "other/2")
    store, prefix = place.open("exports")
    assert store.folders(prefix) == {"cur"}
    (file,) = store.files_below(prefix)
    assert file.location == store.location(file.key)
    assert file.location.endswith("/exports/cur/1")


def test_a_folder_that_does_not_exist_is_empty(place: Place) -> None:
    place.put("a/1", b"")
    store, _ = place.open()
    for folder in ("nowhere", "a/1", "a/2/3"):
        assert store.folders(folder) == set()
        assert store.files(folder) == store.files_below(folder) == []


def test_a_missing_object_is_named(place: Place) -> None:
    place.put("a/1", b"one")
    store, _ = place.open()
    for look in (store.head, store.read):
        with pytest.raises(ObjectMissing, match=re.escape(store.location("a/2"))):
            look("a/2")
    version = store.head("a/1")
    place.delete("a/1")
    # A store may look at the condition first, as Azurite does.
    with pytest.raises((ObjectMissing, ObjectChanged), match=re.escape(store.location("a/1"))):
        list(store.chunks(version))


def test_an_unchanged_object_is_not_read_again(place: Place) -> None:
    place.put("key", b"one")
    store, _ = place.open()
    first = store.read("key")
    assert first == (b"one", store.head("key"))
    assert store.read("key", known_etag=first[1].etag) is None
    place.put("key", b"two")
    assert store.read("key", known_etag=first[1].etag) == (b"two", store.head("key"))


def test_an_object_that_changed_since_its_head_request_is_not_read(place: Place) -> None:
    place.put("key", b"one")
    store, _ = place.open()
    version = store.head("key")
    place.put("key", b"two")
    with pytest.raises(ObjectChanged, match=r"key changed while it was read"):
        list(store.chunks(version))


@pytest.mark.parametrize("size", [0, 1, 20_000_003])
def test_an_object_of_any_size_is_read_whole(place: Place, size: int) -> None:
    body = random.Random(size).randbytes(size)
    place.put("key", body)
    store, _ = place.open()
    info = store.head("key")
    assert info.size == size
    assert b"".join(store.chunks(info)) == body
    assert store.read("key") == (body, info)


NAMES = [
    "a b",
    "100%",
    "%41",
    "a#b",
    "a?b=c&d",
    "a+b",
    "a;b,c",
    "é",
    "請求書",
    "🧾",
    "~!@$^*()'",
    '"x"',
]


def test_any_name_is_listed_and_read(place: Place) -> None:
    put_all(place, *(f"{name}/{name}.csv" for name in NAMES))
    store, _ = place.open()
    assert store.folders("") == {*NAMES}
    for name in NAMES:
        key = f"{name}/{name}.csv"
        assert store.files(name) == store.files_below(name) == [store.head(key)]
        assert store.read(key) == (key.encode(), store.head(key))
        assert b"".join(store.chunks(store.head(key))) == key.encode()


@pytest.mark.thorough
def test_more_objects_than_a_store_lists_at_once(place: Place) -> None:
    keys = [f"run-{number:05}/part.csv" for number in range(place.page + 50)]
    put_all(place, *keys)
    store, _ = place.open()
    assert keys_of(store.files_below("")) == keys
    assert len(store.folders("")) == len(keys)
