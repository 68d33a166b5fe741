"""Azure's actual and amortized costs become one table of charges, with the sums of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import hypothesis.strategies as st
import pytest

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.focus.azure_usage import AZURE_USAGE
from finops_dagster.focus.conformance import find_broken_rules
from finops_dagster.focus.exports import no_charges_reason
from finops_dagster.focus.mapping import Lookup
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.focus.month import ChargesRecord, FocusDerivation
from finops_dagster.focus.specification import Specification
from finops_dagster.lake import FolderLake, footer_texts_of_version, replacing_lake_file
from finops_dagster.sources.azure.format import AzureActual
from finops_dagster.tables.database import DuckDB
from finops_dagster_tests.azure import (
    BILL,
    BILLED,
    EFFECTIVE,
    Row,
    Run,
    deliver,
    focus_rows,
    usage_rows,
)
from finops_dagster_tests.focus.known_false import wrong_rules
from finops_dagster_tests.focus.validator import judge, needs_validator
from finops_dagster_tests.project import ROOT, Project

EXPORTS = {"actual": "contoso", "amortized": "contoso-amortized"}
JANUARY = BillingMonth(2024, 1)
PLAN = "/providers/Microsoft.BillingBenefits/savingsPlanOrders/p1/savingsPlans/p2"
RESERVATION = "/providers/Microsoft.Capacity/reservationOrders/r1/reservations/r2"
MACHINE = "/subscriptions/AAAA/resourceGroups/web/providers/Microsoft.Compute/virtualMachines/Web-1"


class TwoBills:
    """A lake with a month's actual and amortized bill, and the charges of both."""

    def __init__(self, root: Path, month: BillingMonth = JANUARY) -> None:
        self.lake = FolderLake(root)
        self.month = month

    def derive(self, actual: Sequence[Row], amortized: Sequence[Row]) -> ChargesRecord:
        """Write both bills as the stage `parquet` does, and derive their charges."""
        for export, rows in zip(EXPORTS.values(), (actual, amortized), strict=True):
            self.write(export, rows)
        with self.derivation.replacing_month("run") as record:
            return record

    def write(self, export: str, rows: Sequence[Row], version: str = "v1") -> None:
        """Write the bill of one of the exports."""
        total = sum((Decimal(row["CostInBillingCurrency"]) for row in rows), Decimal(0))
        footer = footer_texts_of_version(
            LoadedVersion(f"{export} {version}", Totals(len(rows), total))
        )
        query = Sql(" UNION ALL BY NAME ".join(map(_select, rows)))
        with duckdb.connect() as connection:
            file = self.lake.file(export, self.month)
            with replacing_lake_file(connection, query, file, footer):
                pass

    @property
    def derivation(self) -> FocusDerivation:
        return FocusDerivation(self.lake, DuckDB(), AZURE_USAGE, EXPORTS, self.month)

    @property
    def relation(self) -> Sql:
        path = self.lake.root / "focus/contoso" / f"billing_month={self.month}"
        return Sql(f"read_parquet({literal(f'{path}/*.parquet')}, hive_partitioning = false)")

    def charges(self, columns: str) -> list[tuple[Any, ...]]:
        return duckdb.execute(f"SELECT {columns} FROM {self.relation} ORDER BY ALL").fetchall()

    def broken_rules(self) -> list[str]:
        return [broken.rule.id for broken in find_broken_rules(duckdb.connect(), self.relation)]


def _select(row: Row) -> Sql:
    """Return the SELECT of a line with the names and types that it has in the lake."""
    format_ = AzureActual()
    cells = []
    for header, cell in row.items():
        name = format_.column(header)
        column_type = format_.known_types.get(name, SqlType.TEXT)
        text = f"CAST({literal(cell)} AS JSON)" if name == "tags" else literal(cell)
        value = f"CAST({text} AS {column_type})" if cell else f"CAST(NULL AS {column_type})"
        cells.append(f"{value} AS {quoted(name)}")
    return Sql(f"SELECT {', '.join(cells)}")


@pytest.fixture
def bills(tmp_path: Path) -> TwoBills:
    return TwoBills(tmp_path)


