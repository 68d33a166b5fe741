"""The figures of a report are those of the charges, to the last digit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from finops_dagster.reports import lines
from finops_dagster.reports.document import empty_document
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
@hypothesis.settings(max_examples=8)
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
