"""Gzip held to its own checksum while it passes by; DuckDB does not look at it."""

from __future__ import annotations

from isal import isal_zlib

_GZIP = 31  # zlib's wbits for "a gzip member with header and CRC"
_STEP_BYTES = 256 * 1024


class GzipInvalid(Exception):
    """The bytes are no whole gzip file; says why."""


class GzipCheck:
    """Inflates a file chunk by chunk and keeps nothing, so that a flipped or missing byte is seen.

    A file may be several gzip members after one another, with zeros to pad the end.
    """

    def __init__(self) -> None:
        self._member = isal_zlib.decompressobj(_GZIP)
        self._started = False

    def feed(self, chunk: bytes) -> None:
        """Take the file's next bytes. Raises GzipInvalid."""
        while chunk:
            if self._member.eof:
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    return
                self._member = isal_zlib.decompressobj(_GZIP)
            self._started = True
            try:
                self._member.decompress(chunk, _STEP_BYTES)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub forgets the type
                raise GzipInvalid(f"the gzip data is damaged ({error})") from error
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def close(self) -> None:
        """The file is over. Raises GzipInvalid where the gzip data is not."""
        if self._started and not self._member.eof:
            raise GzipInvalid("the gzip data is cut short")
