"""Gzip held to its own checksum, which DuckDB does not look at, and to limits while it passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isal import isal_zlib

_GZIP = 31  # zlib's wbits for "a gzip member with header and CRC"
_STEP_BYTES = 256 * 1024
_ALWAYS_ALLOWED_BYTES = 64 * 1024 * 1024
_FLAGS_OFFSET = 3
_EXTRA_AND_NAME = 0b01100  # what DuckDB knows to skip in the header of a member


class GzipInvalid(Exception):
    """The bytes are no whole gzip file, or one that inflates beyond its limits; says why."""


@dataclass(frozen=True)
class InflationLimits:
    """What may come of compressed files: of each, `ratio` times its own size, and of all files of a
    month `total` bytes."""

    ratio: int
    total: int

    def file_problem(self, inflated: int, size: int) -> str | None:
        """Why a file is refused of whose `size` bytes so many came; a few megabytes always may."""
        if inflated > max(self.ratio * size, _ALWAYS_ALLOWED_BYTES):
            return (
                f"it inflates to more than {self.ratio:,} times its size; if this really is a "
                "bill, set storage.max_inflation higher"
            )
        return self.month_problem(inflated)

    def month_problem(self, inflated: int) -> str | None:
        """Why a month is refused of whose files so many bytes came."""
        if inflated > self.total:
            return (
                f"the month's files inflate to more than {self.total:,} bytes; if this really is "
                "a bill, set storage.max_inflated_bytes higher"
            )
        return None


class GzipCheck:
    """Inflates a file chunk by chunk and keeps nothing, so that a flipped or missing byte is seen,
    and a bomb before it has gone off: `inflated` bytes have come of it so far.

    A file may be several gzip members after one another, with zeros to pad the end. It is
    `is_readable_by_duckdb` where DuckDB reads it too, which takes no zeros, and in no header a
    comment, a checksum of the header or the flag of text.
    """

    def __init__(self, limits: InflationLimits) -> None:
        self.inflated = 0
        self.is_readable_by_duckdb = True
        self._limits = limits
        self._size = 0
        self._header = b""
        self._member: Any = None

    def feed(self, chunk: bytes) -> None:
        """Take the file's next bytes. Raises GzipInvalid."""
        self._size += len(chunk)
        while chunk:
            if self._member is None or self._member.eof:
                unpadded = chunk if self._member is None else chunk.lstrip(b"\0")
                self.is_readable_by_duckdb &= unpadded == chunk
                if not (chunk := unpadded):
                    return
                self._member, self._header = isal_zlib.decompressobj(_GZIP), b""
            if len(self._header) <= _FLAGS_OFFSET:
                self._header += chunk[: _FLAGS_OFFSET + 1 - len(self._header)]
                flags = self._header[_FLAGS_OFFSET:]
                self.is_readable_by_duckdb &= not flags or not flags[0] & ~_EXTRA_AND_NAME
            try:
                self.inflated += len(self._member.decompress(chunk, _STEP_BYTES))
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub forgets the type
                raise GzipInvalid(f"the gzip data is damaged ({error})") from error
            if problem := self._limits.file_problem(self.inflated, self._size):
                raise GzipInvalid(problem)
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def close(self) -> None:
        """The file is over. Raises GzipInvalid where the gzip data is not."""
        if self._member is not None and not self._member.eof:
            raise GzipInvalid("the gzip data is cut short")
