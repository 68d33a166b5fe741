"""One file a vendor format; a new format is a new file and a line in `formats_of`."""

from __future__ import annotations

from typing import Literal, Protocol

from finops_dagster.billing.columns import Naming, SqlType
from finops_dagster.billing.manifest import Manifest, Source
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.sources.aws.cur2 import AwsCur2
from finops_dagster.sources.aws.focus import AwsFocus

NameStyle = Literal["flat", "athena"]
# What a column of money is called that a vendor adds after its format was written here.
_MONEY_ENDINGS = ("cost", "fee", "discount")


class VendorFormat(Naming, Protocol):
    """What the chain must know of an export's format. Columns are those of the table."""

    vendor: str
    """The vendor's name in the settings."""
    name: str
    """The format's name in the settings."""
    null_words: tuple[str, ...]
    """What a CSV cell says for no value, beside nothing at all."""
    cost: str
    """The column that a month's total is the sum of."""
    money: frozenset[str]
    """The known columns of amounts of money."""
    billing_period: str
    """The column that says which month a row belongs to."""
    usage_start: str
    """The column that says when a row's usage began."""
    service: str
    """The column that names the service."""
    currency: str
    """The column that names the currency of the cost."""
    invoice: str
    """The column with the id of the invoice, empty until the vendor has written it."""

    def home(self, prefix: str, export_name: str) -> str:
        """The folder whose folders are the months, without a slash at its end."""
        ...

    def manifest_keys(self, home: str, export_name: str, month: BillingMonth) -> tuple[str, ...]:
        """Where the month's current manifest may lie, the likeliest place first."""
        ...

    def parse_manifest(self, body: bytes, source: Source, month: BillingMonth) -> Manifest:
        """Read a manifest. Raises ManifestInvalid, which names where it lies."""
        ...

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """The type of a column, from what is known of it or else from the vendor's word; None where
        the file itself is to say."""
        ...


def is_money(vendor: VendorFormat, column: str) -> bool:
    """Whether a column of numbers holds amounts of money, which are exact. Other numbers are
    quantities, factors, ratios and rates, whose 19th decimal no bill depends on."""
    return column in vendor.money or column.endswith(_MONEY_ENDINGS)


def formats_of(vendor: str, column_names: NameStyle) -> dict[str, VendorFormat]:
    """The formats in which the vendor exports, by their names."""
    formats: dict[str, tuple[VendorFormat, ...]] = {
        "aws": (AwsCur1(column_names), AwsCur2(), AwsFocus()),
    }
    return {one.name: one for one in formats[vendor]}
