"""AWS Data Exports, CUR 2.0 and FOCUS: one layout and manifest, whichever table they export.

The layout is documented; of manifests there is no public specimen, so every form that public
readers of them know is taken, and what fits none is shown as it was found.
https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import md5
from typing import Any, ClassVar

from finops_dagster.billing.columns import SqlType, flat_name
from finops_dagster.billing.errors import excerpt
from finops_dagster.billing.manifest import Column, ListedFile
from finops_dagster.sources.aws.cur1 import KNOWN_MONEY, KNOWN_QUANTITIES, KNOWN_TIME, athena_name
from finops_dagster.sources.aws.format import AwsFormat, ManifestJson, typed_column

_DECLARED_TYPES = {
    **dict.fromkeys(("string", "varchar", "boolean"), SqlType.TEXT),
    **dict.fromkeys(("double", "float", "decimal", "bigint", "int"), SqlType.MONEY),
    **dict.fromkeys(("timestamp", "date"), SqlType.TIME),
}
# What public readers look for in a file that is listed as an object, the whole address first.
_KEY_FIELDS = "s3Uri uri url key s3Key fileKey filePath path relativePath".split()
_VERSION_FOLDER = re.compile(r"\d{4}-?\d\d-?\d\dT")


class DataExport(AwsFormat):
    """An export of AWS Data Exports.

    Every refresh rewrites `<prefix>/<export>/metadata/BILLING_PERIOD=2024-01/<name>-Manifest.json`
    last; the files lie below `<prefix>/<export>/data/`. `known_types` are those of the columns that
    AWS documents.
    """

    id_fields, file_list_fields = ("executionId", "assemblyId"), ("dataFiles", "reportKeys")
    folder = "metadata"
    # AWS's page writes the month in capitals, its customers have it in small letters too; the same
    # page names the manifest in two ways.
    manifest_paths = tuple(
        f"{period}={{month}}/{manifest}"
        for period in ("BILLING_PERIOD", "billing_period")
        for manifest in ("{name}-Manifest.json", "Manifest.json")
    )
    known_types: ClassVar[dict[str, SqlType]]

    def version(self, document: ManifestJson, keys: Sequence[str], body: bytes) -> str:
        """Return the id that the manifest has, or else the folder that AWS makes for each version,
        or else the MD5 of the manifest, which is the ETag that S3 gives it and stays when it is
        copied."""
        if any(document.fields.get(name) is not None for name in self.id_fields):
            return super().version(document, keys, body)
        folders = {key.split("/")[-2] for key in keys}
        if len(folders) == 1 and _VERSION_FOLDER.match(folder := folders.pop()):
            return folder
        return md5(body, usedforsecurity=False).hexdigest()

    def columns(self, document: ManifestJson, keys: Sequence[str]) -> list[Column]:  # noqa: ARG002
        return [_column(document, column) for column in document.columns()]

    def file(self, document: ManifestJson, listed: Any) -> ListedFile:
        """A file is listed as a text or as an object that says more. A name alone lies in the
        month's folder of data, which is spelled as that of the manifest."""
        size = None
        if isinstance(listed, dict):
            size = listed.get("size")
            listed = next((listed[field] for field in _KEY_FIELDS if listed.get(field)), listed)
        key = document.key_of(listed)
        root, _, month_folder, _ = document.source.key.rsplit("/", 3)
        if "/" not in listed:
            key = f"{month_folder}/{key}"
        folder, rest = document.split(key, f"(?i:billing_period)={document.month}")
        return ListedFile(f"{root}/data/{folder}/{rest}", size if type(size) is int else None)

    def column(self, header: str) -> str:
        """AWS's own name in lower case."""
        return flat_name(header)

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """What is known of the column, or else what the manifest says."""
        declared_type = (declared or "").lower()
        if self.column(header) in self.known_types:
            return self.known_types[self.column(header)]
        if declared_type.startswith("map"):
            return SqlType.MONEY_MAP if "double" in declared_type else SqlType.TEXT_MAP
        return _DECLARED_TYPES.get(declared_type.partition("(")[0])


def _column(document: ManifestJson, column: Any) -> Column:
    """A column, listed as a text or as an object that says more."""
    if isinstance(column, str):
        return Column(column)
    if not isinstance(column, dict) or not isinstance(column.get("name"), str):
        raise document.invalid(f": {excerpt(column)} in columns has no name")
    return typed_column(column["name"], column)


class AwsCur2(DataExport):
    """CUR 2.0: the columns of CUR v1 under Athena's names, with maps for products, tags, cost
    categories and discounts; the query of the export decides which of them there are.
    https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html
    """

    name, title = "cur2", "CUR 2.0"
    cost = "line_item_unblended_cost"
    money = frozenset({*map(athena_name, KNOWN_MONEY), "discount"})
    billing_period = "bill_billing_period_start_date"
    usage_start = "line_item_usage_start_date"
    service = "line_item_product_code"
    account = "line_item_usage_account_id"
    currency = "line_item_currency_code"
    invoice = "bill_invoice_id"
    known_types: ClassVar[dict[str, SqlType]] = {
        **dict.fromkeys(map(athena_name, KNOWN_MONEY | KNOWN_QUANTITIES), SqlType.MONEY),
        **dict.fromkeys(map(athena_name, KNOWN_TIME), SqlType.TIME),
        **dict.fromkeys(["resource_tags", "product", "cost_category", "tags"], SqlType.TEXT_MAP),
        "discount": SqlType.MONEY_MAP,
    }

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Of a product all is text, whatever public table definitions make of it."""
        is_of_product = self.column(header).startswith("product_")
        return SqlType.TEXT if is_of_product else super().sql_type(header, declared)


_FOCUS_COSTS = "billedcost contractedcost effectivecost listcost pricingcurrencyeffectivecost"
_FOCUS_PRICES_AND_QUANTITIES = (
    "contractedunitprice listunitprice pricingcurrencycontractedunitprice "
    "pricingcurrencylistunitprice commitmentdiscountquantity consumedquantity pricingquantity"
)
_FOCUS_TIMES = "billingperiodstart billingperiodend chargeperiodstart chargeperiodend"


class AwsFocus(DataExport):
    """FOCUS 1.0 and 1.2 as AWS exports them, which differ in their columns alone: PascalCase, which
    the table has in lower case.

    `BilledCost` adds up to the invoice, `EffectiveCost` spreads prepaid cost over its use; the two
    are never to be added.
    https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-0-aws.html
    """

    name, title = "focus", "FOCUS"
    null_words = ("NULL",)  # so the specification's own sample data
    cost = "billedcost"
    money = frozenset({*_FOCUS_COSTS.split(), "x_discounts"})
    billing_period = "billingperiodstart"
    usage_start = "chargeperiodstart"
    service = "servicename"
    account = "subaccountid"
    currency = "billingcurrency"
    invoice = "invoiceid"
    known_types: ClassVar[dict[str, SqlType]] = {
        **dict.fromkeys(_FOCUS_COSTS.split(), SqlType.MONEY),
        **dict.fromkeys(_FOCUS_PRICES_AND_QUANTITIES.split(), SqlType.MONEY),
        **dict.fromkeys(_FOCUS_TIMES.split(), SqlType.TIME),
        **dict.fromkeys(["tags", "x_costcategories", "skupricedetails"], SqlType.TEXT_MAP),
        "x_discounts": SqlType.MONEY_MAP,
    }
