"""A ZIP is put into a gzip's frame without being inflated, or refused with the reason."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

import pytest

from finops_dagster.staging.unzip import ZipInvalid, gzip_of_zip
from finops_dagster_tests.cur import zipped

TEXT = b"some,cells\n" * 50_000


def zip_of(path: Path, *, method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a folder/", b"")
        for name, body in files.items():
            archive.writestr(name, body)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("body", [TEXT, b"", b"\0" * 70_000, TEXT * 5])
def test_the_content_is_the_same(tmp_path: Path, body: bytes, method: int) -> None:
    path = zip_of(tmp_path / "x.zip", method=method, report=body)
    assert gzip.decompress(b"".join(gzip_of_zip(path))) == body


def test_what_macos_adds_is_no_file_of_the_bill(tmp_path: Path) -> None:
    beside = {"__MACOSX/a/._report.csv": b"x", "a/.DS_Store": b"y"}
    path = zip_of(tmp_path / "x.zip", **beside, **{"a/report.csv": TEXT})
    assert gzip.decompress(b"".join(gzip_of_zip(path))) == TEXT
    path = zip_of(tmp_path / "x.zip", **beside)
    with pytest.raises(ZipInvalid, match="holds 0 files"):
        list(gzip_of_zip(path))


def test_a_zip_that_was_written_as_a_stream_has_its_lengths_behind_the_data(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("report", "w", force_zip64=True) as member,
    ):
        member.write(TEXT)
    assert gzip.decompress(b"".join(gzip_of_zip(path))) == TEXT


@pytest.mark.parametrize(
    ("method", "files", "reason"),
    [
        (zipfile.ZIP_DEFLATED, {}, "holds 0 files, where AWS puts one in each"),
        (zipfile.ZIP_DEFLATED, {"a": TEXT, "b": TEXT}, "holds 2 files"),
        (zipfile.ZIP_BZIP2, {"a": TEXT}, "'a' in the ZIP is encrypted, or compressed in another"),
        (zipfile.ZIP_LZMA, {"a": TEXT}, "'a' in the ZIP is encrypted, or compressed in another"),
    ],
)
def test_another_zip_is_refused(
    tmp_path: Path, method: int, files: dict[str, bytes], reason: str
) -> None:
    path = zip_of(tmp_path / "x.zip", method=method, **files)
    with pytest.raises(ZipInvalid, match=reason):
        list(gzip_of_zip(path))


@pytest.mark.parametrize("body", [b"no zip at all", b"PK\x03\x04"])
def test_what_is_no_zip_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(body)
    with pytest.raises(ZipInvalid, match="damaged"):
        list(gzip_of_zip(path))


@pytest.mark.parametrize("lost", [1, 10, 100])
def test_a_zip_that_lost_its_beginning_is_refused(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped(TEXT)[lost:])
    with pytest.raises(ZipInvalid, match="its file would begin before it"):
        list(gzip_of_zip(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_byte_that_changed_is_found_by_the_checksum(tmp_path: Path, method: int) -> None:
    path = zip_of(tmp_path / "x.zip", method=method, report=TEXT)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises((gzip.BadGzipFile, zlib.error, EOFError)):
        gzip.decompress(b"".join(gzip_of_zip(path)))


def test_a_zip_cut_short_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", report=TEXT)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ZipInvalid, match="damaged"):
        list(gzip_of_zip(path))
