"""AWS Data Exports: the formats CUR 2.0 and FOCUS, which share one layout and one manifest.

AWS documents the layout, but publishes no example of a manifest. So every form is read that public
readers of these manifests know, and an error shows the fields that were found.
https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import md5
from typing import Any, ClassVar

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import excerpt
from finops_dagster.billing.manifest import ListedColumn, ListedFile
from finops_dagster.sources.aws.cur1 import KNOWN_MONEY, KNOWN_QUANTITIES, KNOWN_TIME, athena_name
from finops_dagster.sources.aws.format import AwsFormat, ManifestJson, typed_column
from finops_dagster.sources.focus import COSTS as FOCUS_COSTS
from finops_dagster.sources.focus import FocusColumns

_DECLARED_TYPES = {
    **dict.fromkeys(("string", "varchar", "boolean"), SqlType.TEXT),
    **dict.fromkeys(("double", "float", "decimal", "bigint", "int"), SqlType.MONEY),
    **dict.fromkeys(("timestamp", "date"), SqlType.TIME),
}
# The fields of a file's key that public readers look for, the full address first.
_KEY_FIELDS = "s3Uri uri url key s3Key fileKey filePath path relativePath".split()
_VERSION_FOLDER = re.compile(r"\d{4}-?\d\d-?\d\dT")


class DataExport(AwsFormat):
    """An export of AWS Data Exports.

    Every refresh rewrites `<prefix>/<export>/metadata/BILLING_PERIOD=2024-01/<name>-Manifest.json`
    last; the files lie below `<prefix>/<export>/data/`. `known_types` are those of the columns that
    AWS documents.
    """

    id_fields, file_list_fields = ("executionId", "assemblyId"), ("dataFiles", "reportKeys")
    subfolder = "metadata"
    # AWS's page writes the month's folder in capitals; customers have it in lower case too. The
    # same page names the manifest in two ways.
    manifest_paths = tuple(
        f"{period}={{month}}/{manifest}"
        for period in ("BILLING_PERIOD", "billing_period")
        for manifest in ("{name}-Manifest.json", "Manifest.json")
    )

    def vendor_id(self, document: ManifestJson, keys: Sequence[str], body: bytes) -> str:
        """Return the id in the manifest, else the version's folder, else the manifest's MD5.

        The MD5 is the ETag that S3 gives the manifest, and stays when the bucket is copied.
        """
        if any(document.fields.get(name) is not None for name in self.id_fields):
            return super().vendor_id(document, keys, body)
        folders = {key.split("/")[-2] for key in keys}
        if len(folders) == 1 and _VERSION_FOLDER.match(folder := folders.pop()):
            return folder
        return md5(body, usedforsecurity=False).hexdigest()

    def columns(self, document: ManifestJson, keys: Sequence[str]) -> list[ListedColumn]:  # noqa: ARG002
        """Return the listed columns, whose headers are the same in CSV and in Parquet."""
        return [_column(document, column) for column in document.columns()]

    def listed_file(self, document: ManifestJson, entry: Any) -> ListedFile:
        """Return the file of an entry: a key, or an object with a key and perhaps a size.

        Its key is below the folder `data` beside the manifest's `metadata`, whatever prefix the
        entry has. A name without a folder is in the data folder of the month, spelled as the
        manifest's. Raises ManifestInvalid for any other entry.
        """
        size = None
        if isinstance(entry, dict):
            size = entry.get("size")
            entry = next((entry[field] for field in _KEY_FIELDS if entry.get(field)), entry)
        key = document.object_key(entry)
        root, _, month_folder, _ = document.source.key.rsplit("/", 3)
        if "/" not in entry:
            key = f"{month_folder}/{key}"
        name = f"BILLING_PERIOD={document.month}"
        folder, path = document.split_key(key, f"(?i:{name})", name)
        # `true` is an int in Python, and no size.
        return ListedFile(f"{root}/data/{folder}/{path}", size if type(size) is int else None)

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Return the documented type of a column, else the declared one; None if none is known."""
        declared_type = (declared or "").lower()
        if self.column(header) in self.known_types:
            return self.known_types[self.column(header)]
        if declared_type.startswith("map"):
            return SqlType.MONEY_MAP if "double" in declared_type else SqlType.TEXT_MAP
        return _DECLARED_TYPES.get(declared_type.partition("(")[0])


def _column(document: ManifestJson, column: Any) -> ListedColumn:
    """Return a column that is listed by its name, or by an object with its name and type."""
    if isinstance(column, str):
        return ListedColumn(column)
    if not isinstance(column, dict) or not isinstance(column.get("name"), str):
        raise document.invalid(f": {excerpt(column)} in columns has no name")
    return typed_column(column["name"], column)


class AwsCur2(DataExport):
    """CUR 2.0: the columns of CUR v1 under Athena's names.

    Products, tags, cost categories and discounts are maps. The query of the export decides which
    columns there are.
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
        """Return text for a column `product_...`; for others the documented or declared type.

        None if neither is known.
        """
        # Public table definitions declare other types for some of them.
        is_of_product = self.column(header).startswith("product_")
        return SqlType.TEXT if is_of_product else super().sql_type(header, declared)


class AwsFocus(FocusColumns, DataExport):
    """FOCUS 1.0 and 1.2 as AWS exports them; the versions differ in their columns alone.

    Headers are PascalCase.
    https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-0-aws.html
    """

    name, title = "focus", "FOCUS"
    null_words = ("NULL",)  # as in the sample data of the specification
    money = frozenset({*FOCUS_COSTS, "x_discounts"})
    known_types: ClassVar[dict[str, SqlType]] = {
        **FocusColumns.known_types,
        "x_costcategories": SqlType.TEXT_MAP,
        "x_discounts": SqlType.MONEY_MAP,
    }
