"""The download of a file, verified and converted before a stage reads it."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from isal import isal_zlib
from isal.isal_zlib import crc32 as crc32_of

from finops_dagster.billing.errors import FileInvalid, excerpt, first_line
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreUnavailable
from finops_dagster.staging.gzip_check import GzipCheck, GzipInvalid, InflationLimits
from finops_dagster.tables.csv_files import GZIP_MAGIC
from finops_dagster.tables.parquet_files import ParquetInvalid, make_exact

_CHUNK_BYTES = 1024 * 1024
_GZIP = 31  # zlib's wbits for "a gzip member with header and CRC"
_ENCRYPTED = 1
_ADVICE = (
    "the vendor must deliver the file again (where this is a copy of the vendor's bucket, copy the "
    "file again)"
)
# What zipfile raises for damaged bytes: in the frame, in the deflated stream, in names and extra
# fields, in the version that is needed to unpack.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    ValueError,
    NotImplementedError,
)


class ZipInvalid(Exception):
    """The file is not a ZIP of one readable file; the message says why."""


@dataclass(frozen=True, kw_only=True)
class DownloadedFile:
    """A file on disk after its download.

    `size` and `crc32` are of the file on disk, and `sha256` is of the bytes that the store sent.
    `inflated` is the uncompressed size of a gzip or ZIP file in bytes, 0 for any other file.
    """

    size: int
    crc32: int
    inflated: int = 0
    sha256: str | None = None


def download_verified(
    store: ObjectStore, info: ObjectInfo, path: Path, limits: InflationLimits
) -> DownloadedFile:
    """Download the object `info` to `path`, verify it, and convert it to what DuckDB reads.

    Gzip is verified by its checksum, a ZIP is unpacked, and Parquet must end with its footer. Gzip
    that DuckDB refuses and Parquet that it does not read exactly are rewritten. A file of 0 bytes
    is valid, whatever its suffix. Raises FileInvalid if the file is damaged or inflates too far,
    StoreUnavailable if the store sends another number of bytes than `info.size`, and the store's
    other errors. After an error, a part of the file may be at `path`.
    """
    suffix = Path(info.key).suffix
    try:
        download, is_readable_by_duckdb = _write(
            store.read_chunks(info), path, limits, is_gzip=suffix == ".gz"
        )
        if download.size != info.size:
            raise StoreUnavailable(f"{info.location}: {download.size} of {info.size} bytes arrived")
        sent_sha256 = download.sha256
        if suffix == ".zip" and download.size:
            download = _rewrite(_unzipped_chunks(path, limits), path, limits)
            download = replace(download, inflated=download.size)
        elif not is_readable_by_duckdb:
            download = _rewrite(_single_member(path), path, limits)
        if suffix == ".parquet" and download.size and make_exact(path):
            download = replace(download, crc32=crc32_of_file(path), size=path.stat().st_size)
        return replace(download, sha256=sent_sha256)
    except (GzipInvalid, ZipInvalid, ParquetInvalid, pa.ArrowException) as error:
        reason = first_line(error).rstrip(".")
        if "; " not in reason:  # Some reasons say themselves what to do.
            reason += f"; {_ADVICE}"
        raise FileInvalid(f"{info.location}: {reason}") from error


def crc32_of_file(path: Path) -> int:
    """Return the CRC-32 of a file on disk, all of which is read."""
    crc32 = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc32 = crc32_of(chunk, crc32)
    return crc32


@contextmanager
def path_in_errors(path: Path) -> Iterator[None]:
    """Add the path to an OSError of the block that names no file, such as one of writing."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _unzipped_chunks(path: Path, limits: InflationLimits) -> Iterator[bytes]:
    """Yield the bytes of the only file in a ZIP. Raises ZipInvalid."""
    size, inflated = path.stat().st_size, 0
    try:
        with zipfile.ZipFile(path) as archive:
            files = [file for file in archive.infolist() if not _is_macos_extra(file)]
            if len(files) != 1:
                raise ZipInvalid(
                    f"the ZIP holds {len(files)} files instead of one; the vendor must deliver "
                    "each file in a ZIP of its own"
                )
            is_read = files[0].compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if files[0].flag_bits & _ENCRYPTED or not is_read:
                raise ZipInvalid(
                    f"{excerpt(files[0].filename)} in the ZIP is encrypted, or compressed by a "
                    "method other than deflate; zip the file again with deflate and no password"
                )
            if files[0].header_offset < 0:
                raise ZipInvalid("the ZIP is damaged (it has a negative offset)")
            with archive.open(files[0]) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    inflated += len(chunk)
                    if problem := limits.file_problem(inflated, size):
                        raise ZipInvalid(problem)
                    yield chunk
    except _ZIP_ERRORS as error:
        raise ZipInvalid(f"the ZIP is damaged ({error})") from error


def _is_macos_extra(file: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a folder, or a file that macOS adds to a ZIP."""
    name = file.filename
    return file.is_dir() or name.startswith("__MACOSX/") or name.endswith(".DS_Store")


def _single_member(path: Path) -> Iterator[bytes]:
    """Yield a gzip file's content as gzip of one member, whose header has no fields."""
    compressor = isal_zlib.compressobj(wbits=_GZIP)
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield compressor.compress(chunk)
    yield compressor.flush()


def _rewrite(chunks: Iterator[bytes], path: Path, limits: InflationLimits) -> DownloadedFile:
    """Replace a file by these bytes, which may be computed from the file while it is read."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        download, _ = _write(chunks, temporary, limits)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return download


def _write(
    chunks: Iterable[bytes], path: Path, limits: InflationLimits, *, is_gzip: bool = False
) -> tuple[DownloadedFile, bool]:
    """Write a file, and verify it if it is gzip. Raises GzipInvalid.

    The second value is whether DuckDB can read the gzip.
    """
    crc32, size, sha256 = 0, 0, hashlib.sha256()
    check = GzipCheck(limits)
    with path_in_errors(path), path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            # A file can be gzip under another suffix, such as `.csv`.
            is_gzip = is_gzip or (size == 0 and chunk.startswith(GZIP_MAGIC))
            crc32, size = crc32_of(chunk, crc32), size + len(chunk)
            sha256.update(chunk)
            if is_gzip:
                check.feed(chunk)
    check.close()
    download = DownloadedFile(
        size=size, crc32=crc32, inflated=check.inflated, sha256=sha256.hexdigest()
    )
    return download, check.is_readable_by_duckdb
