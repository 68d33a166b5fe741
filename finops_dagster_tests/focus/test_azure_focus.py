"""Azure's FOCUS exports become FOCUS 1.2, with what Microsoft has wrong repaired and recorded.

Numbers with # are issues of microsoft/finops-toolkit. Its #1734 (pitfall 5: costs that were loaded
before the prices lack list costs) cannot happen here: no price sheet is loaded, so that a month's
charges depend on its bill alone.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.demo.azure.export import AzureRun, write_run
from finops_dagster.sources.azure.format import AzureFocus
from finops_dagster_tests.demo.test_azure import rows_of
from finops_dagster_tests.focus.native_month import NativeMonth, Row, has_sample, sample_rows
from finops_dagster_tests.project import ROOT

RESERVATION = "/providers/microsoft.capacity/reservationorders/o/reservations/r"
SAVINGS_PLAN = "/providers/microsoft.billingbenefits/savingsplanorders/o/savingsplans/s"
MACHINE = "/subscriptions/s/resourcegroups/g/providers/microsoft.compute/virtualmachines/web"
# Two hours of a machine at a list price of 0.50 and a contracted one of 0.40.
USAGE: Row = {
    "BilledCost": "0.8",
    "EffectiveCost": "0.8",
    "ContractedCost": "0.8",
    "ListCost": "1",
    "ContractedUnitPrice": "0.4",
    "ListUnitPrice": "0.5",
    "x_EffectiveUnitPrice": "0.4",
    "x_BilledUnitPrice": "0.4",
    "x_PricingBlockSize": "1",
    "PricingQuantity": "2",
    "PricingUnit": "Hours",
    "ConsumedQuantity": "2",
    "ConsumedUnit": "Hours",
    "PricingCategory": "Standard",
    "BillingAccountId": "/providers/microsoft.billing/billingaccounts/1",
    "BillingAccountName": "Contoso",
    "BillingAccountType": "Billing Account",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2024-09-01T00:00:00Z",
    "BillingPeriodEnd": "2024-10-01T00:00:00Z",
    "ChargePeriodStart": "2024-09-02T00:00:00Z",
    "ChargePeriodEnd": "2024-09-03T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeDescription": "Virtual machine",
    "ChargeFrequency": "Usage-Based",
    "InvoiceIssuerName": "Microsoft",
    "ProviderName": "Microsoft",
    "PublisherName": "Microsoft",
    "RegionId": "westeurope",
    "RegionName": "West Europe",
    "ResourceId": MACHINE,
    "ResourceName": "web",
    "ResourceType": "Virtual machine",
    "ServiceCategory": "Compute",
    "ServiceName": "Virtual Machines",
    "ServiceSubcategory": "Virtual Machines",
    "SkuId": "sku",
    "SkuPriceId": "price",
    "SkuMeter": "D4s v5",
    "SubAccountId": "/subscriptions/s",
    "SubAccountName": "Web",
    "SubAccountType": "Subscription",
}
# The month's payment of a reservation, in which Microsoft has everything right.
PURCHASE: Row = {
    **USAGE,
    "ChargeCategory": "Purchase",
    "ChargeFrequency": "Recurring",
    "CommitmentDiscountId": RESERVATION,
    "CommitmentDiscountName": "web servers",
    "EffectiveCost": "0",
    "ConsumedQuantity": None,
    "ConsumedUnit": None,
    "ResourceId": RESERVATION,
    "ResourceName": "web servers",
    "ResourceType": "Reservation",
}
# Usage of the reservation at 0.30 an hour.
USED: Row = {
    **USAGE,
    "BilledCost": "0",
    "EffectiveCost": "0.6",
    "PricingCategory": "Committed",
    "CommitmentDiscountId": RESERVATION,
    "CommitmentDiscountStatus": "Used",
}


@pytest.fixture
def month(tmp_path: Path) -> NativeMonth:
    return NativeMonth(tmp_path, AzureFocus())


def amounts(charge: dict[str, Any], *columns: str) -> dict[str, Decimal]:
    return {name: charge[name].normalize() for name in columns}


@pytest.mark.parametrize("row", [USAGE, PURCHASE, USED], ids=["usage", "purchase", "used"])
def test_a_charge_without_defects_is_not_changed(month: NativeMonth, row: Row) -> None:
    (charge,) = month.derive(row)
    assert (charge["x_source_changes"], charge["x_source_values"]) == ([], {})
    numbers = {name: text for name, text in row.items() if text and text[0].isdigit()}
    for name, text in numbers.items():
        if not name.startswith("x_") and "Period" not in name:
            assert charge[name] == Decimal(text), name
    texts = [name for name in row if name not in numbers and "Period" not in name]
    assert {name: charge[name] for name in texts} == {name: row[name] for name in texts}
    assert month.broken_rules() == {}


# What is changed in a charge without defects, the values that the charge has then, the code of the
# repair, and what the vendor wrote. All numbers are worked out by hand.
REPAIRS: dict[str, tuple[Row, Row, str, Row]] = {
    "pitfall 24 (#874): a contracted cost of 0 is price times quantity": (
        {**USAGE, "ContractedCost": "0"},
        {"ContractedCost": "0.8", "ContractedUnitPrice": "0.4"},
        "MissingContractedCost",
        {"ContractedCost": "0"},
    ),
    "pitfalls 24 and 33 (#874, #1835): reserved usage without prices has the price paid": (
        {**USED, "ContractedCost": "0", "ContractedUnitPrice": "0"},
        {"ContractedCost": "0.6", "ContractedUnitPrice": "0.3"},
        "MissingContractedCost MissingContractedUnitPrice",
        {"ContractedCost": "0", "ContractedUnitPrice": "0"},
    ),
    "pitfall 25 (#873): a list cost of 0 is the contracted cost where there is no list price": (
        {**USAGE, "ListCost": "0", "ListUnitPrice": None},
        {"ListCost": "0.8", "ListUnitPrice": "0.4"},
        "MissingListCost MissingListUnitPrice",
        {"ListCost": "0", "ListUnitPrice": None},
    ),
    "pitfall 27 (#728): but a list price counts, though it is not the price paid": (
        {**USAGE, "ListCost": "0"},
        {"ListCost": "1", "ListUnitPrice": "0.5"},
        "MissingListCost",
        {"ListCost": "0"},
    ),
    "pitfall 26 (#727): a contracted cost of another block size": (
        {**USAGE, "x_PricingBlockSize": "100", "ContractedCost": "80"},
        {"ContractedCost": "0.8"},
        "InvalidContractedCost",
        {"ContractedCost": "80"},
    ),
    "pitfall 29 (#1092): the purchase of a commitment has no effective cost": (
        {**PURCHASE, "EffectiveCost": "0.8", "x_EffectiveCostInUsd": "0.8"},
        {"EffectiveCost": "0", "x_effectivecostinusd": "0", "BilledCost": "0.8"},
        "InvalidEffectiveCost",
        {"EffectiveCost": "0.8", "x_effectivecostinusd": "0.8"},
    ),
    "1.0: a savings plan is paid by the month": (
        {**PURCHASE, "ChargeFrequency": "Usage-Based"},
        {"ChargeFrequency": "Recurring"},
        "InvalidChargeFrequency",
        {"ChargeFrequency": "Usage-Based"},
    ),
    "pitfall 28 (#836): usage of a commitment shown as Standard": (
        {**USED, "PricingCategory": "Standard"},
        {"PricingCategory": "Committed"},
        "PricingCategoryShouldBeCommitted",
        {"PricingCategory": "Standard"},
    ),
    "commitments have no publisher": (
        {**PURCHASE, "PublisherName": ""},
        {"PublisherName": "Microsoft"},
        "MissingPublisherName",
        {"PublisherName": None},
    ),
    "Microsoft Corporation is Microsoft": (
        {**USAGE, "PublisherName": "Microsoft Corporation"},
        {"PublisherName": "Microsoft"},
        "InvalidPublisherName",
        {"PublisherName": "Microsoft Corporation"},
    ),
    "what the marketplace sells is named after its publisher": (
        {
            **USAGE,
            "ServiceName": "",
            "ServiceCategory": "",
            "ServiceSubcategory": "",
            "x_PublisherCategory": "Vendor",
            "PublisherName": "Lakehouse, Inc.",
        },
        {
            "ServiceName": "Lakehouse, Inc.",
            "ServiceCategory": "Other",
            "ServiceSubcategory": "Other (Other)",
        },
        "MissingServiceCategory MissingServiceName",
        {"ServiceName": None, "ServiceCategory": None},
    ),
    "other charges without a service are named after the meter": (
        {**PURCHASE, "ServiceName": "", "x_SkuMeterSubcategory": "Virtual Machines RI"},
        {"ServiceName": "Virtual Machines RI"},
        "MissingServiceName",
        {"ServiceName": None},
    ),
    "pitfall 35 (PR#2006): an invented subcategory, of a service that Microsoft publishes": (
        {
            **USAGE,
            "ServiceName": "Key Vault",
            "ServiceCategory": "Security",
            "ServiceSubcategory": "Encryption and Secrets",
        },
        {"ServiceSubcategory": "Secret Management"},
        "InvalidServiceSubcategory",
        {"ServiceSubcategory": "Encryption and Secrets"},
    ),
    "pitfall 35 (PR#2006): an invented subcategory of an unknown service": (
        {**USAGE, "ServiceName": "New Service", "ServiceSubcategory": "Machines of Tomorrow"},
        {"ServiceSubcategory": "Other (Compute)"},
        "InvalidServiceSubcategory",
        {"ServiceSubcategory": "Machines of Tomorrow"},
    ),
    "a cost without a quantity": (
        {**USAGE, "PricingQuantity": "0", "ConsumedQuantity": "0", "x_PricingBlockSize": "10"},
        {"PricingQuantity": "2", "ConsumedQuantity": "20"},
        "MissingConsumedQuantity MissingPricingQuantity",
        {"PricingQuantity": "0", "ConsumedQuantity": "0"},
    ),
    "a quantity without a unit": (
        {**USAGE, "PricingUnit": "", "ConsumedUnit": "Units"},
        {"PricingUnit": "Units"},
        "MissingPricingUnit",
        {"PricingUnit": None},
    ),
    "pitfall 31 (#779): ids in mixed case": (
        {**USAGE, "ResourceId": MACHINE.upper(), "SubAccountId": "/Subscriptions/S"},
        {"ResourceId": MACHINE, "SubAccountId": "/subscriptions/s"},
        "MixedCase",
        {"ResourceId": MACHINE.upper(), "SubAccountId": "/Subscriptions/S"},
    ),
    "the portal's name of a type": (
        {
            **USAGE,
            "ResourceType": "microsoft.compute/virtualmachines",
            "x_ResourceType": "Microsoft.Compute/virtualMachines",
        },
        {"ResourceType": "Virtual machine", "x_resourcetype": "Microsoft.Compute/virtualMachines"},
        "InternalResourceType",
        {"ResourceType": "microsoft.compute/virtualmachines"},
    ),
    "a resource without a type has that in its id": (
        {**USAGE, "ResourceType": ""},
        {"ResourceType": "Virtual machine"},
        "InternalResourceType",
        {"ResourceType": None},
    ),
    "the resource of a purchase is the commitment": (
        {**PURCHASE, "ResourceId": "", "ResourceName": "", "ResourceType": ""},
        {"ResourceId": RESERVATION, "ResourceName": "web servers", "ResourceType": "Reservation"},
        "MissingResourceId",
        {"ResourceId": None, "ResourceName": None, "ResourceType": None},
    ),
    "pitfall 32 (PR#909): words for no value": (
        {**USAGE, "SkuPriceId": "-2", "SubAccountName": "Unassigned", "x_AccountId": "-2"},
        {"SkuPriceId": None, "SubAccountName": None, "x_accountid": None},
        "NoValue",
        {"SkuPriceId": "-2", "SubAccountName": "Unassigned", "x_accountid": "-2"},
    ),
    "the zeros of no subscription": (
        {**USAGE, "SubAccountId": "/subscriptions/00000000-0000-0000-0000-000000000000"},
        {"SubAccountId": None, "SubAccountName": None, "SubAccountType": None},
        "NoValue NotApplicable",
        {
            "SubAccountId": "/subscriptions/00000000-0000-0000-0000-000000000000",
            "SubAccountName": "Web",
            "SubAccountType": "Subscription",
        },
    ),
    "a tax has no price": (
        {
            **USAGE,
            "ChargeCategory": "Tax",
            **dict.fromkeys(["SkuId", "SkuMeter", "SkuPriceId", "PricingCategory"]),
            **dict.fromkeys(["ConsumedQuantity", "ConsumedUnit", "ListUnitPrice"]),
        },
        {"ContractedUnitPrice": None, "PricingQuantity": None, "PricingUnit": None},
        "NotApplicable",
        {"ContractedUnitPrice": "0.4", "PricingQuantity": "2", "PricingUnit": "Hours"},
    ),
}


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the charges of one bill with all defects, by the name of the repair."""
    month = NativeMonth(tmp_path_factory.mktemp("repaired"), AzureFocus())
    charges = month.derive(*(row for row, *_ in REPAIRS.values()))
    return dict(zip(REPAIRS, charges, strict=True))


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_is_recorded_with_what_the_vendor_wrote(
    repaired: dict[str, dict[str, Any]], name: str
) -> None:
    _, values, codes, old = REPAIRS[name]
    charge = repaired[name]
    expected = {
        column: Decimal(value) if isinstance(charge[column], Decimal) and value else value
        for column, value in values.items()
    }
    assert {column: charge[column] for column in values} == expected
    assert charge["x_source_changes"] == codes.split()
    assert charge["x_source_values"] == old


