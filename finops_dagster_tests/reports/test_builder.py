"""The figures of a report are those of the charges, to the last digit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, localcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import hypothesis
import hypothesis.strategies as st
import pytest

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports import lines
from finops_dagster.reports.accounts import AccountsFile
from finops_dagster.reports.builder import Scope
from finops_dagster.reports.document import empty_document
from finops_dagster.reports.relations import create_account_spellings
from finops_dagster.reports.sums import create_cost_and_usage_sums
from finops_dagster.reports.versions import ReportMonths, require_recorded_totals
from finops_dagster_tests.reports.months import Charge, Months, charge, rows, total

JANUARY, FEBRUARY, MARCH = "2025-01", "2025-02", "2025-03"
_AMOUNTS = st.decimals(-(10**9), 10**9, places=18, allow_nan=False) | st.decimals(
    -100, 100, places=2, allow_nan=False
)
_CHARGES = st.lists(
    st.fixed_dictionaries(
        {
            "BilledCost": _AMOUNTS,
            "EffectiveCost": _AMOUNTS,
            "BillingCurrency": st.sampled_from(["USD", "EUR"]),
            "ProviderName": st.sampled_from(["Cloud", "Sky"]),
            "SubAccountId": st.sampled_from([None, "1", "2", "3"]),
            "ServiceName": st.sampled_from([None, "", "Machines", "Disks", "Queues"]),
            "ServiceCategory": st.sampled_from(["Compute", "Storage"]),
            "RegionId": st.sampled_from([None, "eu-west-1", "us-east-1"]),
            "ChargeCategory": st.sampled_from(["Usage", "Purchase", "Tax", "Credit", "Adjustment"]),
            "ChargeClass": st.sampled_from([None, "Correction"]),
        }
    ),
    max_size=12,
)


@pytest.fixture
def months(tmp_path: Path) -> Months:
    return Months(tmp_path)


def sums(charges: list[Charge], column: str, key: Callable[[Charge], Any]) -> dict[Any, Decimal]:
    found: dict[Any, Decimal] = defaultdict(Decimal)
    for item in charges:
        found[key(item)] += item[column]
    return {key: amount for key, amount in found.items() if amount}


@hypothesis.given(bills=st.lists(_CHARGES, min_size=1, max_size=3), most=st.integers(1, 3))
@hypothesis.settings(max_examples=5)
def test_every_table_of_costs_adds_up_to_the_charges(bills: list[list[Charge]], most: int) -> None:
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        localcontext(prec=60),
    ):
        for name in ("MOST_ACCOUNTS", "MOST_SERVICES", "MOST_REGIONS"):
            patch.setattr(lines, name, most)
        months = Months(Path(folder))
        for month, charges in zip((JANUARY, FEBRUARY, MARCH), bills, strict=False):
            months.write(month, [charge("0", **item) for item in charges])
        document = months.document()
        currencies = document["currencies"]
        for number, charges in enumerate(bills):
            for column, cost in (("billed", "BilledCost"), ("effective", "EffectiveCost")):
                expected = sums(charges, cost, lambda c: c["BillingCurrency"])
                for table in ("costs", "region_costs", "kinds", "day_costs"):
                    found = {
                        currency: total(document, table, column, month=number, currency=position)
                        for position, currency in enumerate(currencies)
                    }
                    assert {key: amount for key, amount in found.items() if amount} == expected
                by_category: dict[Any, Decimal] = defaultdict(Decimal)
                for row in rows(document, "costs"):
                    if row["month"] == number:
                        service = document["services"][row["service"]]
                        key = (
                            currencies[row["currency"]],
                            service["provider"],
                            service["category"],
                        )
                        by_category[key] += row[column]
                assert {key: amount for key, amount in by_category.items() if amount} == sums(
                    charges,
                    cost,
                    lambda c: (
                        c["BillingCurrency"],
                        document["providers"].index(c["ProviderName"]),
                        document["categories"].index(c["ServiceCategory"]),
                    ),
                )


def test_a_lake_without_charges_gives_an_empty_document(months: Months) -> None:
    document = months.document()
    assert document.keys() == empty_document().keys()
    assert document["months"] == []
    assert document["month"] is None


def test_months_without_charges_or_without_a_file_stay_in_the_list(months: Months) -> None:
    months.write("2024-11", [charge("5")])
    months.write("2025-01", [])
    document = months.document()
    assert document["months"] == ["2024-11", "2024-12", "2025-01"]
    assert document["month_states"] == ["open", None, "open"]
    assert total(document, "costs", "billed", month=2) == 0
    assert [row["charges"] for row in document["versions"]] == [1, 0]


def test_the_newest_month_that_every_export_has_is_shown_first(months: Months) -> None:
    current = BillingMonth.current()
    for export in ("acme", "other"):
        for month in (JANUARY, FEBRUARY):
            months.write(month, [charge("1")], export)
    months.write(MARCH, [charge("1")])
    months.write(str(current), [charge("1")])
    document = months.builder("acme", "other").document(Scope(months=100))
    assert document["months"][document["month"]] == FEBRUARY
    assert months.builder("acme").document(Scope(months=100))["month_states"][-1] == "in progress"


def test_each_charge_is_of_one_kind(months: Months) -> None:
    kinds = {
        "Usage": charge("1"),
        "Purchase": charge("2", ChargeCategory="Purchase"),
        "Credit": charge("-4", ChargeCategory="Credit", ChargeClass="Correction"),
        "Refund": charge("-8", ChargeClass="Correction"),
        "Tax": charge("16", ChargeCategory="Tax", PublisherName="State"),
        "Support": charge("32", ServiceSubcategory="Support", ChargeCategory="Purchase"),
        "Marketplace": charge("64", PublisherName="Seller"),
        "Adjustment": charge("128", ChargeClass="Correction"),
    }
    amazon = charge("256", ProviderName="AWS", PublisherName="Amazon Web Services EMEA SARL")
    months.write(JANUARY, [*kinds.values(), amazon])
    document = months.document()
    found = {kind: total(document, "kinds", "billed", kind=kind) for kind in kinds}
    assert found.pop("Usage") == 257
    assert found == {k: c["BilledCost"] for k, c in kinds.items() if k != "Usage"}


def test_savings_are_those_of_usage_and_charge_what_is_unused_in_full(months: Months) -> None:
    plan = {"CommitmentDiscountId": "plan", "CommitmentDiscountType": "Savings Plan"}
    used = charge("0", "7", **plan, CommitmentDiscountStatus="Used", ListCost=Decimal(12))
    unused = charge("0", "3", **plan, CommitmentDiscountStatus="Unused", ListCost=Decimal(3))
    fee = charge("10", "0", **plan, ChargeCategory="Purchase")
    months.write(JANUARY, [charge("1", ContractedCost=Decimal("0.5")), used, unused, fee])
    document = months.document()
    (savings,) = rows(document, "savings")
    assert (savings["list"], savings["contracted"], savings["effective"]) == (
        13,
        Decimal("0.5"),
        11,
    )
    (commitment,) = rows(document, "commitments")
    assert (commitment["id"], commitment["used"], commitment["unused"]) == ("plan", 7, 3)
    assert commitment["ends"] is None


def test_a_commitment_ends_on_the_last_day_that_its_charges_name(months: Months) -> None:
    def used(plan: str, end: str | None) -> Charge:
        return charge("1", CommitmentDiscountId=plan, x_commitmentdiscountend=end)

    months.write(
        JANUARY,
        [used("a", None), used("a", "2026-02-28T23:59:59.000Z"), used("b", "soon")],
    )
    ends = {row["id"]: row["ends"] for row in rows(months.document(), "commitments")}
    assert ends == {"a": "2026-02-28", "b": None}


def test_tags_of_the_vendor_do_not_count(months: Months) -> None:
    tags = [None, {}, {"aws:createdBy": "x"}, {"aws:a": "1", "team": "web"}, {"Owner": "x"}]
    charges = [
        charge(str(10**number), Tags=tag, ResourceId=f"vm-{number}")
        for number, tag in enumerate(tags)
    ]
    months.write(JANUARY, [*charges, charge("5000000", ResourceId=None)])
    document = months.document()
    (row,) = rows(document, "tags")
    assert (row["tagged"], row["untagged"]) == (11_000, 111)
    assert document["untagged_resources"]["resource"] == ["vm-0", "vm-1", "vm-2"]
    keys = {row["key"]: row["tagged"] for row in rows(document, "tag_keys")}
    assert keys == {"team": 1_000, "Owner": 10_000}


def test_resources_have_both_months_and_the_largest_ones(months: Months) -> None:
    for month, factor in ((JANUARY, 1), (FEBRUARY, 2)):
        machines = [
            charge(str(factor * number), ResourceId=f"vm-{number}", ResourceType="Machine")
            for number in range(1, 8)
        ]
        months.write(month, machines)
    document = months.document()
    found = [(row["month"], row["resource"], row["billed"]) for row in rows(document, "resources")]
    largest = range(3, 8)
    assert sorted(found) == sorted(
        (month, f"vm-{number}", (month + 1) * number) for month in (0, 1) for number in largest
    )
    assert document["left_out"]["resources"] == 2  # of the month that is shown first


def test_days_of_charges_outside_of_the_month_are_its_first_and_its_last(months: Months) -> None:
    moments = [datetime(2024, 12, 30), datetime(2025, 1, 15, 23), datetime(2025, 2, 2)]
    months.write(JANUARY, [charge("1", ChargePeriodStart=moment) for moment in moments])
    assert months.document()["day_costs"]["day"] == [1, 15, 31]


def test_small_accounts_share_a_line_of_their_provider(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_ACCOUNTS", 1)
    small = [charge("1", SubAccountId=f"1{n}", SubAccountName=None) for n in range(3)]
    sky = charge("2", ProviderName="Sky", SubAccountId="9", SubAccountName="nine")
    months.write(JANUARY, [charge("100"), *small, sky])
    document = months.document()
    names = [account["name"] for account in document["accounts"]]
    assert names == ["web", "nine", "Other (3)"]
    assert document["left_out"]["accounts"] == 3
    assert total(document, "costs", "billed", account=names.index("Other (3)")) == 3


def test_a_file_that_was_replaced_meanwhile_is_not_reported(months: Months) -> None:
    path = months.write(JANUARY, [charge("1")])
    files = ReportMonths.of(months.lake, months.builder().exports, None, 13)
    months.write(JANUARY, [charge("2")])
    with (
        pytest.raises(BillError, match=f"^{re.escape(str(path))} does not have the totals"),
        duckdb.connect() as connection,
    ):
        create_account_spellings(connection, AccountsFile())
        create_cost_and_usage_sums(connection, *[files.relation(connection)] * 2)
        require_recorded_totals(connection, files)
