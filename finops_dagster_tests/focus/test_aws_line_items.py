"""What line items of CUR of every type become, worked out by hand.

A bill has net costs as a whole or not at all, so there is a table for each: the line items by name,
and the charges that they become.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster.billing.errors import ReconciliationError
from finops_dagster.focus.month import ChargesRecord
from finops_dagster_tests.focus.cur_month import CurMonth, Row, line

Charge = tuple[str, str, str | None]
Table = dict[str, tuple[Row, list[Charge]]]

PLAN = {"savingsPlan__SavingsPlanARN": "arn:aws:savingsplans::1:savingsplan/p-1"}
RI = {"reservation__ReservationARN": "arn:aws:ec2:us-east-1:1:reserved-instances/r-1"}
TAX, USAGE = {"lineItem__TaxType": "VAT"}, {"lineItem__UsageType": "BoxUsage", "product__sku": "S"}


def public(cost: str) -> dict[str, str]:
    """Return the cell of the cost on demand."""
    return {"pricing__publicOnDemandCost": cost}


def net(cost: str) -> dict[str, str]:
    """Return the cell of the cost after discounts."""
    return {"lineItem__NetUnblendedCost": cost}


def unused(upfront: str, recurring: str, *, net: bool = False) -> dict[str, str]:
    """Return the cells of what was not used of a reservation."""
    prefix = "reservation__NetUnused" if net else "reservation__Unused"
    return {
        f"{prefix}AmortizedUpfrontFeeForBillingPeriod": upfront,
        f"{prefix}RecurringFee": recurring,
    }


def fee(cost: str, used: str, **cells: str) -> Row:
    """Return the monthly fee of a savings plan, whose commitment was 10."""
    commitment = {"savingsPlan__TotalCommitmentToDate": "10", "savingsPlan__UsedCommitment": used}
    return line("SavingsPlanRecurringFee", cost, **PLAN, **commitment, **cells)


def covered(cost: str, effective: str, **cells: str) -> Row:
    """Return usage that a savings plan covers."""
    cells["savingsPlan__SavingsPlanEffectiveCost"] = effective
    return line("SavingsPlanCoveredUsage", cost, **PLAN, **cells)


# Rule and category of each charge; BilledCost, EffectiveCost, ListCost; status of the commitment.
RI_UNUSED = ("reservation-unused Usage", "0 5 0", "Unused")
PLAN_UNUSED = ("savings-plan-unused Usage", "0 2 0", "Unused")
DISCOUNTS = ("EdpDiscount", "PrivateRateDiscount", "BundledDiscount", "Discount", "SppDiscount")
WITHOUT_NET: Table = {
    "usage": (line("Usage", "6", **public("8")), [("usage Usage", "6 6 8", None)]),
    "usage without a list price": (line("Usage", "6"), [("usage Usage", "6 6 6", None)]),
    "reserved usage": (
        line("DiscountedUsage", "0", **RI, **public("8"), reservation__EffectiveCost="3"),
        [("reservation-used Usage", "0 3 8", "Used")],
    ),
    "reservation, upfront fee": (
        line("Fee", "700", **RI),
        [("reservation-upfront Purchase", "700 0 700", None)],
    ),
    "reservation, no upfront, unused": (
        line("RIFee", "30", **RI, **unused("0", "5")),
        [("reservation-fee Purchase", "30 0 30", None), RI_UNUSED],
    ),
    "reservation, partial upfront, unused": (
        line("RIFee", "15", **RI, **unused("2", "3")),
        [("reservation-fee Purchase", "15 0 15", None), RI_UNUSED],
    ),
    # The fee of the month is 0, and its charge is there all the same.
    "reservation, all upfront, unused": (
        line("RIFee", "0", **RI, **unused("5", "0")),
        [("reservation-fee Purchase", "0 0 0", None), RI_UNUSED],
    ),
    "reservation, no upfront, used": (
        line("RIFee", "30", **RI, **unused("0", "0")),
        [("reservation-fee Purchase", "30 0 30", None)],
    ),
    "reservation, partial upfront, used": (
        line("RIFee", "15", **RI, **unused("0", "0")),
        [("reservation-fee Purchase", "15 0 15", None)],
    ),
    "reservation, all upfront, used": (
        line("RIFee", "0", **RI, **unused("0", "0")),
        [("reservation-fee Purchase", "0 0 0", None)],
    ),
    "usage of a plan": (
        covered("8", "5", **public("9")),
        [("savings-plan-used Usage", "0 5 9", "Used")],
    ),
    "usage of a plan without a list price": (
        covered("8", "5"),
        [("savings-plan-used Usage", "0 5 8", "Used")],
    ),
    "negation": (line("SavingsPlanNegation", "-16", **PLAN), []),
    "plan, upfront fee": (
        line("SavingsPlanUpfrontFee", "900", **PLAN),
        [("savings-plan-upfront Purchase", "900 0 900", None)],
    ),
    "plan, no upfront, unused": (
        fee("10", "8"),
        [("savings-plan-fee Purchase", "10 0 10", None), PLAN_UNUSED],
    ),
    "plan, partial upfront, unused": (
        fee("5", "8"),
        [("savings-plan-fee Purchase", "5 0 5", None), PLAN_UNUSED],
    ),
    "plan, all upfront, unused": (
        fee("0", "8"),
        [("savings-plan-fee Purchase", "0 0 0", None), PLAN_UNUSED],
    ),
    "plan, no upfront, used": (
        fee("10", "10"),
        [("savings-plan-fee Purchase", "10 0 10", None)],
    ),
    "plan, partial upfront, used": (
        fee("5", "10"),
        [("savings-plan-fee Purchase", "5 0 5", None)],
    ),
    "plan, all upfront, used": (
        fee("0", "10"),
        [("savings-plan-fee Purchase", "0 0 0", None)],
    ),
    "fee": (line("Fee", "12"), [("fee Purchase", "12 12 12", None)]),
    "tax": (line("Tax", "1.9"), [("tax Tax", "1.9 1.9 1.9", None)]),
    "credit": (line("Credit", "-2"), [("credit Credit", "-2 -2 -2", None)]),
    "refund": (line("Refund", "-2"), [("refund Adjustment", "-2 -2 -2", None)]),
    "refund of tax": (line("Refund", "-2", **TAX), [("refund-tax Tax", "-2 -2 -2", None)]),
    "refund of usage": (line("Refund", "-2", **USAGE), [("refund-usage Usage", "-2 -2 -2", None)]),
    "refund of a reservation": (
        line("Refund", "-2", **RI),
        [("refund-commitment Purchase", "-2 -2 -2", None)],
    ),
    "refund of a plan": (
        line("Refund", "-2", **PLAN),
        [("refund-commitment Purchase", "-2 -2 -2", None)],
    ),
    **{name: (line(name, "-3"), [("discount Adjustment", "-3 -3 -3", None)]) for name in DISCOUNTS},
    "a type that is new": (line("Novelty", "5"), [("other Adjustment", "5 5 5", None)]),
}

# A discount of 10 % on all that AWS grants it for: not on taxes and credits. Public costs, and what
# was not used of a plan's commitment, are without it in AWS's columns and in its SQL.
NET_COVERED = {"savingsPlan__NetSavingsPlanEffectiveCost": "4.5"}
RI_NET_UNUSED = ("reservation-unused Usage", "0 4.5 0", "Unused")
WITH_NET: Table = {
    "usage": (
        line("Usage", "6", **net("5.4"), **public("8")),
        [("usage Usage", "5.4 5.4 8", None)],
    ),
    "usage without a list price": (
        line("Usage", "6", **net("5.4")),
        [("usage Usage", "5.4 5.4 5.4", None)],
    ),
    "usage without a net cost": (line("Usage", "6"), [("usage Usage", "6 6 6", None)]),
    "reserved usage": (
        line(
            "DiscountedUsage",
            "0",
            **RI,
            **net("0"),
            **public("8"),
            reservation__EffectiveCost="3",
            reservation__NetEffectiveCost="2.7",
        ),
        [("reservation-used Usage", "0 2.7 8", "Used")],
    ),
    "reservation, upfront fee": (
        line("Fee", "700", **RI, **net("630")),
        [("reservation-upfront Purchase", "630 0 630", None)],
    ),
    "reservation, no upfront, unused": (
        line("RIFee", "30", **RI, **net("27"), **unused("0", "5"), **unused("0", "4.5", net=True)),
        [("reservation-fee Purchase", "27 0 27", None), RI_NET_UNUSED],
    ),
    "reservation, partial upfront, unused": (
        line(
            "RIFee", "15", **RI, **net("13.5"), **unused("2", "3"), **unused("1.8", "2.7", net=True)
        ),
        [("reservation-fee Purchase", "13.5 0 13.5", None), RI_NET_UNUSED],
    ),
    "reservation, all upfront, unused": (
        line("RIFee", "0", **RI, **net("0"), **unused("5", "0"), **unused("4.5", "0", net=True)),
        [("reservation-fee Purchase", "0 0 0", None), RI_NET_UNUSED],
    ),
    "reservation, no upfront, used": (
        line("RIFee", "30", **RI, **net("27"), **unused("0", "0"), **unused("0", "0", net=True)),
        [("reservation-fee Purchase", "27 0 27", None)],
    ),
    "reservation, partial upfront, used": (
        line("RIFee", "15", **RI, **net("13.5"), **unused("0", "0"), **unused("0", "0", net=True)),
        [("reservation-fee Purchase", "13.5 0 13.5", None)],
    ),
    "reservation, all upfront, used": (
        line("RIFee", "0", **RI, **net("0"), **unused("0", "0"), **unused("0", "0", net=True)),
        [("reservation-fee Purchase", "0 0 0", None)],
    ),
    "usage of a plan": (
        covered(
            "8", "5", **net("8"), **public("9"), savingsPlan__NetSavingsPlanEffectiveCost="4.5"
        ),
        [("savings-plan-used Usage", "0 4.5 9", "Used")],
    ),
    "negation": (line("SavingsPlanNegation", "-8", **PLAN, **net("-8")), []),
    "plan, upfront fee": (
        line("SavingsPlanUpfrontFee", "900", **PLAN, **net("810")),
        [("savings-plan-upfront Purchase", "810 0 810", None)],
    ),
    "plan, no upfront, unused": (
        fee("10", "8", **net("9")),
        [("savings-plan-fee Purchase", "9 0 9", None), PLAN_UNUSED],
    ),
    "plan, partial upfront, unused": (
        fee("5", "8", **net("4.5")),
        [("savings-plan-fee Purchase", "4.5 0 4.5", None), PLAN_UNUSED],
    ),
    "plan, all upfront, unused": (
        fee("0", "8", **net("0")),
        [("savings-plan-fee Purchase", "0 0 0", None), PLAN_UNUSED],
    ),
    "plan, no upfront, used": (
        fee("10", "10", **net("9")),
        [("savings-plan-fee Purchase", "9 0 9", None)],
    ),
    "plan, partial upfront, used": (
        fee("5", "10", **net("4.5")),
        [("savings-plan-fee Purchase", "4.5 0 4.5", None)],
    ),
    "plan, all upfront, used": (
        fee("0", "10", **net("0")),
        [("savings-plan-fee Purchase", "0 0 0", None)],
    ),
    "fee": (line("Fee", "12", **net("10.8")), [("fee Purchase", "10.8 10.8 10.8", None)]),
    "tax": (line("Tax", "1.9", **net("1.9")), [("tax Tax", "1.9 1.9 1.9", None)]),
    "credit": (line("Credit", "-2", **net("-2")), [("credit Credit", "-2 -2 -2", None)]),
    "refund": (
        line("Refund", "-2", **net("-1.8")),
        [("refund Adjustment", "-1.8 -1.8 -1.8", None)],
    ),
    "refund of tax": (
        line("Refund", "-2", **TAX, **net("-2")),
        [("refund-tax Tax", "-2 -2 -2", None)],
    ),
    "refund of usage": (
        line("Refund", "-2", **USAGE, **net("-1.8")),
        [("refund-usage Usage", "-1.8 -1.8 -1.8", None)],
    ),
    "refund of a reservation": (
        line("Refund", "-2", **RI, **net("-1.8")),
        [("refund-commitment Purchase", "-1.8 -1.8 -1.8", None)],
    ),
    "refund of a plan": (
        line("Refund", "-2", **PLAN, **net("-1.8")),
        [("refund-commitment Purchase", "-1.8 -1.8 -1.8", None)],
    ),
    "a type that is new": (line("Novelty", "5"), [("other Adjustment", "5 5 5", None)]),
    # They sum to -173.6, by which the net costs above are lower; they have none of their own.
    "EdpDiscount": (line("EdpDiscount", "-169.2", **net("0")), []),
    "PrivateRateDiscount": (line("PrivateRateDiscount", "-3", **net("0")), []),
    "BundledDiscount": (line("BundledDiscount", "-1", **net("0")), []),
    "Discount": (line("Discount", "-0.3", **net("0")), []),
    "SppDiscount": (line("SppDiscount", "-0.1"), []),
}


def derive(folder: Path, table: Table) -> tuple[ChargesRecord, dict[str, list[Charge]]]:
    """Return the record of a bill of a table's line items, and the charges of each by its name."""
    month = CurMonth(folder)
    record = month.derive(
        {**item, "identity/LineItemId": name} for name, (item, _) in table.items()
    )
    charges: dict[str, list[Charge]] = {name: [] for name in table}
    for charge in month.charges(
        "x_source_line_items[1] AS name, x_rule || ' ' || ChargeCategory AS rule, "
        "[BilledCost, EffectiveCost, ListCost] AS costs, CommitmentDiscountStatus AS status",
        order="x_rule",
    ):
        costs = " ".join(plain(cost) for cost in charge["costs"])
        charges[charge["name"]].append((charge["rule"], costs, charge["status"]))
    assert month.broken_rules() == {"BilledCost.third_party"}  # AWS bills by its company's name.
    return record, charges


