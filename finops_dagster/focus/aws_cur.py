"""How line items of CUR v1 and CUR 2.0 become charges; both are the same bill in two spellings.

https://docs.aws.amazon.com/cur/latest/userguide/Lineitem-columns.html says which line items there
are. docs/focus.md has the decisions and their reasons.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted
from finops_dagster.focus.mapping import Charge, Expression, FocusMapping, Input, Kind, Lookup
from finops_dagster.sources.aws.cur1 import AwsCur1, athena_name

_FLAT = AwsCur1()
_NET = "lineItem/NetUnblendedCost"
_DISCOUNTS = ("EdpDiscount", "PrivateRateDiscount", "BundledDiscount")
# The beginnings of tag keys in the names of columns, and what they stand for; the first one counts.
_TAG_PREFIXES = {
    "aws_createdby": "aws:createdBy",
    "aws_created_by": "aws:createdBy",
    "aws_": "aws:",
    "user_": "",
}
# The attributes of a product that FOCUS has names for, and those that we name; as CUR v1 has them.
_DETAILS = {
    "CoreCount": "vcpu",
    "DiskMaxIops": "maxIopsvolume",
    "DiskType": "volumeApiName",
    "GpuCount": "gpu",
    "InstanceSeries": "instanceTypeFamily",
    "InstanceType": "instanceType",
    "OperatingSystem": "operatingSystem",
    "StorageClass": "storageClass",
    "x_DatabaseEngine": "databaseEngine",
    "x_DeploymentOption": "deploymentOption",
    "x_LicenseModel": "licenseModel",
    "x_Memory": "memory",
    "x_OfferingClass": "offeringClass",
    "x_PreInstalledSoftware": "preInstalledSw",
    "x_Tenancy": "tenancy",
    "x_TransferType": "transferType",
    "x_VolumeType": "volumeType",
}


def _cell(header: str) -> Input:
    """Return the input of a column of CUR v1, under Athena's name, which is that of CUR 2.0."""
    name, flat = athena_name(header), _FLAT.column(header)
    family, _, attribute = header.partition("/")
    maps = {"product": "product", "resourceTags": "resource_tags"}
    entries = (f"{maps[family]}[{athena_name(attribute)}]",) if family in maps else ()
    return Input(name, _FLAT.sql_type(header, None) or SqlType.TEXT, (flat, *entries))


def _column_of(header: str, columns: Collection[str]) -> str | None:
    """Return the name that the bill has for a column of CUR v1; None if it lacks the column."""
    names = (athena_name(header), _FLAT.column(header))
    return next((name for name in names if name in columns), None)


