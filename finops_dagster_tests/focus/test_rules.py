"""The rules of FOCUS, on charges that keep them and on charges that break them one by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from finops_dagster.billing.columns import Sql
from finops_dagster.focus.conformance import BrokenRule, find_broken_rules
from finops_dagster.focus.rules import CustomColumnsRule, Rule, rules_of
from finops_dagster.focus.specification import Specification

Charge = dict[str, str]
"""The SQL of the columns that are not NULL."""

FOCUS = Specification.load("1.2")
RULES = {rule.id: rule for rule in rules_of(FOCUS)}
NEWER = Specification.read(Path(__file__).with_name("focus-1.4.toml"))

BASE: Charge = {
    "BilledCost": "1.5",
    "BillingAccountId": "'001'",
    "BillingAccountName": "'Acme'",
    "BillingAccountType": "'Payer'",
    "BillingCurrency": "'EUR'",
    "BillingPeriodStart": "TIMESTAMP '2026-01-01'",
    "BillingPeriodEnd": "TIMESTAMP '2026-02-01'",
    "ChargeCategory": "'Usage'",
    "ChargeDescription": "'One hour of a small machine'",
    "ChargeFrequency": "'Usage-Based'",
    "ChargePeriodStart": "TIMESTAMP '2026-01-01 00:00'",
    "ChargePeriodEnd": "TIMESTAMP '2026-01-01 01:00'",
    "ContractedCost": "1.5",
    "EffectiveCost": "1.5",
    "InvoiceIssuerName": "'Cloud'",
    "ListCost": "2",
    "PricingCurrency": "'EUR'",
    "PricingCurrencyEffectiveCost": "1.5",
    "ProviderName": "'Cloud'",
    "PublisherName": "'Cloud'",
    "ServiceCategory": "'Compute'",
    "ServiceName": "'Machines'",
    "ServiceSubcategory": "'Virtual Machines'",
    "x_source_line_items": "['line-1']",
}
PRICED: Charge = {
    **BASE,
    "ContractedUnitPrice": "0.75",
    "ListUnitPrice": "1",
    "PricingCategory": "'Standard'",
    "PricingCurrencyContractedUnitPrice": "0.75",
    "PricingCurrencyListUnitPrice": "1",
    "PricingQuantity": "2",
    "PricingUnit": "'GB-Hours'",
    "ResourceId": "'vm-größe'",
    "ResourceType": "'Machine'",
    "SkuId": "'small'",
    "SkuMeter": "'hours'",
    "SkuPriceDetails": "MAP {'CoreCount': '2', 'x_size': 'small'}",
    "SkuPriceId": "'small-eu'",
    "Tags": "MAP {'team': 'web'}",
}
USAGE = {**PRICED, "ConsumedQuantity": "2", "ConsumedUnit": "'Hours'"}
COMMITMENT = {
    **PRICED,
    "CommitmentDiscountCategory": "'Spend'",
    "CommitmentDiscountId": "'plan-1'",
    "CommitmentDiscountQuantity": "2",
    "CommitmentDiscountType": "'Savings Plan'",
    "CommitmentDiscountUnit": "'EUR'",
}
COVERED = {
    **COMMITMENT,
    "BilledCost": "0",
    "CommitmentDiscountStatus": "'Used'",
    "ConsumedQuantity": "2",
    "ConsumedUnit": "'Hours'",
    "PricingCategory": "'Committed'",
}
PURCHASE = {
    **COMMITMENT,
    "ChargeCategory": "'Purchase'",
    "ChargeFrequency": "'Recurring'",
    "EffectiveCost": "0",
    "PricingCurrencyEffectiveCost": "0",
    "ResourceId": "'plan-1'",
}
UNUSED = {
    **COMMITMENT,
    "BilledCost": "0",
    "CommitmentDiscountStatus": "'Unused'",
    "PricingCategory": "'Committed'",
    "ResourceId": "'plan-1'",
}
TAX = {**BASE, "ChargeCategory": "'Tax'"}
CREDIT = {**BASE, "ChargeCategory": "'Credit'", "BilledCost": "-1", "EffectiveCost": "-1"}
CREDIT |= {"ListCost": "-1", "ContractedCost": "-1"}
CORRECTION = {**BASE, "ChargeClass": "'Correction'", "BilledCost": "-7"}
GOOD = [USAGE, COVERED, PURCHASE, UNUSED, TAX, CREDIT, CORRECTION]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def write(connection: duckdb.DuckDBPyConnection, *charges: Charge) -> Sql:
    """Create the table of charges, with FOCUS's columns and `x_source_line_items`."""
    types = {column.name: str(column.type.sql_type) for column in FOCUS.columns}
    types["x_source_line_items"] = "VARCHAR[]"
    columns = ", ".join(f"{name} {sql_type}" for name, sql_type in types.items())
    connection.execute(f"CREATE OR REPLACE TABLE charges ({columns})")
    for charge in charges:
        values = ", ".join(f"{value} AS {name}" for name, value in charge.items())
        connection.execute(f"INSERT INTO charges BY NAME SELECT {values}")
    return Sql("charges")


