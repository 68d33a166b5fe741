"""Line items of CUR v1 and CUR 2.0 become charges of FOCUS, and every cent is accounted for."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster.billing.errors import ReconciliationError
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.focus.conformance import conforms
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.sources.aws.data_exports import AwsCur2
from finops_dagster_tests.demo.delivered import all_rows, cost_column
from finops_dagster_tests.focus.cur_month import CurMonth, Row
from finops_dagster_tests.project import ROOT


def demo_rows(folder: Path, layout: Layout, rows: int = 1500, seed: int = 7) -> list[Row]:
    """Return the rows of a bill of the demo's generator."""
    version = BillVersion(date(2024, 1, 1), "20240203T050312Z", rows, restated=True, seed=seed)
    return all_rows(folder, write_version(folder, "cur", "daily", version, layout=layout))


UNLIKE = {"BillingAccountName", "SubAccountName"}


def is_focus(column: str) -> bool:
    return column[0].isupper() or column in ("x_rule", "x_source_line_items", "x_costcategories")


def broken_rules(month: CurMonth) -> set[str]:
    with duckdb.connect() as connection:
        return {broken.rule.id for broken in conforms(connection, month.relation)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CurMonth]:
    folder = tmp_path_factory.mktemp("demo")
    month = CurMonth(folder / "lake")
    month.derive(demo_rows(folder, Layout(columns=205)))
    return month


def test_the_demos_bill_keeps_the_rules_of_focus(demo: CurMonth) -> None:
    # A marketplace bills under another name than AWS, and AWS itself under its company's.
    assert broken_rules(demo) == {"BilledCost.third_party"}


def test_cur_1_and_cur_2_of_a_bill_become_the_same_charges(tmp_path: Path) -> None:
    cur1, cur2 = CurMonth(tmp_path / "1"), CurMonth(tmp_path / "2", AwsCur2())
    cur1.derive(demo_rows(tmp_path / "a", Layout()))
    cur2.derive(demo_rows(tmp_path / "b", Layout("cur2", "parquet")))
    # CUR v1 has no names of accounts, and other columns of the vendor's own.
    charges = [
        [
            {name: value for name, value in charge.items() if name not in UNLIKE and is_focus(name)}
            for charge in month.charges(order="x_source_line_items, x_rule, ChargePeriodStart")
        ]
        for month in (cur1, cur2)
    ]
    assert charges[0] == charges[1]
    assert len(charges[0]) > 1400


def test_a_bill_without_resource_ids_becomes_charges(tmp_path: Path) -> None:
    """AWS gives the column only to customers who ask for it."""
    month = CurMonth(tmp_path)
    rows = demo_rows(tmp_path / "source", Layout())
    record = month.derive(
        {header: cell for header, cell in row.items() if header != "lineItem/ResourceId"}
        for row in rows
    )
    assert record.version.totals.cost == sum(Decimal(row["lineItem/UnblendedCost"]) for row in rows)


PLAN = "arn:aws:savingsplans::1:savingsplan/p-1"
RESERVED = "arn:aws:ec2:us-east-1:1:reserved-instances/r-1"


def line(line_type: str, cost: str, **cells: str) -> Row:
    """Return a line item of one day, with the cells that every bill has; `__` stands for `/`."""
    return {
        "identity/LineItemId": "i",
        "bill/PayerAccountId": "1",
        "bill/BillingPeriodStartDate": "2024-01-01 00:00:00",
        "bill/BillingPeriodEndDate": "2024-02-01 00:00:00",
        "bill/InvoicingEntity": "Amazon Web Services, Inc.",
        "lineItem/UsageAccountId": "2",
        "lineItem/LineItemType": line_type,
        "lineItem/UsageStartDate": "2024-01-03 00:00:00",
        "lineItem/UsageEndDate": "2024-01-04 00:00:00",
        "lineItem/ProductCode": "AmazonEC2",
        "lineItem/UsageAmount": "4",
        "lineItem/CurrencyCode": "USD",
        "lineItem/UnblendedCost": cost,
        **{name.replace("__", "/"): cell for name, cell in cells.items()},
    }