def _has_net(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Tell whether the bill has net costs. AWS adds their columns if there is any discount."""
    return Sql("true" if _column_of(_NET, columns) else "false"), ()


def _discounts(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Return the discounts of a line item by name, where they are in net costs."""
    if _column_of(_NET, columns) is None:
        return Sql("NULL"), ()
    if "discount" in columns:
        entries = Sql(
            'list_filter(map_entries("discount"), lambda e: e.value <> 0 '
            "AND e.key NOT IN ('total_discount', 'TotalDiscount'))"
        )
        return _map_of(entries), ("discount",)
    names = {name: _column_of(f"discount/{name}", columns) for name in _DISCOUNTS}
    cells = {athena_name(name): column for name, column in names.items() if column}
    return _map(cells, Sql("e.value <> 0"))


def _tags(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Return the tags by key, without `user:`, which AWS puts before customers' keys."""
    return _family("resource_tags", columns, _TAG_PREFIXES)


def _cost_categories(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Return the values of cost categories by name."""
    return _family("cost_category", columns, {})


def _family(
    family: str, columns: Collection[str], prefixes: Mapping[str, str]
) -> tuple[Sql, Collection[str]]:
    """Return a map of a family of columns that customers name; `prefixes` are those to replace.

    CUR 2.0 has the family as a map.
    """
    if family in columns:
        key = Sql("e.key")
        for old, new in reversed([*prefixes.items()]):
            renamed = Sql(f"{literal(new)} || substr(e.key, {len(old) + 1})")
            taken = Sql(f"map_contains({quoted(family)}, {renamed})")
            key = Sql(
                f"CASE WHEN starts_with(e.key, {literal(old)}) AND NOT {taken} "
                f"THEN {renamed} ELSE {key} END"
            )
        entries = Sql(
            f"list_transform(list_filter(map_entries({quoted(family)}), lambda e: e.value <> ''), "
            f"lambda e: {{'key': {key}, 'value': e.value}})"
        )
        return _map_of(entries), (family,)
    cells = dict[str, str]()
    for column in columns:
        for spelling in (f"{family}_", f"{family.replace('_', '')}_"):
            if column.startswith(spelling):
                key_text = column.removeprefix(spelling)
                for old, new in prefixes.items():
                    if key_text.startswith(old):
                        key_text = new + key_text.removeprefix(old)
                        break
                cells[key_text] = column
    return _map(cells, Sql("e.value <> ''"))


def _price_details(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Return the attributes of the product that the price depends on."""
    cells, read = list[Sql](), list[str]()
    for key, attribute in _DETAILS.items():
        column = _column_of(f"product/{attribute}", columns)
        if column:
            cells.append(Sql(f"{{'key': {literal(key)}, 'value': {quoted(column)}}}"))
            read.append(column)
        elif "product" in columns:
            cell = Sql(f'"product"[{literal(athena_name(attribute))}]')
            cells.append(Sql(f"{{'key': {literal(key)}, 'value': {cell}}}"))
            read.append("product")
    if not cells:
        return Sql("NULL"), ()
    filled = Sql(f"list_filter([{', '.join(cells)}], lambda e: e.value <> '')")
    return _map_of(filled), dict.fromkeys(read)


def _map(cells: Mapping[str, str], filled: Sql) -> tuple[Sql, Collection[str]]:
    """Return SQL of the map that has the filled columns by key, and the columns."""
    if not cells:
        return Sql("NULL"), ()
    entries = ", ".join(
        f"{{'key': {literal(key)}, 'value': {quoted(column)}}}" for key, column in cells.items()
    )
    return _map_of(Sql(f"list_filter([{entries}], lambda e: {filled})")), tuple(cells.values())


def _map_of(entries: Sql) -> Sql:
    """Return SQL of the map of a list of entries; NULL if there are none."""
    return Sql(f"map_from_entries(nullif({entries}, []))")


def _type(*names: str) -> str:
    """Return the condition that a line item is of one of AWS's types."""
    return f"line_item_line_item_type IN ({', '.join(map(literal, names))})"


# Costs. Net costs are missing for whole exports; a discount's own line has none, as it is in those
# of the lines that it lowers.
_UNBLENDED = "coalesce(line_item_unblended_cost, 0)"
_IS_DISCOUNT = "line_item_line_item_type LIKE '%Discount'"
_COST = (
    "CASE WHEN has_net THEN coalesce(line_item_net_unblended_cost, "
    f"CASE WHEN {_IS_DISCOUNT} THEN 0 ELSE {_UNBLENDED} END) ELSE {_UNBLENDED} END"
)
_COVERED = (
    "coalesce(CASE WHEN has_net THEN savings_plan_net_savings_plan_effective_cost END, "
    "savings_plan_savings_plan_effective_cost, 0)"
)
_RESERVED = (
    "coalesce(CASE WHEN has_net THEN reservation_net_effective_cost END, "
    "reservation_effective_cost, 0)"
)
_UNUSED_PLAN = (
    "coalesce(savings_plan_total_commitment_to_date, 0) - coalesce(savings_plan_used_commitment, 0)"
)
_UNUSED_FEE = "unused_amortized_upfront_fee_for_billing_period"
_UNUSED_RESERVATION = (
    f"coalesce(CASE WHEN has_net THEN reservation_net_{_UNUSED_FEE} END, "
    f"reservation_{_UNUSED_FEE}, 0) + coalesce(CASE WHEN has_net "
    "THEN reservation_net_unused_recurring_fee END, reservation_unused_recurring_fee, 0)"
)
_PUBLIC = "nullif(pricing_public_on_demand_cost, 0)"
_RESERVATION = (
    "CASE WHEN contains(reservation_reservation_a_r_n, ':capacity-reservation/') THEN NULL "
    "ELSE reservation_reservation_a_r_n END"
)
_PLAN = "savings_plan_savings_plan_a_r_n"
_COMMITMENT_ID = f"coalesce({_PLAN}, {_RESERVATION})"
# AWS's public SQL for amortized cost, by line item.
_AMORTIZED = f"""CASE line_item_line_item_type
    WHEN 'SavingsPlanCoveredUsage' THEN {_COVERED}
    WHEN 'SavingsPlanRecurringFee' THEN {_UNUSED_PLAN}
    WHEN 'SavingsPlanNegation' THEN 0
    WHEN 'SavingsPlanUpfrontFee' THEN 0
    WHEN 'DiscountedUsage' THEN {_RESERVED}
    WHEN 'RIFee' THEN {_UNUSED_RESERVATION}
    WHEN 'Fee' THEN CASE WHEN ({_RESERVATION}) IS NULL THEN {_COST} ELSE 0 END
    ELSE {_COST} END"""

_SKU = "coalesce(product_sku, split_part(pricing_rate_code, '.', 1), line_item_product_code)"
_UNIT = "CASE WHEN pricing_unit IS NULL THEN 'Units' ELSE coalesce(unit_name, 'Units') END"
_CORRECTION = (
    "CASE WHEN line_item_usage_start_date < bill_billing_period_start_date THEN 'Correction' END"
)
_SERVICE = "coalesce(service_name, product_product_name, line_item_product_code, 'Unknown')"
_REGION = "CASE WHEN region_code NOT IN ('global', 'any') THEN region_code END"


def _quantity(cost: str) -> str:
    """Return the quantity that multiplies with a price that is not negative to `cost`.

    It is 1 where the bill has none.
    """
    amount = "coalesce(line_item_usage_amount, 1)"
    return (
        f"CASE WHEN {cost} < 0 THEN -coalesce(nullif(abs({amount}), 0), 1) "
        f"WHEN {cost} > 0 THEN coalesce(nullif(abs({amount}), 0), 1) ELSE {amount} END"
    )


def _end(time: str) -> str:
    """Return the first moment after a period; some end in AWS's bill at 23:59:59."""
    return f"CASE WHEN second({time}) = 59 THEN {time} + INTERVAL 1 SECOND ELSE {time} END"


_USAGE_LIST = f"coalesce({_PUBLIC}, {_COST})"

# What charges of a category have in common.
_NO_PRICE = {
    "PricingCategory": "NULL",
    "PricingQuantity": "NULL",
    "PricingUnit": "NULL",
    "ConsumedQuantity": "NULL",
    "ConsumedUnit": "NULL",
    "ListCost": _COST,
    "SkuPriceId": "NULL",
    "SkuPriceDetails": "NULL",
    "SkuId": "product_sku",
    "SkuMeter": "CASE WHEN product_sku IS NOT NULL "
    "THEN coalesce(line_item_usage_type, product_sku) END",
    "ChargeFrequency": "'One-Time'",
    "CapacityReservationId": "NULL",
    "CapacityReservationStatus": "NULL",
}
_TAX = {**_NO_PRICE, "ChargeCategory": "'Tax'", "SkuId": "NULL", "SkuMeter": "NULL"}
_CREDIT = {**_NO_PRICE, "ChargeCategory": "'Credit'", "ChargeClass": _CORRECTION}
_ADJUSTMENT = {**_CREDIT, "ChargeCategory": "'Adjustment'"}
_PURCHASE = {
    "ChargeCategory": "'Purchase'",
    "ChargeFrequency": "'Recurring'",
    "PricingCategory": "'Standard'",
    "PricingQuantity": _quantity(_COST),
    "ListCost": _COST,
    "ConsumedQuantity": "NULL",
    "ConsumedUnit": "NULL",
    "CapacityReservationId": "NULL",
    "CapacityReservationStatus": "NULL",
}
_UNUSED = {
    "BilledCost": "0",
    "ListCost": "0",
    "PricingCategory": "'Committed'",
    "ConsumedQuantity": "NULL",
    "ConsumedUnit": "NULL",
    "CommitmentDiscountStatus": "'Unused'",
    "CapacityReservationId": "NULL",
    "CapacityReservationStatus": "NULL",
}
# A commitment is itself the resource that is bought, and of which a part is unused.
_COMMITMENT = {
    "ResourceId": _COMMITMENT_ID,
    "ResourceName": f"split_part({_COMMITMENT_ID}, '/', -1)",
    "ResourceType": f"CASE WHEN {_PLAN} IS NOT NULL THEN 'Savings Plan' "
    f"WHEN ({_RESERVATION}) IS NOT NULL THEN 'Reserved Instance' END",
    "CommitmentDiscountId": _COMMITMENT_ID,
}
_COMMITMENT_FEE = {**_PURCHASE, **_COMMITMENT, "EffectiveCost": "0"}
_UNUSED |= _COMMITMENT
_USED = {"PricingCategory": "'Committed'", "CommitmentDiscountStatus": "'Used'"}
_RESERVED_UNITS = "coalesce(line_item_normalized_usage_amount, line_item_usage_amount, 0)"
_UNUSED_UNITS = (
    "coalesce(reservation_unused_normalized_unit_quantity, reservation_unused_quantity, 0)"
)

_DISCOUNT_WHY = (
    "the costs are net: each discount is in the costs that it lowers and named in their "
    "x_discounts, and its own line item is no charge"
)
_PAIR_WHY = (
    "what a savings plan covers is paid with its fee, so it bills 0; AWS takes its on-demand cost "
    "back in a negation, which is no charge"
)
_DISCOUNT_REST, _PLAN_REST = "net costs rounded", "savings plan pairs rounded"


def _net(name: str, when: str, *charges: Charge) -> Kind:
    """Return a kind whose cost is net where the bill has net costs."""
    return Kind(name, when, charges, moved=_DISCOUNT_WHY, cancels="discounts")


def _pair(name: str, when: str, *charges: Charge, is_extra: bool = False) -> Kind:
    return Kind(name, when, charges, moved=_PAIR_WHY, cancels="savings plans", is_extra=is_extra)


KINDS = (
    Kind(
        "split cost",
        "split_line_item_parent_resource_id IS NOT NULL "
        f"AND {_UNBLENDED} = 0 AND coalesce(line_item_net_unblended_cost, 0) = 0",
        moved="it allots the cost of an instance, which has its own line item, to containers; "
        "FOCUS has no such charges before 1.3",
    ),
    _net("usage", _type("Usage"), Charge("usage")),
    _net("discount in net costs", f"has_net AND {_IS_DISCOUNT} AND {_COST} = 0"),
    _net("discount", _IS_DISCOUNT, Charge("discount", _ADJUSTMENT)),
    _pair("savings plan negation", _type("SavingsPlanNegation")),
    _pair(
        "savings plan usage",
        _type("SavingsPlanCoveredUsage"),
        Charge(
            "savings-plan-used",
            {
                **_USED,
                "BilledCost": "0",
                "EffectiveCost": _COVERED,
                "ListCost": f"coalesce({_PUBLIC}, {_UNBLENDED})",
                "PricingQuantity": _quantity(f"coalesce({_PUBLIC}, {_UNBLENDED})"),
                "CommitmentDiscountId": _PLAN,
                "CommitmentDiscountQuantity": _COVERED,
            },
        ),
    ),
    _pair(
        _PLAN_REST,
        _type(_PLAN_REST),
        Charge(
            "savings-plan-rest",
            {
                **_ADJUSTMENT,
                "EffectiveCost": "0",
                "ChargeClass": "NULL",
                "CommitmentDiscountId": _PLAN,
            },
        ),
        is_extra=True,
    ),
    Kind(
        _DISCOUNT_REST,
        _type(_DISCOUNT_REST),
        (Charge("discount-rest", {**_ADJUSTMENT, "EffectiveCost": "0", "ChargeClass": "NULL"}),),
        moved="AWS rounds net costs one by one",
        cancels="discounts",
        is_extra=True,
    ),
    _net(
        "reserved usage",
        _type("DiscountedUsage"),
        Charge(
            "reservation-used",
            {
                **_USED,
                "EffectiveCost": _RESERVED,
                "ListCost": f"coalesce({_PUBLIC}, {_RESERVED})",
                "PricingQuantity": _quantity(f"coalesce({_PUBLIC}, {_RESERVED})"),
                "CommitmentDiscountId": _RESERVATION,
                "CommitmentDiscountQuantity": _RESERVED_UNITS,
            },
        ),
    ),
    _net(
        "reservation fee",
        _type("RIFee"),
        Charge(
            "reservation-fee",
            {
                **_COMMITMENT_FEE,
                "CommitmentDiscountQuantity": _RESERVED_UNITS,
            },
        ),
        Charge(
            "reservation-unused",
            {
                **_UNUSED,
                "EffectiveCost": _UNUSED_RESERVATION,
                "PricingQuantity": _UNUSED_UNITS,
                "CommitmentDiscountQuantity": _UNUSED_UNITS,
            },
            when=f"{_UNUSED_RESERVATION} <> 0",
        ),
    ),
    _net(
        "savings plan fee",
        _type("SavingsPlanRecurringFee"),
        Charge(
            "savings-plan-fee",
            {
                **_COMMITMENT_FEE,
                "CommitmentDiscountQuantity": "coalesce("
                f"savings_plan_total_commitment_to_date, {_COST})",
            },
        ),
        Charge(
            "savings-plan-unused",
            {
                **_UNUSED,
                "EffectiveCost": _UNUSED_PLAN,
                "PricingQuantity": _UNUSED_PLAN,
                "PricingUnit": "line_item_currency_code",
                "CommitmentDiscountQuantity": _UNUSED_PLAN,
            },
            when=f"{_UNUSED_PLAN} <> 0",
        ),
    ),
    _net(
        "savings plan upfront fee",
        _type("SavingsPlanUpfrontFee"),
        Charge(
            "savings-plan-upfront",
            {
                **_COMMITMENT_FEE,
                "ChargeFrequency": "'One-Time'",
                "CommitmentDiscountQuantity": _COST,
            },
        ),
    ),
    _net(
        "reservation upfront fee",
        f"{_type('Fee')} AND ({_RESERVATION}) IS NOT NULL",
        Charge(
            "reservation-upfront",
            {
                **_COMMITMENT_FEE,
                "ChargeFrequency": "'One-Time'",
                "CommitmentDiscountQuantity": _RESERVED_UNITS,
            },
        ),
    ),
    _net(
        "fee",
        _type("Fee"),
        Charge(
            "fee",
            {
                **_PURCHASE,
                "ChargeFrequency": "CASE WHEN line_item_usage_end_date >= "
                "line_item_usage_start_date + INTERVAL 27 DAY "
                "THEN 'Recurring' ELSE 'One-Time' END",
            },
        ),
    ),
    _net("tax", _type("Tax"), Charge("tax", _TAX)),
    _net("credit", _type("Credit"), Charge("credit", _CREDIT)),
    _net(
        "refund of tax",
        f"{_type('Refund')} AND line_item_tax_type IS NOT NULL",
        Charge("refund-tax", {**_TAX, "ChargeClass": _CORRECTION}),
    ),
    _net(
        "refund of a commitment",
        f"{_type('Refund')} AND coalesce({_PLAN}, {_RESERVATION}) IS NOT NULL",
        Charge(
            "refund-commitment",
            {
                **_PURCHASE,
                **_COMMITMENT,
                "ChargeFrequency": "'One-Time'",
                "ChargeClass": _CORRECTION,
                # AWS's SQL counts it as amortized cost. FOCUS has none of a commitment's purchase,
                # so only its resource names the commitment.
                "CommitmentDiscountId": "NULL",
            },
        ),
    ),
    _net(
        "refund of usage",
        f"{_type('Refund')} AND line_item_usage_type IS NOT NULL AND product_sku IS NOT NULL",
        Charge(
            "refund-usage",
            {
                "ChargeClass": _CORRECTION,
                "ListCost": _COST,
                "PricingQuantity": _quantity(_COST),
                "ConsumedQuantity": _quantity(_COST),
            },
        ),
    ),
    _net("refund", _type("Refund"), Charge("refund", _ADJUSTMENT)),
    _net("other", "true", Charge("other", _ADJUSTMENT)),
)

COLUMNS = {
    "AvailabilityZone": Expression("line_item_availability_zone"),
    "BilledCost": Expression(_COST, "net where the export has net costs"),
    "BillingAccountId": Expression("bill_payer_account_id"),
    "BillingAccountName": Expression(
        "coalesce(bill_payer_account_name, bill_payer_account_id)", "CUR v1 has no names"
    ),
    "BillingAccountType": Expression("'Management Account'"),
    "BillingCurrency": Expression("line_item_currency_code"),
    "BillingPeriodEnd": Expression(
        f"coalesce({_end('bill_billing_period_end_date')}, "
        "bill_billing_period_start_date + INTERVAL 1 MONTH)"
    ),
    "BillingPeriodStart": Expression("bill_billing_period_start_date"),
    "CapacityReservationId": Expression("capacity_reservation"),
    "CapacityReservationStatus": Expression(
        "CASE WHEN capacity_reservation IS NULL THEN NULL WHEN capacity_status = "
        "'UnusedCapacityReservation' OR capacity_status = 'Unused' THEN 'Unused' ELSE 'Used' END"
    ),
    "ChargeCategory": Expression("'Usage'"),
    "ChargeClass": Expression("NULL"),
    "ChargeDescription": Expression(
        "coalesce(line_item_line_item_description, line_item_usage_type, product_product_name, "
        "line_item_line_item_type, 'No description')"
    ),
    "ChargeFrequency": Expression("'Usage-Based'"),
    "ChargePeriodEnd": Expression(
        f"coalesce({_end('line_item_usage_end_date')}, bill_billing_period_end_date, "
        "line_item_usage_start_date)"
    ),
    "ChargePeriodStart": Expression(
        "coalesce(line_item_usage_start_date, bill_billing_period_start_date)"
    ),
    "CommitmentDiscountId": Expression("NULL"),
    "CommitmentDiscountQuantity": Expression("NULL"),
    "CommitmentDiscountStatus": Expression("NULL"),
    "ConsumedQuantity": Expression("line_item_usage_amount"),
    "ConsumedUnit": Expression(f"CASE WHEN line_item_usage_amount IS NOT NULL THEN {_UNIT} END"),
    "EffectiveCost": Expression(_COST, "as AWS's public SQL for amortized cost"),
    "InvoiceId": Expression("bill_invoice_id"),
    "InvoiceIssuerName": Expression("coalesce(bill_invoicing_entity, 'Amazon Web Services, Inc.')"),
    "ListCost": Expression(_USAGE_LIST),
    "PricingCategory": Expression(
        "CASE WHEN contains(line_item_usage_type, 'SpotUsage') THEN 'Dynamic' ELSE 'Standard' END"
    ),
    "PricingCurrency": Expression("coalesce(pricing_currency, line_item_currency_code)"),
    "PricingQuantity": Expression(_quantity(_USAGE_LIST)),
    "PricingUnit": Expression(_UNIT),
    "ProviderName": Expression("'AWS'"),
    "PublisherName": Expression(
        "coalesce(line_item_legal_entity, bill_invoicing_entity, 'Amazon Web Services, Inc.')"
    ),
    "RegionId": Expression(_REGION),
    "RegionName": Expression(f"coalesce(region_name, {_REGION})"),
    "ResourceId": Expression("line_item_resource_id"),
    "ResourceName": Expression(
        "CASE WHEN line_item_resource_id IS NULL THEN NULL "
        "WHEN resource_tags_user_name IS NOT NULL THEN resource_tags_user_name "
        "WHEN contains(line_item_resource_id, '/') THEN split_part(line_item_resource_id, '/', -1) "
        "ELSE split_part(line_item_resource_id, ':', -1) END"
    ),
    "ResourceType": Expression(
        "CASE WHEN line_item_resource_id IS NOT NULL THEN coalesce(resource_type, "
        f"product_product_family, {_SERVICE}) END"
    ),
    "ServiceCategory": Expression("coalesce(category_category, 'Other')"),
    "ServiceName": Expression(_SERVICE),
    "ServiceSubcategory": Expression("coalesce(category_subcategory, 'Other (Other)')"),
    "SkuId": Expression(_SKU),
    "SkuMeter": Expression(f"coalesce(line_item_usage_type, {_SKU})"),
    "SkuPriceDetails": Expression("price_details"),
    "SkuPriceId": Expression(f"coalesce(pricing_rate_code, {_SKU})"),
    "SubAccountId": Expression("line_item_usage_account_id"),
    "SubAccountName": Expression(
        "coalesce(line_item_usage_account_name, line_item_usage_account_id)"
    ),
    "SubAccountType": Expression(
        "CASE WHEN line_item_usage_account_id IS NOT NULL THEN 'Account' END"
    ),
    "Tags": Expression("tags"),
    "x_commitmentdiscountend": Expression(
        "coalesce(savings_plan_end_time, reservation_end_time)", type=Sql(SqlType.TEXT)
    ),
    "x_costcategories": Expression("cost_categories", type=Sql(SqlType.TEXT_MAP)),
    "x_discounts": Expression("discounts", type=Sql(SqlType.MONEY_MAP)),
    "x_lineitemtype": Expression("line_item_line_item_type", type=Sql(SqlType.TEXT)),
    "x_servicecode": Expression("line_item_product_code", type=Sql(SqlType.TEXT)),
}


def _price(cost: str) -> Expression:
    return Expression(
        "CASE WHEN PricingQuantity IS NULL THEN NULL WHEN PricingQuantity = 0 THEN 0 "
        f"ELSE {cost} / PricingQuantity END",
        "so that it multiplies with the quantity to the cost",
    )


_OF_COMMITMENT = "CASE WHEN CommitmentDiscountId IS NULL THEN NULL"
_IS_PLAN = "contains(CommitmentDiscountId, ':savingsplan/')"
DERIVED = {
    "CommitmentDiscountCategory": Expression(
        f"{_OF_COMMITMENT} WHEN {_IS_PLAN} THEN 'Spend' ELSE 'Usage' END"
    ),
    "CommitmentDiscountName": Expression(
        "CASE WHEN contains(CommitmentDiscountId, '/') "
        "THEN split_part(CommitmentDiscountId, '/', -1) "
        "ELSE split_part(CommitmentDiscountId, ':', -1) END"
    ),
    "CommitmentDiscountType": Expression(
        f"{_OF_COMMITMENT} WHEN {_IS_PLAN} THEN 'Savings Plan' ELSE 'Reserved Instance' END"
    ),
    "CommitmentDiscountUnit": Expression(
        "CASE WHEN CommitmentDiscountQuantity IS NULL THEN NULL "
        f"WHEN {_IS_PLAN} THEN BillingCurrency ELSE 'Normalized Hours' END"
    ),
    "ContractedCost": Expression("ListCost", "CUR does not say what a contract's prices are"),
    "ContractedUnitPrice": _price("ListCost"),
    "ListUnitPrice": _price("ListCost"),
    "PricingCurrencyContractedUnitPrice": _price("ListCost"),
    "PricingCurrencyEffectiveCost": Expression("EffectiveCost"),
    "PricingCurrencyListUnitPrice": _price("ListCost"),
}

_HEADERS = """
bill/BillingPeriodEndDate bill/BillingPeriodStartDate bill/InvoiceId bill/InvoicingEntity
bill/PayerAccountId bill/PayerAccountName
identity/LineItemId
lineItem/AvailabilityZone lineItem/CurrencyCode lineItem/LegalEntity lineItem/LineItemDescription
lineItem/LineItemType lineItem/NetUnblendedCost lineItem/NormalizedUsageAmount lineItem/ProductCode
lineItem/ResourceId lineItem/TaxType lineItem/UnblendedCost lineItem/UsageAccountId
lineItem/UsageAccountName lineItem/UsageAmount lineItem/UsageEndDate lineItem/UsageStartDate
lineItem/UsageType
pricing/RateCode pricing/currency pricing/publicOnDemandCost pricing/unit
product/ProductName product/productFamily product/sku
reservation/EffectiveCost reservation/EndTime reservation/NetEffectiveCost
reservation/NetUnusedAmortizedUpfrontFeeForBillingPeriod reservation/NetUnusedRecurringFee
reservation/ReservationARN reservation/UnusedAmortizedUpfrontFeeForBillingPeriod
reservation/UnusedNormalizedUnitQuantity reservation/UnusedQuantity reservation/UnusedRecurringFee
resourceTags/user:Name
savingsPlan/EndTime savingsPlan/NetSavingsPlanEffectiveCost savingsPlan/SavingsPlanARN
savingsPlan/SavingsPlanEffectiveCost savingsPlan/TotalCommitmentToDate savingsPlan/UsedCommitment
splitLineItem/ParentResourceId
""".split()

_REST_COLUMNS = """max(bill_payer_account_id) AS bill_payer_account_id,
    max(bill_payer_account_name) AS bill_payer_account_name,
    max(bill_billing_period_start_date) AS bill_billing_period_start_date,
    max(bill_billing_period_end_date) AS bill_billing_period_end_date,
    max(bill_invoice_id) AS bill_invoice_id, max(bill_invoicing_entity) AS bill_invoicing_entity,
    max(line_item_legal_entity) AS line_item_legal_entity, false AS has_net,
    line_item_currency_code,
    max(line_item_product_code) AS line_item_product_code,
    max(product_product_name) AS product_product_name,
    list(identity_line_item_id) AS rest_of"""
_PAIRS = _type("SavingsPlanCoveredUsage", "SavingsPlanNegation")
_EXTRA_LINES = f"""
    SELECT {_REST_COLUMNS}, {literal(_PLAN_REST)} AS line_item_line_item_type,
        'Costs that savings plans cover, less their negations' AS line_item_line_item_description,
        sum(line_item_unblended_cost) AS line_item_unblended_cost, {_PLAN}
    FROM bill WHERE {_PAIRS} GROUP BY {_PLAN}, line_item_currency_code
    HAVING sum(line_item_unblended_cost) <> 0
    UNION ALL BY NAME
    SELECT {_REST_COLUMNS}, {literal(_DISCOUNT_REST)} AS line_item_line_item_type,
        'Costs and discounts, less the net costs' AS line_item_line_item_description,
        sum({_UNBLENDED} - {_COST}) AS line_item_unblended_cost, NULL AS {_PLAN}
    FROM bill WHERE has_net AND NOT {_PAIRS} GROUP BY line_item_currency_code
    HAVING sum({_UNBLENDED} - {_COST}) <> 0
        AND abs(sum({_UNBLENDED} - {_COST})) <= count(*) * 0.000000001"""

_ID = "line_item_resource_id"
_ARN = "^arn:[^:]*:[^:]+:[^:]*:[^:]*:/?([a-zA-Z0-9_-]+)[:/]"
_RESOURCE_KEY = f"""CASE WHEN {_ID} IS NULL THEN NULL
    WHEN starts_with({_ID}, 'arn:')
    THEN split_part({_ID}, ':', 3) || ':' || regexp_extract({_ID}, {literal(_ARN)}, 1)
    WHEN regexp_full_match({_ID}, '[a-z]{{1,6}}-[0-9a-f]{{8,17}}')
    THEN split_part({_ID}, '-', 1) || '-'
    ELSE line_item_product_code END"""

AWS_CUR = FocusMapping(
    "aws-cur",
    inputs=[
        *map(_cell, _HEADERS),
        Input("has_net", Sql("BOOLEAN"), build=_has_net),
        Input(
            "region_code",
            spellings=(
                "product_region_code",
                "product_regioncode",
                "product_region",
                "product[region]",
            ),
        ),
        Input("capacity_reservation", spellings=("capacity_reservation_capacity_reservation_arn",)),
        Input(
            "capacity_status",
            spellings=(
                "capacity_reservation_capacity_reservation_status",
                "product_capacitystatus",
                "product[capacitystatus]",
            ),
        ),
        Input("tags", SqlType.TEXT_MAP, build=_tags),
        Input("cost_categories", SqlType.TEXT_MAP, build=_cost_categories),
        Input("discounts", SqlType.MONEY_MAP, build=_discounts),
        Input("price_details", SqlType.TEXT_MAP, build=_price_details),
    ],
    kinds=KINDS,
    columns=COLUMNS,
    derived=DERIVED,
    lookups=[
        Lookup("service", "aws_services.csv", ("line_item_product_code",)),
        Lookup("category", "aws_categories.csv", (_SERVICE,)),
        Lookup("region", "aws_regions.csv", (_REGION,)),
        Lookup("unit", "aws_units.csv", ("lower(pricing_unit)",)),
        Lookup("resource", "aws_resource_types.csv", (_RESOURCE_KEY,)),
    ],
    headline=_UNBLENDED,
    amortized=_AMORTIZED,
    currency="line_item_currency_code",
    line_items="coalesce(rest_of, [identity_line_item_id])",
    extra_lines=_EXTRA_LINES,
    kept=frozenset({"product"}),
)