def line(kind: str, cost: str, **cells: str) -> Row:
    """Return a line of an enrolment's bill: by default of a virtual machine."""
    return {
        "BillingAccountId": "0123456",
        "BillingAccountName": "Contoso",
        "BillingProfileId": "0123456",
        "BillingPeriodStartDate": "2024-01-01",
        "BillingPeriodEndDate": "2024-01-31",
        "SubscriptionId": "AAAA",
        "SubscriptionName": "Web",
        "Date": "2024-01-03",
        "ProductName": "Virtual Machines Dsv5 Series",
        "MeterCategory": "Virtual Machines",
        "MeterId": "m-1",
        "MeterName": "D2s v5",
        "UnitOfMeasure": "1 Hour",
        "CostInBillingCurrency": cost,
        "BillingCurrencyCode": "USD",
        "ConsumedService": "Microsoft.Compute",
        "ResourceLocation": "EastUS2",
        "PublisherType": "Azure",
        "PartNumber": "P-1",
        "ChargeType": kind,
        "Frequency": "UsageBased",
        "PricingModel": "OnDemand",
        **cells,
    }


# Each charge is worked out by hand from the lines of the two bills.
RESERVED = {"PricingModel": "Reservation", "BenefitId": RESERVATION, "BenefitName": "VMs"}
PLANNED = {"PricingModel": "SavingsPlan", "BenefitId": PLAN, "Term": "12"}
PRICES = {"Quantity": "100", "UnitPrice": "0.1", "PayGPrice": "0.12"}
ONCE = {"Frequency": "OneTime"}
OPERATIONS = {"MeterCategory": "Storage", "UnitOfMeasure": "10K", "EffectivePrice": "0.04"}
IN_BOTH = {
    "on demand": line("Usage", "1.5", Quantity="10", UnitPrice="0.2", PayGPrice="0.25"),
    "spot": line(
        "Usage", "0.4", PricingModel="Spot", Quantity="4", UnitPrice="0.1", PayGPrice="0.5"
    ),
    "marketplace": line("Purchase", "49", **ONCE, PublisherType="Marketplace"),
    "refund of usage": line("Refund", "-1"),
    "refund of what": line("Refund", "-2", Frequency=""),
    "credit": line("Credit", "-5", **ONCE),
    "tax": line("Tax", "1.9", **ONCE),
    "rounding": line("RoundingAdjustment", "0.01", **ONCE),
}
IN_ACTUAL = {
    "reserved": line("Usage", "0", **RESERVED, **PRICES),
    "planned": line("Usage", "0", **PLANNED, **PRICES),
    "reservation": line("Purchase", "10", **RESERVED, **ONCE, Quantity="1"),
    "returned": line("Refund", "-4", **RESERVED, **ONCE, Quantity="-1"),
    "plan": line("Purchase", "2.5", **PLANNED, Quantity="1"),
}
IN_AMORTIZED = {
    "reserved": line("Usage", "7", **RESERVED, **PRICES),
    "planned": line("Usage", "2", **PLANNED, **PRICES),
    "unused reservation": line("UnusedReservation", "3", **RESERVED, Quantity="40"),
    "unused plan": line("UnusedSavingsPlan", "0.5", **PLANNED, MeterId=""),
}
NONE = None
# Category; BilledCost, EffectiveCost, ListCost, ContractedCost; status of the commitment;
# PricingCategory; ChargeFrequency; ChargeClass.
TRUTH = {
    "on demand": ("Usage", "1.5 1.5 2.5 2", NONE, "Standard", "Usage-Based", NONE),
    "spot": ("Usage", "0.4 0.4 2 0.4", NONE, "Dynamic", "Usage-Based", NONE),
    "marketplace": ("Purchase", "49 49 49 49", NONE, "Standard", "One-Time", NONE),
    "refund of usage": ("Usage", "-1 -1 -1 -1", NONE, "Standard", "Usage-Based", "Correction"),
    "refund of what": ("Adjustment", "-2 -2 -2 -2", NONE, NONE, "One-Time", "Correction"),
    "credit": ("Credit", "-5 -5 -5 -5", NONE, NONE, "One-Time", NONE),
    "tax": ("Tax", "1.9 1.9 1.9 1.9", NONE, NONE, "One-Time", NONE),
    "rounding": ("Adjustment", "0.01 0.01 0.01 0.01", NONE, NONE, "One-Time", NONE),
    "reserved": ("Usage", "0 7 12 10", "Used", "Committed", "Usage-Based", NONE),
    "planned": ("Usage", "0 2 12 10", "Used", "Committed", "Usage-Based", NONE),
    "unused reservation": ("Usage", "0 3 0 0", "Unused", "Committed", "Usage-Based", NONE),
    "unused plan": ("Usage", "0 0.5 0 0", "Unused", "Committed", "Usage-Based", NONE),
    "reservation": ("Purchase", "10 0 10 10", NONE, "Standard", "One-Time", NONE),
    "returned": ("Purchase", "-4 0 -4 -4", NONE, "Standard", "One-Time", "Correction"),
    "plan": ("Purchase", "2.5 0 2.5 2.5", NONE, "Standard", "Recurring", NONE),
}