COMPARED = "x_rule, ChargeCategory, BilledCost, EffectiveCost, ListCost, CommitmentDiscountStatus"
Charge = tuple[str, str, str, str, str, str | None]


def become(folder: Path, *lines: Row) -> list[Charge]:
    """Return the compared columns of the charges of a bill, which must keep FOCUS's rules."""
    month = CurMonth(folder)
    month.derive(lines)
    assert broken_rules(month) <= {"BilledCost.third_party"}
    return [
        tuple(f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, Decimal) else value
              for value in charge.values())
        for charge in month.charges(COMPARED, order="x_rule, BilledCost")
    ]  # fmt: skip


FEE = {"savingsPlan__SavingsPlanARN": PLAN, "savingsPlan__TotalCommitmentToDate": "10"}
RI = {"reservation__ReservationARN": RESERVED}
UNUSED_UPFRONT = "reservation__UnusedAmortizedUpfrontFeeForBillingPeriod"
UNUSED_FEE = "reservation__UnusedRecurringFee"
PAID = "pricing__publicOnDemandCost"


@pytest.mark.parametrize(
    ("line_item", "expected"),
    [
        (
            line("Usage", "6", **{PAID: "8"}),
            [("usage", "Usage", "6", "6", "8", None)],
        ),
        (
            line("Usage", "6"),
            [("usage", "Usage", "6", "6", "6", None)],
        ),
        (
            line("DiscountedUsage", "0", **RI, reservation__EffectiveCost="3", **{PAID: "8"}),
            [("reservation-used", "Usage", "0", "3", "8", "Used")],
        ),
        (  # no upfront: the whole fee is paid month by month
            line("RIFee", "30", **RI, **{UNUSED_UPFRONT: "0", UNUSED_FEE: "5"}),
            [
                ("reservation-fee", "Purchase", "30", "0", "30", None),
                ("reservation-unused", "Usage", "0", "5", "0", "Unused"),
            ],
        ),
        (  # partial upfront
            line("RIFee", "15", **RI, **{UNUSED_UPFRONT: "2", UNUSED_FEE: "3"}),
            [
                ("reservation-fee", "Purchase", "15", "0", "15", None),
                ("reservation-unused", "Usage", "0", "5", "0", "Unused"),
            ],
        ),
        (  # all upfront: the fee of the month is 0, and the charge is there all the same
            line("RIFee", "0", **RI, **{UNUSED_UPFRONT: "5", UNUSED_FEE: "0"}),
            [
                ("reservation-fee", "Purchase", "0", "0", "0", None),
                ("reservation-unused", "Usage", "0", "5", "0", "Unused"),
            ],
        ),
        (  # all of it used
            line("RIFee", "30", **RI, **{UNUSED_UPFRONT: "0", UNUSED_FEE: "0"}),
            [("reservation-fee", "Purchase", "30", "0", "30", None)],
        ),
        (
            line("Fee", "700", **RI),
            [("reservation-upfront", "Purchase", "700", "0", "700", None)],
        ),
        (
            line("SavingsPlanRecurringFee", "10", **FEE, savingsPlan__UsedCommitment="8"),
            [
                ("savings-plan-fee", "Purchase", "10", "0", "10", None),
                ("savings-plan-unused", "Usage", "0", "2", "0", "Unused"),
            ],
        ),
        (
            line("SavingsPlanRecurringFee", "10", **FEE, savingsPlan__UsedCommitment="10"),
            [("savings-plan-fee", "Purchase", "10", "0", "10", None)],
        ),
        (  # all upfront
            line("SavingsPlanRecurringFee", "0", **FEE, savingsPlan__UsedCommitment="8"),
            [
                ("savings-plan-fee", "Purchase", "0", "0", "0", None),
                ("savings-plan-unused", "Usage", "0", "2", "0", "Unused"),
            ],
        ),
        (
            line("SavingsPlanUpfrontFee", "900", savingsPlan__SavingsPlanARN=PLAN),
            [("savings-plan-upfront", "Purchase", "900", "0", "900", None)],
        ),
        (line("Fee", "12"), [("fee", "Purchase", "12", "12", "12", None)]),
        (line("Tax", "1.9"), [("tax", "Tax", "1.9", "1.9", "1.9", None)]),
        (line("Credit", "-2"), [("credit", "Credit", "-2", "-2", "-2", None)]),
        (line("Refund", "-2"), [("refund", "Adjustment", "-2", "-2", "-2", None)]),
        (
            line("Refund", "-2", lineItem__TaxType="VAT"),
            [("refund-tax", "Tax", "-2", "-2", "-2", None)],
        ),
        (
            line("Refund", "-2", lineItem__UsageType="BoxUsage", product__sku="S"),
            [("refund-usage", "Usage", "-2", "-2", "-2", None)],
        ),
        (
            line("Refund", "-2", **RI),
            [("refund-commitment", "Purchase", "-2", "-2", "-2", None)],
        ),
        *(
            (line(name, "-3"), [("discount", "Adjustment", "-3", "-3", "-3", None)])
            for name in ("EdpDiscount", "PrivateRateDiscount", "BundledDiscount", "Discount")
        ),
        (line("Novelty", "5"), [("other", "Adjustment", "5", "5", "5", None)]),
    ],
)
def test_what_a_line_item_of_each_type_becomes(
    tmp_path: Path, line_item: Row, expected: list[Charge]
) -> None:
    assert become(tmp_path, line_item) == expected


