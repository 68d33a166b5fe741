"""The format of AWS's Cost and Usage Report v1 ("legacy CUR"), in CSV and in Parquet.

CSV is plain, GZIP or ZIP. Layout, manifest and column types are from AWS's "Understanding your
report versions" and from public manifests:
https://docs.aws.amazon.com/cur/latest/userguide/understanding-report-versions.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from finops_dagster.billing.columns import SqlType, case_distance, flat_name
from finops_dagster.billing.manifest import ListedColumn, ListedFile
from finops_dagster.sources.aws.format import AwsFormat, ManifestJson, period_folder, typed_column

_DECLARED_TYPES = {
    "BigDecimal": SqlType.MONEY,
    "DateTime": SqlType.TIME,
    "String": SqlType.TEXT,
    "Interval": SqlType.TEXT,
}


def _headers(**names: str) -> frozenset[str]:
    return frozenset(f"{family}/{name}" for family, text in names.items() for name in text.split())


# Manifests before about 2018 declare no types, and a manifest can lack a header of its files.
KNOWN_MONEY = _headers(
    lineItem="UnblendedCost BlendedCost NetUnblendedCost",
    pricing="publicOnDemandCost",
    discount="EdpDiscount PrivateRateDiscount BundledDiscount TotalDiscount",
    reservation="AmortizedUpfrontCostForUsage AmortizedUpfrontFeeForBillingPeriod EffectiveCost "
    "RecurringFeeForUsage UnusedAmortizedUpfrontFeeForBillingPeriod UnusedRecurringFee "
    "UpfrontValue NetAmortizedUpfrontCostForUsage NetAmortizedUpfrontFeeForBillingPeriod "
    "NetEffectiveCost NetRecurringFeeForUsage NetUnusedAmortizedUpfrontFeeForBillingPeriod "
    "NetUnusedRecurringFee NetUpfrontValue",
    savingsPlan="TotalCommitmentToDate UsedCommitment SavingsPlanEffectiveCost "
    "NetSavingsPlanEffectiveCost AmortizedUpfrontCommitmentForBillingPeriod "
    "NetAmortizedUpfrontCommitmentForBillingPeriod RecurringCommitmentForBillingPeriod "
    "NetRecurringCommitmentForBillingPeriod",
    splitLineItem="SplitCost UnusedCost NetSplitCost NetUnusedCost PublicOnDemandSplitCost "
    "PublicOnDemandUnusedCost",
)
KNOWN_QUANTITIES = _headers(
    lineItem="UsageAmount NormalizationFactor NormalizedUsageAmount",
    reservation="UnusedNormalizedUnitQuantity UnusedQuantity",
    splitLineItem="SplitUsage ActualUsage ReservedUsage SplitUsageRatio",
)
KNOWN_TIME = _headers(
    bill="BillingPeriodStartDate BillingPeriodEndDate", lineItem="UsageStartDate UsageEndDate"
)
# Athena's names of the families of columns; no name is the beginning of another.
_FAMILIES = (
    "bill cost_category discount iam_principal identity line_item pricing product reservation "
    "resource_tags savings_plan split_line_item"
).split()
_USER_DEFINED_FAMILIES = ("resourcetags", "costcategory", "iamprincipal")


class AwsCur1(AwsFormat):
    """CUR v1: every refresh rewrites `<report>/20240101-20240201/<report>-Manifest.json` last.

    A header in CSV is `lineItem/UnblendedCost`; in Parquet it is Athena's name of the same column,
    `line_item_unblended_cost`. Both give the same column of the table, whose name has the style
    `column_names`: `lineitem_unblendedcost` for "flat", `line_item_unblended_cost` for "athena".
    """

    name, title = "cur1", "CUR v1"
    id_fields, file_list_fields, has_billing_period = ("assemblyId",), ("reportKeys",), True
    # AWS documents a manifest beside the Parquet files too, in `month=1`; some buckets have
    # `month=01`.
    manifest_paths = (
        "{period}/{name}-Manifest.json",
        "{name}/year={month.year}/month={month.month}/{name}-Manifest.json",
        "{name}/year={month.year}/month={month.month:02}/{name}-Manifest.json",
    )

    def __init__(self, column_names: str = "flat") -> None:
        self._athena = column_names == "athena"
        self.cost = self.column("lineItem/UnblendedCost")
        self.money = frozenset(map(self.column, KNOWN_MONEY))
        self.billing_period = self.column("bill/BillingPeriodStartDate")
        self.usage_start = self.column("lineItem/UsageStartDate")
        self.service = self.column("lineItem/ProductCode")
        self.account = self.column("lineItem/UsageAccountId")
        self.currency = self.column("lineItem/CurrencyCode")
        self.invoice = self.column("bill/InvoiceId")

    def columns(self, document: ManifestJson, keys: Sequence[str]) -> list[ListedColumn]:
        """Return the listed columns, with the headers that they have in the files.

        These are Athena's names if a file of `keys` is Parquet. The list is empty if the manifest
        lists no columns. Raises ManifestInvalid for a column that lacks its category or its name.
        """
        columns = []
        is_parquet = any(key.endswith(".parquet") for key in keys)
        for number, column in enumerate(document.columns()):
            if not isinstance(column, dict) or not {"category", "name"} <= column.keys():
                raise document.invalid(f": columns[{number}] has no category or no name")
            header = f"{column['category']}/{column['name']}"
            columns.append(typed_column(athena_name(header) if is_parquet else header, column))
        return columns

    def listed_file(self, document: ManifestJson, entry: Any) -> ListedFile:
        """Return the file of an entry, which is a key; its size is not declared.

        The file's key is below the manifest's folder or the report's, whatever prefix the entry
        has. Raises ManifestInvalid for an entry that is no key below the month's folder.
        """
        # CSV lies beside the manifest, Parquet in `<report>/<report>/year=2025/month=9/`.
        month, period = document.month, period_folder(document.month)
        folder, path = document.split_key(
            document.object_key(entry), f"{period}|year={month.year}/month=0?{month.month}", period
        )
        manifest_folder = document.source.key.rpartition("/")[0]
        if folder == period or not manifest_folder.endswith(period):
            return ListedFile(f"{manifest_folder}/{path}")
        report_folder = manifest_folder.removesuffix(f"/{period}")
        report_name = report_folder.rpartition("/")[2]
        return ListedFile(f"{report_folder}/{report_name}/{folder}/{path}")

    def column(self, header: str) -> str:
        """Return the column name, in the style that the settings chose."""
        return athena_name(header) if self._athena else _flat_name(header)

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Return the documented type of a column, or else the type that the manifest declares.

        None if neither is known. Columns that customers define are text.
        """
        if self.is_user_defined(header):
            return SqlType.TEXT
        name = _flat_name(header)
        if name in _NUMBERS:
            return SqlType.MONEY
        if name in _TIMES:
            return SqlType.TIME
        return _DECLARED_TYPES.get((declared or "").removeprefix("Optional"))

    def is_user_defined(self, header: str) -> bool:
        """Return whether a header is a tag, a cost category or a principal's tag."""
        return _family_and_name(header)[0] in _USER_DEFINED_FAMILIES

    def alias_of(self, header: str, known_headers: Collection[str]) -> str | None:
        """Return the known header of the same column in the other kind of file, CSV or Parquet.

        If several match, the nearest in letter case; None if none does.
        """
        aliases = (
            other
            for other in known_headers
            if ("/" in other) != ("/" in header) and athena_name(other) == athena_name(header)
        )
        return min(aliases, key=lambda alias: (case_distance(header, alias), alias), default=None)


