"""FOCUS files of any provider become FOCUS 1.2, whatever version and spelling they have."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster_tests.focus.native_month import NativeMonth, Row, has_sample, sample_rows
from finops_dagster_tests.focus.test_aws_focus import USAGE as AWS_USAGE

USAGE: Row = {
    name: cell
    for name, cell in AWS_USAGE.items()
    if name not in ("x_ServiceCode", "x_UsageType", "ProviderName", "PublisherName")
} | {"ProviderName": "Example Cloud", "PublisherName": "Example Cloud", "SkuMeter": "machine"}


@pytest.fixture
def month(tmp_path: Path) -> NativeMonth:
    return NativeMonth(tmp_path, FocusFilesFormat())


def renamed(names: dict[str, str], **cells: str) -> Row:
    """Return usage whose columns have other names."""
    return {names.get(name, name): cell for name, cell in {**USAGE, **cells}.items()}


# Oracle has the names of 1.0-preview, and columns without the prefix of custom ones.
ORACLE = {
    "ProviderName": "Provider",
    "PublisherName": "Publisher",
    "InvoiceIssuerName": "InvoiceIssuer",
    "RegionName": "Region",
    "ServiceCategory": "ServiceCategory",
    "ConsumedQuantity": "UsageQuantity",
    "ConsumedUnit": "UsageUnit",
}
GOOGLE = {
    "ChargeCategory": "usage",
    "ChargeFrequency": "usage-based",
    "PricingCategory": "standard",
    "BillingPeriodStart": "2024-09-01T07:00:00Z",
    "BillingPeriodEnd": "2024-09-30T07:00:00Z",
    "ServiceCategory": '["GCP","Compute","GCE"]',
}


def test_names_of_1_0_preview_are_those_of_1_2(month: NativeMonth) -> None:
    row = {name: cell for name, cell in renamed(ORACLE).items() if name != "RegionId"}
    row |= {"Region": "US West (Phoenix)", "ServiceSubCategory": "Virtual Machines"}
    (charge,) = month.derive(row)
    assert (charge["ProviderName"], charge["PublisherName"]) == ("Example Cloud", "Example Cloud")
    assert charge["InvoiceIssuerName"] == "Amazon Web Services, Inc."
    assert (charge["ConsumedQuantity"], charge["ConsumedUnit"]) == (Decimal(2), "Hours")
    assert (charge["RegionId"], charge["RegionName"]) == ("uswest(phoenix)", "US West (Phoenix)")
    assert charge["ServiceSubcategory"] == "Virtual Machines"


def test_oracles_own_columns_get_the_prefix_of_custom_ones(month: NativeMonth) -> None:
    tenancy = "ocid1.tenancy.oc1..a"
    row = {**USAGE, "ProviderName": "", "SubAccountId": tenancy, "oci_CompartmentId": "c1"}
    first, correction = month.derive(
        {**row, "oci_ReferenceNumber": "1", "oci_BackReferenceNumber": ""},
        {
            **row,
            "oci_ReferenceNumber": "2",
            "oci_BackReferenceNumber": "old",
            "ChargePeriodStart": "2024-08-31T00:00:00Z",
        },
    )
    assert (first["x_oci_compartmentid"], first["ProviderName"]) == ("c1", "Oracle")
    assert not [name for name in first if name.startswith("oci_")]
    assert first["SubAccountType"] == "Tenancy"
    # Its charges have ids, and those of a correction name the charge that is corrected.
    assert (first["x_source_line_items"], correction["x_source_line_items"]) == (["1"], ["2"])
    assert (first["ChargeClass"], correction["ChargeClass"]) == (None, "Correction")


def test_pitfall_42_googles_array_of_categories_has_one_of_focus(month: NativeMonth) -> None:
    one, none = month.derive(
        {**USAGE, **GOOGLE}, {**USAGE, **GOOGLE, "ServiceName": "b", "ServiceCategory": '["GCP"]'}
    )
    assert (one["ServiceCategory"], none["ServiceCategory"]) == ("Compute", "Other")
    assert one["x_source_values"]["ServiceCategory"] == '["GCP","Compute","GCE"]'
    assert "ArrayOfServiceCategories" in one["x_source_changes"]


@pytest.mark.parametrize(
    ("column", "word", "value"),
    [
        ("ChargeCategory", "usage", "Usage"),
        ("ChargeCategory", "regular", "Usage"),
        ("ChargeCategory", "tax", "Tax"),
        ("ChargeCategory", "rounding_error", "Adjustment"),
        ("ChargeClass", "correction", "Correction"),
        ("ChargeFrequency", "Usage-based", "Usage-Based"),
        ("ChargeFrequency", "One-time", "One-Time"),
        ("PricingCategory", "committed", "Committed"),
        ("PricingCategory", "On-Demand", "Standard"),
        ("ServiceCategory", "ai and machine learning", "AI and Machine Learning"),
        ("ChargeCategory", "Rebate", "Rebate"),  # unknown: the check shows it
    ],
)
def test_words_are_spelled_as_focus_has_them(
    month: NativeMonth, column: str, word: str, value: str
) -> None:
    (charge,) = month.derive({**USAGE, column: word})
    assert charge[column] == value
    is_repaired = word != value
    assert (charge["x_source_values"].get(column) == word) is is_repaired
    assert ("Spelling" in charge["x_source_changes"]) is is_repaired


def test_googles_billing_period_includes_its_last_day(month: NativeMonth) -> None:
    (google, other) = month.derive(
        {**USAGE, **GOOGLE}, {**USAGE, "BillingPeriodEnd": "2024-09-30T23:59:59Z"}
    )
    assert google["BillingPeriodEnd"] == datetime(2024, 10, 1, 7)
    assert other["BillingPeriodEnd"] == datetime(2024, 10, 1)


def test_pitfall_57_a_file_of_1_4_has_the_provider_under_its_new_name(month: NativeMonth) -> None:
    row = renamed({"ProviderName": "ServiceProviderName"})
    (charge,) = month.derive(
        {name: cell for name, cell in row.items() if name != "PublisherName"}
        | {"HostProviderName": "AWS"}
    )
    assert (charge["ProviderName"], charge["x_hostprovidername"]) == ("Example Cloud", "AWS")
    # Who made a service is not said in 1.4, and is not made up.
    assert charge["PublisherName"] is None


def test_a_cost_that_the_file_lacks_is_price_times_quantity_or_nothing(month: NativeMonth) -> None:
    priced, unpriced = month.derive(
        {**USAGE, "ContractedCost": "", "ListCost": ""},
        {**USAGE, "ContractedCost": "", "ContractedUnitPrice": ""},
    )
    assert (priced["ContractedCost"], priced["ListCost"]) == (Decimal("0.2"), Decimal("0.25"))
    assert unpriced["ContractedCost"] is None
    assert month.broken_rules()["ContractedCost.not_null"] == 1


@has_sample
def test_oracles_rows_of_the_sample_data_add_up(month: NativeMonth) -> None:
    rows = sample_rows("Oracle")
    charges = month.derive(*rows)
    assert month.record.version.totals.cost == sum(
        Decimal(row["BilledCost"] or "0") for row in rows
    )
    assert {charge["ChargeFrequency"] for charge in charges} == {"Usage-Based"}
    assert {charge["RegionId"] for charge in charges} == {"us-sanjose-1", "us-phoenix-1"}
    # Oracle has no contracted costs, and leaves these columns empty.
    assert month.broken_rules().keys() == {
        "BillingAccountName.filled",
        "BillingAccountType.filled",
        "ContractedCost.not_null",
        "ContractedUnitPrice.filled",
        "PricingCategory.filled",
        "PricingCurrencyContractedUnitPrice.filled",
        "SkuMeter.filled",
        "SkuPriceId.filled",
    }


@has_sample
@pytest.mark.parametrize("provider", ["AWS", "Microsoft"])
def test_files_of_the_large_clouds_add_up_too(month: NativeMonth, provider: str) -> None:
    rows = sample_rows(provider)
    assert len(month.derive(*rows)) == len(rows)
    assert month.record.version.totals.cost == sum(
        Decimal(row["BilledCost"] or "0") for row in rows
    )
