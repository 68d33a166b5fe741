"""A reconciliation compares all totals that both sides have."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from finops_dagster.billing.errors import ReconciliationError
from finops_dagster.billing.money import MeasuredTotals, Totals, exact_sum, reconcile

BILL = Totals(2, Decimal(3), {"cost": Decimal(3), "fee": Decimal("0.1")}, {"USD": Decimal(3)})
ADVICE = "run the month again"


def amounts(**texts: str) -> Mapping[str, Decimal]:
    return {name: Decimal(text) for name, text in texts.items()}


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (Totals(1, Decimal(3)), "t has 1 row, 3, but the vendor's files have 2 rows, 3"),
        (Totals(2, Decimal("3.1")), "t has 2 rows, 3.1, but the vendor's files have 2 rows, 3"),
        (
            Totals(2, Decimal(3), amounts(cost="3", fee="0.100000000000000001")),
            "t has 0.100000000000000001 in the column fee, but the vendor's files have 0.1",
        ),
        (
            Totals(2, Decimal(3), amounts(cost="3")),
            "t has 0 in the column fee, but the vendor's files have 0.1",
        ),
        (
            Totals(2, Decimal(3), amounts(cost="3", fee="0.1", tax="7")),
            "t has 7 in the column tax, but the vendor's files have 0",
        ),
        (
            Totals(2, Decimal(3), None, amounts(USD="1", EUR="2")),
            "t has 2 in the currency EUR, but the vendor's files have 0",
        ),
    ],
)
def test_a_difference_is_named_with_both_amounts(measured: Totals, message: str) -> None:
    with pytest.raises(ReconciliationError) as error:
        reconcile("t", BILL, MeasuredTotals(measured, 0), ADVICE)
    assert str(error.value) == f"{message}; {ADVICE}"


@pytest.mark.parametrize("measured", [BILL, Totals(2, Decimal(3))])
def test_totals_that_one_side_lacks_are_not_compared(measured: Totals) -> None:
    reconcile("t", BILL, MeasuredTotals(measured, 0), ADVICE)
    reconcile("t", measured, MeasuredTotals(BILL, 0), ADVICE)


def test_sums_keep_every_digit() -> None:
    large, small = Decimal("99999999999999999999"), Decimal("1e-18")
    assert exact_sum([large, None, small]) == Decimal("99999999999999999999.000000000000000001")
