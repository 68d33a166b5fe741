"""The columns of AWS's FOCUS 1.0 and 1.2 exports, as projections of a CUR v1 bill.

BilledCost is the unblended cost to the last digit. EffectiveCost is amortised row by row: usage
that a commitment pays for costs its share of the commitment, and the fees and negations that would
count it twice cost nothing. What nobody used of a commitment is in no row's EffectiveCost, which
AWS would give the fee's row. Discounts that a contract gives are rows of their own, so the
contracted cost of a row is its list cost.
https://focus.finops.org/focus-specification/v1-2/
"""

from finops_dagster.billing.columns import literal, quoted
from finops_dagster.demo.projection import (
    Column,
    ColumnType,
    account_name,
    family_map,
    with_milliseconds,
)

_SERVICE_CATEGORIES = {
    "AmazonEC2": "Compute",
    "AWSLambda": "Compute",
    "AmazonEKS": "Compute",
    "ComputeSavingsPlans": "Compute",
    "AmazonRDS": "Databases",
    "AmazonDynamoDB": "Databases",
    "AmazonElastiCache": "Databases",
    "AmazonS3": "Storage",
    "AmazonCloudFront": "Networking",
    "AWSDataTransfer": "Networking",
    "AmazonCloudWatch": "Management and Governance",
    "AmazonSNS": "Integration",
    "AWSQueueService": "Integration",
    "awskms": "Security",
}


def _by_kind(results: dict[str, str], otherwise: str = "NULL") -> str:
    """Return the SQL of what a line item type means; a result is an SQL expression."""
    whens = " ".join(
        f"WHEN {literal(kind)} THEN {result}"
        for kinds, result in results.items()
        for kind in kinds.split()
    )
    return f'CASE "lineItem/LineItemType" {whens} ELSE {otherwise} END'


def _for_usage(sql: str) -> str:
    """Return the SQL of what only usage has."""
    return _by_kind({"Usage DiscountedUsage SavingsPlanCoveredUsage": sql})


_BILLED = quoted("lineItem/UnblendedCost")
_EFFECTIVE = _by_kind(
    {
        "SavingsPlanCoveredUsage": quoted("savingsPlan/SavingsPlanEffectiveCost"),
        "DiscountedUsage": quoted("reservation/EffectiveCost"),
        "SavingsPlanNegation SavingsPlanRecurringFee RIFee": "'0'",
    },
    _BILLED,
)
_LIST = f'coalesce("pricing/publicOnDemandCost", {_BILLED})'
_LIST_UNIT_PRICE = quoted("pricing/publicOnDemandRate")
_CATEGORY = _by_kind(
    {
        "Usage DiscountedUsage SavingsPlanCoveredUsage": "'Usage'",
        "Fee RIFee SavingsPlanRecurringFee": "'Purchase'",
        "Tax": "'Tax'",
        "Credit": "'Credit'",
    },
    "'Adjustment'",
)
_COMMITMENT = 'coalesce("savingsPlan/SavingsPlanARN", "reservation/ReservationARN")'
_SERVICE_CATEGORY = (
    'CASE "lineItem/ProductCode" '
    + " ".join(
        f"WHEN {literal(code)} THEN {literal(category)}"
        for code, category in _SERVICE_CATEGORIES.items()
    )
    + " ELSE 'Other' END"
)

