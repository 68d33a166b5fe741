"""Shared by all stores that write: checksums, and the outcome of a conditional write."""

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
    """Yield the bytes of a file in chunks of 1 MiB."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def crc32_base64(chunks: Iterable[bytes]) -> str:
    """Return the CRC32 of all chunks together, as S3 writes it, in base64."""
    checksum = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def md5(chunks: Iterable[bytes]) -> bytes:
    """Return the MD5 of all chunks together, as 16 bytes."""
    checksum = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        checksum.update(chunk)
    return checksum.digest()


def compare_checksums(location: str, kind: str, file: str, stored: str) -> None:
    """Raise StoreError if the checksums of a file and of its uploaded object differ.

    `file` and `stored` are the two checksums as text, `location` is the address of the object, and
    `kind` the name of the checksum, such as `CRC32`.
    """
    if file != stored:
        raise StoreError(
            f"{location} was damaged while it was uploaded: its {kind} is {stored}, and that of "
            f"the file is {file}; try again"
        )


def resolve_refused_write(store: ObjectStore, key: str, content: bytes, etag: str | None) -> str:
    """Find the outcome of a conditional write that the store refused; return the object's ETag.

    If the object has this content, it was written before: clients send a request again if its
    answer was lost, and the store refuses the second one. Raises ObjectChanged if another writer
    has written or deleted it. Raises StoreUnavailable if the object still has `etag`: a store also
    refuses a write while another one is in progress.
    """
    try:
        stored = store.read(key)
    except ObjectMissing:
        stored = None
    if stored and stored[0] == content:
        return stored[1].etag
    location = store.location(key)
    if (stored[1].etag if stored else None) == etag:
        raise StoreUnavailable(f"{location} is being written by another run")
    raise ObjectChanged(
        f"{location} was {'written' if stored else 'deleted'} by another run; run the month again"
    )