def test_what_a_savings_plan_covers_bills_nothing_and_its_negation_is_no_charge(
    tmp_path: Path,
) -> None:
    plan = {"savingsPlan__SavingsPlanARN": PLAN}
    covered = line(
        "SavingsPlanCoveredUsage", "8", **plan, savingsPlan__SavingsPlanEffectiveCost="5"
    )
    used = ("savings-plan-used", "Usage", "0", "5", "8", "Used")
    assert become(tmp_path / "a", covered, line("SavingsPlanNegation", "-8", **plan)) == [used]
    # What a pair leaves over is one charge, so that the sum stays exact.
    assert become(
        tmp_path / "b", covered, line("SavingsPlanNegation", "-7.9999999999", **plan)
    ) == [
        ("savings-plan-rest", "Adjustment", "0.0000000001", "0", "0.0000000001", None),
        used,
    ]


def test_discounts_are_in_net_costs_and_named_there(tmp_path: Path) -> None:
    net = "lineItem__NetUnblendedCost"
    month = CurMonth(tmp_path)
    record = month.derive(
        [
            line("Usage", "10", **{net: "9.4"}, discount__EdpDiscount="-0.6"),
            line("Usage", "5", **{net: "5"}),
            line("EdpDiscount", "-0.6", **{net: "0"}),
        ]
    )
    charges = month.charges("BilledCost, EffectiveCost, x_discounts", order="BilledCost")
    assert [(c["BilledCost"], c["x_discounts"]) for c in charges] == [
        (Decimal(5), None),
        (Decimal("9.4"), {"edp_discount": Decimal("-0.6")}),
    ]
    assert {entry.kind: (entry.rows, entry.billed) for entry in record.entries} == {
        "usage": (2, Decimal("0.6")),
        "discount in net costs": (1, Decimal("-0.6")),
    }


def test_half_of_a_discount_is_refused_and_what_rounding_leaves_is_a_charge(tmp_path: Path) -> None:
    net = "lineItem__NetUnblendedCost"
    usage = line("Usage", "10", **{net: "9.4"})
    with pytest.raises(ReconciliationError, match="discounts"):
        CurMonth(tmp_path / "a").derive([usage, line("EdpDiscount", "-0.3", **{net: "0"})])
    rounded = line("EdpDiscount", "-0.6000000001", **{net: "0"})
    assert become(tmp_path / "b", usage, rounded) == [
        ("discount-rest", "Adjustment", "-0.0000000001", "0", "-0.0000000001", None),
        ("usage", "Usage", "9.4", "9.4", "9.4", None),
    ]