def broken(connection: duckdb.DuckDBPyConnection, *charges: Charge) -> dict[str, BrokenRule]:
    found = find_broken_rules(connection, write(connection, *charges))
    return {rule.rule.id: rule for rule in found}


def test_charges_that_keep_every_rule(connection: duckdb.DuckDBPyConnection) -> None:
    assert broken(connection, *GOOD) == {}


def test_no_charges_break_no_rule(connection: duckdb.DuckDBPyConnection) -> None:
    assert broken(connection) == {}


WEB = {"ServiceCategory": "'Web'", "ServiceSubcategory": "'Other (Web)'"}
BROKEN: list[tuple[Charge, Charge, str]] = [
    (USAGE, {"BilledCost": "NULL"}, "BilledCost.not_null"),
    (USAGE, {"ServiceName": "' '"}, "ServiceName.format"),
    (USAGE, {"InvoiceId": "'NULL'"}, "InvoiceId.format"),
    (USAGE, {"ChargeFrequency": "'Monthly'"}, "ChargeFrequency.values"),
    (USAGE, {"ChargeClass": "'correction'"}, "ChargeClass.values"),
    (USAGE, {"BillingCurrency": "'EURO'"}, "BillingCurrency.currency"),
    (USAGE, {"BillingCurrency": "'ABC'"}, "BillingCurrency.currency"),
    (USAGE, {"PricingCurrency": "'eur'"}, "PricingCurrency.currency"),
    (USAGE, {"PricingUnit": "'GB-Mo'"}, "PricingUnit.unit"),
    (USAGE, {"ConsumedUnit": "'10K'"}, "ConsumedUnit.unit"),
    (USAGE, {"ListUnitPrice": "-1", "ListCost": "-2"}, "ListUnitPrice.minimum"),
    (TAX, {"SkuId": "'tax'", "SkuMeter": "'tax'"}, "SkuId.null"),
    (USAGE, {"SkuMeter": "NULL"}, "SkuMeter.filled"),
    (USAGE, {"PricingCategory": "NULL"}, "PricingCategory.filled"),
    (USAGE, {"ConsumedUnit": "NULL"}, "ConsumedUnit.filled"),
    (UNUSED, {"ConsumedQuantity": "1", "ConsumedUnit": "'Hours'"}, "ConsumedQuantity.null"),
    (COVERED, {"CommitmentDiscountStatus": "NULL"}, "CommitmentDiscountStatus.filled"),
    (USAGE, {"CapacityReservationId": "'cr-1'"}, "CapacityReservationStatus.filled"),
    (USAGE, {"ServiceSubcategory": "'Containers (Other)'"}, "ServiceSubcategory.values"),
    (USAGE, {"ServiceSubcategory": "'Caching'"}, "ServiceSubcategory.category"),
    (USAGE, {"SkuPriceDetails": "MAP {'coreCount': '2'}"}, "SkuPriceDetails.keys"),
    (USAGE, {"InvoiceIssuerName": "'Reseller'"}, "BilledCost.third_party"),
    (UNUSED, {"BilledCost": "1"}, "BilledCost.unused"),
    (USAGE, {"BillingPeriodEnd": "TIMESTAMP '2026-01-01'"}, "BillingPeriod.order"),
    (USAGE, {"ChargePeriodEnd": "TIMESTAMP '2026-01-01'"}, "ChargePeriod.order"),
    (PURCHASE, {"ChargeFrequency": "'Usage-Based'"}, "ChargeFrequency.purchase"),
    (PURCHASE, {"EffectiveCost": "1.5"}, "EffectiveCost.purchase"),
    (PURCHASE, {"PricingCurrencyEffectiveCost": "1"}, "PricingCurrencyEffectiveCost.purchase"),
    (PURCHASE, {"PricingCategory": "'Committed'"}, "PricingCategory.committed"),
    (COVERED, {"PricingCategory": "'Standard'"}, "PricingCategory.committed"),
    (PURCHASE, {"ResourceId": "'vm-1'"}, "ResourceId.commitment"),
    (PURCHASE, {"CommitmentDiscountStatus": "'Unused'"}, "CommitmentDiscountStatus.unused"),
    (COVERED, {"CommitmentDiscountUnit": "'Hours'"}, "CommitmentDiscountUnit.one"),
    (USAGE, {"ContractedCost": "1.50000001"}, "ContractedCost.product"),
    (USAGE, {"ListUnitPrice": "1.00000001"}, "ListCost.product"),
    (CREDIT, {"EffectiveCost": "0"}, "EffectiveCost.credit"),
    (CREDIT, {"ContractedCost": "0"}, "ContractedCost.credit"),
    (CREDIT, {"ListCost": "0"}, "ListCost.credit"),
    (
        TAX,
        {"ServiceCategory": "'Web'", "ServiceSubcategory": "'Other (Web)'"},
        "ServiceName.category",
    ),
    (TAX, {"ServiceSubcategory": "'Other (Compute)'"}, "ServiceName.subcategory"),
    (USAGE, {"SkuId": "'large'"}, "SkuPriceId.sku"),
]