def plain(cost: Decimal) -> str:
    """Return a cost without zeros at its end."""
    return f"{cost.normalize():f}"


def expected(table: Table) -> dict[str, list[Charge]]:
    """Return the charges that a table says, by the names of the line items."""
    return {name: charges for name, (_, charges) in table.items()}


def test_what_line_items_become_without_net_costs(tmp_path: Path) -> None:
    record, charges = derive(tmp_path, WITHOUT_NET)
    assert charges == expected(WITHOUT_NET)
    # Usage 12; reservations 700 + 90; plans 900 + 30; fee 12, tax 1.9, credit -2; five refunds of
    # -2; five discounts of -3; 5.
    assert record.version.totals.cost == Decimal("1723.9")
    # Usage 12; reservations 3 + 3 * 5; plans 2 * 5 + 3 * 2; the rest as billed.
    assert record.version.totals.sums["EffectiveCost"] == Decimal("37.9")


def test_what_line_items_become_with_net_costs(tmp_path: Path) -> None:
    record, charges = derive(tmp_path, WITH_NET)
    assert charges == expected(WITH_NET)
    # Usage 16.8; reservations 630 + 81; plans 810 + 27; fee 10.8, tax 1.9, credit -2; refunds
    # -1.8 * 4 - 2; 5. It is the sum of the costs before discounts, and of the discounts.
    assert record.version.totals.cost == Decimal("1571.3")
    # Usage 16.8; reservations 2.7 + 3 * 4.5; plans 4.5 + 3 * 2; the rest as billed.
    assert record.version.totals.sums["EffectiveCost"] == Decimal("50")


