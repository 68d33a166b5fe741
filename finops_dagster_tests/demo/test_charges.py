"""The line items of an example bill of CUR v1 have what is difficult in real bills."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster.demo.export import BillVersion, write_version
from finops_dagster_tests.demo.delivered import all_rows

Row = dict[str, str]
JANUARY = date(2024, 1, 1)
COST = "lineItem/UnblendedCost"
AMOUNT = "lineItem/UsageAmount"
KIND = "lineItem/LineItemType"


def write(folder: Path, version: BillVersion) -> list[Row]:
    return all_rows(folder, write_version(folder, "cur", "daily", version))


def pairs(rows: list[Row], kind: str) -> Iterator[tuple[Row, Row]]:
    """Return every row of a type with the row before it."""
    return ((rows[n - 1], row) for n, row in enumerate(rows) if row[KIND] == kind)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("first")
    return write(folder, BillVersion(JANUARY, "20240201T050312Z", rows=3000))


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("later")
    return write(folder, BillVersion(JANUARY, "20240209T050312Z", rows=3002, restated=True))


def test_costs_are_mostly_small_and_add_up_to_the_bill_of_a_company(first: list[Row]) -> None:
    costs = [Decimal(row[COST]) for row in first]
    assert 1200 < sum(costs) < 3600
    assert sum(0 < abs(cost) < Decimal("0.01") for cost in costs) > 0.25 * len(costs)
    assert sum("E-" in row[COST] for row in first) > 0.03 * len(costs)
    for row in first:
        if row[KIND] == "Usage" and row["lineItem/UnblendedRate"]:
            exact = Decimal(row[AMOUNT]) * Decimal(row["lineItem/UnblendedRate"])
            assert abs(Decimal(row[COST]) - exact) <= Decimal("0.5E-10"), row


def test_the_bill_grows_over_the_years(tmp_path: Path) -> None:
    earlier, later = (
        sum(Decimal(row[COST]) for row in write(tmp_path, BillVersion(date(year, 6, 1), "a", 1000)))
        for year in (2022, 2026)
    )
    assert later > earlier * Decimal("1.2")


def test_every_kind_of_line_item_and_of_difficult_text_occurs(first: list[Row]) -> None:
    assert {row[KIND] for row in first} == {
        "Usage", "DiscountedUsage", "SavingsPlanCoveredUsage", "SavingsPlanNegation",
        "SavingsPlanRecurringFee", "RIFee", "EdpDiscount", "Credit", "Refund", "Tax", "Fee",
    }  # fmt: skip
    assert any(row["lineItem/UsageAccountId"].startswith("00") for row in first)
    assert {row["bill/BillingEntity"] for row in first} == {"AWS", "AWS Marketplace"}
    assert any({'"', ","} <= set(row["lineItem/LineItemDescription"]) for row in first)
    assert any(not row["resourceTags/user:team"].isascii() for row in first)
    cells = [cell for row in first for cell in row.values()]
    assert 0.5 < cells.count("") / len(cells) < 0.7


def test_the_billing_period_is_the_month_even_where_usage_is_older(first: list[Row]) -> None:
    assert {row["bill/BillingPeriodStartDate"] for row in first} == {"2024-01-01T00:00:00Z"}
    assert {row["bill/BillingPeriodEndDate"] for row in first} == {"2024-02-01T00:00:00Z"}
    older = [row for row in first if row["lineItem/UsageStartDate"] < "2024-01-01"]
    assert {row[KIND] for row in older} == {"Refund"}
    assert all(row["lineItem/UsageEndDate"] <= "2024-02-01T00:00:00Z" for row in first)


def test_line_item_ids_are_unique_only_within_a_time_interval(first: list[Row]) -> None:
    ids = [row["identity/LineItemId"] for row in first]
    assert all(len(text) == 52 and text.isalnum() and text == text.lower() for text in ids)
    assert len(set(ids)) < len(ids)
    intervals = [row["identity/TimeInterval"] for row in first]
    assert len(set(zip(ids, intervals, strict=True))) == len(ids)


def test_negations_cancel_the_covered_usage_of_each_savings_plan(first: list[Row]) -> None:
    balance: dict[str, Decimal] = defaultdict(Decimal)
    for covered, negation in pairs(first, "SavingsPlanNegation"):
        assert covered[KIND] == "SavingsPlanCoveredUsage"
        for header in ("lineItem/UsageAccountId", "lineItem/UsageType", "identity/TimeInterval"):
            assert covered[header] == negation[header]
        assert Decimal(covered[COST]) == -Decimal(negation[COST]) > 0
    for row in first:
        if row[KIND] in ("SavingsPlanCoveredUsage", "SavingsPlanNegation"):
            balance[row["savingsPlan/SavingsPlanARN"]] += Decimal(row[COST])
    assert list(balance.values()) == [Decimal(0)] * 2


def test_fees_pay_for_the_committed_usage(first: list[Row]) -> None:
    plans: dict[str, Decimal] = defaultdict(Decimal)
    reservations: dict[str, Decimal] = defaultdict(Decimal)
    for row in first:
        plan, arn = row["savingsPlan/SavingsPlanARN"], row["reservation/ReservationARN"]
        plans[plan] += Decimal(row["savingsPlan/SavingsPlanEffectiveCost"] or 0)
        plans[plan] -= Decimal(row["savingsPlan/UsedCommitment"] or 0)
        if row[KIND] == "SavingsPlanRecurringFee":
            assert Decimal(row[COST]) > Decimal(row["savingsPlan/UsedCommitment"]) > 0
        elif row[KIND] == "DiscountedUsage":
            assert Decimal(row[COST]) == 0
            reservations[arn] -= Decimal(row["reservation/RecurringFeeForUsage"])
        elif row[KIND] == "RIFee":
            reservations[arn] += Decimal(row[COST]) - Decimal(row["reservation/UnusedRecurringFee"])
    assert len(plans) == 3 and not any(plans.values())
    assert len(reservations) == 2 and not any(reservations.values())


def test_discounts_are_six_percent_of_the_row_before(first: list[Row]) -> None:
    discounts = list(pairs(first, "EdpDiscount"))
    assert discounts
    for usage, discount in discounts:
        assert usage["discount/EdpDiscount"] == discount[COST]
        exact = Decimal(usage[COST]) * Decimal("-0.06")
        assert abs(exact - Decimal(discount[COST])) < Decimal("1E-9")


def test_covered_usage_is_never_the_last_row(tmp_path: Path, first: list[Row]) -> None:
    cut = next(n for n, row in enumerate(first) if row[KIND] == "SavingsPlanNegation")
    rows = write(tmp_path, BillVersion(JANUARY, "a", cut, 1))
    assert (len(rows), rows[-1][KIND]) == (cut, "Usage")


def test_a_restated_month_ends_with_late_refunds_and_has_invoice_ids(
    first: list[Row], later: list[Row]
) -> None:
    assert {row[KIND] for row in later[-7:]} == {"Refund", "Credit"}
    assert all(Decimal(row[COST]) < 0 for row in later[-7:])
    assert {row["bill/InvoiceId"] for row in first} == {""}
    invoices = {(row["lineItem/LegalEntity"], row["bill/InvoiceId"]) for row in later}
    assert len(invoices) == 2 and all(invoice for _, invoice in invoices)


def test_a_restated_month_changes_only_a_few_other_amounts(
    first: list[Row], later: list[Row]
) -> None:
    unchanged_pairs = list(zip(first, later[:-7], strict=False))
    assert len(unchanged_pairs) == 2995
    changed = []
    for old_row, row in unchanged_pairs:
        assert old_row["identity/LineItemId"] != row["identity/LineItemId"]
        difference = {header for header in old_row if old_row[header] != row[header]}
        if difference > {"identity/LineItemId", "bill/InvoiceId"}:
            changed.append(row)
            assert 1 < Decimal(row[AMOUNT]) / Decimal(old_row[AMOUNT]) <= Decimal("1.051")
    assert 0 < len(changed) < 30
    assert {row[KIND] for row in changed} <= {"Usage", "EdpDiscount"}
