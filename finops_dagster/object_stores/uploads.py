"""What all stores do when they write: checksums, and the outcome of a conditional write."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from finops_dagster.object_stores import (
    ObjectChanged,
    ObjectMissing,
    ObjectStore,
    StoreError,
    StoreUnavailable,
)

_CHUNK_BYTES = 1024 * 1024


def file_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def crc32(chunks: Iterable[bytes]) -> str:
    """Return the CRC32 of some bytes as S3 writes it, in base64."""
    checksum = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def md5(chunks: Iterable[bytes]) -> bytes:
    """Return the MD5 of some bytes."""
    checksum = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        checksum.update(chunk)
    return checksum.digest()


def compare_checksums(location: str, kind: str, file: str, stored: str) -> None:
    """Raise StoreError if the checksum of an uploaded file differs from that of its object."""
    if file != stored:
        raise StoreError(
            f"{location} was damaged while it was uploaded: its {kind} is {stored}, and that of "
            f"the file is {file}; run the month again"
        )


def settle_replace(store: ObjectStore, key: str, content: bytes, etag: str | None) -> str:
    """Return the ETag of an object whose conditional write was refused, if it was written before.

    Clients send a request again if its answer was lost; the second is then refused for what the
    first wrote. Raises ObjectChanged if another writer was first, and StoreUnavailable if the
    object is as it was: the store refuses while another write of it is going on.
    """
    try:
        found = store.read(key)
    except ObjectMissing:
        found = None
    if found and found[0] == content:
        return found[1].etag
    location = store.location(key)
    if (found[1].etag if found else None) == etag:
        raise StoreUnavailable(
            f"{location} is being written by another run: run the month again later"
        )
    raise ObjectChanged(
        f"{location} was {'written' if found else 'deleted'} by another run; run the month again"
    )
