"""Archives that inflate to far more than their size: refused before they are inflated fully."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import pytest

from finops_dagster_tests.cur import csv_bytes, line_items, zip_bytes
from finops_dagster_tests.hostile.reading import one_line
from finops_dagster_tests.project import Project

MONTH = "2024-01"
BILL = csv_bytes(line_items(MONTH, "1", "2"))
ZEROS = b"\0" * 10_000_000
MEMBERS = gzip.compress(BILL) + gzip.compress(ZEROS) * 10
BOMBS = {
    "gz": (gzip.compress(BILL + ZEROS * 10), "the file inflates to more than 300 times its size"),
    "many-members.gz": (MEMBERS, "the file inflates to more than 300 times its size"),
    "called-csv": (MEMBERS, "the file inflates to more than 300 times its size"),
    "zip": (zip_bytes(BILL + ZEROS * 10), "the file inflates to more than 300 times its size"),
}


def refusal(project: Project, *parts: bytes, **delivery: str) -> str:
    """Return the error of a version that is refused and leaves the month as it was."""
    error = one_line(Exception(project.load_refused_version(MONTH, *parts, **delivery).error))
    assert error.endswith("; the lake keeps version v1")
    return error


def load(project: Project, *parts: bytes, **delivery: str) -> tuple[int, Decimal | None]:
    project.deliver(*parts, version="v2", **delivery)
    project.load()
    return project.totals()


@pytest.mark.parametrize("suffix", BOMBS)
def test_an_archive_that_inflates_too_far_is_refused_and_the_month_is_kept(
    project: Project, suffix: str
) -> None:
    bomb, message = BOMBS[suffix]
    suffix = suffix.removeprefix("called-")
    error = refusal(project, bomb, suffix=suffix)
    assert f"acme-cur-00001.csv.{suffix}: {message}" in error
    assert "set storage.max_inflation higher" in error


@pytest.mark.thorough
def test_the_inflation_limit_can_be_set(project: Project) -> None:
    row = csv_bytes(line_items(MONTH, "0")).partition(b"\n")[2]
    bill = gzip.compress(BILL + row * 1_000_000, 9)
    project.storage = {"max_inflation": 50}
    assert "more than 50 times its size" in refusal(project, bill)
    project.storage = {}
    project.load()
    assert project.totals() == (1_000_002, 3)


def test_small_files_count_against_the_total_limit_also_in_the_next_run(
    project: Project,
) -> None:
    parts = [gzip.compress(BILL)] * 5
    project.storage = {"max_inflated_bytes": 4 * len(BILL)}
    message = (
        f"inflate to more than {4 * len(BILL):,} bytes; if this really is a bill, set storage."
    )
    for _ in range(2):
        assert message in refusal(project, *parts)
    project.storage = {"max_inflated_bytes": 5 * len(BILL)}
    project.load()
    assert project.totals() == (10, 15)


def test_one_large_file_counts_against_the_total_limit(project: Project) -> None:
    project.storage = {"max_inflated_bytes": len(BILL) - 1}
    assert "set storage.max_inflated_bytes higher" in refusal(project, gzip.compress(BILL))


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_gzip_under_another_name_is_verified_by_its_checksum(project: Project, cut: int) -> None:
    body = gzip.compress(BILL)
    if cut:
        damaged = refusal(project, body[:-cut], suffix="csv")
        assert "the gzip data is cut short" in damaged
    else:
        assert load(project, body, suffix="csv") == (2, 3)


def member(body: bytes, flags: int, fields: bytes) -> bytes:
    """Return a member of a gzip file whose header has these flags and fields of RFC 1952."""
    plain = gzip.compress(body, mtime=0)
    header = plain[:3] + bytes([flags]) + plain[4:10] + fields
    checksum = struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    return header + checksum + plain[10:]


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(BILL) + b"\0" * 600,
        member(BILL, 1, b""),
        member(BILL, 2, b""),
        member(BILL, 16, b"a comment\0"),
        member(BILL, 1 | 2 | 4 | 8 | 16, b"\3\0ABCname\0comment\0"),
        gzip.compress(BILL[:100]) + member(BILL[100:], 16, b"a comment\0"),
    ],
    ids=["padded", "flag-of-text", "checksum", "comment", "all", "in-the-second-member"],
)
def test_gzip_that_duckdb_cannot_read_is_loaded(project: Project, body: bytes) -> None:
    assert gzip.decompress(body) == BILL
    assert load(project, body) == (2, 3)


def test_a_zip_of_20000_files_is_refusal(project: Project, tmp_path: Path) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(20_000):
            file.writestr(str(number), b"")
    error = refusal(project, archive.getvalue(), suffix="zip")
    assert "the ZIP holds 20000 files" in error


def test_an_uncompressed_zip_is_loaded_and_verified_by_its_checksum(project: Project) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("__MACOSX/._report.csv", b"x")
        file.writestr("report.csv", BILL)
    body = archive.getvalue()
    damaged = body.replace(b",2\n", b",3\n")
    assert damaged != body
    assert "the ZIP is damaged" in refusal(project, damaged, suffix="zip")
    assert load(project, body, suffix="zip") == (2, 3)
