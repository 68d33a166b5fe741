"""AWS CUR 2.0: a Data Export whose columns are those of CUR v1 under Athena's names, with maps for
products, tags, cost categories and discounts.

https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html
"""

from __future__ import annotations

from typing import ClassVar

from finops_dagster.billing.columns import SqlType
from finops_dagster.sources.aws.cur1 import (
    KNOWN_MONEY,
    KNOWN_QUANTITIES,
    KNOWN_TIME,
    athena_name,
)
from finops_dagster.sources.aws.data_exports import DataExport


class AwsCur2(DataExport):
    """CUR 2.0; the query of the export decides which of its columns there are."""

    name = "cur2"
    title = "CUR 2.0"
    cost = "line_item_unblended_cost"
    money = frozenset({*map(athena_name, KNOWN_MONEY), "discount"})
    billing_period = "bill_billing_period_start_date"
    usage_start = "line_item_usage_start_date"
    service = "line_item_product_code"
    account = "line_item_usage_account_id"
    currency = "line_item_currency_code"
    invoice = "bill_invoice_id"
    types: ClassVar[dict[str, SqlType]] = {
        **dict.fromkeys(map(athena_name, KNOWN_MONEY | KNOWN_QUANTITIES), SqlType.MONEY),
        **dict.fromkeys(map(athena_name, KNOWN_TIME), SqlType.TIME),
        **dict.fromkeys(["resource_tags", "product", "cost_category", "tags"], SqlType.TEXT_MAP),
        "discount": SqlType.MONEY_MAP,
    }

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """Of a product all is text, whatever public table definitions make of it."""
        is_of_product = self.column(header).startswith("product_")
        return SqlType.TEXT if is_of_product else super().sql_type(header, declared)
