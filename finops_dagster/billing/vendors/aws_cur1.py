"""AWS Cost and Usage Report v1 ("legacy CUR") as GZIP or plain CSV.

Layout, manifest and column types as in AWS's "Understanding your report versions" and as seen in
public manifests: https://docs.aws.amazon.com/cur/latest/userguide/understanding-report-versions.html
"""

from __future__ import annotations

import json
import re
from typing import Any

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.manifest import Column, Manifest, Source
from finops_dagster.billing.months import BillingMonth

_TYPES = {
    "BigDecimal": SqlType.MONEY,
    "OptionalBigDecimal": SqlType.MONEY,
    "DateTime": SqlType.TIME,
    "OptionalDateTime": SqlType.TIME,
}

# Manifests before about 2018 carry no types, and a header can be missing from its manifest.
_KNOWN_MONEY = frozenset(
    """
    lineItem/UsageAmount lineItem/NormalizationFactor lineItem/NormalizedUsageAmount
    lineItem/UnblendedCost lineItem/BlendedCost lineItem/NetUnblendedCost
    pricing/publicOnDemandCost
    discount/EdpDiscount discount/PrivateRateDiscount discount/BundledDiscount
    discount/TotalDiscount
    reservation/AmortizedUpfrontCostForUsage reservation/AmortizedUpfrontFeeForBillingPeriod
    reservation/EffectiveCost reservation/RecurringFeeForUsage
    reservation/UnusedAmortizedUpfrontFeeForBillingPeriod reservation/UnusedNormalizedUnitQuantity
    reservation/UnusedQuantity reservation/UnusedRecurringFee reservation/UpfrontValue
    reservation/NetAmortizedUpfrontCostForUsage reservation/NetEffectiveCost
    reservation/NetAmortizedUpfrontFeeForBillingPeriod reservation/NetRecurringFeeForUsage
    reservation/NetUnusedAmortizedUpfrontFeeForBillingPeriod
    reservation/NetUnusedRecurringFee reservation/NetUpfrontValue
    savingsPlan/TotalCommitmentToDate savingsPlan/UsedCommitment
    savingsPlan/SavingsPlanEffectiveCost savingsPlan/NetSavingsPlanEffectiveCost
    savingsPlan/AmortizedUpfrontCommitmentForBillingPeriod
    savingsPlan/NetAmortizedUpfrontCommitmentForBillingPeriod
    savingsPlan/RecurringCommitmentForBillingPeriod
    savingsPlan/NetRecurringCommitmentForBillingPeriod
    splitLineItem/SplitUsage splitLineItem/ActualUsage splitLineItem/ReservedUsage
    splitLineItem/SplitUsageRatio splitLineItem/SplitCost splitLineItem/UnusedCost
    splitLineItem/NetSplitCost splitLineItem/NetUnusedCost
    splitLineItem/PublicOnDemandSplitCost splitLineItem/PublicOnDemandUnusedCost
    """.split()
)
_KNOWN_TIME = frozenset(
    """
    bill/BillingPeriodStartDate bill/BillingPeriodEndDate
    lineItem/UsageStartDate lineItem/UsageEndDate
    """.split()
)
_FREE_TEXT = ("resourceTags/", "costCategory/", "iamPrincipal/")

