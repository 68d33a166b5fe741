"""Line items of CUR v1 and CUR 2.0 become charges of FOCUS, and every cent is accounted for."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.sources.aws.data_exports import AwsCur2
from finops_dagster_tests.demo.delivered import all_rows, cost_column
from finops_dagster_tests.focus.cur_month import CurMonth, Row, line
from finops_dagster_tests.project import ROOT


def demo_rows(folder: Path, layout: Layout, rows: int = 1500, seed: int = 7) -> list[Row]:
    """Return the rows of a bill of the demo's generator."""
    version = BillVersion(date(2024, 1, 1), "20240203T050312Z", rows, restated=True, seed=seed)
    return all_rows(folder, write_version(folder, "cur", "daily", version, layout=layout))


UNLIKE = {"BillingAccountName", "SubAccountName"}


def is_focus(column: str) -> bool:
    own = ("x_rule", "x_source_line_items", "x_costcategories", "x_commitmentdiscountend")
    return column[0].isupper() or column in own


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CurMonth]:
    folder = tmp_path_factory.mktemp("demo")
    month = CurMonth(folder / "lake")
    month.derive(demo_rows(folder, Layout(columns=205)))
    return month


def test_the_demos_bill_keeps_the_rules_of_focus(demo: CurMonth) -> None:
    # A marketplace bills under another name than AWS, and AWS itself under its company's.
    assert demo.broken_rules() == {"BilledCost.third_party"}


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
    committed = [charge for charge in charges[0] if charge["CommitmentDiscountId"]]
    assert committed
    assert all(charge["x_commitmentdiscountend"] > "2024-01-31" for charge in committed)


@pytest.mark.parametrize("count", [0, 5, 5000])
def test_tags_are_kept_however_many_there_are(tmp_path: Path, count: int) -> None:
    month = CurMonth(tmp_path)
    tags = [f"application {number}" for number in range(count)]
    month.derive(line("Usage", "1", **{"resourceTags__user:app": tag}) for tag in [*tags, ""])
    charges = month.charges("Tags")
    assert sorted(c["Tags"]["app"] for c in charges if c["Tags"]) == sorted(tags)
    assert len(charges) == count + 1
    assert month.derivation.differing_columns() == []


def test_a_bill_without_resource_ids_becomes_charges(tmp_path: Path) -> None:
    """AWS gives the column only to customers who ask for it."""
    month = CurMonth(tmp_path)
    rows = demo_rows(tmp_path / "source", Layout())
    record = month.derive(
        {header: cell for header, cell in row.items() if header != "lineItem/ResourceId"}
        for row in rows
    )
    assert record.version.totals.cost == sum(Decimal(row["lineItem/UnblendedCost"]) for row in rows)


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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough)])
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
    assert month.broken_rules() == {"BilledCost.third_party"}
