"""A ZIP is unpacked while it is downloaded, or refused with the reason."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from finops_dagster.billing.errors import FileInvalid
from finops_dagster.object_stores.local import LocalStore
from finops_dagster.staging.download import crc32_of_file, download_verified
from finops_dagster.staging.gzip_check import InflationLimits

TEXT = b"some,cells\n" * 50_000
MACOS_FILES = {"__MACOSX/a/._report.csv": b"x", "a/.DS_Store": b"y", "a folder/": b""}


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


def stream() -> bytes:
    """Return a ZIP that was written as a stream, with its lengths after the data."""
    body = io.BytesIO()
    with (
        zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("report", "w", force_zip64=True) as member,
    ):
        member.write(TEXT)
    return body.getvalue()


def unpacked(folder: Path, body: bytes) -> bytes:
    (folder / "x.zip").write_bytes(body)
    store, path = LocalStore(str(folder)), folder / "x.part"
    limits = InflationLimits(ratio=2_000, total=10**12)
    arrived = download_verified(store, store.head("x.zip"), path, limits)
    content = path.read_bytes()
    assert (arrived.size, arrived.crc32) == (len(content), crc32_of_file(path))
    return content


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("content", [TEXT, b"", b"\0" * 70_000])
def test_a_zip_of_one_file_is_unpacked(tmp_path: Path, content: bytes, method: int) -> None:
    assert unpacked(tmp_path, zip_of({**MACOS_FILES, "a/report": content}, method)) == content


def test_a_zip_that_was_written_as_a_stream_is_unpacked(tmp_path: Path) -> None:
    assert unpacked(tmp_path, stream()) == TEXT


def flipped(body: bytes) -> bytes:
    return body[:300] + bytes([body[300] ^ 1]) + body[301:]


UNSUPPORTED = "'a' in the ZIP is encrypted, or compressed by a method other than"
REFUSED = {
    "empty": (zip_of({}), "holds 0 files"),
    "macos": (zip_of(MACOS_FILES), "holds 0 files"),
    "two": (zip_of({"a": TEXT, "b": TEXT}), "holds 2 files"),
    "bzip2": (zip_of({"a": TEXT}, zipfile.ZIP_BZIP2), UNSUPPORTED),
    "lzma": (zip_of({"a": TEXT}, zipfile.ZIP_LZMA), UNSUPPORTED),
    "none": (b"no zip at all", "the ZIP is damaged"),
    "begun": (b"PK\x03\x04", "the ZIP is damaged"),
    **{f"lost-{lost}": (zip_of({"a": TEXT})[lost:], "the ZIP is damaged") for lost in (1, 10, 100)},
    "flipped": (flipped(zip_of({"a": TEXT})), "the ZIP is damaged"),
    "flipped-stored": (flipped(zip_of({"a": TEXT}, zipfile.ZIP_STORED)), "the ZIP is damaged"),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_zip_that_cannot_be_read_is_refused(tmp_path: Path, body: bytes, reason: str) -> None:
    with pytest.raises(FileInvalid, match=reason):
        unpacked(tmp_path, body)
    assert not list(tmp_path.glob("*.new"))
