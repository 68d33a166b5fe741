"""How a file arrives: held to its size and to what it says of itself, before anybody reads it."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from isal import isal_zlib
from isal.isal_zlib import crc32 as crc32_of

from finops_dagster.billing.errors import FileInvalid, first_line
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreUnavailable
from finops_dagster.staging.gzip_check import GzipCheck, GzipInvalid, InflationLimits
from finops_dagster.staging.unzip import ZipInvalid, gzip_of_zip
from finops_dagster.tables.csv_files import GZIP_MAGIC
from finops_dagster.tables.parquet_rewrite import ParquetInvalid, make_exact

_CHUNK_BYTES = 1024 * 1024
_GZIP = 31  # zlib's wbits for "a gzip member with header and CRC"


@dataclass(frozen=True)
class Arrived:
    """A file that lies on disk: the CRC-32 of its bytes, their number, and how many bytes its gzip
    holds. `sha256` is the checksum of what the store sent, and not of what was written
    anew."""

    crc32: int
    size: int
    inflated: int
    sha256: str


def write_checked(
    store: ObjectStore, version: ObjectInfo, path: Path, limits: InflationLimits
) -> Arrived:
    """Write one version of one object as DuckDB can read it.

    Gzip is inflated to its checksum, a ZIP put into a gzip's frame, and Parquet must end in its
    footer. What DuckDB would refuse of gzip, or not read exactly of Parquet, is written anew.
    Raises FileInvalid, and StoreUnavailable where fewer bytes came than the store said.
    """
    kind = Path(version.key).suffix
    try:
        arrived, is_for_duckdb = _write(store.chunks(version), path, limits, is_gzip=kind == ".gz")
        if arrived.size != version.size:
            raise StoreUnavailable(
                f"{version.location}: {arrived.size} of {version.size} bytes arrived"
            )
        if kind == ".zip" and arrived.size:
            arrived = replace(_unzip(path, limits), sha256=arrived.sha256)
        if not is_for_duckdb:
            arrived = replace(_gzip_anew(path, limits), sha256=arrived.sha256)
        if kind == ".parquet" and arrived.size and make_exact(path):
            arrived = replace(arrived, crc32=crc32_of_file(path), size=path.stat().st_size)
    except (GzipInvalid, ZipInvalid, ParquetInvalid, pa.ArrowException) as error:
        reason = first_line(error).rstrip(".")
        raise FileInvalid(f"{version.location}: {reason}; the month was left as it was") from error
    return arrived


def crc32_of_file(path: Path) -> int:
    """The CRC-32 of a file on disk."""
    crc32 = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc32 = crc32_of(chunk, crc32)
    return crc32


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an error of the block the file's name, which is not said where writing it fails."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _unzip(path: Path, limits: InflationLimits) -> Arrived:
    return _rewritten(gzip_of_zip(path), path, limits)


def _gzip_anew(path: Path, limits: InflationLimits) -> Arrived:
    """Replace a gzip file by one whose only header says nothing."""
    return _rewritten(_in_one_member(path), path, limits)


def _in_one_member(path: Path) -> Iterator[bytes]:
    compressor = isal_zlib.compressobj(wbits=_GZIP)
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield compressor.compress(chunk)
    yield compressor.flush()


def _rewritten(chunks: Iterator[bytes], path: Path, limits: InflationLimits) -> Arrived:
    gzipped = path.with_name(f"{path.name}.gz")
    try:
        arrived, _ = _write(chunks, gzipped, limits, is_gzip=True)
        gzipped.replace(path)
    finally:
        gzipped.unlink(missing_ok=True)
    return arrived


def _write(
    chunks: Iterable[bytes], path: Path, limits: InflationLimits, *, is_gzip: bool
) -> tuple[Arrived, bool]:
    """Write what comes to the file; what begins as gzip is held to be one. The second value is
    whether DuckDB reads such a gzip. Raises GzipInvalid."""
    crc32, size, sha256 = 0, 0, hashlib.sha256()
    check = GzipCheck(limits)
    with named(path), path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            is_gzip = is_gzip or (size == 0 and chunk.startswith(GZIP_MAGIC))
            crc32, size = crc32_of(chunk, crc32), size + len(chunk)
            sha256.update(chunk)
            if is_gzip:
                check.feed(chunk)
    check.close()
    return Arrived(crc32, size, check.inflated, sha256.hexdigest()), check.is_for_duckdb
