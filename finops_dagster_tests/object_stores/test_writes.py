"""What every object store does when it is written: the same facts about each of them."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from finops_dagster.object_stores import ObjectChanged, ObjectMissing, StoreError, WritableStore
from finops_dagster_tests.object_stores.places import Place


@pytest.fixture
def store(place: Place) -> WritableStore:
    return place.open()[0]


def outcome(store: WritableStore, content: bytes, etag: str | None) -> str | None:
    """Return the new ETag of a pointer, or None where another writer was first."""
    try:
        return store.replace_if_unchanged("lake/pointer", content, etag=etag)
    except ObjectChanged:
        return None


def test_an_object_is_created_once(store: WritableStore) -> None:
    etag = store.replace_if_unchanged("lake/pointer", b"one", etag=None)
    assert store.head("lake/pointer").etag == etag
    assert outcome(store, b"two", None) is None
    assert store.read("lake/pointer") == (b"one", store.head("lake/pointer"))


def test_an_object_is_replaced_by_the_writer_who_knows_it(store: WritableStore) -> None:
    first = store.replace_if_unchanged("lake/pointer", b"one", etag=None)
    second = store.replace_if_unchanged("lake/pointer", b"two", etag=first)
    assert second != first
    assert outcome(store, b"three", first) is None
    third = store.replace_if_unchanged("lake/pointer", b"six", etag=second)
    assert len({first, second, third}) == 3
    assert store.read("lake/pointer", known_etag=third) is None
    assert store.read("lake/pointer", known_etag=second)[0] == b"six"


def test_an_object_that_was_deleted_is_not_replaced(store: WritableStore) -> None:
    etag = store.replace_if_unchanged("lake/pointer", b"one", etag=None)
    store.delete("lake/pointer")
    store.delete("lake/pointer")
    with pytest.raises(ObjectMissing):
        store.head("lake/pointer")
    assert outcome(store, b"two", etag) is None
    assert store.files_below("lake") == []
    assert outcome(store, b"two", None)


@pytest.mark.parametrize("exists", [False, True])
def test_of_eight_writers_one_succeeds(store: WritableStore, exists: bool) -> None:
    etag = store.replace_if_unchanged("lake/pointer", b"old", etag=None) if exists else None
    contents = [f"writer {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        etags = list(pool.map(lambda content: outcome(store, content, etag), contents))
    ((winner, new),) = [pair for pair in zip(contents, etags, strict=True) if pair[1]]
    content, info = store.read("lake/pointer")
    assert (content, info.etag) == (winner, new)


def test_a_writer_whose_answer_was_lost_finds_its_own_content(store: WritableStore) -> None:
    etag = store.replace_if_unchanged("lake/pointer", b"one", etag=None)
    assert store.replace_if_unchanged("lake/pointer", b"one", etag=None) == etag


@pytest.mark.parametrize("size", [0, 1, 20_000_003])
def test_a_file_of_any_size_is_uploaded(store: WritableStore, tmp_path: Path, size: int) -> None:
    file = tmp_path / "month.parquet"
    for seed in (1, 2):
        body = random.Random(seed).randbytes(size)
        file.write_bytes(body)
        info = store.upload(file, "lake/a b/month.parquet")
        assert info == store.head("lake/a b/month.parquet")
        assert info.size == size
        assert b"".join(store.read_chunks(info)) == body
    assert store.files_below("lake") == [info]


@pytest.mark.parametrize("size", [1_500_000, 9_000_000])
def test_an_upload_that_is_damaged_on_its_way_is_found(
    place: Place, store: WritableStore, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "month.parquet"
    file.write_bytes(random.Random(size).randbytes(size))
    place.damage()
    with pytest.raises(StoreError, match="damaged") as caught:
        store.upload(file, "lake/month.parquet")
    assert store.location("lake/month.parquet") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_duckdb_reads_a_month_with_its_filter_pushed_down(
    store: WritableStore, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pyarrow waits for Google with Python's lock, so the server must be in another process.
    for name, value in place.direct.items():
        monkeypatch.setenv(name, value)
    for month in (1, 2):
        file = tmp_path / "month.parquet"
        costs = pa.array([month, 2], pa.decimal128(38, 18))
        pq.write_table(pa.table({"month": [month, month], "cost": costs}), file)
        store.upload(file, f"lake/billing_month=2024-0{month}/acme.parquet")
    filesystem, root = store.filesystem()
    keys = [file.key for file in store.files_below("lake")]
    charges = ds.dataset([f"{root}/{key}" for key in keys], filesystem=filesystem)
    with duckdb.connect() as connection:
        connection.register("charges", charges)
        rows = connection.sql("SELECT month, sum(cost) FROM charges WHERE cost > 1 GROUP BY 1")
        assert sorted((month, int(cost)) for month, cost in rows.fetchall()) == [(1, 2), (2, 4)]
