"""AWS's FOCUS exports become FOCUS 1.2; what AWS leaves empty is filled where the rest tells it."""

from __future__ import annotations

import csv
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.focus.aws_cur import AWS_CUR
from finops_dagster.focus.rules import UNIT
from finops_dagster.sources.aws.data_exports import AwsFocus
from finops_dagster_tests.demo.delivered import all_rows
from finops_dagster_tests.focus.native_month import NativeMonth, Row, has_sample, sample_rows

AWS = "Amazon Web Services, Inc."
PLAN = "arn:aws:savingsplans::111122223333:savingsplan/5fc25157"
# Two hours of an instance in FOCUS 1.0.
USAGE: Row = {
    "AvailabilityZone": "eu-west-1a",
    "BilledCost": "0.2",
    "EffectiveCost": "0.2",
    "ContractedCost": "0.2",
    "ListCost": "0.25",
    "ContractedUnitPrice": "0.1",
    "ListUnitPrice": "0.125",
    "PricingQuantity": "2",
    "PricingUnit": "Hours",
    "PricingCategory": "Standard",
    "ConsumedQuantity": "2",
    "ConsumedUnit": "Hours",
    "BillingAccountId": "111122223333",
    "BillingAccountName": "Example",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2024-09-01T00:00:00.000Z",
    "BillingPeriodEnd": "2024-10-01T00:00:00.000Z",
    "ChargePeriodStart": "2024-09-01T10:00:00.000Z",
    "ChargePeriodEnd": "2024-09-01T11:00:00.000Z",
    "ChargeCategory": "Usage",
    "ChargeDescription": "$0.125 per hour",
    "ChargeFrequency": "Usage-Based",
    "InvoiceIssuerName": AWS,
    "ProviderName": "AWS",
    "PublisherName": AWS,
    "RegionId": "eu-west-1",
    "RegionName": "EU (Ireland)",
    "ResourceId": "i-0123456789abcdef0",
    "ResourceType": "instance",
    "ServiceCategory": "Compute",
    "ServiceName": "Amazon Elastic Compute Cloud",
    "SkuId": "SKU",
    "SkuPriceId": "SKU.JRTCKXETXF.6YS6EN2CT7",
    "SubAccountId": "444455556666",
    "SubAccountName": "web",
    "Tags": '{"team": "shop"}',
    "x_ServiceCode": "AmazonEC2",
    "x_UsageType": "EU-BoxUsage:m5.large",
}
# Columns that 1.2 added, as AWS fills them.
ADDED: Row = {
    "BillingAccountType": "Management Account",
    "InvoiceId": "INV-1",
    "PricingCurrency": "USD",
    "PricingCurrencyContractedUnitPrice": "0.1",
    "PricingCurrencyEffectiveCost": "0.2",
    "PricingCurrencyListUnitPrice": "0.125",
    "ServiceSubcategory": "Virtual Machines",
    "SkuMeter": "EU-BoxUsage:m5.large",
    "SkuPriceDetails": '{"InstanceType": "m5.large", "tenancy": "Shared", "x_a": "b"}',
    "SubAccountType": "Account",
}


@pytest.fixture
def month(tmp_path: Path) -> NativeMonth:
    return NativeMonth(tmp_path, AwsFocus())


def test_1_0_and_1_2_become_the_same_charge(month: NativeMonth) -> None:
    old, new = month.derive(USAGE, {**USAGE, **ADDED})
    differ = {name for name in old if old[name] != new[name]}
    assert differ == {"InvoiceId", "SkuPriceDetails", "x_source_line_items"}
    assert new["SkuPriceDetails"] == {
        "InstanceType": "m5.large",
        "x_tenancy": "Shared",
        "x_a": "b",
    }
    assert old["x_source_changes"] == []
    assert old["x_servicecode"] == "AmazonEC2"
    assert month.broken_rules() == {}