# Columns of both versions, by name.
_STRINGS = {
    "AvailabilityZone": quoted("lineItem/AvailabilityZone"),
    "BillingAccountId": quoted("bill/PayerAccountId"),
    "BillingAccountName": account_name("bill/PayerAccountId"),
    "BillingCurrency": quoted("lineItem/CurrencyCode"),
    "ChargeCategory": _CATEGORY,
    "ChargeClass": _by_kind({"Refund": "'Correction'"}),
    "ChargeDescription": quoted("lineItem/LineItemDescription"),
    "ChargeFrequency": _by_kind(
        {
            "Usage DiscountedUsage SavingsPlanCoveredUsage SavingsPlanNegation": "'Usage-Based'",
            "RIFee SavingsPlanRecurringFee": "'Recurring'",
        },
        "'One-Time'",
    ),
    "CommitmentDiscountCategory": (
        "CASE WHEN \"savingsPlan/SavingsPlanARN\" IS NOT NULL THEN 'Spend'"
        " WHEN \"reservation/ReservationARN\" IS NOT NULL THEN 'Usage' END"
    ),
    "CommitmentDiscountId": _COMMITMENT,
    "CommitmentDiscountName": "NULL",
    "CommitmentDiscountStatus": _by_kind({"DiscountedUsage SavingsPlanCoveredUsage": "'Used'"}),
    "CommitmentDiscountType": (
        'coalesce("savingsPlan/OfferingType",'
        " CASE WHEN \"reservation/ReservationARN\" IS NOT NULL THEN 'Reservation' END)"
    ),
    "ConsumedUnit": _for_usage(quoted("pricing/unit")),
    "InvoiceIssuerName": quoted("bill/InvoicingEntity"),
    "PricingCategory": _by_kind(
        {"Usage": "'Standard'", "DiscountedUsage SavingsPlanCoveredUsage": "'Committed'"}
    ),
    "PricingUnit": quoted("pricing/unit"),
    "ProviderName": "'AWS'",
    "PublisherName": quoted("lineItem/LegalEntity"),
    "RegionId": quoted("product/regionCode"),
    "RegionName": quoted("product/location"),
    "ResourceId": quoted("lineItem/ResourceId"),
    "ResourceName": (
        'CASE WHEN "lineItem/ResourceId" IS NOT NULL THEN "resourceTags/user:Name" END'
    ),
    "ResourceType": (
        'CASE WHEN "lineItem/ResourceId" IS NOT NULL THEN "product/productFamily" END'
    ),
    "ServiceCategory": _SERVICE_CATEGORY,
    "ServiceName": 'coalesce("product/ProductName", "lineItem/ProductCode")',
    "SkuId": quoted("product/sku"),
    "SkuPriceId": quoted("pricing/RateCode"),
    "SubAccountId": quoted("lineItem/UsageAccountId"),
    "SubAccountName": account_name("lineItem/UsageAccountId"),
    "x_Operation": quoted("lineItem/Operation"),
    "x_ServiceCode": quoted("lineItem/ProductCode"),
}
_DOUBLES = {
    "BilledCost": _BILLED,
    "ConsumedQuantity": _for_usage(quoted("lineItem/UsageAmount")),
    "ContractedCost": _LIST,
    "ContractedUnitPrice": _LIST_UNIT_PRICE,
    "EffectiveCost": _EFFECTIVE,
    "ListCost": _LIST,
    "ListUnitPrice": _LIST_UNIT_PRICE,
    "PricingQuantity": _for_usage(quoted("lineItem/UsageAmount")),
}
_TIMESTAMPS = {
    "BillingPeriodStart": with_milliseconds("bill/BillingPeriodStartDate"),
    "BillingPeriodEnd": with_milliseconds("bill/BillingPeriodEndDate"),
    "ChargePeriodStart": with_milliseconds("lineItem/UsageStartDate"),
    "ChargePeriodEnd": with_milliseconds("lineItem/UsageEndDate"),
}
_MAPS = {"Tags": family_map("resourceTags"), "x_CostCategories": family_map("costCategory")}
_DISCOUNTS = {"x_Discounts": family_map("discount", doubles=True)}

# What one of the versions has and the other has not.
_STRINGS_1_0 = {"x_UsageType": quoted("lineItem/UsageType")}
_STRINGS_1_2 = {
    "BillingAccountType": "'Payer account'",
    "CapacityReservationId": "NULL",
    "CapacityReservationStatus": "NULL",
    "CommitmentDiscountUnit": f'CASE WHEN {_COMMITMENT} IS NOT NULL THEN "pricing/unit" END',
    "InvoiceId": quoted("bill/InvoiceId"),
    "PricingCurrency": quoted("pricing/currency"),
    "ServiceSubcategory": "NULL",
    "SkuMeter": quoted("lineItem/UsageType"),
    "SubAccountType": "'Usage account'",
}
_DOUBLES_1_2 = {
    "CommitmentDiscountQuantity": (
        f"CASE WHEN {_COMMITMENT} IS NOT NULL THEN {_for_usage(quoted('lineItem/UsageAmount'))} END"
    ),
    "PricingCurrencyContractedUnitPrice": _LIST_UNIT_PRICE,
    "PricingCurrencyEffectiveCost": _EFFECTIVE,
    "PricingCurrencyListUnitPrice": _LIST_UNIT_PRICE,
}
_MAPS_1_2 = {
    "SkuPriceDetails": (
        "filled([{'key': 'InstanceType', 'value': \"product/instanceType\"},"
        " {'key': 'OperatingSystem', 'value': \"product/operatingSystem\"},"
        " {'key': 'CoreCount', 'value': \"product/vcpu\"}])"
    )
}


def _columns(families: dict[ColumnType, dict[str, str]]) -> tuple[Column, ...]:
    """Return columns in the order of the alphabet, in which x_ comes last."""
    columns = (
        Column(name, type_, sql) for type_, cells in families.items() for name, sql in cells.items()
    )
    return tuple(sorted(columns, key=lambda column: column.name))


FOCUS_1_0_COLUMNS = _columns(
    {
        ColumnType.STRING: _STRINGS | _STRINGS_1_0,
        ColumnType.DOUBLE: _DOUBLES,
        ColumnType.TIMESTAMP: _TIMESTAMPS,
        ColumnType.MAP: _MAPS,
        ColumnType.DOUBLE_MAP: _DISCOUNTS,
    }
)
FOCUS_1_2_COLUMNS = _columns(
    {
        ColumnType.STRING: _STRINGS | _STRINGS_1_2,
        ColumnType.DOUBLE: _DOUBLES | _DOUBLES_1_2,
        ColumnType.TIMESTAMP: _TIMESTAMPS,
        ColumnType.MAP: _MAPS | _MAPS_1_2,
        ColumnType.DOUBLE_MAP: _DISCOUNTS,
    }
)