def test_pitfalls_26_and_27_a_doubtful_cost_stays_and_is_marked(month: NativeMonth) -> None:
    (wrong, dear) = month.derive(
        {**USAGE, "ListCost": "100", "x_PricingBlockSize": "100"},
        {**USAGE, "ListCost": "0.4", "ListUnitPrice": "0.2"},
    )
    assert (wrong["ListCost"], wrong["x_source_values"]) == (Decimal(100), {})
    assert wrong["x_source_changes"] == ["ListCostNotPriceTimesQuantity"]
    assert dear["x_source_changes"] == ["ListCostLessThanContractedCost"]
    assert month.broken_rules() == {"ListCost.product": 1}


def test_pitfall_29_what_a_purchase_loses_of_its_effective_cost_is_an_entry(
    month: NativeMonth,
) -> None:
    month.derive(USED, {**PURCHASE, "EffectiveCost": "0.8"}, PURCHASE)
    (entry,) = month.record.entries
    assert (entry.rows, entry.billed, entry.effective) == (1, Decimal(0), Decimal("0.8"))
    assert "its use as well" in entry.why
    assert month.record.version.totals.sums["EffectiveCost"] == Decimal("0.6")


def test_pitfall_33_savings_of_repaired_charges_are_0_and_can_be_left_out(
    month: NativeMonth,
) -> None:
    missing = {"ContractedCost": "0", "ContractedUnitPrice": "0", "ListCost": "0"}
    month.derive(USED, {**USED, **missing, "ListUnitPrice": "0"})
    savings = month.query("ListCost - EffectiveCost, len(x_source_changes) > 0")
    assert savings == [(Decimal("0.4"), False), (Decimal(0), True)]


