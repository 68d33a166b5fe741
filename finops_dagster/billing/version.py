"""The versions of a month: which one the vendor's files are, and what is recorded of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Self, TypeVar

from finops_dagster.billing.content import Content, is_version_of
from finops_dagster.billing.money import RoundedColumn, Totals, decimal_text
from finops_dagster.billing.months import BillingMonth

# What a ZIP has around its deflated stream beyond what gzip has: two headers with the file's name,
# a descriptor, the directory's end.
_ZIP_FRAME_BYTES = 1024


@dataclass(frozen=True)
class Version:
    """A version of a month, as the staging folder, the lake, or the ledger recorded it: its id and
    totals, and format, number and bytes of the vendor's files. `content` is None where these were
    not recorded one by one yet."""

    manifest_id: str
    totals: Totals
    format: str = "cur1"
    files: int = 0
    bytes: int = 0
    content: Content | None = field(default=None, compare=False)

    def is_same(self, other: Version | None) -> bool:
        """Return whether the other record has the same id, rows and cost."""
        return other is not None and (
            (self.manifest_id, self.totals) == (other.manifest_id, other.totals)
        )

    def is_unchanged(self, available: Content) -> bool:
        """Return whether the store has this version, without reading it: by every file's name, size
        and ETag; by number and bytes of the files where the version is older than their record."""
        if self.content is None:
            return self._has_same_size(available)
        fields = ("name", "size", "etag")  # another store says other ETags of the same bytes
        return self.content.file_fields(*fields) == available.file_fields(*fields)

    def has_content(self, content: Content, totals: Totals) -> bool:
        """Return whether this is the version of files that were read and counted."""
        if self.content is None:
            return self._has_same_size(content) and self.totals == totals
        if self.content.checksums is None or content.checksums is None:
            is_alike = self.content.file_fields("name", "size") == content.file_fields(
                "name", "size"
            )
            return is_alike and self.totals == totals
        return self.content.checksums == content.checksums

    def _has_same_size(self, content: Content) -> bool:
        """By number and bytes of the files; those of a ZIP were once those of the gzip that it
        became."""
        zipped = sum(name.endswith(".zip") for name in content.names)
        more = content.bytes - self.bytes
        return self.files == len(content.files) and 0 <= more <= zipped * _ZIP_FRAME_BYTES


@dataclass(frozen=True)
class LoadedVersion(Version):
    """A version that a run loaded, and the columns whose numbers were rounded; None where they were
    not counted yet."""

    run_id: str = ""
    rounded: tuple[RoundedColumn, ...] | None = field(default=None, compare=False)

    @classmethod
    def of_row(cls, row: Mapping[str, Any], **more: Any) -> Self:
        """Return the version of a row of the ledger, or of what the lake keeps of it; `more` are
        the fields of a subclass."""
        rounded = row["decimals_rounded"]
        sums, costs = (_amounts(row[name]) for name in ("money_sums", "cost_by_currency"))
        return cls(
            row["manifest_id"],
            Totals(row["row_count"], Decimal(row["total_cost"]), sums, costs),
            row["format"],
            row["file_count"],
            row["byte_count"],
            Content.of_rows(row["files"]),
            row["run_id"],
            None if rounded is None else tuple(map(RoundedColumn.of_row, rounded)),
            **more,
        )

    def row(self) -> dict[str, Any]:
        """Return what `of_row` reads, as JSON has it: amounts as text, which loses no digit."""
        totals = self.totals
        return {
            "manifest_id": self.manifest_id,
            "row_count": totals.rows,
            "total_cost": f"{totals.cost:f}",
            "money_sums": _texts(totals.sums),
            "cost_by_currency": _texts(totals.costs),
            "format": self.format,
            "file_count": self.files,
            "byte_count": self.bytes,
            "files": self.content and self.content.rows(),
            "run_id": self.run_id,
            "decimals_rounded": self.rounded and [column.row() for column in self.rounded],
        }


@dataclass(frozen=True, kw_only=True)
class Load(LoadedVersion):
    """A load of a month into the export's table, as the ledger has it: `state` is loaded or
    superseded, `loaded_at` in UTC, `number` counts the loads of the month, and `lake_sha256` is the
    checksum of the Parquet file that was written from it, where that is known."""

    export: str
    month: BillingMonth
    table: str
    state: str = field(default="loaded", compare=False)
    loaded_at: datetime | None = field(default=None, compare=False)
    number: int | None = field(default=None, compare=False)
    lake_sha256: str | None = field(default=None, compare=False)


AnyVersion = TypeVar("AnyVersion", bound=Version)


def with_vendor_id(versions: Iterable[AnyVersion], vendor_id: str) -> list[AnyVersion]:
    """Return the versions that the vendor calls so."""
    return [version for version in versions if is_version_of(version.manifest_id, vendor_id)]


def version_id(
    vendor_id: str, content: Content, totals: Totals, known_versions: Sequence[Version]
) -> str:
    """Return the id of the version with this content, which was read and counted.

    It is the vendor's own id for the first content that was known under it, and has the digest of
    the content after it for every other. `known_versions` are the versions under the vendor's id.
    """
    ids = (
        version.manifest_id for version in known_versions if version.has_content(content, totals)
    )
    return next(ids, f"{vendor_id}+{content.digest}" if known_versions else vendor_id)


def _amounts(texts: Mapping[str, Any] | None) -> dict[str, Decimal] | None:
    return None if texts is None else {name: Decimal(text) for name, text in texts.items()}


def _texts(amounts: Mapping[str, Decimal] | None) -> dict[str, str] | None:
    return None if amounts is None else {name: decimal_text(amounts[name]) for name in amounts}