@cache
def athena_name(header: str) -> str:
    """Return AWS's name of a header in Athena: `lineItem/UsageType` is `line_item_usage_type`.

    An underscore comes before each capital and replaces all but letters and digits, with no two in
    a row and none at the ends.
    https://docs.aws.amazon.com/cur/latest/userguide/cur-ate-run.html
    """
    spaced = re.sub(r"([A-Z])", r"_\1", header).lower()
    return re.sub(r"[^a-z0-9]+", "_", spaced).strip("_")


def _flat_name(header: str) -> str:
    """Return `lineitem_unblendedcost` for both headers of a column, CSV's and Parquet's.

    Underscores of a tag key stay.
    """
    if "/" in header:
        return flat_name(header)
    family, name = _family_and_name(header)
    if not family:
        return flat_name(header)
    return (
        f"{family}_{flat_name(name if family in _USER_DEFINED_FAMILIES else name.replace('_', ''))}"
    )


def _family_and_name(header: str) -> tuple[str, str]:
    """Return the flat family of a column, `lineitem`, and the rest of its header."""
    if "/" in header:
        family, _, name = header.partition("/")
        return flat_name(family), name
    for family in _FAMILIES:
        if header.startswith(f"{family}_"):
            return family.replace("_", ""), header.removeprefix(f"{family}_")
    return "", header


_NUMBERS = frozenset(map(_flat_name, KNOWN_MONEY | KNOWN_QUANTITIES))
_TIMES = frozenset(map(_flat_name, KNOWN_TIME))