def test_an_older_version_has_the_columns_of_1_2_under_other_names(month: NativeMonth) -> None:
    old = {
        **{name: text for name, text in USED.items() if name != "SkuMeter"},
        "x_InvoiceId": "G1",
        "x_PricingCurrency": "EUR",
        "x_BillingExchangeRate": "2",
        "x_SkuMeterName": "D4s v5",
        "x_SkuDetails": json.dumps(
            {"VCPUs": 4, "ServiceType": "Standard_D4s_v5", "RINormalizationRatio": "2", "AHB": True}
        ),
    }
    (charge,) = month.derive(old)
    assert (charge["InvoiceId"], charge["SkuMeter"]) == ("G1", "D4s v5")
    assert charge["SkuPriceDetails"] == {
        "CoreCount": "4",
        "InstanceType": "Standard_D4s_v5",
        "x_AHB": "true",
        "x_RINormalizationRatio": "2",
        "x_ServiceType": "Standard_D4s_v5",
        "x_VCPUs": "4",
    }
    # Two hours of a size that counts twice; EUR are USD / 2.
    assert (charge["CommitmentDiscountQuantity"], charge["CommitmentDiscountUnit"]) == (
        Decimal(4),
        "Normalized Hours",
    )
    assert charge["PricingCurrency"] == "EUR"
    assert amounts(
        charge,
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
        "PricingCurrencyContractedUnitPrice",
    ) == {
        "PricingCurrencyEffectiveCost": Decimal("0.3"),
        "PricingCurrencyListUnitPrice": Decimal("0.25"),
        "PricingCurrencyContractedUnitPrice": Decimal("0.2"),
    }