def named(lines: Mapping[str, Row]) -> list[Row]:
    """Return lines with their names as names of products, which charges have as description."""
    return [{**row, "ProductName": name} for name, row in lines.items()]


def test_every_type_of_charge_is_as_worked_out_by_hand(bills: TwoBills) -> None:
    month = bills.derive(named(IN_BOTH | IN_ACTUAL), named(IN_BOTH | IN_AMORTIZED))
    rows = bills.charges(
        "ChargeDescription, ChargeCategory, [BilledCost, EffectiveCost, ListCost, ContractedCost], "
        "CommitmentDiscountStatus, PricingCategory, ChargeFrequency, ChargeClass"
    )
    assert {name: cells for name, *cells in rows} == {
        name: [category, list(map(Decimal, costs.split())), *rest]
        for name, (category, costs, *rest) in TRUTH.items()
    }
    # 44.81 are in both bills; 10 - 4 + 2.5 in the actual one, 7 + 2 + 3 + 0.5 in the amortized one.
    assert month.version.totals.cost == Decimal("53.31")
    assert month.version.totals.sums["EffectiveCost"] == Decimal("57.31")
    assert month.bill_version_ids == {export: f"{export} v1" for export in EXPORTS.values()}
    assert month.unknown == {lookup.name: {} for lookup in AZURE_USAGE.lookups}
    assert bills.broken_rules() == []


@needs_validator
@pytest.mark.thorough
def test_the_foundations_validator_finds_nothing_wrong(bills: TwoBills, tmp_path: Path) -> None:
    bills.derive(named(IN_BOTH | IN_ACTUAL), named(IN_BOTH | IN_AMORTIZED))
    (charges,) = bills.lake.root.glob("focus/**/*.parquet")
    assert wrong_rules(charges, judge(charges, tmp_path / "validator")) == {}


def test_what_both_bills_have_is_named_and_cancels(bills: TwoBills) -> None:
    month = bills.derive(named(IN_BOTH | IN_ACTUAL), named(IN_BOTH | IN_AMORTIZED))
    assert {entry.kind: (entry.rows, entry.billed) for entry in month.entries} == {
        "line of the actual bill": (10, Decimal("44.81")),
        "usage": (2, Decimal("-1.9")),
        "purchase": (1, Decimal(-49)),
        "refund": (2, Decimal(3)),
        "credit": (1, Decimal(5)),
        "tax": (1, Decimal("-1.9")),
        "adjustment": (1, Decimal("-0.01")),
    }
    assert not any(entry.effective for entry in month.entries)


