"""The protocols of a vendor: its source and its formats."""

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

# Endings of the names of money columns that a vendor adds after its format was written here.
_MONEY_ENDINGS = ("cost", "fee", "discount")

ManifestOrError = Manifest | BillError | StoreError | StoreUnavailable
"""The manifest of a month's newest version, or the error why there is none."""


class Format(Naming, Protocol):
    """The columns of an export and how their cells read; attributes are column names."""

    vendor: str  # the vendor's name in the settings
    name: str  # the format's name in settings and records
    null_words: tuple[str, ...]  # the texts for NULL in CSV, beside the empty cell
    time_format: str | None  # of times in CSV, for strptime: `%m/%d/%Y`; None for ISO 8601
    cost: str  # the headline cost
    money: frozenset[str]  # the known money columns
    billing_period: str  # the start of the month that a row belongs to
    usage_start: str
    service: str
    account: str  # the account that used the service
    currency: str  # of the headline cost
    expects_one_currency: bool  # whether a check warns of several currencies in one month
    invoice: str  # the id of the invoice

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Return the type of a column, as documented or else as the manifest declares it.

        None where the file decides.
        """
        ...

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        """Return an SQL aggregate over a month's rows: whether the month is final.

        None where these columns do not tell.
        """
        ...


def is_money(bill_format: Format, column: str) -> bool:
    """Return whether a column of numbers is a money column.

    Other numbers are quantities, factors, ratios and rates: no bill depends on their 19th decimal.
    """
    return column in bill_format.money or column.endswith(_MONEY_ENDINGS)


class VersionFolder(Protocol):
    """The folder that the files of a version are downloaded to."""

    def fetch(self, store: ObjectStore, files: Sequence[ObjectInfo], *, force: bool = False) -> int:
        """Download and verify the files that are missing; return the number of bytes."""
        ...


@dataclass(frozen=True)
class AvailableFiles:
    """The files of a version as the store has them, in the manifest's order, and warnings."""

    files: Sequence[ObjectInfo]
    warnings: tuple[str, ...] = ()


class Source(Protocol):
    """The source of one export. A vendor without manifests makes them of the files it lists."""

    @property
    def stale_after(self) -> timedelta:
        """The age of the newest version of the month in progress at which a check warns."""
        ...

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        """Return the newest version of each month, or the error why it has none.

        Raises the store's error where every month fails.
        """
        ...

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return keys, sizes and ETags of a version's files, without reading them.

        Raises ObjectMissing.
        """
        ...

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download and verify the files that are missing, or with `force` all of them.

        Return the number of bytes. Raises FileInvalid where a file is not the manifest's, and the
        store's errors.
        """
        ...