def test_what_a_plan_and_its_negation_leave_over_is_one_charge(tmp_path: Path) -> None:
    pair: Table = {
        "usage": (
            covered("8", "5"),
            [
                ("savings-plan-rest Adjustment", "0.0000000001 0 0.0000000001", None),
                ("savings-plan-used Usage", "0 5 8", "Used"),
            ],
        ),
        "negation": (line("SavingsPlanNegation", "-7.9999999999", **PLAN), []),
    }
    assert derive(tmp_path, pair)[1] == expected(pair)


def test_what_rounded_net_costs_leave_over_is_one_charge(tmp_path: Path) -> None:
    rounded: Table = {
        "usage": (
            line("Usage", "10", **net("9.4")),
            [
                ("discount-rest Adjustment", "-0.0000000001 0 -0.0000000001", None),
                ("usage Usage", "9.4 9.4 9.4", None),
            ],
        ),
        "discount": (line("EdpDiscount", "-0.6000000001", **net("0")), []),
    }
    assert derive(tmp_path, rounded)[1] == expected(rounded)


def test_half_of_a_discount_is_refused(tmp_path: Path) -> None:
    usage, discount = line("Usage", "10", **net("9.4")), line("EdpDiscount", "-0.3", **net("0"))
    with pytest.raises(ReconciliationError, match="discounts"):
        CurMonth(tmp_path).derive([usage, discount])