def test_a_commitment_is_told_by_its_id_category_quantity_and_resource(bills: TwoBills) -> None:
    bills.derive(named(IN_ACTUAL), named(IN_AMORTIZED))
    rows = bills.charges(
        "ChargeDescription, CommitmentDiscountCategory, CommitmentDiscountType, "
        "CommitmentDiscountQuantity, CommitmentDiscountUnit, ResourceId = CommitmentDiscountId"
    )
    reservation, plan = ("Usage", "Reservation"), ("Spend", "Savings Plan")
    assert {name: tuple(cells) for name, *cells in rows} == {
        "reserved": (*reservation, 100, "Hours", None),
        "planned": (*plan, 2, "USD", None),
        "unused reservation": (*reservation, 40, "Hours", True),
        "unused plan": (*plan, Decimal("0.5"), "USD", True),
        "reservation": (*reservation, 1, "Hours", True),
        "returned": (*reservation, None, None, True),
        "plan": (*plan, Decimal("2.5"), "USD", True),
    }
    assert bills.charges("DISTINCT CommitmentDiscountId") == [
        (PLAN.lower(),),
        (RESERVATION.lower(),),
    ]


def test_older_bills_without_a_pricing_model_name_the_commitment(bills: TwoBills) -> None:
    old = {"PricingModel": "", "BenefitId": "", "ReservationId": "r2"}
    bills.derive([line("Purchase", "10", **old)], [line("Usage", "7", **old)])
    assert bills.charges("x_rule, CommitmentDiscountId, BilledCost, EffectiveCost") == [
        ("purchase of a commitment", "r2", 10, 0),
        ("usage under a commitment", "r2", 0, 7),
    ]


def test_pitfall_29_a_commitments_purchase_in_the_amortized_bill_has_no_effective_cost(
    bills: TwoBills,
) -> None:
    """finops-toolkit#1092: it would count twice, once more in the usage that it covers."""
    purchase = line("Purchase", "2.5", **PLANNED)
    month = bills.derive([purchase], [purchase, line("Usage", "1", **PLANNED)])
    assert month.version.totals.cost == Decimal("2.5")
    assert month.version.totals.sums["EffectiveCost"] == 1
    ((entry),) = month.entries
    assert (entry.kind, entry.rows, entry.billed, entry.effective) == (
        "purchase of a commitment in the amortized bill",
        1,
        0,
        Decimal("2.5"),
    )


def test_a_difference_of_the_two_bills_is_a_charge_with_its_name(bills: TwoBills) -> None:
    """Both are exported apart: one may be rounded otherwise, or have a day more."""
    storage = {"MeterCategory": "Storage", "SubscriptionId": "BBBB"}
    month = bills.derive(
        [line("Usage", "1.0000000001"), line("Usage", "3", **storage), line("Tax", "1")],
        [line("Usage", "1"), line("Tax", "0.5"), line("Tax", "0.5")],
    )
    difference = "difference of the bills"
    rows = bills.charges("SubAccountId, ServiceName, BilledCost, EffectiveCost, x_rule")
    assert [row[:-1] for row in rows if row[-1] == difference] == [
        ("/subscriptions/aaaa", "Virtual Machines", Decimal("1E-10"), 0),
        ("/subscriptions/bbbb", "Storage Accounts", 3, 0),
    ]
    assert month.version.totals.cost == Decimal("5.0000000001")
    assert month.version.totals.sums["EffectiveCost"] == 2
    (entry,) = (entry for entry in month.entries if entry.kind == difference)
    assert (entry.billed, entry.effective) == (Decimal("-3.0000000001"), 0)
    assert bills.broken_rules() == []


COSTS = st.decimals(-(10**6), 10**6, places=18)
LINES = st.builds(
    line,
    st.sampled_from(["Usage", "Purchase", "Refund", "Tax", "Credit", "UnusedReservation", "New"]),
    COSTS.map(str),
    PricingModel=st.sampled_from(["OnDemand", "Reservation", "SavingsPlan", ""]),
    BenefitId=st.sampled_from(["", PLAN, RESERVATION]),
    BillingCurrencyCode=st.sampled_from(["USD", "EUR"]),
    Quantity=st.sampled_from(["", "0", "-1", "0.1"]),
)
BILL_LINES = st.lists(LINES, min_size=1, max_size=8)