def test_pitfall_6_a_month_of_mixed_versions_keeps_the_meter(month: NativeMonth) -> None:
    """finops-toolkit#2105 lost it for months when the column was renamed."""
    older = {name: text for name, text in USAGE.items() if name != "SkuMeter"}
    charges = month.derive({**older, "x_SkuMeterName": "old"}, {**USAGE, "SkuMeter": "new"})
    assert [charge["SkuMeter"] for charge in charges] == ["old", "new"]


@pytest.mark.parametrize(
    ("subcategory", "category", "charge_class", "status"),
    [
        ("On-Demand", "Usage", None, None),
        ("Used Commitment", "Usage", None, "Used"),
        ("Unused Commitment", "Usage", None, "Unused"),
        ("Credit", "Credit", None, None),
        ("Refund", "Purchase", "Correction", None),
    ],
)
def test_the_subcategories_of_1_0_preview_became_columns(
    month: NativeMonth,
    subcategory: str,
    category: str,
    charge_class: str | None,
    status: str | None,
) -> None:
    is_usage = category == "Usage"
    row = {
        **(USED if status else USAGE),
        "ChargeCategory": "Usage" if is_usage else "Adjustment",
        "ChargeSubcategory": subcategory,
        "PricingCategory": "Commitment-Based" if status else "On-Demand",
    }
    for new, old in (("RegionId", "Region"), ("ConsumedQuantity", "UsageQuantity")):
        row[old] = "US East" if new == "RegionId" else row[new]
        del row[new]
    for name in ("RegionName", "CommitmentDiscountStatus", "ChargeClass"):
        row.pop(name, None)
    (charge,) = month.derive(row)
    assert (charge["ChargeCategory"], charge["ChargeClass"]) == (category, charge_class)
    assert charge["CommitmentDiscountStatus"] == status
    assert charge["PricingCategory"] == ("Committed" if status else "Standard")
    assert (charge["RegionId"], charge["RegionName"]) == ("eastus", "East US")
    consumed = Decimal(2) if is_usage and status != "Unused" else None
    assert charge["ConsumedQuantity"] == consumed
    assert charge["x_chargesubcategory"] == subcategory