# What the export has, what the charge has, and the code of the repair.
REPAIRS: dict[str, tuple[Row, Row, str]] = {
    "prices": (
        {"ContractedUnitPrice": "", "ListUnitPrice": ""},
        {"ContractedUnitPrice": "0.1", "ListUnitPrice": "0.125"},
        "",
    ),
    "the issuer and the publisher": (
        {"InvoiceIssuerName": "", "PublisherName": ""},
        {"InvoiceIssuerName": AWS, "PublisherName": AWS},
        "MissingInvoiceIssuerName MissingPublisherName",
    ),
    "a subsidiary is the publisher of what it invoices": (
        {"InvoiceIssuerName": "Amazon Web Services EMEA SARL", "PublisherName": ""},
        {"PublisherName": "Amazon Web Services EMEA SARL"},
        "MissingPublisherName",
    ),
    "the unit": ({"PricingUnit": ""}, {"PricingUnit": "Hours"}, "MissingPricingUnit"),
    "the SKU of a price": ({"SkuId": ""}, {"SkuId": "SKU"}, ""),
    "a unit that FOCUS spells otherwise": (
        {"PricingUnit": "Lambda-GB-Seconds", "ConsumedUnit": "GiB/Second-Months"},
        {"PricingUnit": "GB-Seconds", "ConsumedUnit": "GiBps-Months"},
        "InvalidUnit",
    ),
    "a unit that is unknown": (
        {"PricingUnit": "10K"},
        {"PricingUnit": "10K"},
        "",
    ),
    "the service is the SKU": (
        {"SkuId": "", "SkuPriceId": "", "SkuMeter": "", "x_UsageType": ""},
        {"SkuId": "AmazonEC2", "SkuPriceId": "AmazonEC2", "SkuMeter": "AmazonEC2"},
        "MissingSkuId MissingSkuPriceId",
    ),
    "the SKU is that of the price": (
        {"SkuPriceId": ""},
        {"SkuId": "SKU", "SkuPriceId": "SKU"},
        "MissingSkuPriceId",
    ),
    "nothing tells the SKU": (
        {"SkuId": "", "SkuPriceId": "", "x_ServiceCode": ""},
        {"SkuId": None, "SkuPriceId": None, "SkuMeter": None},
        "",
    ),
    "a credit has no SKU": (
        {"SkuId": "", "SkuPriceId": "", "ChargeCategory": "Credit"},
        {"SkuId": None, "SkuPriceId": None},
        "NotApplicable",
    ),
    "the type in an id": (
        {"ResourceType": ""},
        {"ResourceType": "Instance"},
        "MissingResourceType",
    ),
    "the type in an ARN": (
        {"ResourceType": "", "ResourceId": "arn:aws:ec2:eu-west-1:1:natgateway/nat-0"},
        {"ResourceType": "NAT Gateway"},
        "MissingResourceType",
    ),
    "the region's name": ({"RegionName": ""}, {"RegionName": "EU (Ireland)"}, ""),
    "volumes are of the service's one category": (
        {"ServiceCategory": "Storage", "ServiceSubcategory": "Block Storage"},
        {"ServiceCategory": "Compute", "ServiceSubcategory": "Virtual Machines"},
        "InvalidServiceSubcategory SecondServiceCategory",
    ),
    "a period that ends a second early": (
        {"ChargePeriodEnd": "2024-09-30T23:59:59.000Z"},
        {},
        "InclusiveEnd",
    ),
}


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the charges of one bill with all defects, by the name of the repair."""
    month = NativeMonth(tmp_path_factory.mktemp("repaired"), AwsFocus())
    charges = month.derive(*({**USAGE, **cells} for cells, *_ in REPAIRS.values()))
    return dict(zip(REPAIRS, charges, strict=True))


@pytest.mark.parametrize("name", REPAIRS)
def test_what_aws_leaves_empty_or_has_wrong(repaired: dict[str, dict[str, Any]], name: str) -> None:
    _, values, codes = REPAIRS[name]
    charge = repaired[name]
    assert charge["x_source_changes"] == codes.split()
    for column, value in values.items():
        is_number = isinstance(charge[column], Decimal)
        assert charge[column] == (Decimal(value or "") if is_number else value), column
    if name == "a period that ends a second early":
        assert f"{charge['ChargePeriodEnd']:%d %H:%M:%S}" == "01 00:00:00"


def test_a_commitment_of_1_0_gets_its_quantity(month: NativeMonth) -> None:
    """A savings plan is used by what the usage costs, a reservation by hours."""
    committed = {"PricingCategory": "Committed", "BilledCost": "0", "EffectiveCost": "0.15"}
    used = {**USAGE, **committed, "CommitmentDiscountStatus": "Used"}
    fee = {
        **USAGE,
        "ChargeCategory": "Purchase",
        "ChargeFrequency": "Recurring",
        "EffectiveCost": "0",
        "CommitmentDiscountId": PLAN,
        **dict.fromkeys(["ConsumedQuantity", "ConsumedUnit"]),
    }
    reservation = "arn:aws:ec2:eu-west-1:1:reserved-instances/r"
    charges = month.derive(
        {**used, "CommitmentDiscountId": PLAN},
        {**used, "CommitmentDiscountId": reservation},
        fee,
    )
    columns = [
        "CommitmentDiscountCategory",
        "CommitmentDiscountType",
        "CommitmentDiscountQuantity",
        "CommitmentDiscountUnit",
    ]
    assert [[charge[name] for name in columns] for charge in charges] == [
        ["Spend", "Savings Plan", Decimal("0.15"), "USD"],
        ["Usage", "Reserved Instance", Decimal(2), "Hours"],
        ["Spend", "Savings Plan", Decimal("0.2"), "USD"],
    ]
    assert [charge["x_source_changes"] for charge in charges] == [[], [], []]


def test_other_costs_than_azures_are_left_as_they_are(month: NativeMonth) -> None:
    """Credits and free usage have a contracted cost of 0 in AWS's export, and rightly so."""
    (free,) = month.derive({**USAGE, "ContractedCost": "0", "ContractedUnitPrice": "0"})
    assert (free["ContractedCost"], free["x_source_values"]) == (Decimal(0), {})