# The id becomes the name of a folder; AWS writes a UUID or a timestamp.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class AwsCur1:
    """CUR v1, whose `<prefix>/<report>/20240101-20240201/<report>-Manifest.json` every refresh
    rewrites last."""

    cost = "lineItem/UnblendedCost"
    billing_period = "bill/BillingPeriodStartDate"
    usage_start = "lineItem/UsageStartDate"
    service = "lineItem/ProductCode"

    def manifest_key(self, prefix: str, export_name: str, month: BillingMonth) -> str:
        """The month's top-level manifest, which AWS overwrites last of all files of a refresh."""
        folders = [export_name, _period_folder(month), f"{export_name}-Manifest.json"]
        return "/".join([prefix, *folders] if prefix else folders)

    def parse_manifest(self, body: bytes, source: Source, month: BillingMonth) -> Manifest:
        """Read a manifest; its files are resolved beside it."""
        location = source.location
        document = _document(body, location)
        version = _text(document, "assemblyId", location)
        if not _SAFE_ID.fullmatch(version):
            raise ManifestInvalid(f"{location}: assemblyId {version!r} is no usable version name")
        _require_month(document, month, location)
        compression = str(document.get("compression", "GZIP")).upper()
        if compression not in ("GZIP", "NONE", ""):
            raise ManifestInvalid(
                f"{location}: compression {document['compression']!r} is not read; "
                "set the report to GZIP"
            )
        return Manifest(
            month=str(month),
            id=version,
            source=source,
            account=str(document["account"]) if document.get("account") else None,
            columns=_columns(document, location),
            files=tuple(
                _resolved(report_key, source, month)
                for report_key in _list(document, "reportKeys", location)
            ),
        )

    def sql_type(self, header: str, declared: str | None) -> SqlType:
        """Tags are text, costs money and dates times whatever the manifest says; it decides the
        rest."""
        if self.is_free_text(header):
            return SqlType.TEXT
        if header in _KNOWN_MONEY:
            return SqlType.MONEY
        if header in _KNOWN_TIME:
            return SqlType.TIME
        return _TYPES.get(declared or "", SqlType.TEXT)

    def is_free_text(self, header: str) -> bool:
        """Tag keys and cost category names are the customer's own."""
        return header.startswith(_FREE_TEXT)


def _period_folder(month: BillingMonth) -> str:
    return f"{month.first_day:%Y%m%d}-{month.next.first_day:%Y%m%d}"


def _document(body: bytes, location: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise ManifestInvalid(f"{location} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestInvalid(f"{location} is not a JSON object but a {type(document).__name__}")
    return document


def _text(document: dict[str, Any], key: str, location: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise ManifestInvalid(f"{location} has no {key}; is it a CUR v1 manifest?")
    return value


def _list(document: dict[str, Any], key: str, location: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise ManifestInvalid(f"{location} has no list of {key}; is it a CUR v1 manifest?")
    return value


def _require_month(document: dict[str, Any], month: BillingMonth, location: str) -> None:
    """AWS writes the period as `20250901T000000.000Z`, which is not ISO: its digits count."""
    period = document.get("billingPeriod")
    start = period.get("start") if isinstance(period, dict) else None
    if re.sub(r"\D", "", str(start))[:8] != f"{month.first_day:%Y%m%d}":
        raise ManifestInvalid(
            f"{location}: billingPeriod.start is {start!r}, expected the first day of {month}"
        )


def _columns(document: dict[str, Any], location: str) -> tuple[Column, ...]:
    columns = []
    for number, column in enumerate(_list(document, "columns", location)):
        if not isinstance(column, dict) or "category" not in column or "name" not in column:
            raise ManifestInvalid(f"{location}: columns[{number}] has no category and name")
        columns.append(Column(f"{column['category']}/{column['name']}", column.get("type")))
    return tuple(columns)


def _resolved(report_key: Any, source: Source, month: BillingMonth) -> str:
    """The key of a file in the store that holds the manifest.

    A replicated or renamed bucket keeps the original keys in its manifests, so what counts is the
    part after the month's folder, beside the manifest itself.
    """
    location = source.location
    if not isinstance(report_key, str) or not report_key:
        raise ManifestInvalid(f"{location}: reportKeys holds {report_key!r}, which is no key")
    if "\0" in report_key or ".." in report_key.split("/"):
        raise ManifestInvalid(f"{location}: reportKeys holds {report_key!r}, which leads elsewhere")
    _, folder, rest = report_key.rpartition(f"{_period_folder(month)}/")
    if not folder:
        raise ManifestInvalid(
            f"{location}: reportKeys holds {report_key!r}, which is not below the month's folder "
            f"{_period_folder(month)}/"
        )
    return source.key.rpartition("/")[0] + "/" + rest
