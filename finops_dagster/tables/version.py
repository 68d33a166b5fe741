"""Which version of a month the vendor's files are: one that is known, or a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from finops_dagster.billing.content import Content, is_version_of
from finops_dagster.billing.money import Totals

# What a ZIP has around its deflated stream beyond what gzip has: two headers with the file's name,
# a descriptor, the directory's end.
_ZIP_FRAME_BYTES = 1024


class KnownVersion(Protocol):
    """A version as the staging folder, the ledger, or the lake has recorded it."""

    @property
    def manifest_id(self) -> str: ...
    @property
    def totals(self) -> Totals: ...
    @property
    def files(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def content(self) -> Content | None: ...


Known = TypeVar("Known", bound=KnownVersion)


def of_vendor_id(versions: Sequence[Known], vendor_id: str) -> list[Known]:
    """Return the versions that the vendor calls so."""
    return [one for one in versions if is_version_of(one.manifest_id, vendor_id)]


def is_unchanged(known: KnownVersion, available: Content) -> bool:
    """Whether what the store has is a known version, without reading it: by every file's name, size
    and ETag; by number and bytes of the files where the version is older than their record."""
    if known.content is None:
        return _agrees_with_older(known, available)
    return known.content.etags == available.etags


def version_id(
    vendor_id: str, content: Content, totals: Totals, known: Sequence[KnownVersion]
) -> str:
    """Return the id of the version with this content, which was read and counted.

    It is the vendor's own id for the first content that was known under it, and has the digest of
    the content after it for every other. `known` are the versions under the vendor's id.
    """
    for version in known:
        if is_content_of(version, content, totals):
            return version.manifest_id
    return f"{vendor_id}+{content.digest}" if known else vendor_id


def is_content_of(known: KnownVersion, content: Content, totals: Totals) -> bool:
    """Whether a known version has this content, which was read and counted."""
    if known.content is None:
        return _agrees_with_older(known, content) and known.totals == totals
    if known.content.checksums is None or content.checksums is None:
        return known.content.sizes == content.sizes and known.totals == totals
    return known.content.checksums == content.checksums


def _agrees_with_older(known: KnownVersion, content: Content) -> bool:
    """Whether number and bytes of the files are those of a version without a record of its files.
    The bytes of a ZIP were those of the gzip that it became."""
    zipped = sum(file.name.endswith(".zip") for file in content.files)
    more = content.bytes - known.bytes
    return known.files == len(content.files) and 0 <= more <= zipped * _ZIP_FRAME_BYTES