def test_discounts_are_in_net_costs_and_named_there(tmp_path: Path) -> None:
    month = CurMonth(tmp_path)
    record = month.derive(
        [
            line("Usage", "10", **net("9.4"), discount__EdpDiscount="-0.6"),
            line("Usage", "5", **net("5")),
            line("EdpDiscount", "-0.6", **net("0")),
        ]
    )
    charges = month.charges("BilledCost, x_discounts", order="BilledCost")
    assert [(c["BilledCost"], c["x_discounts"]) for c in charges] == [
        (Decimal(5), None),
        (Decimal("9.4"), {"edp_discount": Decimal("-0.6")}),
    ]
    assert {entry.kind: (entry.rows, entry.billed) for entry in record.entries} == {
        "usage": (2, Decimal("0.6")),
        "discount in net costs": (1, Decimal("-0.6")),
    }


@pytest.mark.parametrize("of", [{}, TAX, USAGE, RI], ids=["unknown", "tax", "usage", "reservation"])
def test_a_refund_corrects_an_earlier_month_but_not_its_own(
    tmp_path: Path, of: dict[str, str]
) -> None:
    """Its own month is refunded before the invoice, an earlier one after it."""
    month = CurMonth(tmp_path)
    own = line("Refund", "-1", identity__LineItemId="own", **of)
    december = {"lineItem__UsageStartDate": "2023-12-01", "lineItem__UsageEndDate": "2024-01-01"}
    earlier = line("Refund", "-2", identity__LineItemId="earlier", **december, **of)
    month.derive([own, earlier])
    assert month.charges("x_source_line_items, ChargeClass", order="BilledCost DESC") == [
        {"x_source_line_items": ["own"], "ChargeClass": None},
        {"x_source_line_items": ["earlier"], "ChargeClass": "Correction"},
    ]