@pytest.mark.thorough
@hypothesis.settings(max_examples=10)
@hypothesis.given(BILL_LINES, BILL_LINES, BILL_LINES)
def test_any_two_bills_add_up(
    tmp_path_factory: pytest.TempPathFactory, common: list[Row], actual: list[Row], rest: list[Row]
) -> None:
    """The costs of each bill are those of the charges, but for what the month names."""
    bills = TwoBills(tmp_path_factory.mktemp("lake"))
    month = bills.derive([*common, *actual], [*common, *rest])
    billed, effective = (
        {
            currency: sum(
                Decimal(row["CostInBillingCurrency"])
                for row in rows
                if row["BillingCurrencyCode"] == currency
            )
            for currency in ("EUR", "USD")
        }
        for rows in ([*common, *actual], [*common, *rest])
    )
    for entry in month.entries:
        effective[entry.currency] -= entry.effective
    sums = duckdb.execute(
        f"SELECT BillingCurrency, sum(BilledCost), sum(EffectiveCost) FROM {bills.relation} "
        "GROUP BY ALL"
    ).fetchall()
    assert {row[0]: row[1:] for row in sums} == {
        currency: (billed[currency], effective[currency]) for currency, *_ in sums
    }
    assert {entry.kind for entry in month.entries if entry.effective} <= {
        "purchase of a commitment in the amortized bill"
    }


def test_pitfall_5_charges_are_old_when_either_bill_is_newer(bills: TwoBills) -> None:
    """finops-toolkit#1734: costs that were loaded before their prices never got them."""
    for export in EXPORTS.values():
        bills.derive([line("Usage", "1")], [line("Usage", "1")])
        assert bills.derivation.up_to_date_record() is not None
        bills.write(export, [line("Usage", "1")], version="v2")
        assert bills.derivation.up_to_date_record() is None


def test_pitfalls_26_and_34_quantity_and_price_are_of_the_same_unit(bills: TwoBills) -> None:
    """Microsoft writes that a quantity of `10K` is of single units; public bills count blocks."""
    blocks = line("Usage", "0.02", **OPERATIONS, Quantity="0.5", UnitPrice="0.04", PayGPrice="0.05")
    singles = {**blocks, "Quantity": "5000"}
    bills.derive([blocks, singles], [blocks, singles])
    same = (Decimal("0.5"), "10000 Units", 5000, "Units", Decimal("0.04"), Decimal("0.025"))
    columns = "PricingQuantity, PricingUnit, ConsumedQuantity, ConsumedUnit, ContractedUnitPrice"
    assert bills.charges(f"{columns}, ListCost") == [same, same]
    assert bills.broken_rules() == []


def test_pitfalls_24_25_and_33_a_price_of_0_is_a_missing_price(bills: TwoBills) -> None:
    usage = line("Usage", "3", **RESERVED, Quantity="10", UnitPrice="0", PayGPrice="0")
    free = line("Usage", "0", Quantity="10", UnitPrice="0", PayGPrice="0.1")
    bills.derive([free], [usage, free])
    assert bills.charges("EffectiveCost, ContractedCost, ListCost, x_source_changes") == [
        (0, 0, 1, []),
        (3, 3, 3, ["MissingContractedCost", "MissingListCost"]),
    ]


def test_pitfall_27_prices_of_the_list_and_of_the_contract_differ(bills: TwoBills) -> None:
    row = IN_BOTH["on demand"]
    bills.derive([row], [row])
    assert bills.charges("EffectiveCost, ContractedCost, ListCost, ListUnitPrice") == [
        (Decimal("1.5"), 2, Decimal("2.5"), Decimal("0.25"))
    ]


def test_pitfall_28_usage_under_a_commitment_is_priced_as_committed(bills: TwoBills) -> None:
    bills.derive([IN_ACTUAL["reserved"]], [IN_AMORTIZED["reserved"]])
    assert bills.charges("PricingCategory, CommitmentDiscountStatus") == [("Committed", "Used")]


def test_pitfall_32_ids_and_names_that_stand_for_none_are_null(bills: TwoBills) -> None:
    nobody = {"SubscriptionId": "00000000-0000-0000-0000-000000000000", "BenefitId": "-2"}
    row = line("Usage", "1", **nobody, SubscriptionName="Unassigned", PricingModel="")
    bills.derive([row], [row])
    assert bills.charges(
        "SubAccountId, SubAccountName, SubAccountType, CommitmentDiscountId, x_subscriptionname"
    ) == [(None, None, None, None, "Unassigned")]