@has_sample
def test_awss_rows_of_the_sample_data_add_up(month: NativeMonth) -> None:
    rows = sample_rows("AWS")
    charges = month.derive(*rows)
    assert month.record.version.totals.cost == sum(
        Decimal(row["BilledCost"] or "0") for row in rows
    )
    assert (len(charges), month.record.entries) == (942, [])
    # The sample has no effective and contracted costs of less than a dollar, and one credit with a
    # negative price.
    assert month.broken_rules() == {
        "ContractedCost.product": 18,
        "ContractedUnitPrice.minimum": 1,
        "EffectiveCost.credit": 1,
        "PricingCurrencyContractedUnitPrice.minimum": 1,
    }


def test_every_unit_is_spelled_as_focus_has_it() -> None:
    (lookup,) = (lookup for lookup in AWS_CUR.lookups if lookup.name == "unit")
    with lookup.path.open(encoding="utf-8", newline="") as lines:
        wrong = [row for row in csv.DictReader(lines) if not re.fullmatch(UNIT, row["name"])]
    assert wrong == []


@pytest.mark.parametrize("version", ["focus-1.0", "focus-1.2"])
def test_the_demos_bill_keeps_all_rules(month: NativeMonth, tmp_path: Path, version: Any) -> None:
    bill = BillVersion(date(2024, 9, 1), "20241003T050312Z", rows=1000, restated=True)
    manifest = write_version(tmp_path, "", "daily", bill, layout=Layout(version))
    month.derive(*all_rows(tmp_path, manifest))
    assert month.broken_rules() == {}
