"""What a source of charges is: which version each month has, and bringing one here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from finops_dagster.billing.columns import Naming, Sql, SqlType
from finops_dagster.billing.content import Content, FileContent, relative_names
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreError, StoreUnavailable

# What a column of money is called that a vendor adds after its format was written here.
_MONEY_ENDINGS = ("cost", "fee", "discount")

Version = Manifest | BillError | StoreError | StoreUnavailable
"""The newest version of a month, or why there is none to be had."""


class Format(Naming, Protocol):
    """The columns of an export, and how their cells read. Columns are those of the table."""

    vendor: str  # the vendor's name in the settings
    name: str  # the format's name there and in manifests
    null_words: tuple[str, ...]  # what a CSV cell says for no value, beside nothing at all
    time_format: str | None  # of times in CSV, as strptime has it: `%m/%d/%Y`; None for ISO 8601
    cost: str  # the headline cost, of which a month's total is the sum
    money: frozenset[str]  # the known columns of amounts of money
    billing_period: str  # says which month a row belongs to
    usage_start: str
    service: str
    account: str  # the account that used the service
    currency: str  # of the headline cost
    has_one_currency: bool  # whether several in one month are worth a look
    invoice: str  # the id of the invoice

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Return the type of a column, from what is known of it or else from the vendor's word;
        None where the file itself is to say."""
        ...

    def is_final(self, columns: Collection[str]) -> Sql | None:
        """Return the SQL of whether a month's rows are the vendor's last word, an aggregate over
        them; None where a table with these columns cannot tell."""
        ...


def is_money(vendor: Format, column: str) -> bool:
    """Whether a column of numbers holds amounts of money, which are exact. Other numbers are
    quantities, factors, ratios and rates, whose 19th decimal no bill depends on."""
    return column in vendor.money or column.endswith(_MONEY_ENDINGS)


def content_of(manifest: Manifest, files: Iterable[ObjectInfo]) -> Content:
    """Return the content of a manifest's files, given in its order as the store has them, as far as
    it is known before they are read: without checksums."""
    names = relative_names([file.key for file in manifest.files])
    return Content.of(
        FileContent(name, file.size, etag=file.etag)
        for name, file in zip(names, files, strict=True)
    )


class VersionFolder(Protocol):
    """Where the files of a version are downloaded to and verified."""

    def fetch(
        self, store: ObjectStore, available: Sequence[ObjectInfo], *, force: bool = False
    ) -> int:
        """Download what is not here yet, and return the number of bytes that took."""
        ...


@dataclass(frozen=True)
class Fetched:
    """What was done for a version: where it `is_known`, nothing, as the source has the content that
    was known; else so many `bytes` were downloaded, and all files lie in the folder, verified."""

    is_known: bool
    bytes: int = 0
    warnings: tuple[str, ...] = ()


class Source(Protocol):
    """One export's charges. A vendor without manifests makes one of what it lists."""

    @property
    def formats(self) -> Mapping[str, Format]:
        """The formats in which its months may come, by their names in manifests."""
        ...

    @property
    def stale_after(self) -> timedelta:
        """How old the newest version of the month in progress is when delivery has stopped."""
        ...

    def versions(self, months: Iterable[BillingMonth]) -> dict[BillingMonth, Version]:
        """Return the newest version of every month, or why it has none: many at once, cheaply.
        Raises the store's error where that is why none can be looked at."""
        ...

    def content(self, manifest: Manifest) -> Content:
        """Return names, sizes and ETags of a version's files, which are not read. Raises
        FileInvalid where one is missing."""
        ...

    def fetch(
        self, manifest: Manifest, folder: VersionFolder, known: Content | None, *, force: bool
    ) -> Fetched:
        """Bring the version's files here, verified, unless `known` is what the source has; with
        `force` each is brought anew. Raises FileInvalid, and what the store raises."""
        ...