def test_ids_are_as_in_azures_focus_and_resources_have_types(bills: TwoBills) -> None:
    row = line("Usage", "1", ResourceId=MACHINE, Tags='{"env": "prod", "new": null}')
    bills.derive([row], [row])
    assert bills.charges(
        "BillingAccountId, BillingAccountType, SubAccountId, ResourceId, ResourceName, ResourceType"
    ) == [
        (
            "/providers/microsoft.billing/billingaccounts/0123456",
            "Billing Account",
            "/subscriptions/aaaa",
            MACHINE.lower(),
            "web-1",
            "Virtual machine",
        )
    ]
    # A customer agreement has both columns.
    bills.derive([row], [{**row, "ResourceLocation": "", "location": "eastus2"}])
    assert bills.charges("RegionId, RegionName, Tags, x_resourceid") == [
        ("eastus2", "East US 2", {"env": "prod", "new": "true"}, MACHINE)
    ]


def test_a_customer_agreement_bills_a_profile_and_prices_in_another_currency(
    bills: TwoBills,
) -> None:
    """Prices are in the pricing currency; costs are in the billing currency, 0.5 of it."""
    row = line(
        "Usage",
        "2",
        BillingAccountId="a:b_2019-05-31",
        BillingProfileId="C-D",
        BillingProfileName="Profile",
        pricingCurrency="USD",
        BillingCurrencyCode="EUR",
        exchangeRatePricingToBilling="0.5",
        costInPricingCurrency="4",
        paygCostInBillingCurrency="5",
        Quantity="10",
        UnitPrice="0.6",
        EffectivePrice="0.4",
        PayGPrice="1",
        ProductId="DZH318",
        invoiceId="I-1",
        partnerName="Partner",
    )
    bills.derive([row], [row])
    assert bills.charges("BillingAccountId, BillingAccountType, InvoiceId, InvoiceIssuerName") == [
        (
            "/providers/microsoft.billing/billingaccounts/a:b_2019-05-31/billingprofiles/c-d",
            "Billing Profile",
            "I-1",
            "Partner",
        )
    ]
    # 10 * 0.6 USD are 3 EUR by contract.
    assert bills.charges("BilledCost, ContractedCost, ListCost, ContractedUnitPrice") == [
        (2, 3, 5, Decimal("0.3"))
    ]
    assert bills.charges(
        "PricingCurrency, PricingCurrencyEffectiveCost, PricingCurrencyContractedUnitPrice, "
        "PricingCurrencyListUnitPrice, SkuId"
    ) == [("USD", 4, Decimal("0.6"), 1, "DZH318")]


def test_a_refund_is_a_correction_unless_its_service_period_is_not_invoiced_yet(
    bills: TwoBills,
) -> None:
    refunds = [
        line("Refund", "-1", servicePeriodStartDate="2023-12-05"),
        line("Refund", "-2", servicePeriodStartDate="2024-01-05"),
        line("Refund", "-3", servicePeriodStartDate="2024-01-05", previousInvoiceId="I-0"),
    ]
    bills.derive(refunds, refunds)
    assert bills.charges("BilledCost, ChargeClass") == [
        (-3, "Correction"),
        (-2, None),
        (-1, "Correction"),
    ]


def test_capacity_and_details_are_read_with_and_without_braces(bills: TwoBills) -> None:
    details = '"VCPUs": 2, "ServiceType": "Standard_D2", "VMCapacityReservationId": "/cap", "a": {}'
    row = line("Usage", "1", AdditionalInfo=details)
    braced, broken = {**row, "AdditionalInfo": f"{{{details}}}"}, {**row, "AdditionalInfo": "{oh"}
    bills.derive([row, braced, broken], [row, braced, broken])
    columns = "CapacityReservationId, CapacityReservationStatus, SkuPriceDetails"
    found = {"CoreCount": "2", "InstanceType": "Standard_D2", "x_a": "{}"}
    found["x_VMCapacityReservationId"] = "/cap"
    assert bills.charges(columns) == [
        *[("/cap", "Used", found)] * 2,
        (None, None, None),
    ]


