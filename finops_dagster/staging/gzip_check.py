"""The check of gzip against its own checksum, which DuckDB ignores, and against size limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isal import isal_zlib

_GZIP = 31  # zlib's wbits for "a gzip member with header and CRC"
_STEP_BYTES = 256 * 1024
# After each step, zlib copies the rest of its input, so the input is small.
_INPUT_BYTES = 16 * 1024
# Small files may have any ratio: a CSV of equal lines compresses to nearly nothing.
_ALWAYS_ALLOWED_BYTES = 64 * 1024 * 1024
_FLAGS_OFFSET = 3  # of the flags in a member's header
_EXTRA_AND_NAME = 0b01100  # the flags of the fields that DuckDB skips in a member's header


class GzipInvalid(Exception):
    """The file is not complete gzip, or it inflates beyond a limit; the message says why."""


@dataclass(frozen=True)
class InflationLimits:
    """The limits of inflation: `ratio` times a file's size, and `total` bytes for a month.

    A file that inflates to at most 64 MiB may have any ratio.
    """

    ratio: int
    total: int

    def file_problem(self, inflated: int, size: int) -> str | None:
        """Return why a file of `size` bytes that inflates to `inflated` is refused, else None.

        A single file that exceeds the limit of a month is refused too.
        """
        if inflated > max(self.ratio * size, _ALWAYS_ALLOWED_BYTES):
            return (
                f"the file inflates to more than {self.ratio:,} times its size; if this really is "
                "a bill, set storage.max_inflation higher"
            )
        return self.month_problem(inflated)

    def month_problem(self, inflated: int) -> str | None:
        """Return why a month whose files inflate to `inflated` bytes is refused, else None."""
        if inflated > self.total:
            return (
                f"the month's files inflate to more than {self.total:,} bytes; if this really is "
                "a bill, set storage.max_inflated_bytes higher"
            )
        return None


class GzipCheck:
    """A check of a gzip file, chunk by chunk: call `feed` for each, and then `close`.

    It finds a flipped or missing byte, and a file that inflates beyond a limit, before that fills
    the disk. `inflated` is the uncompressed size so far; the bytes are not kept. A file may have
    several members, and zeros at its end. `is_readable_by_duckdb` is False for what DuckDB refuses:
    zeros at the end, and a header with a comment, a checksum of the header, or the text flag.
    """

    def __init__(self, limits: InflationLimits) -> None:
        self.inflated = 0
        self.is_readable_by_duckdb = True
        self._limits = limits
        self._size = 0
        self._header = b""
        self._member: Any = None

    def feed(self, chunk: bytes) -> None:
        """Inflate the file's next bytes. Raises GzipInvalid."""
        self._size += len(chunk)
        for start in range(0, len(chunk), _INPUT_BYTES):
            self._inflate(chunk[start : start + _INPUT_BYTES])

    def _inflate(self, chunk: bytes) -> None:
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
        """Raise GzipInvalid if the gzip data is cut short; no data at all is valid."""
        if self._member is not None and not self._member.eof:
            raise GzipInvalid("the gzip data is cut short")