@pytest.mark.parametrize("version", ["1.0", "1.2-preview"])
def test_every_column_of_microsofts_list_is_read_or_passes_through(
    month: NativeMonth, version: str
) -> None:
    path = ROOT.parent / f"shared/data/FocusCost_{version}.json"
    if not path.exists():
        pytest.skip("Microsoft's lists of columns are not in ../shared/data")
    columns = [column["ColumnName"] for column in json.loads(path.read_text())["Columns"]]
    cells = {SqlType.MONEY: "1", SqlType.TIME: "2024-09-01", SqlType.TEXT_MAP: '{"a": "b"}'}
    row = {
        name: cells.get(AzureFocus().sql_type(name, None) or SqlType.TEXT, "text")
        for name in columns
    }
    (charge,) = month.derive({**row, **USAGE})
    became = {"x_InvoiceId", "x_PricingCurrency", "x_SkuMeterName"}
    here = {name.lower() for name in charge}
    assert {name for name in columns if name.lower() not in here} <= became


@has_sample
def test_azures_rows_of_the_sample_data_add_up(month: NativeMonth) -> None:
    rows = sample_rows("Microsoft")
    charges = month.derive(*rows)
    assert len(charges) == 51
    total = sum(Decimal(row["BilledCost"] or "0") for row in rows)
    assert month.record.version.totals.cost == total
    assert month.record.entries == []
    # The sample has no SkuMeter. It is of the time of finops-toolkit#727, and does not have the
    # block size that would show which cost is right.
    broken = month.broken_rules()
    assert broken.keys() <= {"SkuMeter.filled", "ListCost.product", "ContractedCost.product"}


def test_the_demos_bill_keeps_all_rules(month: NativeMonth, tmp_path: Path) -> None:
    run = AzureRun(date(2024, 9, 1), datetime(2024, 10, 5, 3), resources=140, restated=True)
    rows = rows_of(tmp_path / "store", write_run(tmp_path / "store", "", "daily", run))
    charges = month.derive(*rows)
    assert len(charges) == len(rows)
    assert month.broken_rules() == {}
    assert month.record.entries == []
