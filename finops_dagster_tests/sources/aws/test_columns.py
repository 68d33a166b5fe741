"""The names and types of AWS's columns, in CSV and in Parquet."""

from __future__ import annotations

import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.sources.aws.source import aws_formats

FORMATS = aws_formats()


@pytest.mark.parametrize(
    ("header", "flat", "athena"),
    [
        ("lineItem/UnblendedCost", "lineitem_unblendedcost", "line_item_unblended_cost"),
        (
            "reservation/ReservationARN",
            "reservation_reservationarn",
            "reservation_reservation_a_r_n",
        ),
        ("product/instanceType", "product_instancetype", "product_instance_type"),
        ("splitLineItem/SplitCost", "splitlineitem_splitcost", "split_line_item_split_cost"),
        ("resourceTags/user:cost-center", "resourcetags_user_cost_center", None),
        ("costCategory/Charge type", "costcategory_charge_type", "cost_category_charge_type"),
    ],
)
def test_a_column_has_the_same_name_in_csv_and_parquet(
    header: str, flat: str, athena: str | None
) -> None:
    athena = athena or "resource_tags_user_cost_center"
    for spelled in (header, athena):
        assert aws_formats("flat")["cur1"].column(spelled) == flat
        assert aws_formats("athena")["cur1"].column(spelled) == athena


def test_a_focus_column_is_named_in_lower_case() -> None:
    assert FORMATS["focus"].column("x_CostCategories") == "x_costcategories"


@pytest.mark.parametrize(
    ("name", "header", "declared", "expected"),
    [
        ("cur1", "lineItem/UnblendedCost", "String", SqlType.MONEY),
        ("cur1", "lineItem/UnblendedCost", None, SqlType.MONEY),
        ("cur1", "lineItem/UnblendedRate", "String", SqlType.TEXT),
        ("cur1", "lineItem/UsageStartDate", None, SqlType.TIME),
        ("cur1", "reservation/StartTime", "OptionalString", SqlType.TEXT),
        ("cur1", "pricing/somethingNew", "OptionalBigDecimal", SqlType.MONEY),
        ("cur1", "pricing/somethingNew", None, None),
        ("cur1", "identity/TimeInterval", "Interval", SqlType.TEXT),
        ("cur1", "resourceTags/user:cost", "BigDecimal", SqlType.TEXT),
        ("cur1", "costCategory/Team", "DateTime", SqlType.TEXT),
        ("cur2", "line_item_unblended_cost", "string", SqlType.MONEY),
        ("cur2", "reservation_net_upfront_value", None, SqlType.MONEY),
        ("cur2", "split_line_item_split_cost", "double", SqlType.MONEY),
        ("cur2", "line_item_unblended_rate", "string", SqlType.TEXT),
        ("cur2", "bill_billing_period_start_date", "timestamp", SqlType.TIME),
        ("cur2", "resource_tags", "string", SqlType.TEXT_MAP),
        ("cur2", "discount", "map", SqlType.MONEY_MAP),
        ("cur2", "product_operation", "double", SqlType.TEXT),
        ("cur2", "capacity_reservation_new", "map<string,double>", SqlType.MONEY_MAP),
        ("cur2", "capacity_reservation_new", "decimal(38,18)", SqlType.MONEY),
        ("cur2", "capacity_reservation_new", None, None),
        ("focus", "BilledCost", None, SqlType.MONEY),
        ("focus", "ChargePeriodStart", None, SqlType.TIME),
        ("focus", "Tags", None, SqlType.TEXT_MAP),
        ("focus", "x_Discounts", None, SqlType.MONEY_MAP),
        ("focus", "SubAccountId", None, None),
    ],
)
def test_types_come_from_the_format_first_then_from_the_manifest(
    name: str, header: str, declared: str | None, expected: SqlType | None
) -> None:
    assert FORMATS[name].sql_type(header, declared) is expected