def test_what_is_unknown_falls_to_a_default_and_is_counted(bills: TwoBills) -> None:
    row = line(
        "Novelty",
        "1",
        MeterCategory="Warp Drives",
        ConsumedService="Microsoft.Warp",
        ResourceId="/subscriptions/a/providers/Microsoft.Warp/drives/one",
        ResourceLocation="Moon Base",
        UnitOfMeasure="1 Parsec",
    )
    usage = {**row, "ChargeType": "Usage", "Quantity": "2"}
    month = bills.derive([row, usage], [row, usage])
    assert bills.charges("ChargeCategory, ServiceName, ServiceCategory, ServiceSubcategory") == [
        ("Adjustment", "Warp Drives", "Other", "Other (Other)"),
        ("Usage", "Warp Drives", "Other", "Other (Other)"),
    ]
    assert bills.charges("RegionId, ResourceType, PricingUnit, ConsumedQuantity") == [
        ("moonbase", "microsoft.warp/drives", "Units", 2),
        ("moonbase", "microsoft.warp/drives", None, None),
    ]
    assert month.unknown == {
        "type": {"microsoft.warp/drives": 4},
        "service": {"microsoft.warp/drives any": 4},
        "meter": {"warp drives": 4},
        "consumed": {"microsoft.warp": 4},
        "named": {"Warp Drives": 4},
        "region": {"Moon Base".lower(): 4},
        "unit": {"1 parsec": 4},
    }
    assert bills.broken_rules() == []


def test_pitfall_35_a_service_has_one_category_of_focus_in_all_lookups() -> None:
    categories: dict[str, set[tuple[str, str]]] = {}
    for lookup in AZURE_USAGE.lookups:
        for row in rows_of(lookup):
            if "category" in row:
                kinds = categories.setdefault(row["service"], set())
                kinds.add((row["category"], row["subcategory"]))
    assert len(categories) > 100
    assert all(len(kinds) == 1 for kinds in categories.values())
    allowed = Specification.load().column("ServiceSubcategory").values_by_category or {}
    for ((category, subcategory),) in categories.values():
        assert subcategory in allowed[category]


@pytest.mark.thorough
def test_every_unit_is_spelled_as_focus_has_it(bills: TwoBills) -> None:
    (units,) = (lookup for lookup in AZURE_USAGE.lookups if lookup.name == "unit")
    measures = [row["measure"] for row in rows_of(units)]
    rows = [line("Usage", "1", Quantity="2", UnitOfMeasure=measure) for measure in measures]
    assert bills.derive(rows, rows).unknown["unit"] == {}
    assert bills.broken_rules() == []


def rows_of(lookup: Lookup) -> list[Row]:
    return list(csv.DictReader(io.StringIO(lookup.path.read_text("utf-8"))))


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose months have charges."""
    monkeypatch.setitem(MAPPINGS, ("azure", "actual"), AZURE_USAGE)
    return project


ACTUAL = {
    "name": "contoso",
    "vendor": "azure",
    "format": "actual",
    "start_month": "2023-09",
    "amortized_from": "contoso-amortized",
}


def load_both(project: Project, actual: Any, amortized: Any, month: str = "2024-01") -> TwoBills:
    """Load both bills, and derive the month's charges, by the stages of their exports."""
    project.export = ACTUAL | {"source": f"file://{project.source}"}
    project.add_export(name="contoso-amortized", format="amortized", amortized_from=None)
    assert project.settings().exports[0].bill_exports_by_dataset == EXPORTS
    for dataset, (export, part) in {
        "AmortizedCost": ("contoso-amortized", amortized),
        "ActualCost": ("contoso", actual),
    }.items():
        changes = {"dataRowCount": 27} if isinstance(part, bytes) else {}
        run = Run(month, export=export, dataset=dataset)
        deliver(project.put, run, part, suffix="csv", changes=changes)
        project.load(month, export=export)
    return TwoBills(project.folder / "data/parquet", BillingMonth.parse(month))


