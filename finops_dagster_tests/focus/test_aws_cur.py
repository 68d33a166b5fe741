"""Line items of CUR v1 and CUR 2.0 become charges of FOCUS, and every cent is accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.focus.conformance import conforms
from finops_dagster.sources.aws.data_exports import AwsCur2
from finops_dagster_tests.demo.delivered import all_rows
from finops_dagster_tests.focus.cur_month import CurMonth, Row


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
