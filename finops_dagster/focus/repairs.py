"""What FOCUS exports of any vendor lack or have wrong: derived columns and repairs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from finops_dagster.billing.columns import SqlType, literal
from finops_dagster.focus.mapping import Expression
from finops_dagster.focus.specification import FocusColumn, Specification

SPECIFICATION = Specification.load("1.2")
# The words of FOCUS 1.0-preview and of Google's SQL, without anything but their letters.
_OLDER_WORDS: Mapping[str, Mapping[str, str]] = {
    "ChargeCategory": {"regular": "Usage", "roundingerror": "Adjustment"},
    "ChargeFrequency": {"monthly": "Recurring"},
    "PricingCategory": {
        "ondemand": "Standard",
        "commitmentbased": "Committed",
        "spot": "Dynamic",
    },
}


@dataclass(frozen=True)
class Repair:
    """A repair of a column where the SQL condition `when` holds; `code` is its name.

    `value` is SQL for the repaired value. In `when` and `value`, `BilledCost` is what the vendor
    wrote, and `{BilledCost}` what the charge has. If `value` is None, the charge only gets the
    code, and the value stays. `why` is the reason.
    """

    code: str
    column: str
    when: str
    value: str | None
    why: str


def product(left: str, right: str) -> str:
    """Return SQL for the product of two amounts as MONEY; NULL if it does not fit.

    It is computed with doubles: a DECIMAL has too few digits.
    """
    return f"TRY_CAST(CAST({left} AS DOUBLE) * CAST({right} AS DOUBLE) AS {SqlType.MONEY})"


def quotient(left: str, right: str) -> str:
    """Return SQL for the quotient of two amounts as MONEY, computed with doubles.

    NULL if the second one is 0, or if the quotient does not fit.
    """
    divisor = f"nullif(CAST({right} AS DOUBLE), 0)"
    return f"TRY_CAST(CAST({left} AS DOUBLE) / {divisor} AS {SqlType.MONEY})"


def differs(left: str, right: str) -> str:
    """Return SQL that is true if two amounts differ by more than 1e-9 of the first one."""
    a, b = (f"CAST({amount} AS DOUBLE)" for amount in (left, right))
    return f"(abs({a} - {b}) > 1e-9 * abs({a}))"


def is_missing(amount: str) -> str:
    """Return SQL that is true if an amount is NULL or 0."""
    return f"(coalesce({amount}, 0) = 0)"


def _spelling_repairs() -> Iterator[Repair]:
    """Yield the repairs of values that FOCUS spells differently, or has replaced by another one.

    Values are compared by their letters: `usage-based` is `Usage-Based`.
    """
    for column in SPECIFICATION.columns:
        if not column.allowed_values or column.values_by_category:
            continue
        words = {_letters(word): word for word in column.allowed_values}
        words |= _OLDER_WORDS.get(column.name, {})
        cases = " ".join(f"WHEN {literal(key)} THEN {literal(word)}" for key, word in words.items())
        allowed = ", ".join(map(literal, column.allowed_values))
        letters = f"regexp_replace(lower({column.name}), '[^a-z]', '', 'g')"
        yield Repair(
            "Spelling",
            column.name,
            f"{column.name} NOT IN ({allowed}) AND {letters} IN ({', '.join(map(literal, words))})",
            f"CASE {letters} {cases} END",
            "FOCUS has a closed list of values",
        )


def _letters(word: str) -> str:
    return re.sub("[^a-z]", "", word.lower())


def price_of(cost: str) -> str:
    """Return SQL for the unit price: the cost divided by PricingQuantity.

    `cost` is SQL. The result has references as in `Repair`. It is NULL if the price is negative or
    cannot be computed, and for charges that are neither usage nor purchases.
    """
    price = quotient(cost, "{PricingQuantity}")
    return (
        f"CASE WHEN {price} >= 0 AND {{ChargeCategory}} IN ('Usage', 'Purchase') THEN {price} END"
    )


def is_of_category(category: str) -> str:
    """Return SQL that is true if the vendor's ServiceSubcategory belongs to a ServiceCategory.

    `category` is SQL. The result is NULL if FOCUS does not have the category.
    """
    column = SPECIFICATION.column("ServiceSubcategory")
    cases = " ".join(
        f"WHEN {literal(category)} THEN ServiceSubcategory IN ({', '.join(map(literal, names))})"
        for category, names in (column.values_by_category or {}).items()
    )
    return f"(CASE {category} {cases} END)"


def price_details(details: str, names: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """Return SQL for SkuPriceDetails: keys that FOCUS does not define get `x_` before them.

    `details` is SQL of the vendor's map. `names` has, by key of FOCUS, the vendor's names of it, of
    which the first one with a value counts. The vendor's names stay too, with `x_`.
    """
    keys = ", ".join(map(literal, SPECIFICATION.column("SkuPriceDetails").keys))
    is_named = f"(entry.key IN ({keys}) OR starts_with(entry.key, 'x_'))"
    entries = f"map_entries({details})"
    unchanged = f"list_filter({entries}, lambda entry: {is_named})"
    prefixed = (
        f"list_transform(list_filter({entries}, lambda entry: NOT {is_named}), "
        "lambda entry: {'key': 'x_' || entry.key, 'value': entry.value})"
    )
    renamed = ", ".join(
        f"{{'key': {literal(key)}, 'value': "
        f"coalesce({', '.join(f'({details})[{literal(name)}]' for name in vendor_names)})}}"
        for key, vendor_names in (names or {}).items()
    )
    maps = [f"map_from_entries({prefixed})"]
    if renamed:
        maps.append(
            f"map_from_entries(list_filter([{renamed}], lambda entry: entry.value IS NOT NULL))"
        )
    maps.append(f"map_from_entries({unchanged})")
    return f"CASE WHEN {details} IS NOT NULL THEN map_concat({', '.join(maps)}) END"


# NULL for a category that FOCUS does not have.
OTHER_SUBCATEGORY = (
    "CASE WHEN {ServiceCategory} IN ("
    + ", ".join(map(literal, SPECIFICATION.column("ServiceCategory").allowed_values))
    + ") THEN 'Other (' || {ServiceCategory} || ')' END"
)
IS_OF_CATEGORY = is_of_category("{ServiceCategory}")
_IS_COMMITTED = (
    "{CommitmentDiscountId} IS NOT NULL AND {ChargeCategory} IN ('Usage', 'Purchase') "
    "AND {ChargeClass} IS NULL"
)
_SAME_CURRENCY = "{PricingCurrency} = {BillingCurrency}"
_NO_PRICE = "the export has no price, and this one makes the cost"

# What every vendor's export may lack, and how it follows from other columns.
DERIVED: Mapping[str, Expression] = {
    "CommitmentDiscountQuantity": Expression(
        f"coalesce(CommitmentDiscountQuantity, CASE WHEN {_IS_COMMITTED} "
        "THEN CASE {CommitmentDiscountCategory} WHEN 'Usage' THEN {PricingQuantity} "
        "WHEN 'Spend' THEN if({ChargeCategory} = 'Usage', {EffectiveCost}, {BilledCost}) END END)",
        "FOCUS 1.0 does not have it; a promise of money is used by what the usage costs",
    ),
    "CommitmentDiscountUnit": Expression(
        "coalesce(CommitmentDiscountUnit, CASE WHEN {CommitmentDiscountQuantity} IS NOT NULL "
        "THEN CASE {CommitmentDiscountCategory} WHEN 'Usage' THEN {PricingUnit} "
        "WHEN 'Spend' THEN {BillingCurrency} END END)",
        "as CommitmentDiscountQuantity",
    ),
    "ContractedCost": Expression(
        f"coalesce(ContractedCost, {product('ContractedUnitPrice', '{PricingQuantity}')})",
        "FOCUS defines it as this product",
    ),
    "ContractedUnitPrice": Expression(
        f"coalesce(ContractedUnitPrice, {price_of('{ContractedCost}')})", _NO_PRICE
    ),
    "ListCost": Expression(
        f"coalesce(ListCost, {product('ListUnitPrice', '{PricingQuantity}')})",
        "FOCUS defines it as this product",
    ),
    "ListUnitPrice": Expression(f"coalesce(ListUnitPrice, {price_of('{ListCost}')})", _NO_PRICE),
    "PricingCurrency": Expression(
        "coalesce(PricingCurrency, {BillingCurrency})",
        "prices are in the billing currency where the export does not name another one",
    ),
    "PricingCurrencyContractedUnitPrice": Expression(
        "coalesce(PricingCurrencyContractedUnitPrice, "
        f"CASE WHEN {_SAME_CURRENCY} THEN {{ContractedUnitPrice}} END)"
    ),
    "PricingCurrencyEffectiveCost": Expression(
        "coalesce(PricingCurrencyEffectiveCost, "
        f"CASE WHEN {_SAME_CURRENCY} THEN {{EffectiveCost}} END)"
    ),
    "PricingCurrencyListUnitPrice": Expression(
        "coalesce(PricingCurrencyListUnitPrice, "
        f"CASE WHEN {_SAME_CURRENCY} THEN {{ListUnitPrice}} END)"
    ),
    "RegionId": Expression(
        "coalesce(RegionId, lower(replace(RegionName, ' ', '')))",
        "the name without its blanks, as providers form ids",
    ),
    "RegionName": Expression("coalesce(RegionName, RegionId)", "the id, where there is no name"),
    "ServiceSubcategory": Expression(
        f"coalesce(ServiceSubcategory, {OTHER_SUBCATEGORY})", "FOCUS 1.0 does not have it"
    ),
    "SkuId": Expression(
        "coalesce(SkuId, split_part(SkuPriceId, '.', 1))",
        "a price belongs to one SKU; AWS begins the price's id with it",
    ),
    "SkuPriceDetails": Expression(
        price_details("SkuPriceDetails"), "FOCUS's keys, and x_ before all others"
    ),
    "Tags": Expression(
        "map_from_entries(list_transform(map_entries(Tags), lambda entry: "
        "{'key': entry.key, 'value': coalesce(entry.value, 'true')}))",
        "FOCUS has true for a tag without a value",
    ),
}


_COLUMN = re.compile(r"\b(" + "|".join(c.name for c in SPECIFICATION.columns) + r")\b")
# What a commitment's purchase and its unused part are charges of: the commitment itself.
_IS_OF_COMMITMENT = (
    "{CommitmentDiscountId} IS NOT NULL AND "
    "({ChargeCategory} = 'Purchase' OR {CommitmentDiscountStatus} = 'Unused')"
)


def is_null(column: FocusColumn) -> str | None:
    """Return SQL that is true for the charges in which FOCUS requires this column to be NULL.

    It has references as in `Repair`, and does not read the column itself. None if FOCUS has no such
    rule.
    """
    return column.null_when and _COLUMN.sub(r"{\1}", column.null_when)


def _not_applicable() -> Iterator[Repair]:
    """Yield the repairs that take a value away where FOCUS allows none."""
    for column in SPECIFICATION.columns:
        condition = is_null(column)
        if condition:
            yield Repair(
                "NotApplicable",
                column.name,
                f"{column.name} IS NOT NULL AND ({condition})",
                "NULL",
                "FOCUS allows no value here",
            )


_ENDS = ("BillingPeriodEnd", "ChargePeriodEnd")

# What every vendor's export may have wrong, tried after the repairs of the vendor.
REPAIRS: Sequence[Repair] = (
    *_not_applicable(),
    Repair(
        "MissingResourceId",
        "ResourceId",
        f"ResourceId IS NULL AND {_IS_OF_COMMITMENT}",
        "{CommitmentDiscountId}",
        "the resource of a commitment's purchase, and of its unused part, is the commitment",
    ),
    Repair(
        "MissingResourceId",
        "ResourceName",
        f"ResourceId IS NULL AND ResourceName IS NULL AND {_IS_OF_COMMITMENT} "
        "AND CommitmentDiscountName IS NOT NULL",
        "CommitmentDiscountName",
        "as ResourceId",
    ),
    Repair(
        "MissingResourceId",
        "ResourceType",
        f"ResourceId IS NULL AND ResourceType IS NULL AND {_IS_OF_COMMITMENT}",
        "{CommitmentDiscountType}",
        "as ResourceId",
    ),
    *(
        Repair(
            "InclusiveEnd",
            column,
            f"strftime({column}, '%M:%S') = '59:59'",
            f"{column} + INTERVAL 1 SECOND",
            "FOCUS's periods end where the next one starts",
        )
        for column in _ENDS
    ),
    Repair(
        "InvalidServiceSubcategory",
        "ServiceSubcategory",
        f"ServiceSubcategory IS NOT NULL AND NOT {IS_OF_CATEGORY}",
        OTHER_SUBCATEGORY,
        "FOCUS has a closed list of subcategories for each category",
    ),
    Repair(
        "NoServiceCategory",
        "ServiceCategory",
        "ServiceCategory IS NULL",
        "'Other'",
        "FOCUS's category for what has no other one",
    ),
    *_spelling_repairs(),
)
