"""The protocols of a vendor: its source and its formats."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Protocol

from finops_dagster.billing.columns import Naming, Sql, SqlType, flat_name, quoted
from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreError, StoreUnavailable

# Endings of the names of money columns that a vendor adds after its format was written here.
_MONEY_ENDINGS = ("cost", "fee", "discount")

ManifestOrError = Manifest | BillError | StoreError | StoreUnavailable
"""The manifest of a month's newest version, or the error that says why there is none."""


class Format(Naming, Protocol):
    """The columns of an export, and how to read their cells."""

    vendor: str  # the vendor's name in the settings
    name: str  # the format's name in settings and records
    null_words: tuple[str, ...]  # the texts for NULL in CSV, beside the empty cell
    # Of times in CSV, for strptime: `%m/%d/%Y`. A file has times of one format, or of ISO 8601.
    time_formats: tuple[str, ...]
    expects_one_currency: bool  # whether a check warns of several currencies in one month
    money: frozenset[str]  # the names of the known money columns

    # The names of single columns, which a version may lack.
    cost: str  # the headline cost
    billing_period: str  # the start of the month that a row belongs to
    usage_start: str
    service: str
    account: str  # the account that used the service
    currency: str  # of the headline cost
    invoice: str  # the id of the invoice

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Return the documented type of a column, else the type that the manifest declares.

        None if neither is known: then the type in the file counts. `declared` is the vendor's word.
        """
        ...

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        """Return an SQL aggregate over a month's rows that is true if the month is final.

        Its value is NULL if the rows do not show whether it is. None is returned in place of SQL if
        `columns`, those of the table, lack one that it needs.
        """
        ...


class FixedFormat(Format, Protocol):
    """A format whose headers the vendor chooses, and that are the same in every kind of file."""

    known_types: ClassVar[Mapping[str, SqlType]] = {}  # of the documented columns

    def column(self, header: str) -> str:
        """Return the header in lower case, with `_` for each character except a-z and 0-9."""
        return flat_name(header)

    def is_user_defined(self, header: str) -> bool:
        """Return False: tags are keys of a map."""
        return False

    def alias_of(self, header: str, known_headers: Collection[str]) -> str | None:
        """Return None: headers in CSV and in Parquet are the same."""
        return None

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Return the documented type of a column, else None; `declared` is ignored."""
        return self.known_types.get(self.column(header))


def is_money(bill_format: Format, column: str) -> bool:
    """Return whether a column of numbers has amounts of money, by its name in the table.

    These are the format's money columns, and all names that end in `cost`, `fee` or `discount`.
    Other numbers are quantities, factors, ratios and rates, which may be rounded to 18 decimals.
    """
    return column in bill_format.money or column.endswith(_MONEY_ENDINGS)


def every_cost_has_invoice(cost: str, invoice: str, columns: Collection[str]) -> Sql | None:
    """Return an SQL aggregate that is true if every row with a cost other than 0 has an invoice id.

    It is false if no row has an id. Vendors write the ids when they close the month. `cost` and
    `invoice` are names of columns; None if `columns`, those of the table, lack one of them.
    """
    if not {cost, invoice} <= set(columns):
        return None
    return Sql(
        f"count({quoted(invoice)}) > 0 AND count(*) FILTER "
        f"({quoted(cost)} <> 0 AND coalesce({quoted(invoice)}, '') = '') = 0"
    )


class VersionFolder(Protocol):
    """The folder to which the files of a version are downloaded."""

    def fetch(self, store: ObjectStore, files: Sequence[ObjectInfo], *, force: bool = False) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        `files` are all files of the version, in the manifest's order. Each download is verified. A
        file that the store has deleted is no error if the folder has an intact copy. Raises
        FileInvalid if a file is damaged or the files inflate too far, and the store's errors.
        """
        ...


@dataclass(frozen=True)
class AvailableFiles:
    """The files of a version in the store, in the manifest's order, and warnings about them."""

    files: Sequence[ObjectInfo]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SharedFiles:
    """The files of an export that months share, with the months of their rows.

    The key of each file is in `contents` or, if its months cannot be read, in `problems`.
    `recorded` has, by month, the shared files of the version that is loaded and of the newest one
    that was staged; also those that the store no longer has.
    """

    contents: Mapping[str, FileContent]
    problems: Mapping[str, BillError]
    recorded: Mapping[BillingMonth, Content]


class SharedFilesReader(Protocol):
    """Finds the months of the rows in files that months share."""

    def read(
        self, store: ObjectStore, folder: str, files: Sequence[ObjectInfo], bill_format: Format
    ) -> SharedFiles:
        """Return the months of the rows of each file of an export.

        `files` must be all files of the export; they are below `folder`. Only new files are
        downloaded and read: those whose path below the folder, size or ETag is not known yet. A
        file that cannot be read is in the result's `problems`, with the reason. Raises the store's
        errors.
        """
        ...


class Source(Protocol):
    """The source of one export.

    Where the vendor has no manifests, the source builds them from its list of files.
    """

    @property
    def max_manifest_age(self) -> timedelta:
        """How old the newest manifest of the month in progress may be before a check warns."""
        ...

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        """Return the newest manifest of each month, or an error as its value.

        Each of `months` is a key. The error is ManifestMissing, ManifestInvalid or the store's,
        which is raised if the store fails for all months.
        """
        ...

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return keys, sizes and ETags of a version's files, without reading the files.

        A file that months share and that the store has deleted is returned as it was when it was
        read, with a warning. Raises ObjectMissing if any other file is missing, FileInvalid if the
        source can see that one has changed since the manifest was read, and the store's errors.
        """
        ...

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        `available` is the result of `available_files`. Files are verified, and downloaded into
        `folder`. Raises FileInvalid if a file is damaged or not the manifest's, and the store's
        errors.
        """
        ...