ALSO_BROKEN = {
    "CommitmentDiscountStatus.unused": ["BilledCost.unused"],
    "ServiceName.category": ["ServiceName.subcategory"],
    "ServiceSubcategory.category": ["ServiceName.subcategory"],
    "ServiceSubcategory.values": ["ServiceName.subcategory", "ServiceSubcategory.category"],
}


@pytest.mark.parametrize(("charge", "changes", "rule"), BROKEN)
def test_a_charge_that_breaks_a_rule(
    connection: duckdb.DuckDBPyConnection, charge: Charge, changes: Charge, rule: str
) -> None:
    changed = {**charge, **changes, "x_source_line_items": "['line-2']"}
    found = broken(connection, *GOOD, changed)
    assert {rule} <= found.keys() <= {rule, *ALSO_BROKEN.get(rule, ())}
    if not rule.endswith((".one", ".category", ".subcategory", ".sku")):
        assert found[rule].rows == 1
        assert found[rule].example["x_source_line_items"] == ["line-2"]
        assert found[rule].example.keys() == {*RULES[rule].columns, "x_source_line_items"}


def test_every_rule_that_is_not_like_another_has_an_example() -> None:
    """A rule named like another, such as the 20 on columns that are never null, has none."""
    kinds = {rule.rpartition(".")[2] for _, _, rule in BROKEN}
    assert kinds | {"present", "type", "prefix", "format"} == {
        rule.rpartition(".")[2] for rule in RULES
    }
    written = {rule.id for rule in FOCUS.columns_rules}
    assert written <= {rule for _, _, rule in BROKEN}


@pytest.mark.parametrize(
    "column",
    "BilledCost ChargeCategory ChargePeriodStart CommitmentDiscountId ServiceName Tags".split(),
)
def test_a_column_that_is_missing_breaks_one_rule(
    connection: duckdb.DuckDBPyConnection, column: str
) -> None:
    charges = write(connection, *GOOD)
    found = find_broken_rules(connection, Sql(f"(SELECT * EXCLUDE {column} FROM {charges})"))
    assert [(rule.rule.id, rule.rows) for rule in found] == [(f"{column}.present", len(GOOD))]


def test_names_are_spelled_as_focus_spells_them(connection: duckdb.DuckDBPyConnection) -> None:
    charges = write(connection, *GOOD)
    # DuckDB takes names that differ in case for one.
    connection.execute("ALTER TABLE charges RENAME Tags TO renamed")
    connection.execute("ALTER TABLE charges RENAME renamed TO tags")
    found = find_broken_rules(connection, charges)
    assert [rule.rule.id for rule in found] == ["CustomColumns.prefix", "Tags.present"]
    assert found[0].example == {"tags": "MAP(VARCHAR, VARCHAR)"}


@pytest.mark.parametrize(
    ("column", "sql_type"),
    [("SubAccountId", "BIGINT"), ("ListCost", "VARCHAR"), ("ChargePeriodEnd", "VARCHAR")],
)
def test_values_of_another_type_are_read_all_the_same(
    connection: duckdb.DuckDBPyConnection, column: str, sql_type: str
) -> None:
    charges = write(connection, *GOOD)
    cast = Sql(f"(SELECT * REPLACE ({column}::{sql_type} AS {column}) FROM {charges})")
    found = find_broken_rules(connection, cast)
    assert [(rule.rule.id, dict(rule.example)) for rule in found] == [
        (f"{column}.type", {column: sql_type})
    ]


