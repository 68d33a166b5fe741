"""Mistakes of FOCUS's model, of its validator and of its readers that others have reported.

Each test names the report: an issue or a pull request of FOCUS_Spec, FOCUS-Sample-Data,
focus_validator or finops-toolkit.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster.demo.export import BillVersion, write_version
from finops_dagster.focus.month import FocusMonth
from finops_dagster_tests.demo.delivered import all_rows
from finops_dagster_tests.focus.broken_charges import broken_charges, rules_broken_by
from finops_dagster_tests.focus.charges import good_charges, write_charges
from finops_dagster_tests.focus.cur_month import CurMonth, Row
from finops_dagster_tests.focus.model import corrected
from finops_dagster_tests.focus.validator import delivered_model, judge, needs_validator

GOOD = list(good_charges().values())


@needs_validator
@pytest.mark.thorough
def test_good_charges_that_the_model_calls_wrong(tmp_path: Path) -> None:
    """focus_validator#142, FOCUS_Spec#2369, #2393, #2394, PR#2622: conditions lost and inverted."""
    charges = write_charges(tmp_path / "charges.parquet", GOOD)
    assert judge(charges, tmp_path, delivered_model()).failures == {
        "InvoiceId-C-004-C": len(GOOD),
        "CapacityReservationStatus-C-003-C": 2,
        "CapacityReservationStatus-C-004-C": 14,
        "CommitmentDiscountStatus-C-004-C": 10,
    }


@needs_validator
@pytest.mark.thorough
def test_broken_charges_that_the_model_calls_right(tmp_path: Path) -> None:
    """FOCUS_Spec#2418, PR#2422, #2681: wrong values, and rules that look at no charge."""
    broken = broken_charges()
    rows = [*GOOD, *(charge.columns for charge in broken)]
    charges = write_charges(tmp_path / "charges.parquet", rows)
    missed = rules_broken_by(broken).keys() - judge(charges, tmp_path, delivered_model()).failures
    values = "CommitmentDiscountStatus-C-005-M ChargeCategory-C-003-M ServiceCategory-C-003-M"
    prices = "ContractedUnitPrice-C-011-C ListUnitPrice-C-010-C ListCost-C-009-C SkuId-C-005-C"
    assert missed >= {*values.split(), *prices.split()}
    assert len(missed) == 21


@needs_validator
def test_errata_that_the_model_has_already() -> None:
    """FOCUS_Spec#1824, #1825: the validator 2.2.1 has the model in which these are corrected."""
    rules = delivered_model()["ModelRules"]
    status, kind = (
        rules[rule]["ValidationCriteria"]
        for rule in ("CommitmentDiscountStatus-C-003-C", "ResourceType-C-005-C")
    )
    assert status["Requirement"]["CheckFunction"] == "CheckValue"
    assert kind["Condition"]["ColumnName"] == "ResourceId"


@needs_validator
def test_a_correction_that_a_newer_model_has_is_told() -> None:
    """FOCUS_Spec PR#2422, PR#2622: models 1.2.0.3 and later have them; then they must go here."""
    model = corrected(delivered_model())
    with pytest.raises(AssertionError, match="is corrected already"):
        corrected(model)


@needs_validator
@pytest.mark.thorough
def test_the_list_of_currencies_is_read_from_the_working_folder(tmp_path: Path) -> None:
    """focus_validator#112: so each run has a folder of its own, with the list in it."""
    charges = write_charges(tmp_path / "charges.parquet", [{**GOOD[0], "BillingCurrency": "XYZ"}])
    failures = judge(charges, tmp_path).failures
    assert failures["BillingCurrency-C-006-M"] == 1
    assert (tmp_path / "all/focus_validator/rules/currency_codes.csv").exists()
    assert (tmp_path / "all/focus_validator_detailed.log").exists()


DemoMonth = tuple[FocusMonth, CurMonth, list[Row]]


def demo_month(folder: Path, *, restated: bool) -> DemoMonth:
    """Derive a bill of the demo from CUR v1, restated after its invoice or not."""
    version = BillVersion(date(2024, 1, 1), "20240203T050312Z", rows=1_000, restated=restated)
    rows = all_rows(folder, write_version(folder, "cur", "daily", version))
    month = CurMonth(folder / "lake")
    return month.derive(rows), month, rows


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> DemoMonth:
    return demo_month(tmp_path_factory.mktemp("closed"), restated=True)


def test_invoice_ids_say_whether_a_month_is_closed(tmp_path: Path, closed: DemoMonth) -> None:
    """FOCUS_Spec#2294: FOCUS 1.2 has no status of a billing period."""
    _, open_month, _ = demo_month(tmp_path, restated=False)
    _, closed_month, _ = closed
    ids = "DISTINCT InvoiceId IS NULL AS is_open"
    assert open_month.charges(ids) == [{"is_open": True}]
    assert closed_month.charges(ids) == [{"is_open": False}]


def test_charges_add_up_to_each_invoice(closed: DemoMonth) -> None:
    """FOCUS_Spec#944, PR#1966: none is left out, nor billed at 0 as another company invoices it."""
    _, month, rows = closed
    invoices = defaultdict[str, Decimal](Decimal)
    for row in rows:
        invoices[row["bill/InvoiceId"]] += Decimal(row["lineItem/UnblendedCost"])
    assert len(invoices) == 2
    costs = f"SELECT InvoiceId, sum(BilledCost) FROM {month.relation} GROUP BY ALL"
    assert dict(duckdb.sql(costs).fetchall()) == invoices


def test_credits_are_charges_of_their_own(closed: DemoMonth) -> None:
    """FOCUS_Spec#1038: whether they are folded into what they are for is open."""
    _, month, rows = closed
    credited = {
        row["identity/LineItemId"] for row in rows if row["lineItem/LineItemType"] == "Credit"
    }
    charges = month.charges("x_source_line_items, ChargeCategory")
    ids = {
        charge["x_source_line_items"][0]
        for charge in charges
        if charge["ChargeCategory"] == "Credit"
    }
    assert ids == credited != set()


def test_the_file_names_its_version_of_focus(closed: DemoMonth) -> None:
    """finops-toolkit#2120: version 1.4 drops columns of 1.2, so a reader must know which it has."""
    record, month, _ = closed
    assert record.version.format == "focus-1.2"
    assert FocusMonth.read(next(month.root.glob("focus/acme/*/*.parquet"))) == record
