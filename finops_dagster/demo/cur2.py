"""The columns of CUR 2.0, as projections of a CUR v1 bill.

A column of CUR 2.0 has Athena's name of a CUR v1 column; what v1 has a column for every product
attribute and tag for is a map here. Where v1 has nothing, as for net costs, the column is empty.
https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html
"""

from finops_dagster.billing.columns import quoted
from finops_dagster.demo.athena_names import athena_names
from finops_dagster.demo.cur1_columns import HEADERS
from finops_dagster.demo.projection import (
    Column,
    ColumnType,
    account_name,
    family_map,
    with_milliseconds,
)


def _family(category: str, names: str) -> set[str]:
    """Expand space-separated names to columns."""
    return {f"{category}_{name}" for name in names.split()}


_STRINGS = {
    *_family("identity", "line_item_id time_interval"),
    *_family(
        "bill",
        "bill_type billing_entity invoice_id invoicing_entity payer_account_id payer_account_name",
    ),
    *_family(
        "line_item",
        "availability_zone blended_rate currency_code legal_entity line_item_description"
        " line_item_type net_unblended_rate operation product_code resource_id tax_type"
        " unblended_rate usage_account_id usage_account_name usage_type",
    ),
    *_family(
        "pricing",
        "currency lease_contract_length offering_class public_on_demand_rate purchase_option"
        " rate_code rate_id term unit",
    ),
    *_family(
        "product",
        "comment fee_code fee_description from_location from_location_type from_region_code"
        " instance_family instance_type instancesku location location_type operation pricing_unit"
        " product_family region_code servicecode sku to_location to_location_type to_region_code"
        " usagetype",
    ),
    *_family(
        "reservation",
        "availability_zone end_time modification_status normalized_units_per_reservation"
        " number_of_reservations reservation_a_r_n start_time subscription_id"
        " total_reserved_normalized_units total_reserved_units units_per_reservation",
    ),
    *_family(
        "savings_plan",
        "end_time instance_type_family offering_type payment_option purchase_term region"
        " savings_plan_a_r_n start_time",
    ),
}
_DOUBLES = {
    *_family("discount", "bundled_discount total_discount"),
    *_family(
        "line_item",
        "blended_cost net_unblended_cost normalization_factor normalized_usage_amount"
        " unblended_cost usage_amount",
    ),
    *_family("pricing", "public_on_demand_cost"),
    *_family(
        "reservation",
        "amortized_upfront_cost_for_usage amortized_upfront_fee_for_billing_period effective_cost"
        " net_amortized_upfront_cost_for_usage net_amortized_upfront_fee_for_billing_period"
        " net_effective_cost net_recurring_fee_for_usage"
        " net_unused_amortized_upfront_fee_for_billing_period net_unused_recurring_fee"
        " net_upfront_value recurring_fee_for_usage"
        " unused_amortized_upfront_fee_for_billing_period unused_normalized_unit_quantity"
        " unused_quantity unused_recurring_fee upfront_value",
    ),
    *_family(
        "savings_plan",
        "amortized_upfront_commitment_for_billing_period"
        " net_amortized_upfront_commitment_for_billing_period"
        " net_recurring_commitment_for_billing_period net_savings_plan_effective_cost"
        " recurring_commitment_for_billing_period savings_plan_effective_cost savings_plan_rate"
        " total_commitment_to_date used_commitment",
    ),
}
_TIMESTAMPS = {
    *_family("bill", "billing_period_end_date billing_period_start_date"),
    *_family("line_item", "usage_end_date usage_start_date"),
}
_NAMED = {
    "bill_payer_account_name": account_name("bill/PayerAccountId"),
    "line_item_usage_account_name": account_name("lineItem/UsageAccountId"),
}
_SOURCES = {name: header for header, name in athena_names(HEADERS).items()}


def _cell(name: str) -> str:
    """Return the SQL of a column that CUR v1 has under another spelling, or has not."""
    if name in _NAMED:
        return _NAMED[name]
    if name not in _SOURCES:
        return "NULL"
    return with_milliseconds(_SOURCES[name]) if name in _TIMESTAMPS else quoted(_SOURCES[name])


# In the order of the alphabet, as in the query that AWS's dashboards are built on.
CUR2_COLUMNS = tuple(
    sorted(
        (
            *(Column(name, ColumnType.STRING, _cell(name)) for name in _STRINGS),
            *(Column(name, ColumnType.DOUBLE, _cell(name)) for name in _DOUBLES),
            *(Column(name, ColumnType.TIMESTAMP, _cell(name)) for name in _TIMESTAMPS),
            Column("product", ColumnType.MAP, family_map("product")),
            Column("resource_tags", ColumnType.MAP, family_map("resourceTags")),
            Column("cost_category", ColumnType.MAP, family_map("costCategory")),
            Column("discount", ColumnType.DOUBLE_MAP, family_map("discount", doubles=True)),
        ),
        key=lambda column: column.name,
    )
)
