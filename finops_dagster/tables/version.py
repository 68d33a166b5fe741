"""Which version of a month the vendor's files are: one that was loaded before, or a new one."""

from __future__ import annotations

from collections.abc import Sequence

from finops_dagster.billing.content import Content, is_version_of
from finops_dagster.billing.money import Totals
from finops_dagster.tables.ledger import Load

# What a ZIP has around its deflated stream beyond what gzip has: two headers with the file's name,
# a descriptor, the directory's end.
_ZIP_FRAME_BYTES = 1024


def of_vendor_id(loads: Sequence[Load], manifest_id: str) -> list[Load]:
    """Return the loads of the versions that the vendor calls so."""
    return [load for load in loads if is_version_of(load.manifest_id, manifest_id)]


def is_unchanged(load: Load, available: Content) -> bool:
    """Whether what the store has is what was loaded, without reading it: by every file's name, size
    and ETag; by number and bytes of the files where the load is older than their record."""
    if load.content is None:
        return _agrees_with_older(load, available)
    return load.content.etags == available.etags


def version_id(manifest_id: str, content: Content, totals: Totals, known: Sequence[Load]) -> str:
    """Return the id of the version with this content, which was read and counted.

    It is the vendor's own id for the first content that was loaded under it, and has the digest of
    the content after it for every other. `known` are the loads under the vendor's id.
    """
    for load in known:
        if _is_content_of(load, content, totals):
            return load.manifest_id
    return f"{manifest_id}+{content.digest}" if known else manifest_id


def _is_content_of(load: Load, content: Content, totals: Totals) -> bool:
    if load.content is None:
        return _agrees_with_older(load, content) and load.totals == totals
    if load.content.checksums is None:
        return load.content.sizes == content.sizes and load.totals == totals
    return load.content.checksums == content.checksums


def _agrees_with_older(load: Load, content: Content) -> bool:
    """Whether number and bytes of the files are those of a load without a record of its files. The
    bytes of a ZIP were those of the gzip that it became."""
    zipped = sum(file.name.endswith(".zip") for file in content.files)
    more = content.bytes - load.bytes
    return load.files == len(content.files) and 0 <= more <= zipped * _ZIP_FRAME_BYTES
