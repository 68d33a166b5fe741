"""Mistakes of FOCUS's model, of its validator and of its readers that others have reported.

Each test names the pitfall and its report: an issue or a pull request of FOCUS_Spec,
FOCUS-Sample-Data, focus_validator or finops-toolkit.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster.demo.export import BillVersion, write_version
from finops_dagster.focus.month import ChargesRecord
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster_tests.demo.delivered import all_rows
from finops_dagster_tests.focus.broken_charges import broken_charges, rules_broken_by
from finops_dagster_tests.focus.charges import good_charges, write_charges
from finops_dagster_tests.focus.cur_month import CurMonth, Row, line
from finops_dagster_tests.focus.model import corrected
from finops_dagster_tests.focus.native_month import NativeMonth, has_sample, sample_rows
from finops_dagster_tests.focus.page import questions
from finops_dagster_tests.focus.test_focus_files import USAGE
from finops_dagster_tests.focus.validator import delivered_model, judge, needs_validator

GOOD = list(good_charges().values())


@needs_validator
@pytest.mark.thorough
def test_good_charges_that_the_model_calls_wrong(tmp_path: Path) -> None:
    """Pitfalls 43 and 45: conditions lost and inverted.

    focus_validator#142, FOCUS_Spec#2369, #2393, #2394, PR#2622.
    """
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
    """Pitfall 44, FOCUS_Spec#2418, PR#2422, #2681: wrong values, rules that look at no charge."""
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
    """Pitfall 46, FOCUS_Spec#1824, #1825: the validator 2.2.1 has the corrected model."""
    rules = delivered_model()["ModelRules"]
    status, kind = (
        rules[rule]["ValidationCriteria"]
        for rule in ("CommitmentDiscountStatus-C-003-C", "ResourceType-C-005-C")
    )
    assert status["Requirement"]["CheckFunction"] == "CheckValue"
    assert kind["Condition"]["ColumnName"] == "ResourceId"


@needs_validator
def test_a_correction_that_a_newer_model_has_is_told() -> None:
    """Pitfalls 44 and 45, FOCUS_Spec PR#2422, PR#2622: models from 1.2.0.3 on have them."""
    model = corrected(delivered_model())
    with pytest.raises(AssertionError, match="is corrected already"):
        corrected(model)


@needs_validator
@pytest.mark.thorough
def test_currencies_and_json_are_checked_without_a_network(tmp_path: Path) -> None:
    """Pitfalls 47 to 49, focus_validator#112, #133, #138, #141.

    The list of currencies is read from the working folder, so each run has one of its own. JSON is
    checked from 2.2 on. The newest model would be fetched from GitHub, but for an option.
    """
    good, charges = write_charges(tmp_path / "good.parquet", GOOD[:1]), tmp_path / "charges.parquet"
    wrong = "* REPLACE ('XYZ' AS BillingCurrency, '{' AS SkuPriceDetails)"
    duckdb.read_parquet(str(good)).project(wrong).write_parquet(str(charges))
    failures = judge(charges, tmp_path).failures
    assert failures["BillingCurrency-C-006-M"] == 1
    assert failures["SkuPriceDetails-C-001-M"] == 1
    assert (tmp_path / "all/focus_validator/rules/currency_codes.csv").exists()
    assert (tmp_path / "all/focus_validator_detailed.log").exists()


DemoMonth = tuple[ChargesRecord, CurMonth, list[Row]]


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
    """Pitfall 55, FOCUS_Spec#2294: FOCUS 1.2 has no status of a billing period."""
    _, open_month, _ = demo_month(tmp_path, restated=False)
    _, closed_month, _ = closed
    ids = "DISTINCT InvoiceId IS NULL AS is_open"
    assert open_month.charges(ids) == [{"is_open": True}]
    assert closed_month.charges(ids) == [{"is_open": False}]