@pytest.mark.parametrize(
    "agreement",
    [
        "EA",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("CSP", "EA, older", "MCA")),
    ],
)
def test_the_same_bill_has_the_sums_that_azures_focus_has(project: Project, agreement: str) -> None:
    bills = load_both(
        project,
        usage_rows(*BILL, agreement=agreement),
        usage_rows(*BILL, agreement=agreement, amortized=True),
    )
    focus = focus_rows(*BILL)
    sums = [sum(Decimal(row[name]) for row in focus) for name in ("BilledCost", "EffectiveCost")]
    assert bills.charges("sum(BilledCost), sum(EffectiveCost)") == [(BILLED, EFFECTIVE)]
    assert sums == [BILLED, EFFECTIVE]
    assert bills.charges("DISTINCT BillingPeriodStart::TEXT, BillingPeriodEnd::TEXT") == [
        ("2024-01-01 00:00:00", "2024-02-01 00:00:00")
    ]
    assert "difference of the bills" not in {rule for (rule,) in bills.charges("x_rule")}


@pytest.mark.parametrize(
    ("limit", "end"),
    [
        ({"start_month": "2024-02"}, "starts with 2024-02; to have them, change start_month"),
        ({"end_month": "2023-12"}, "ends with 2023-12; to have them, change end_month"),
    ],
)
def test_a_month_that_the_amortized_export_lacks_has_no_charges_and_does_not_fail(
    project: Project, limit: dict[str, str], end: str
) -> None:
    project.export = ACTUAL | {"source": f"file://{project.source}"}
    project.add_export(name="contoso-amortized", format="amortized", amortized_from=None, **limit)
    run = Run("2024-01", export="contoso", dataset="ActualCost")
    deliver(project.put, run, usage_rows(*BILL, agreement="EA"), suffix="csv")
    loaded = project.load(export="contoso")
    assert [*loaded.outcomes()] == ["manifest", "staged_files", "billing_table", "parquet"]
    reason = (
        "contoso 2024-01 has no charges, as contoso-amortized, which completes its bill, "
        f"{end} of contoso-amortized"
    )
    assert loaded.checks()["focus.adds_up"]
    settings = project.settings()
    month = StoredMonth(settings.exports[0], JANUARY, StoredMonths(settings))
    assert month.no_charges_reason == reason
    assert "focus" not in month.stage_versions
    assert not month.has_stage("focus")


def test_an_end_month_excludes_only_the_months_after_it(project: Project) -> None:
    project.export = ACTUAL | {"source": f"file://{project.source}", "end_month": "2099-12"}
    project.add_export(name="contoso-amortized", format="amortized", amortized_from=None)
    exports = project.settings().exports
    not_begun, after_the_end = map(BillingMonth.parse, ("2099-11", "2100-01"))
    assert no_charges_reason(exports[0], not_begun, exports) is None
    assert no_charges_reason(exports[0], after_the_end, exports) == (
        "contoso 2100-01 has no charges, as contoso ends with 2099-12; to have them, change "
        "end_month of contoso"
    )


def test_the_real_bill_of_an_enrolment_adds_up_and_conforms(project: Project) -> None:
    """It has on-demand and spot usage alone, which both bills have alike."""
    file = ROOT.parent / "shared/data/focus_converters/azure-ea-export.csv"
    if not file.exists():
        pytest.skip("the real export of an enrolment is not part of the project")
    bills = load_both(project, file.read_bytes(), file.read_bytes(), "2023-09")
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"))))
    total = sum(Decimal(row["CostInBillingCurrency"]) for row in rows)
    assert bills.charges("count(*), sum(BilledCost), sum(EffectiveCost)") == [(27, total, total)]
    assert bills.charges("DISTINCT BillingCurrency, ProviderName, PricingCategory") == [
        ("CAD", "Microsoft", "Dynamic"),
        ("CAD", "Microsoft", "Standard"),
    ]
    assert bills.charges("DISTINCT ServiceName, ServiceCategory") == [
        ("Azure Data Factory", "Integration"),
        ("Event Hubs", "Integration"),
        ("Storage Accounts", "Storage"),
        ("Virtual Machines", "Compute"),
        ("Virtual Network", "Networking"),
    ]
    assert bills.broken_rules() == []
