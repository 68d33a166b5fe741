"""What all formats of AWS have in common: their columns, and where a month's manifest lies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import Protocol

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.manifest import Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.base import Format


class AwsFormat(Format, Protocol):
    """A format whose months have a manifest each."""

    vendor: str = "aws"
    null_words: tuple[str, ...] = ()
    time_format: str | None = None
    has_one_currency: bool = True

    @abstractmethod
    def home(self, prefix: str, export_name: str) -> str:
        """Return the folder whose folders are the months, without a slash at its end."""

    @abstractmethod
    def manifest_keys(self, home: str, export_name: str, month: BillingMonth) -> tuple[str, ...]:
        """Return where the month's current manifest may lie, the likeliest place first."""

    @abstractmethod
    def parse_manifest(self, body: bytes, source: ManifestFile, month: BillingMonth) -> Manifest:
        """Read a manifest; its files are resolved beside it, wherever the bucket was copied to.
        Raises ManifestInvalid, which names where it lies."""

    def is_free_text(self, header: str) -> bool:
        """AWS chooses the names; tags are keys of a map."""
        return False

    def other_spelling(self, header: str, known: Collection[str]) -> str | None:
        """CSV and Parquet have the same names."""
        return None

    def is_final(self, columns: Collection[str]) -> Sql | None:
        """A month is closed when every row that costs has its invoice's id.
        https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2-bill.html
        """
        if not {self.cost, self.invoice} <= set(columns):
            return None
        cost, invoice = quoted(self.cost), quoted(self.invoice)
        return Sql(
            f"count({invoice}) > 0 AND "
            f"count(*) FILTER ({cost} <> 0 AND coalesce({invoice}, '') = '') = 0"
        )
