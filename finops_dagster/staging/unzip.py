"""A ZIP as the gzip that it nearly is: DuckDB reads the one and not the other."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from finops_dagster.billing.errors import shown

_CHUNK_BYTES = 1024 * 1024
_LOCAL_HEADER_BYTES = 30
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_ENCRYPTED = 1
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipInvalid(Exception):
    """The file is no ZIP of one file that can be read; says why."""


def gzip_of_zip(path: Path) -> Iterator[bytes]:
    """The bytes of a gzip file with the content of the only file in the ZIP.

    Both hold the same deflated stream, with CRC-32 and length: the stream is copied as it is into
    the other frame, and nothing is inflated. What is stored without compression goes into a frame
    that stores it too. What macOS adds is no file of the bill. Raises ZipInvalid.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [file for file in archive.infolist() if not _is_beside_the_point(file)]
    # All of it is what zipfile makes of damaged bytes: BadZipFile of the frame, IndexError and
    # ValueError of names and extra fields, NotImplementedError of a version that nobody has.
    except (zipfile.BadZipFile, IndexError, ValueError, NotImplementedError) as error:
        raise ZipInvalid(f"the ZIP is damaged ({error})") from error
    if len(files) != 1:
        raise ZipInvalid(f"the ZIP holds {len(files)} files, where AWS puts one in each")
    (file,) = files
    if file.flag_bits & _ENCRYPTED or file.compress_type not in _READABLE:
        raise ZipInvalid(
            f"{shown(file.filename)} in the ZIP is encrypted, or compressed in another way than by "
            "deflate"
        )
    if file.header_offset < 0:
        raise ZipInvalid("the ZIP is damaged (its file would begin before it)")
    with path.open("rb") as data:
        data.seek(file.header_offset)
        header = data.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES:
            raise ZipInvalid("the ZIP is cut short")
        name_bytes, extra_bytes = struct.unpack("<HH", header[-4:])
        data.seek(name_bytes + extra_bytes, 1)
        yield _GZIP_HEADER
        stored = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
        is_stored = file.compress_type == zipfile.ZIP_STORED
        left = file.compress_size
        while chunk := data.read(min(left, _CHUNK_BYTES)):
            left -= len(chunk)
            yield stored.compress(chunk) if is_stored else chunk
    if is_stored:
        yield stored.flush()
    yield struct.pack("<LL", file.CRC, file.file_size & 0xFFFFFFFF)


def _is_beside_the_point(file: zipfile.ZipInfo) -> bool:
    """Whether this is a folder, or what macOS adds to a ZIP."""
    name = file.filename
    return file.is_dir() or name.startswith("__MACOSX/") or name.endswith(".DS_Store")
