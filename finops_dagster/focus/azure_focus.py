"""Azure's FOCUS exports 1.0-preview(v1), 1.0, 1.0r2 and 1.2-preview, with Microsoft's own repairs.

Microsoft lists what its export has wrong, and repairs it itself in FinOps hubs; the codes of
repairs are those of the hubs where they have one.
https://learn.microsoft.com/cloud-computing/finops/focus/conformance-summary
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.focus.mapping import Expression, Input, Lookup
from finops_dagster.focus.native import NativeMapping
from finops_dagster.focus.repairs import (
    OTHER_SUBCATEGORY,
    Repair,
    differs,
    is_missing,
    price_details,
    price_of,
    product,
    quotient,
)

_COMMITMENT_PURCHASE = "{ChargeCategory} = 'Purchase' AND CommitmentDiscountId IS NOT NULL"
_EFFECTIVE_COST_OF_PURCHASE = f"{_COMMITMENT_PURCHASE} AND EffectiveCost <> 0"
_HAS_COST = "(BilledCost <> 0 OR EffectiveCost <> 0)"
_DETAILS = "details"
_BLOCK = "coalesce(nullif(block_size, 0), 1)"


def _details(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Return SQL for the properties of a SKU, which Azure writes as JSON."""
    if "x_skudetails" not in columns:
        return Sql("NULL"), ()
    json = Sql(f"TRY_CAST({quoted('x_skudetails')} AS JSON)")
    return Sql(f"TRY_CAST({json} AS {SqlType.TEXT_MAP})"), ("x_skudetails",)


# The vendor's columns under the names by which expressions read them.
_INPUTS = (
    Input("billing_exchange_rate", SqlType.MONEY, ("x_billingexchangerate",)),
    Input("block_size", SqlType.MONEY, ("x_pricingblocksize",)),
    Input("billed_unit_price", SqlType.MONEY, ("x_billedunitprice",)),
    Input("effective_unit_price", SqlType.MONEY, ("x_effectiveunitprice",)),
    Input("publisher_category", spellings=("x_publishercategory",)),
    Input("internal_type", spellings=("x_resourcetype",)),
    Input("details", SqlType.TEXT_MAP, build=_details),
    Input("meter_category", spellings=("x_skumetercategory",)),
    Input("meter_subcategory", spellings=("x_skumetersubcategory",)),
    Input("charge_subcategory", spellings=("chargesubcategory",)),
    Input("old_region", spellings=("region",)),
)

# Names of 1.0-preview(v1), and those that columns of 1.2 had while they were Microsoft's own.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "ContractedCost": ("x_ondemandcost",),
    "ContractedUnitPrice": ("x_ondemandunitprice",),
    "InvoiceId": ("x_invoiceid",),
    "PricingCurrency": ("x_pricingcurrency",),
    "SkuMeter": ("x_skumetername",),
}

_NO_VALUES = "('-2', 'unassigned', '/subscriptions/00000000-0000-0000-0000-000000000000')"
_MAY_BE_UNASSIGNED = ("SkuPriceId", "SubAccountId", "SubAccountName")
_VENDORS_UNASSIGNED = (
    "x_accountid x_accountname x_accountownerid x_invoicesectionid x_invoicesectionname"
).split()
_IDS = "BillingAccountId CommitmentDiscountId ResourceId ResourceName SubAccountId".split()

_CAPACITY_RESERVATION = f"{_DETAILS}['VMCapacityReservationId']"
_RATIO = f"coalesce(TRY_CAST({_DETAILS}['RINormalizationRatio'] AS DOUBLE), 1)"
_INTERNAL_TYPE = (
    "lower(coalesce(internal_type, "
    "nullif(regexp_extract(ResourceId, '(?i)/providers/([^/]+/[^/]+)/', 1), '')))"
)
# The portal has names for the types that Azure uses itself, `Microsoft.Compute/disks`.
_HAS_INTERNAL_TYPE = (
    "(ResourceType IS NULL AND ResourceId IS NOT NULL OR contains(ResourceType, '/') "
    "OR lower(ResourceType) = lower(internal_type))"
)
_IS_SAVINGS_PLAN = "contains(lower(CommitmentDiscountId), '/microsoft.billingbenefits/')"


