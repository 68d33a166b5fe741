"""Versions of a month: their records, and the id of the version with a given content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field

from finops_dagster.billing.content import Content, is_version_of
from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.money import RoundedColumn, Totals, decimal_text
from finops_dagster.billing.months import BillingMonth

# The bytes that a ZIP has more than a gzip file of the same deflated stream: two headers with the
# file's name, a descriptor, and the end of its directory.
_ZIP_FRAME_BYTES = 1024


@dataclass(frozen=True)
class Version:
    """The record of a version in the staging folder, in the lake or in the ledger.

    `file_count` and `byte_count` are the number and total size of the vendor's files. `content` is
    None in records of releases that did not list each file, `delivery` if the vendor does not
    report its run. The staging folder stores the fields by their aliases, or else by their names.
    """

    manifest_id: str
    totals: Totals
    format: str = "cur1"
    file_count: Annotated[int, Field(alias="files")] = 0
    byte_count: Annotated[int, Field(alias="bytes")] = 0
    content: Content | None = field(default=None, compare=False)
    delivery: Delivery | None = field(default=None, compare=False, kw_only=True)

    def is_same_version(self, other: Version | None) -> bool:
        """Return whether the other record has the same version id, rows and headline cost."""
        return other is not None and (
            (self.manifest_id, self.totals) == (other.manifest_id, other.totals)
        )

    def is_unchanged(self, available: Content) -> bool:
        """Return whether the files in the store have this version's names, sizes and ETags.

        False does not prove a change: a copy of the bucket has other ETags for the same bytes. A
        record without content is compared by the number of its files and their bytes in all.
        """
        if self.content is None:
            return self._has_same_size(available)
        fields = ("name", "size", "etag")
        return self.content.file_fields(*fields) == available.file_fields(*fields)

    def matches_content(self, content: Content, totals: Totals) -> bool:
        """Return whether downloaded files with this content and these totals are this version.

        Compares names, sizes and SHA-256s; if one side lacks a SHA-256, names, sizes and totals.
        For a record without content: the number of files, their bytes in all, and totals.
        """
        if self.content is None:
            return self._has_same_size(content) and self.totals == totals
        if self.content.checksums is None or content.checksums is None:
            is_alike = self.content.file_fields("name", "size") == content.file_fields(
                "name", "size"
            )
            return is_alike and self.totals == totals
        return self.content.checksums == content.checksums

    def _has_same_size(self, content: Content) -> bool:
        """Return whether the number of files and their bytes in all agree."""
        # Earlier releases recorded the size of the gzip file that a ZIP was converted to.
        zip_files = sum(name.endswith(".zip") for name in content.names)
        excess = content.byte_count - self.byte_count
        return self.file_count == len(content.files) and 0 <= excess <= zip_files * _ZIP_FRAME_BYTES


@dataclass(frozen=True)
class LoadedVersion(Version):
    """The record of a version that the run `run_id` loaded.

    `rounded` are the columns with rounded numbers; None in records of releases that did not count
    them.
    """

    run_id: str = ""
    rounded: tuple[RoundedColumn, ...] | None = field(default=None, compare=False)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], **subclass_fields: Any) -> Self:
        """Return the version of a dict that `to_row` returned, from the ledger or a footer.

        A subclass gets its other fields as keyword arguments.
        """
        rounded = row["decimals_rounded"]
        sums, costs = (_amounts(row[name]) for name in ("money_sums", "cost_by_currency"))
        return cls(
            row["manifest_id"],
            Totals(row["row_count"], Decimal(row["total_cost"]), sums, costs),
            row["format"],
            row["file_count"],
            row["byte_count"],
            Content.from_rows(row["files"]),
            row["run_id"],
            None if rounded is None else tuple(map(RoundedColumn.from_row, rounded)),
            delivery=Delivery.from_row(row["delivery"]),
            **subclass_fields,
        )

    def to_row(self) -> dict[str, Any]:
        """Return a dict for the ledger and the footers, fit for JSON; amounts are exact text.

        The fields of subclasses, such as `Load`, are not in it.
        """
        totals = self.totals
        return {
            "manifest_id": self.manifest_id,
            "row_count": totals.rows,
            "total_cost": f"{totals.cost:f}",
            "money_sums": _texts(totals.sums),
            "cost_by_currency": _texts(totals.costs),
            "format": self.format,
            "file_count": self.file_count,
            "byte_count": self.byte_count,
            "files": self.content and self.content.to_rows(),
            "run_id": self.run_id,
            "decimals_rounded": self.rounded and [column.to_row() for column in self.rounded],
            "delivery": self.delivery and self.delivery.to_row(),
        }


@dataclass(frozen=True, kw_only=True)
class Load(LoadedVersion):
    """The record of a load of a month into the billing table.

    `state` is `loaded` or `superseded`, `loaded_at` is in UTC without a time zone, and `number`
    counts the month's loads, from 1. `lake_sha256` is the checksum of the Parquet file that was
    written from the load; None before it is written, and in records of old releases.
    """

    export: str
    month: BillingMonth
    table: str
    state: str = field(default="loaded", compare=False)
    loaded_at: datetime | None = field(default=None, compare=False)
    number: int | None = field(default=None, compare=False)
    lake_sha256: str | None = field(default=None, compare=False)


AnyVersion = TypeVar("AnyVersion", bound=Version)


def versions_with_vendor_id(versions: Iterable[AnyVersion], vendor_id: str) -> list[AnyVersion]:
    """Return the versions whose id is `vendor_id`, with or without a digest at its end."""
    return [version for version in versions if is_version_of(version.manifest_id, vendor_id)]


def version_id(
    vendor_id: str, content: Content, totals: Totals, known_versions: Sequence[Version]
) -> str:
    """Return the version id of downloaded files: that of a known version with the same content.

    Else the vendor's id, or if there are known versions, the vendor's id and a digest of the
    content. `known_versions` are all earlier versions with this vendor's id.
    """
    ids = (
        version.manifest_id
        for version in known_versions
        if version.matches_content(content, totals)
    )
    return next(ids, f"{vendor_id}+{content.digest}" if known_versions else vendor_id)


def _amounts(texts: Mapping[str, Any] | None) -> dict[str, Decimal] | None:
    return None if texts is None else {name: Decimal(text) for name, text in texts.items()}


def _texts(amounts: Mapping[str, Decimal] | None) -> dict[str, str] | None:
    return None if amounts is None else {name: decimal_text(amounts[name]) for name in amounts}
