"""FOCUS files of any provider and version: Google, Oracle, Alibaba, Tencent, IBM, SaaS vendors.

Providers keep names of old versions for years. What a provider adds to FOCUS without the `x_` of
custom columns gets it: `oci_CompartmentId` becomes `x_oci_compartmentid`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.focus.mapping import Expression, Input
from finops_dagster.focus.native import OLDER_NAMES, NativeMapping
from finops_dagster.focus.repairs import SPECIFICATION, Repair

# The names that columns of 1.2 have in other versions, or had while they were a vendor's own.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "InvoiceId": ("x_invoiceid",),
    "PricingCurrency": ("x_pricingcurrency",),
    "RegionName": ("region",),
    "SkuMeter": ("x_skumetername", "x_usagetype"),
}
# Columns that only one provider has, where a file does not name the provider.
_OWN_COLUMNS = {
    "Oracle": ("oci_referencenumber", "oci_compartmentid"),
    "AWS": ("x_servicecode", "x_usagetype", "x_costcategories"),
    "Microsoft": ("x_billingprofileid", "x_invoicesectionid"),
    "Google Cloud": ("x_credits", "x_currencyconversionrate", "x_project", "x_serviceid"),
    "Alibaba Cloud": ("x_billingitemcode", "x_commoditycode"),
    "Tencent Cloud": ("x_componenttype", "x_subproductname"),
}


def _provider(columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    """Return SQL for the provider's name, with that of 1.3 and of 1.0-preview."""
    names = ("providername", "serviceprovidername", *OLDER_NAMES["ProviderName"])
    read = [name for name in names if name in columns]
    cells = [Sql(f"nullif({quoted(name)}, '')") for name in read]
    cells += [
        literal(provider)
        for provider, own in _OWN_COLUMNS.items()
        if any(name in columns for name in own)
    ]
    return Sql(f"coalesce({', '.join([*cells, 'NULL'])})"), read


def _category_of_array() -> str:
    """Return SQL for the first category of FOCUS in an array of words, as Google exports them."""
    allowed = ", ".join(map(literal, SPECIFICATION.column("ServiceCategory").allowed_values))
    words = (
        "list_transform(string_split(trim(ServiceCategory, '[]'), ','), "
        "lambda word: trim(word, ' \"'''))"
    )
    return f"coalesce(list_filter({words}, lambda word: word IN ({allowed}))[1], 'Other')"


_DERIVED: Mapping[str, Expression] = {
    "ChargeClass": Expression(
        "coalesce(ChargeClass, CASE WHEN back_reference IS NOT NULL "
        "AND ChargePeriodStart < BillingPeriodStart THEN 'Correction' END)",
        "Oracle names the charge that is corrected",
    ),
    "SubAccountType": Expression(
        "coalesce(SubAccountType, CASE split_part(SubAccountId, '.', 2) "
        "WHEN 'tenancy' THEN 'Tenancy' WHEN 'compartment' THEN 'Compartment' END)",
        "Oracle's ids have the type",
    ),
}

_REPAIRS = (
    Repair(
        "ArrayOfServiceCategories",
        "ServiceCategory",
        "starts_with(ServiceCategory, '[')",
        _category_of_array(),
        "Google has all words of its product taxonomy, of which FOCUS knows one",
    ),
    Repair(
        "InclusiveEnd",
        "BillingPeriodEnd",
        "CAST(BillingPeriodEnd AS DATE) = last_day(BillingPeriodStart) "
        "AND second(BillingPeriodEnd) <> 59",
        "BillingPeriodEnd + INTERVAL 1 DAY",
        "Google has the last day of the month",
    ),
)

_INPUTS = (
    Input("reference", spellings=("oci_referencenumber",)),
    Input("back_reference", spellings=("oci_backreferencenumber",)),
)

_NATIVE = NativeMapping(
    "focus-files",
    names=_NAMES,
    inputs=_INPUTS,
    derived=_DERIVED,
    repairs=_REPAIRS,
    builds={"ProviderName": _provider},
    kept=frozenset(["region", *(spelling for column in _INPUTS for spelling in column.spellings)]),
    line_items="[coalesce(reference, CAST(line_number AS VARCHAR))]",
)

FOCUS_FILES = _NATIVE.focus_mapping()