def _in_pricing_currency(amount: str) -> Expression:
    own, column = f"PricingCurrency{amount}", f"{{{amount}}}"
    return Expression(
        f"coalesce({own}, CASE WHEN {{PricingCurrency}} = {{BillingCurrency}} THEN {column} "
        f"ELSE {quotient(column, 'billing_exchange_rate')} END)",
        "Azure does not export it; x_BillingExchangeRate is of the pricing currency",
    )


# What the versions of the export lack, and how it follows from Microsoft's own columns.
_DERIVED: Mapping[str, Expression] = {
    "BillingAccountType": Expression(
        "coalesce(BillingAccountType, CASE "
        "WHEN contains(lower(BillingAccountId), '/billingprofiles/') THEN 'Billing Profile' "
        "WHEN BillingAccountId IS NOT NULL THEN 'Billing Account' END)",
        "customer agreements are billed by profile",
    ),
    "CapacityReservationId": Expression(
        f"coalesce(CapacityReservationId, {_DETAILS}['VMCapacityReservationId'])"
    ),
    "CapacityReservationStatus": Expression(
        "coalesce(CapacityReservationStatus, "
        "CASE WHEN {CapacityReservationId} IS NULL OR {ChargeCategory} <> 'Usage' THEN NULL "
        "WHEN lower(internal_type) = "
        "'microsoft.compute/capacityreservationgroups/capacityreservations' THEN 'Unused' "
        "ELSE 'Used' END)",
        "unused capacity is billed for the reservation itself, used capacity for the machine",
    ),
    "ChargeCategory": Expression(
        "CASE charge_subcategory WHEN 'Credit' THEN 'Credit' WHEN 'Refund' THEN 'Purchase' "
        "ELSE ChargeCategory END",
        "1.0-preview has credits and refunds as adjustments; Microsoft takes refunds for purchases",
    ),
    "ChargeClass": Expression(
        "coalesce(ChargeClass, CASE WHEN charge_subcategory = 'Refund' THEN 'Correction' END)"
    ),
    "CommitmentDiscountCategory": Expression(
        "coalesce(CommitmentDiscountCategory, CASE WHEN CommitmentDiscountId IS NOT NULL THEN "
        f"if({_IS_SAVINGS_PLAN}, 'Spend', 'Usage') END)"
    ),
    "CommitmentDiscountQuantity": Expression(
        "coalesce(CommitmentDiscountQuantity, CASE WHEN CommitmentDiscountId IS NULL "
        "OR {ChargeCategory} NOT IN ('Usage', 'Purchase') OR {ChargeClass} IS NOT NULL THEN NULL "
        "WHEN {CommitmentDiscountCategory} = 'Spend' THEN "
        + quotient(
            "if({ChargeCategory} = 'Usage', EffectiveCost, BilledCost)",
            "coalesce(billing_exchange_rate, 1)",
        )
        + f" ELSE {product(product('{PricingQuantity}', _BLOCK), _RATIO)} END)",
        "a savings plan is a promise of money in the pricing currency; the units of reservations "
        "of flexible size are normalized",
    ),
    "CommitmentDiscountStatus": Expression(
        "coalesce(CommitmentDiscountStatus, CASE charge_subcategory "
        "WHEN 'Used Commitment' THEN 'Used' WHEN 'Unused Commitment' THEN 'Unused' END)"
    ),
    "CommitmentDiscountType": Expression(
        "coalesce(CommitmentDiscountType, CASE WHEN CommitmentDiscountId IS NOT NULL THEN "
        f"if({_IS_SAVINGS_PLAN}, 'Savings Plan', 'Reservation') END)"
    ),
    "CommitmentDiscountUnit": Expression(
        "coalesce(CommitmentDiscountUnit, CASE WHEN {CommitmentDiscountQuantity} IS NULL THEN NULL "
        "WHEN {CommitmentDiscountCategory} = 'Spend' THEN {PricingCurrency} "
        f"ELSE if({_RATIO} = 1, '', 'Normalized ') || coalesce({{PricingUnit}}, 'Units') END)"
    ),
    "PricingCurrencyContractedUnitPrice": _in_pricing_currency("ContractedUnitPrice"),
    "PricingCurrencyEffectiveCost": _in_pricing_currency("EffectiveCost"),
    "PricingCurrencyListUnitPrice": _in_pricing_currency("ListUnitPrice"),
    "RegionId": Expression(
        "coalesce(RegionId, region_id, lower(replace(coalesce(RegionName, old_region), ' ', '')))",
        "1.0-preview has the name in Region",
    ),
    "RegionName": Expression("coalesce(RegionName, region_name, old_region, RegionId)"),
    "ServiceSubcategory": Expression(
        "coalesce(ServiceSubcategory, "
        "CASE WHEN service_category = {ServiceCategory} THEN service_subcategory END, "
        f"{OTHER_SUBCATEGORY})",
        "1.0 does not have it; Microsoft publishes it by service",
    ),
    "SkuPriceDetails": Expression(
        price_details(
            f"coalesce(SkuPriceDetails, {_DETAILS})",
            {
                "CoreCount": ("VCPUs", "VCores", "vCores"),
                "InstanceType": ("ServiceType", "ServerSku"),
            },
        ),
        "Azure leaves it empty; x_SkuDetails has the properties under Microsoft's names",
    ),
    "SubAccountType": Expression(
        "CASE WHEN {SubAccountId} IS NOT NULL THEN coalesce(SubAccountType, 'Subscription') END"
    ),
    "x_amortizationclass": Expression(
        "coalesce(x_amortizationclass, CASE "
        f"WHEN {_COMMITMENT_PURCHASE} THEN 'Principal' "
        "WHEN CommitmentDiscountId IS NOT NULL AND {ChargeCategory} = 'Usage' "
        "THEN 'Amortized Charge' END)",
        "savings leave out principals, whose list cost comes back with the usage",
        Sql(SqlType.TEXT),
    ),
    "x_effectivecostinusd": Expression("x_effectivecostinusd", type=Sql(SqlType.MONEY)),
    **{name: Expression(name, type=Sql(SqlType.TEXT)) for name in _VENDORS_UNASSIGNED},
}

