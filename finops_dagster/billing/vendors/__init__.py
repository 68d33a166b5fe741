"""One file a vendor format; a new format is a new file and a line in FORMATS."""

from __future__ import annotations

from typing import Protocol

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.manifest import Manifest, Source
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.vendors.aws_cur1 import AwsCur1


class VendorFormat(Protocol):
    """What the chain must know of an export's format."""

    cost: str
    """Header of the column that a month's total is the sum of."""
    billing_period: str
    """Header of the column that says which month a row belongs to."""
    usage_start: str
    """Header of the column that says when a row's usage began."""
    service: str
    """Header of the column that names the service."""

    def manifest_key(self, prefix: str, export_name: str, month: BillingMonth) -> str:
        """Where the month's current manifest lies."""
        ...

    def parse_manifest(self, body: bytes, source: Source, month: BillingMonth) -> Manifest:
        """Read a manifest. Raises ManifestInvalid, which names where it lies."""
        ...

    def sql_type(self, header: str, declared: str | None) -> SqlType:
        """The type of a column, from the vendor's word where it gives one."""
        ...

    def is_free_text(self, header: str) -> bool:
        """Whether the vendor's customer chose the name, so that letter case tells two apart."""
        ...


FORMATS: dict[tuple[str, str], VendorFormat] = {("aws", "cur1"): AwsCur1()}
