"""Gzip is verified by its own checksum, however the bytes are split."""

from __future__ import annotations

import gzip
from random import Random

import pytest

from finops_dagster.staging.gzip_check import GzipCheck, GzipInvalid, InflationLimits

LIMITS = InflationLimits(ratio=2_000, total=10**12)
BODY = gzip.compress(b"some,cells\n" * 5000, mtime=0)


def feed(body: bytes, step: int) -> None:
    check = GzipCheck(LIMITS)
    for start in range(0, len(body), step):
        check.feed(body[start : start + step])
    check.close()


@pytest.mark.parametrize("step", [1, 7, 1_000_000])
@pytest.mark.parametrize("body", [BODY, BODY + BODY, BODY + b"\0" * 20, b""])
def test_complete_gzip_passes(body: bytes, step: int) -> None:
    feed(body, step)


def test_members_larger_than_what_is_inflated_at_once_pass() -> None:
    content = Random(1).randbytes(100_000) + b"some,cells\n" * 100_000
    member = gzip.compress(content, mtime=0)
    check = GzipCheck(LIMITS)
    check.feed(member + member + b"\0" * 50_000)
    check.close()
    assert check.inflated == 2 * len(content)
    assert not check.is_readable_by_duckdb


@pytest.mark.parametrize("step", [1, 7, 1_000_000])
@pytest.mark.parametrize(
    "body",
    [BODY[:-1], BODY[:20], BODY + BODY[:30], b"\x1f", b"x" * 50],
    ids=["one-byte-less", "begun", "a-second-one-begun", "one-byte", "no-gzip"],
)
def test_incomplete_gzip_and_other_data_are_refused(body: bytes, step: int) -> None:
    with pytest.raises(GzipInvalid):
        feed(body, step)


def test_a_flipped_bit_anywhere_is_refused() -> None:
    last_of_data = len(BODY) - 9  # its unused bits pad the stream and mean nothing
    for position in (*range(10, last_of_data), *range(last_of_data + 1, len(BODY))):
        with pytest.raises(GzipInvalid):
            feed(BODY[:position] + bytes([BODY[position] ^ 4]) + BODY[position + 1 :], 1_000_000)


def test_inflating_a_bomb_takes_little_memory() -> None:
    import tracemalloc

    bomb = gzip.compress(b"\0" * 300_000_000)
    tracemalloc.start()
    feed(bomb, 1024 * 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32_000_000