_PRICED = "{ChargeCategory} IN ('Usage', 'Purchase')"


def _mismatch(kind: str) -> str:
    """Return SQL that is true if a cost is not its price times the quantity."""
    return (
        f"{kind}Cost <> 0 AND {kind}UnitPrice <> 0 AND {{PricingQuantity}} <> 0 AND {_PRICED} AND "
        + differs(f"{kind}Cost", product(f"{kind}UnitPrice", "{PricingQuantity}"))
    )


_COSTS = (
    Repair(
        "InvalidEffectiveCost",
        "EffectiveCost",
        _EFFECTIVE_COST_OF_PURCHASE,
        "0",
        "the cost of a commitment is in the usage that it covers",
    ),
    Repair(
        "InvalidEffectiveCost",
        "x_effectivecostinusd",
        f"{_COMMITMENT_PURCHASE} AND x_effectivecostinusd <> 0",
        "0",
        "as EffectiveCost",
    ),
    Repair(
        "MissingContractedCost",
        "ContractedCost",
        f"{is_missing('ContractedCost')} AND {_HAS_COST}",
        f"coalesce(nullif({product('ContractedUnitPrice', '{PricingQuantity}')}, 0), "
        f"if({_COMMITMENT_PURCHASE} OR EffectiveCost = 0, BilledCost, EffectiveCost))",
        "Azure has 0 for usage of reservations and for the marketplace; without the price sheet "
        "the price paid stands for the contracted one, so that savings are not negative",
    ),
    Repair(
        "InvalidContractedCost",
        "ContractedCost",
        f"block_size IS NOT NULL AND {_mismatch('Contracted')}",
        product("ContractedUnitPrice", "{PricingQuantity}"),
        "the cost is of another block size than the price",
    ),
    Repair(
        "MissingContractedUnitPrice",
        "ContractedUnitPrice",
        f"{is_missing('ContractedUnitPrice')} AND {price_of('{ContractedCost}')} > 0",
        price_of("{ContractedCost}"),
        "as ContractedCost",
    ),
    Repair(
        "MissingListCost",
        "ListCost",
        f"{is_missing('ListCost')} AND ({{ContractedCost}} <> 0 OR {_HAS_COST})",
        f"coalesce(nullif({product('ListUnitPrice', '{PricingQuantity}')}, 0), {{ContractedCost}})",
        "Azure has 0 for usage of reservations and for the marketplace",
    ),
    Repair(
        "MissingListUnitPrice",
        "ListUnitPrice",
        f"{is_missing('ListUnitPrice')} AND {price_of('{ListCost}')} > 0",
        price_of("{ListCost}"),
        "as ListCost",
    ),
    Repair(
        "ContractedCostNotPriceTimesQuantity",
        "ContractedCost",
        f"block_size IS NULL AND {_mismatch('Contracted')}",
        None,
        "without the block size nobody knows which of the three is wrong",
    ),
    Repair(
        "ListCostNotPriceTimesQuantity",
        "ListCost",
        _mismatch("List"),
        None,
        "Azure corrected it; only another export of the month has the right cost",
    ),
    Repair(
        "ListCostLessThanContractedCost",
        "ListCost",
        "0 < {ListCost} AND {ListCost} < {ContractedCost}",
        None,
        "savings would be negative",
    ),
    Repair(
        "ContractedCostLessThanEffectiveCost",
        "ContractedCost",
        "0 < {ContractedCost} AND {ContractedCost} < {EffectiveCost}",
        None,
        "savings would be negative",
    ),
)

