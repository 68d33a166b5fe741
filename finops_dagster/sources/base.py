"""What a source of charges is: which version each month has, and bringing one here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from finops_dagster.billing.columns import Naming, Sql, SqlType
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreError, StoreUnavailable

# What a column of money is called that a vendor adds after its format was written here.
_MONEY_ENDINGS = ("cost", "fee", "discount")

AvailableVersion = Manifest | BillError | StoreError | StoreUnavailable
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


def is_money(bill_format: Format, column: str) -> bool:
    """Whether a column of numbers holds amounts of money, which are exact. Other numbers are
    quantities, factors, ratios and rates, whose 19th decimal no bill depends on."""
    return column in bill_format.money or column.endswith(_MONEY_ENDINGS)


class VersionFolder(Protocol):
    """Where the files of a version are downloaded to and verified."""

    def fetch(
        self, store: ObjectStore, available: Sequence[ObjectInfo], *, force: bool = False
    ) -> int:
        """Download what is not here yet, and return the number of bytes that took."""
        ...


@dataclass(frozen=True)
class AvailableFiles:
    """The files of a version as the store has them, in the manifest's order, and what somebody
    should know of them."""

    files: Sequence[ObjectInfo]
    warnings: tuple[str, ...] = ()


class Source(Protocol):
    """One export's charges. A vendor without manifests makes one of what it lists."""

    @property
    def stale_after(self) -> timedelta:
        """How old the newest version of the month in progress is when delivery has stopped."""
        ...

    def versions(self, months: Iterable[BillingMonth]) -> dict[BillingMonth, AvailableVersion]:
        """Return the newest version of every month, or why it has none: many at once, cheaply.
        Raises the store's error where that is why none can be looked at."""
        ...

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return names, sizes and ETags of a version's files, which are not read. Raises
        ObjectMissing where one is gone."""
        ...

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download the files, verified, into the folder, unless they lie there already; with
        `force` each of them. Return the number of bytes. Raises FileInvalid where they are not the
        manifest's, and what the store raises."""
        ...