def test_charges_add_up_to_each_invoice(closed: DemoMonth) -> None:
    """Pitfalls 51 and 54, FOCUS_Spec PR#1966, #944: also those of other companies count."""
    _, month, rows = closed
    invoices = defaultdict[str, Decimal](Decimal)
    for row in rows:
        invoices[row["bill/InvoiceId"]] += Decimal(row["lineItem/UnblendedCost"])
    assert len(invoices) == 2
    costs = f"SELECT InvoiceId, sum(BilledCost) FROM {month.relation} GROUP BY ALL"
    assert dict(duckdb.sql(costs).fetchall()) == invoices


def test_credits_are_charges_of_their_own(closed: DemoMonth) -> None:
    """Pitfall 56, FOCUS_Spec#1038: whether they are folded into what they are for is open."""
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
    """Pitfall 57, finops-toolkit#2120: version 1.4 drops columns of 1.2."""
    record, month, _ = closed
    assert record.version.format == "focus-1.2"
    assert ChargesRecord.from_file(month.derivation.charges_file) == record


def test_what_a_commitments_fee_costs_is_in_no_savings(tmp_path: Path) -> None:
    """Pitfall 52, FOCUS_Spec#974: its purchase and its usage both have a list cost."""
    reservation = {"reservation__ReservationARN": "arn:aws:ec2:us-east-1:1:reserved-instances/r-1"}
    used = {"reservation__EffectiveCost": "3", "pricing__publicOnDemandCost": "8"}
    month = CurMonth(tmp_path)
    month.derive(
        [
            line("RIFee", "5", **reservation, reservation__UnusedRecurringFee="2"),
            line("DiscountedUsage", "0", **reservation, **used),
        ]
    )
    assert month.charges("sum(ListCost) AS listed") == [{"listed": 13}]
    (question,) = (q for q in questions() if q.name == "effective-savings-rate")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW focus AS FROM {month.relation}")
        ((*_, listed, by_contract, by_commitments, paid, percent),) = connection.execute(
            question.sql
        ).fetchall()
    # A fee of 5 was paid instead of a list cost of 8; 2 of it were for nothing.
    assert (listed, by_contract, by_commitments, paid, percent) == (8, 0, 3, 5, 37.5)


def test_a_contracted_price_is_before_all_that_a_commitment_saves(tmp_path: Path) -> None:
    """Pitfall 53, FOCUS_Spec#1835: what it includes is open. CUR has list prices alone."""
    month = CurMonth(tmp_path)
    plan = {"savingsPlan__SavingsPlanARN": "arn:aws:savingsplans::1:savingsplan/p-1"}
    covered = {"savingsPlan__SavingsPlanEffectiveCost": "5", "pricing__publicOnDemandCost": "8"}
    month.derive(
        [
            line("SavingsPlanCoveredUsage", "8", **plan, **covered, lineItem__UsageAmount="4"),
            line("SavingsPlanNegation", "-8", **plan),
        ]
    )
    (charge,) = month.charges("ContractedUnitPrice, ListUnitPrice, ContractedCost")
    assert charge == {"ContractedUnitPrice": 2, "ListUnitPrice": 2, "ContractedCost": 8}


def test_a_column_that_focus_does_not_have_gets_its_prefix(tmp_path: Path) -> None:
    """Pitfall 50, FOCUS-Sample-Data#1: the sample data have a column `Id`."""
    month = NativeMonth(tmp_path, FocusFilesFormat())
    (charge,) = month.derive({**USAGE, "Id": "7"})
    assert charge["x_id"] == "7"
    assert not {"Id", "id"} & charge.keys()


@has_sample
def test_the_sample_data_are_a_bill_and_no_model(tmp_path: Path) -> None:
    """Pitfall 50, FOCUS-Sample-Data#2: they break rules of FOCUS, and are loaded all the same."""
    rows = sample_rows("AWS")
    month = NativeMonth(tmp_path, FocusFilesFormat())
    assert len(month.derive(*rows)) == len(rows)
    assert month.broken_rules()