_QUANTITIES = (
    Repair(
        "MissingPricingQuantity",
        "PricingQuantity",
        "PricingQuantity = 0 AND (BilledCost <> 0 AND billed_unit_price <> 0 "
        "OR EffectiveCost <> 0 AND effective_unit_price <> 0)",
        f"coalesce({quotient('nullif(BilledCost, 0)', 'billed_unit_price')}, "
        f"{quotient('EffectiveCost', 'effective_unit_price')})",
        "a cost is of some quantity",
    ),
    Repair(
        "MissingConsumedQuantity",
        "ConsumedQuantity",
        "ConsumedQuantity = 0 AND {ChargeCategory} = 'Usage' AND {PricingQuantity} <> 0 "
        f"AND coalesce({{CommitmentDiscountStatus}}, '') <> 'Unused' AND {_HAS_COST}",
        product("{PricingQuantity}", _BLOCK),
        "a cost is of some quantity",
    ),
)

_NAMES_AND_WORDS = (
    Repair(
        "MissingPricingUnit",
        "PricingUnit",
        "PricingUnit IS NULL AND {PricingQuantity} IS NOT NULL",
        "coalesce(ConsumedUnit, 'Units')",
        "what has no unit is counted in Units, as Microsoft's list of units has it",
    ),
    Repair(
        "InvalidChargeFrequency",
        "ChargeFrequency",
        f"{_COMMITMENT_PURCHASE} AND lower(ChargeFrequency) = 'usage-based'",
        "'Recurring'",
        "1.0 has it on savings plans that are paid by the month",
    ),
    Repair(
        "PricingCategoryShouldBeCommitted",
        "PricingCategory",
        "{ChargeCategory} = 'Usage' AND CommitmentDiscountId IS NOT NULL "
        "AND {CommitmentDiscountStatus} IS NOT NULL "
        "AND PricingCategory IN ('Standard', 'On-Demand')",
        "'Committed'",
        "usage that a commitment covers has its price",
    ),
    Repair(
        "PricingCategoryShouldBeStandard",
        "PricingCategory",
        f"{_COMMITMENT_PURCHASE} AND PricingCategory IN ('Committed', 'Commitment-Based')",
        "'Standard'",
        "no commitment lowers the price of a commitment",
    ),
    Repair("MissingProviderName", "ProviderName", "ProviderName IS NULL", "'Microsoft'", ""),
    Repair(
        "MissingPublisherName",
        "PublisherName",
        "PublisherName IS NULL "
        "AND (publisher_category = 'Cloud Provider' OR CommitmentDiscountId IS NOT NULL)",
        "'Microsoft'",
        "empty for reservations and savings plans",
    ),
    Repair(
        "InvalidPublisherName",
        "PublisherName",
        "PublisherName = 'Microsoft Corporation'",
        "'Microsoft'",
        "one company has one name",
    ),
    Repair(
        "MissingServiceName",
        "ServiceName",
        "ServiceName IS NULL",
        "coalesce(if(publisher_category = 'Vendor', PublisherName, NULL), meter_subcategory, "
        "meter_category, {PublisherName})",
        "empty for the marketplace, commitments, credits and rounding",
    ),
    Repair(
        "MissingServiceCategory",
        "ServiceCategory",
        "ServiceCategory IS NULL",
        "coalesce(service_category, 'Other')",
        "as ServiceName",
    ),
    Repair(
        "InvalidServiceSubcategory",
        "ServiceSubcategory",
        "ServiceSubcategory <> service_subcategory AND service_category = {ServiceCategory}",
        "service_subcategory",
        "FOCUS has a closed list, and one subcategory for a service; Microsoft publishes it",
    ),
    Repair(
        "InternalResourceType",
        "ResourceType",
        _HAS_INTERNAL_TYPE,
        "coalesce(resource_type_name, "
        "CASE WHEN ResourceId = CommitmentDiscountId THEN {CommitmentDiscountType} END, "
        f"ResourceType, {_INTERNAL_TYPE})",
        "people read the portal's names",
    ),
)