def test_net_costs_of_commitments_are_used_where_the_export_has_them(tmp_path: Path) -> None:
    net = {"lineItem__NetUnblendedCost": "0", "reservation__NetEffectiveCost": "2.5"}
    used = line("DiscountedUsage", "0", **RI, reservation__EffectiveCost="3", **net)
    assert become(tmp_path, used) == [("reservation-used", "Usage", "0", "2.5", "2.5", "Used")]


def test_a_refund_corrects_an_earlier_month_but_not_its_own(tmp_path: Path) -> None:
    month = CurMonth(tmp_path)
    own = line("Refund", "-1", identity__LineItemId="own", bill__InvoiceId="7")
    december = {"lineItem__UsageStartDate": "2023-12-01", "lineItem__UsageEndDate": "2024-01-01"}
    earlier = line("Refund", "-2", identity__LineItemId="earlier", bill__InvoiceId="7", **december)
    month.derive([own, earlier])
    assert month.charges("x_source_line_items, ChargeClass", order="BilledCost DESC") == [
        {"x_source_line_items": ["own"], "ChargeClass": None},
        {"x_source_line_items": ["earlier"], "ChargeClass": "Correction"},
    ]


def test_split_costs_are_left_out_and_counted(tmp_path: Path) -> None:
    month = CurMonth(tmp_path)
    split = line("Usage", "0", splitLineItem__ParentResourceId="i-1")
    record = month.derive([line("Usage", "3"), split])
    assert [entry.rows for entry in record.entries if entry.kind == "split cost"] == [1]
    assert record.version.totals.rows == 1


def test_periods_end_exclusively_and_prices_multiply(tmp_path: Path) -> None:
    month = CurMonth(tmp_path)
    month.derive([line("Usage", "10", lineItem__UsageEndDate="2024-01-03 23:59:59")])
    (charge,) = month.charges("CAST(ChargePeriodEnd AS TEXT) AS until, ListUnitPrice")
    assert charge == {"until": "2024-01-04 00:00:00", "ListUnitPrice": Decimal("2.5")}


def test_a_marketplace_line_keeps_its_cost_and_an_unknown_service_is_counted(
    tmp_path: Path,
) -> None:
    month = CurMonth(tmp_path)
    sold = {"bill__InvoicingEntity": "A Seller", "lineItem__ProductCode": "4q1c8rz"}
    record = month.derive([line("Usage", "3", **sold, product__ProductName="A Product")])
    (charge,) = month.charges("BilledCost, InvoiceIssuerName, ServiceName, ServiceCategory")
    assert [*charge.values()] == [Decimal(3), "A Seller", "A Product", "Other"]
    assert record.unknown["service"] == {"4q1c8rz": 1}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("layout", [Layout(columns=67), Layout("cur2", "parquet")])
def test_any_bill_of_the_generator_adds_up(tmp_path: Path, seed: int, layout: Layout) -> None:
    rows = demo_rows(tmp_path, layout, rows=317 + 211 * seed, seed=seed)
    bill_format = AwsCur2() if layout.format == "cur2" else AwsCur1()
    cost = cost_column(layout)
    record = CurMonth(tmp_path / "lake", bill_format).derive(rows)
    assert record.version.totals.cost == sum(Decimal(str(row[cost])) for row in rows)


REAL = ROOT.parent / "shared/data/focus_converters/aws-cur-v1.csv"


@pytest.mark.skipif(not REAL.exists(), reason="the real bill is not in ../shared/data")
def test_a_real_bill_adds_up_and_keeps_the_rules(tmp_path: Path) -> None:
    with REAL.open(newline="") as lines:
        rows = [*csv.DictReader(lines)]
    month = CurMonth(tmp_path)
    record = month.derive(rows)
    assert record.version.totals.cost == sum(Decimal(r["lineItem/UnblendedCost"]) for r in rows)
    assert record.version.totals.rows == 1281
    assert broken_rules(month) == {"BilledCost.third_party"}
