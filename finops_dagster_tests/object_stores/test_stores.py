"""What every object store does: the same facts about a folder, S3, and Azure Blob Storage."""

from __future__ import annotations

import random
import re

import pytest

from finops_dagster.object_stores import ObjectChanged, ObjectInfo, ObjectMissing
from finops_dagster_tests.object_stores.places import Place


def put_all(place: Place, *keys: str) -> None:
    """Write objects whose bytes are their keys."""
    for key in keys:
        place.put(key, key.encode())


def keys_of(files: list[ObjectInfo]) -> list[str]:
    return [file.key for file in files]


def test_a_folder_is_listed_without_the_files_of_its_subfolders(place: Place) -> None:
    put_all(place, "a/2", "a/1", "a/b/3", "ab/4", "top")
    store, _ = place.open()
    assert store.folder_names("") == {"a", "ab"}
    assert store.folder_names("a") == {"b"}
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
    assert store.folder_names(prefix) == {"cur"}
    (file,) = store.files_below(prefix)
    assert file.location == store.location(file.key)
    assert file.location.endswith("/exports/cur/1")


def test_a_folder_that_does_not_exist_is_empty(place: Place) -> None:
    place.put("a/1", b"")
    store, _ = place.open()
    for folder in ("nowhere", "a/1", "a/2/3"):
        assert store.folder_names(folder) == set()
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
        list(store.read_chunks(version))


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
        list(store.read_chunks(version))


@pytest.mark.parametrize("size", [0, 1, 20_000_003])
def test_an_object_of_any_size_is_read_whole(place: Place, size: int) -> None:
    body = random.Random(size).randbytes(size)
    place.put("key", body)
    store, _ = place.open()
    info = store.head("key")
    assert info.size == size
    assert b"".join(store.read_chunks(info)) == body
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
    assert store.folder_names("") == {*NAMES}
    for name in NAMES:
        key = f"{name}/{name}.csv"
        assert store.files(name) == store.files_below(name) == [store.head(key)]
        assert store.read(key) == (key.encode(), store.head(key))
        assert b"".join(store.read_chunks(store.head(key))) == key.encode()


@pytest.mark.thorough
def test_more_objects_than_a_store_lists_at_once(place: Place) -> None:
    keys = [f"run-{number:05}/part.csv" for number in range(place.page + 50)]
    put_all(place, *keys)
    store, _ = place.open()
    assert keys_of(store.files_below("")) == keys
    assert len(store.folder_names("")) == len(keys)