def test_a_value_that_cannot_be_read_is_shown_as_it_was_written(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    charges = write(connection, *GOOD)
    found = find_broken_rules(
        connection, Sql(f"(SELECT * REPLACE ('1,5' AS ListCost) FROM {charges})")
    )
    assert {rule.rule.id: rule.example.get("ListCost") for rule in found} == {
        "ListCost.format": "1,5",
        "ListCost.not_null": "1,5",
        "ListCost.type": "VARCHAR",
    }


def test_costs_that_are_no_numbers_are_found(connection: duckdb.DuckDBPyConnection) -> None:
    charges = write(connection, *GOOD)
    floats = Sql(f"(SELECT * REPLACE ('nan'::DOUBLE AS ConsumedQuantity) FROM {charges})")
    assert "ConsumedQuantity.format" in [
        rule.rule.id for rule in find_broken_rules(connection, floats)
    ]


@pytest.mark.parametrize(
    ("tags", "is_right"),
    [
        ("""'{"team": "web", "shared": true, "floor": 3, "owner": null}'""", True),
        ("""'{"team": {"name": "web"}}'""", False),
        ("""'{"team": ["web"]}'""", False),
        ("""'["web"]'""", False),
        ("""'{team}'""", False),
        ("MAP {'team': ['web']}", False),
    ],
)
def test_tags_are_objects_of_scalars(
    connection: duckdb.DuckDBPyConnection, tags: str, is_right: bool
) -> None:
    charges = write(connection, USAGE)
    found = find_broken_rules(
        connection, Sql(f"(SELECT * REPLACE ({tags} AS Tags) FROM {charges})")
    )
    assert (found == []) == is_right
    assert {rule.rule.id for rule in found} <= {"Tags.format", "Tags.type"}


def test_recommendations_and_disputed_rules_are_marked() -> None:
    assert [rule.id for rule in RULES.values() if not rule.required] == [
        "ChargeDescription.filled",
        "CommitmentDiscountUnit.unit",
        "ConsumedUnit.unit",
        "PricingUnit.unit",
        "ServiceName.subcategory",
        "SkuMeter.filled",
    ]
    assert [rule.id for rule in RULES.values() if rule.disputed] == ["BilledCost.third_party"]


def model_checks() -> dict[str, str]:
    """Return the rules of the foundation's model that check something, with the kind of check."""
    models = sorted(
        Path(__file__).parents[2].glob(".venv-focus-validator/lib/**/model-1.2.0.1.json")
    )
    if not models:
        pytest.skip("the foundation's validator is not installed: see Makefile")
    rules = json.loads(models[0].read_text(encoding="utf-8"))["ModelRules"]
    criteria = {rule: fields["ValidationCriteria"] for rule, fields in rules.items()}
    return {
        rule: checks["Requirement"]["CheckFunction"]
        for rule, checks in criteria.items()
        if checks["Keyword"] != "MAY"
        and "CheckFunction" in checks["Requirement"]
        and '"ModelRuleId"' not in json.dumps(checks["Requirement"])
    }


def test_rules_cover_what_the_foundations_model_checks() -> None:
    """Its 258 checks of one kind, nine lists of values, and one that its validator lacks."""
    checks = model_checks()
    kinds = Counter(checks.values())
    assert kinds["OR"] == 9 and kinds["CheckDecimalValue"] == 1
    assert kinds.total() - kinds["OR"] - kinds["CheckDecimalValue"] == 258
    assert checks.keys() <= {model_id for rule in RULES.values() for model_id in rule.model_ids}


def test_the_models_ids_are_those_of_rules() -> None:
    assert FOCUS.model_rules.keys() <= RULES.keys()
    ids = {model_id for ids in FOCUS.model_rules.values() for model_id in ids}
    assert len(ids) == 268 + 21, "the model's checks, and what it says without a check"


def test_a_newer_version_needs_no_code(connection: duckdb.DuckDBPyConnection) -> None:
    rules: dict[str, Rule] = {rule.id: rule for rule in rules_of(NEWER)}
    assert "ServiceProviderName.not_null" in rules
    assert not [rule for rule in rules if rule.startswith("ProviderName")]
    assert "ServiceProviderName" in rules["BilledCost.third_party"].columns
    custom = rules["CustomColumns.prefix"]
    assert isinstance(custom, CustomColumnsRule) and "HostProviderName" in custom.columns
    found = find_broken_rules(connection, write(connection, *GOOD), NEWER)
    assert {rule.rule.id for rule in found} == {
        "CustomColumns.prefix",
        *(
            f"{column.name}.present"
            for column in NEWER.columns
            if column.name not in {known.name for known in FOCUS.columns}
        ),
    }
