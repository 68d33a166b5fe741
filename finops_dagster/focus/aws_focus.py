"""AWS's FOCUS exports 1.0 and 1.2, with what AWS says that they lack.

AWS lists which columns may be NULL where FOCUS allows none. ConsumedQuantity is the amount that is
charged. Minimum amounts make it larger than the use, which the export does not have.
https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-2-aws-conformance.html
"""

from __future__ import annotations

from collections.abc import Mapping

from finops_dagster.billing.columns import literal
from finops_dagster.focus.mapping import Expression, Input, Lookup
from finops_dagster.focus.native import NativeMapping
from finops_dagster.focus.repairs import IS_OF_CATEGORY, OTHER_SUBCATEGORY, Repair, is_of_category
from finops_dagster.focus.rules import UNIT

_IS_SAVINGS_PLAN = "contains(CommitmentDiscountId, ':savingsplan')"
# An ARN has the type of a resource in its sixth part, before a slash or a colon.
_RESOURCE_KEY = """CASE WHEN ResourceId IS NULL OR ResourceType IS NOT NULL THEN NULL
    WHEN starts_with(ResourceId, 'arn:') THEN concat(split_part(ResourceId, ':', 3), ':', CASE
        WHEN contains(split_part(ResourceId, ':', 6), '/')
        THEN split_part(ltrim(split_part(ResourceId, ':', 6), '/'), '/', 1)
        WHEN split_part(ResourceId, ':', 7) <> '' THEN split_part(ResourceId, ':', 6) END)
    WHEN regexp_full_match(ResourceId, '[a-z]{1,6}-[0-9a-f]{8,17}')
    THEN split_part(ResourceId, '-', 1) || '-'
    ELSE coalesce(service_code, ServiceName) END"""
_SECOND_CATEGORY = "ServiceName = 'Amazon Elastic Compute Cloud' AND ServiceCategory <> 'Compute'"
_IS_OF_ITS_CATEGORY = is_of_category("ServiceCategory")
_HAS_SKU = "{ChargeCategory} IN ('Usage', 'Purchase')"
_SUBCATEGORY = (
    "coalesce(CASE WHEN service_category = {ServiceCategory} THEN service_subcategory END, "
    f"{OTHER_SUBCATEGORY})"
)

_DERIVED: Mapping[str, Expression] = {
    "BillingAccountType": Expression(
        "coalesce(BillingAccountType, 'Management Account')", "1.0 does not have it"
    ),
    "CommitmentDiscountCategory": Expression(
        "coalesce(CommitmentDiscountCategory, CASE WHEN CommitmentDiscountId IS NOT NULL "
        f"THEN if({_IS_SAVINGS_PLAN}, 'Spend', 'Usage') END)"
    ),
    "CommitmentDiscountType": Expression(
        "coalesce(CommitmentDiscountType, CASE WHEN CommitmentDiscountId IS NOT NULL "
        f"THEN if({_IS_SAVINGS_PLAN}, 'Savings Plan', 'Reserved Instance') END)"
    ),
    "RegionName": Expression("coalesce(RegionName, region_name, RegionId)"),
    "ServiceSubcategory": Expression(
        f"coalesce(ServiceSubcategory, {_SUBCATEGORY})",
        "1.0 does not have it; as for the services of CUR",
    ),
    "SkuMeter": Expression(
        "coalesce(SkuMeter, usage_type, {SkuId})", "1.0 does not have it; 1.2 has the usage type"
    ),
    "SubAccountType": Expression("coalesce(SubAccountType, 'Account')", "1.0 does not have it"),
}

_REPAIRS = (
    Repair(
        "MissingInvoiceIssuerName",
        "InvoiceIssuerName",
        "InvoiceIssuerName IS NULL",
        "'Amazon Web Services, Inc.'",
        "AWS says that it may be empty",
    ),
    Repair("MissingProviderName", "ProviderName", "ProviderName IS NULL", "'AWS'", ""),
    Repair(
        "MissingPublisherName",
        "PublisherName",
        "PublisherName IS NULL",
        "{InvoiceIssuerName}",
        "AWS says that it may be empty; what a marketplace sells has its seller",
    ),
    Repair(
        "MissingPricingUnit",
        "PricingUnit",
        "PricingUnit IS NULL AND {PricingQuantity} IS NOT NULL",
        "coalesce(ConsumedUnit, 'Units')",
        "AWS says that it may be empty",
    ),
    *(
        Repair(
            "InvalidUnit",
            f"{kind}Unit",
            f"{kind.lower()}_unit_name IS NOT NULL",
            f"{kind.lower()}_unit_name",
            "a few, such as GiB/Second-Months, are not in FOCUS's spelling",
        )
        for kind in ("Consumed", "Pricing")
    ),
    Repair(
        "MissingSkuId",
        "SkuId",
        f"SkuId IS NULL AND SkuPriceId IS NULL AND service_code IS NOT NULL AND {_HAS_SKU}",
        "service_code",
        "AWS says that it may be empty; the service stands for it, as for line items of CUR",
    ),
    Repair(
        "MissingSkuPriceId",
        "SkuPriceId",
        f"SkuPriceId IS NULL AND {{SkuId}} IS NOT NULL AND {_HAS_SKU}",
        "{SkuId}",
        "AWS says that it may be empty",
    ),
    Repair(
        "MissingResourceType",
        "ResourceType",
        "ResourceType IS NULL AND ResourceId IS NOT NULL",
        "coalesce(resource_type, {ServiceName})",
        "most resources have none; the ARN or the id tells it, or else the service stands for it",
    ),
    Repair(
        "SecondServiceCategory",
        "ServiceCategory",
        _SECOND_CATEGORY,
        "'Compute'",
        "AWS has volumes in Storage under the same name, and a service has one category",
    ),
    Repair(
        "InvalidServiceSubcategory",
        "ServiceSubcategory",
        f"ServiceSubcategory IS NOT NULL AND NOT {IS_OF_CATEGORY}",
        _SUBCATEGORY,
        "FOCUS has a closed list of subcategories for each category",
    ),
)

_INPUTS = (
    Input("service_code", spellings=("x_servicecode",)),
    Input("usage_type", spellings=("x_usagetype",)),
)

_NATIVE = NativeMapping(
    "aws-focus",
    inputs=_INPUTS,
    derived=_DERIVED,
    repairs=_REPAIRS,
    lookups=(
        *(
            Lookup(
                f"{kind.lower()}_unit",
                "aws_units.csv",
                (
                    f"CASE WHEN NOT regexp_full_match({kind}Unit, {literal(UNIT)}) "
                    f"THEN lower({kind}Unit) END",
                ),
            )
            for kind in ("Consumed", "Pricing")
        ),
        Lookup("region", "aws_regions.csv", ("CASE WHEN RegionName IS NULL THEN RegionId END",)),
        Lookup("resource", "aws_resource_types.csv", (_RESOURCE_KEY,)),
        Lookup(
            "service",
            "aws_categories.csv",
            (
                f"CASE WHEN ServiceSubcategory IS NULL OR {_SECOND_CATEGORY} "
                f"OR NOT {_IS_OF_ITS_CATEGORY} THEN ServiceName END",
            ),
        ),
    ),
    kept=frozenset(spelling for column in _INPUTS for spelling in column.spellings),
)

AWS_FOCUS = _NATIVE.focus_mapping()