_CELLS = (
    *(
        Repair("NoValue", column, f"lower({column}) IN {_NO_VALUES}", "NULL", "words for no value")
        for column in (*_MAY_BE_UNASSIGNED, *_VENDORS_UNASSIGNED)
    ),
    *(
        Repair(
            "MixedCase",
            column,
            f"{column} <> lower({column})",
            f"lower({column})",
            "Azure spells one id in several ways",
        )
        for column in _IDS
    ),
)

_NATIVE = NativeMapping(
    "azure-focus",
    names=_NAMES,
    inputs=(
        *_INPUTS,
        Input("x_amortizationclass"),
        Input("x_effectivecostinusd", SqlType.MONEY),
        *map(Input, _VENDORS_UNASSIGNED),
    ),
    derived=_DERIVED,
    repairs=(*_COSTS, *_QUANTITIES, *_NAMES_AND_WORDS, *_CELLS),
    moves=(
        (
            "commitment purchase with an effective cost",
            _EFFECTIVE_COST_OF_PURCHASE,
            "Azure counts the purchase of a commitment in EffectiveCost, and its use as well",
        ),
    ),
    lookups=(
        Lookup(
            "region",
            "azure_regions.csv",
            (
                "CASE WHEN RegionId IS NULL OR RegionName IS NULL "
                "THEN lower(coalesce(RegionId, RegionName, old_region)) END",
            ),
        ),
        Lookup(
            "resource_type",
            "azure_resource_types.csv",
            (f"CASE WHEN {_HAS_INTERNAL_TYPE} THEN {_INTERNAL_TYPE} END",),
        ),
        Lookup(
            "service",
            "azure_service_names.csv",
            ("ServiceName",),
        ),
    ),
    kept=frozenset(
        ["x_skudetails", *(spelling for column in _INPUTS for spelling in column.spellings)]
    ),
)

AZURE_FOCUS = _NATIVE.focus_mapping()
