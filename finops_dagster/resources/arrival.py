"""How a file arrives: held to its size and to what it says of itself, before anybody reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32 as crc32_of

from finops_dagster.billing.errors import FileInvalid, first_line
from finops_dagster.resources.gzip_check import GzipCheck, GzipInvalid
from finops_dagster.resources.object_stores import ObjectInfo, ObjectStore, StoreUnavailable
from finops_dagster.resources.unzip import ZipInvalid, gzip_of_zip

_CHUNK_BYTES = 1024 * 1024


def write_checked(store: ObjectStore, version: ObjectInfo, path: Path) -> int:
    """Write one version of one object as DuckDB can read it, and return the CRC-32 of what then
    lies on disk.

    Gzip is inflated to its checksum, a ZIP put into a gzip's frame, Parquet must end in its footer.
    Raises FileInvalid, and StoreUnavailable where fewer bytes came than the store said.
    """
    kind = Path(version.key).suffix
    try:
        crc32, size = _write(store.chunks(version), path, GzipCheck() if kind == ".gz" else None)
        if size != version.size:
            raise StoreUnavailable(f"{version.location}: {size} of {version.size} bytes arrived")
        if kind == ".zip" and size:
            crc32 = _unzip(path)
        if kind == ".parquet" and size:
            pq.read_metadata(path)
    except (GzipInvalid, ZipInvalid, pa.ArrowException) as error:
        reason = first_line(error).rstrip(".")
        raise FileInvalid(f"{version.location}: {reason}; the month was left as it was") from error
    return crc32


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


def _unzip(path: Path) -> int:
    gzipped = path.with_name(f"{path.name}.gz")
    try:
        crc32, _ = _write(gzip_of_zip(path), gzipped, GzipCheck())
        gzipped.replace(path)
    finally:
        gzipped.unlink(missing_ok=True)
    return crc32


def _write(chunks: Iterable[bytes], path: Path, check: GzipCheck | None) -> tuple[int, int]:
    """Write what comes to the file; its CRC-32 and its size in bytes. Raises GzipInvalid."""
    crc32, size = 0, 0
    with named(path), path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            crc32, size = crc32_of(chunk, crc32), size + len(chunk)
            if check:
                check.feed(chunk)
    if check:
        check.close()
    return crc32, size
