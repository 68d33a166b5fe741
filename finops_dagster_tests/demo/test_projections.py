"""One bill in every format: the same rows, the same money, the types that AWS gives."""

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.demo.cur2 import CUR2_COLUMNS
from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster.demo.focus import FOCUS_1_0_COLUMNS, FOCUS_1_2_COLUMNS
from finops_dagster_tests.demo.delivered import (
    LAYOUTS,
    all_rows,
    cost_column,
    costs,
    csv_text,
    keys_of,
    layout_id,
)

Row = dict[str, Any]
Rows = Callable[[Layout], list[Row]]

VERSION = Version(date(2025, 9, 1), "20251003T050312Z", rows=1100, restated=True)
PARQUET = Layout(files="parquet", overwrite=True)
DATA_EXPORTS = ("cur2", "focus-1.0", "focus-1.2")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of the version in a layout, written once; CUR v1 with all its columns."""
    folder = tmp_path_factory.mktemp("projections")

    @cache
    def read(layout: Layout) -> list[Row]:
        home = folder / layout_id(layout)
        return all_rows(home, write_version(home, "", "bill", VERSION, layout=layout, columns=205))

    return read


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
def test_every_row_costs_the_same_in_every_layout(rows: Rows, layout: Layout) -> None:
    expected = costs(rows(Layout()), Layout())
    assert len(expected) == VERSION.rows
    assert costs(rows(layout), layout) == expected
    assert sum(costs(rows(layout), layout)) == sum(expected) > 500


@pytest.mark.parametrize("layout", LAYOUTS[1:4], ids=layout_id)
def test_cur_v1_has_the_same_text_however_it_is_packed(rows: Rows, layout: Layout) -> None:
    assert rows(layout) == rows(Layout())


def test_cur_v1_in_parquet_has_the_cells_of_csv(rows: Rows) -> None:
    for text, typed in zip(rows(Layout()), rows(PARQUET), strict=True):
        cells = list(typed.values())
        assert cells[-2:] == ["2025", "9"]
        assert [as_text(cell) for cell in cells[:-2]] == [
            as_text(typed_as(text[header], cell))
            for header, cell in zip(text, cells[:-2], strict=True)
        ]


@pytest.mark.parametrize("name", DATA_EXPORTS)
def test_a_data_export_in_parquet_has_the_cells_of_csv(rows: Rows, name: str) -> None:
    for text, typed in zip(rows(Layout(name)), rows(Layout(name, "parquet")), strict=True):
        assert list(text) == list(typed)
        for column, cell in typed.items():
            assert cell == typed_as(text[column], cell), column


def typed_as(text: str, cell: object) -> object:
    """A CSV cell as the type of the cell that Parquet has in its place."""
    if text == "":
        return None
    if isinstance(cell, dict):
        return json.loads(text)
    if isinstance(cell, float):
        return float(text)
    if isinstance(cell, datetime):
        return datetime.fromisoformat(text).replace(tzinfo=None)
    return text


def as_text(cell: object) -> str:
    return "" if cell is None else str(cell)


@pytest.mark.parametrize("name", DATA_EXPORTS)
def test_times_in_csv_have_milliseconds(rows: Rows, name: str) -> None:
    column = "bill_billing_period_end_date" if name == "cur2" else "BillingPeriodEnd"
    assert {row[column] for row in rows(Layout(name))} == {"2025-10-01T00:00:00.000Z"}


def test_costs_in_csv_are_the_text_of_cur_v1(rows: Rows) -> None:
    expected = [row["lineItem/UnblendedCost"] for row in rows(Layout())]
    for name in DATA_EXPORTS:
        layout = Layout(name)
        assert [row[cost_column(layout)] for row in rows(layout)] == expected


@pytest.mark.parametrize(
    "columns, count",
    [(CUR2_COLUMNS, 114), (FOCUS_1_0_COLUMNS, 48), (FOCUS_1_2_COLUMNS, 61)],
)
def test_data_exports_have_fixed_columns(columns: tuple[Any, ...], count: int) -> None:
    names = [column.name for column in columns]
    assert len(names) == len(set(names)) == count
    assert names == sorted(names)


def test_maps_hold_what_cur_v1_has_columns_for(rows: Rows) -> None:
    maps = {"product": "product/", "resource_tags": "resourceTags/", "cost_category": "costC"}
    seen = set()
    for old, new in zip(rows(Layout()), rows(Layout("cur2", "parquet")), strict=True):
        for column, category in maps.items():
            filled = [cell for header, cell in old.items() if header.startswith(category) and cell]
            assert sorted(new[column].values()) == sorted(filled)
            seen |= set(new[column])
        discounts = {"edp_discount": old["discount/EdpDiscount"]} | {
            "total_discount": old["discount/TotalDiscount"]
        }
        assert new["discount"] == {key: float(cell) for key, cell in discounts.items() if cell}
    assert {"instance_type", "product_name", "region"} <= seen
    assert {"user_team", "user_cost_center", "aws_created_by", "user_name"} <= seen
    assert {"organization", "charge_type"} <= seen


def test_an_empty_map_is_an_empty_object(rows: Rows) -> None:
    for name, column in [("cur2", "resource_tags"), ("cur2", "discount"), ("focus-1.0", "Tags")]:
        cells = [row[column] for row in rows(Layout(name))]
        assert "{}" in cells and any(len(cell) > 2 for cell in cells) and "" not in cells


def test_focus_names_accounts_services_and_charges(rows: Rows) -> None:
    kinds = set()
    for old, new in zip(rows(Layout()), rows(Layout("focus-1.2")), strict=True):
        assert new["ServiceName"] == old["product/ProductName"]
        assert new["x_ServiceCode"] == old["lineItem/ProductCode"]
        assert new["SubAccountId"] == old["lineItem/UsageAccountId"]
        assert new["BillingAccountId"] == old["bill/PayerAccountId"]
        assert new["InvoiceId"] == old["bill/InvoiceId"] != ""
        assert new["SubAccountName"] and new["BillingAccountName"] == "management"
        assert new["ListCost"] == (old["pricing/publicOnDemandCost"] or new["BilledCost"])
        kinds.add((old["lineItem/LineItemType"], new["ChargeCategory"]))
    assert kinds == {
        ("Usage", "Usage"),
        ("DiscountedUsage", "Usage"),
        ("SavingsPlanCoveredUsage", "Usage"),
        ("SavingsPlanNegation", "Adjustment"),
        ("EdpDiscount", "Adjustment"),
        ("Refund", "Adjustment"),
        ("SavingsPlanRecurringFee", "Purchase"),
        ("RIFee", "Purchase"),
        ("Fee", "Purchase"),
        ("Tax", "Tax"),
        ("Credit", "Credit"),
    }


def test_effective_cost_spreads_commitments_over_the_usage_that_they_pay_for(rows: Rows) -> None:
    shares = {
        "SavingsPlanCoveredUsage": "savingsPlan/SavingsPlanEffectiveCost",
        "DiscountedUsage": "reservation/EffectiveCost",
    }
    paid_by_usage = {"SavingsPlanNegation", "SavingsPlanRecurringFee", "RIFee"}
    seen = set()
    for old, new in zip(rows(Layout()), rows(Layout("focus-1.0")), strict=True):
        kind = old["lineItem/LineItemType"]
        seen.add(kind)
        if kind in shares:
            assert new["EffectiveCost"] == old[shares[kind]]
            assert 0 < Decimal(new["EffectiveCost"]) < Decimal(new["ListCost"])
        elif kind in paid_by_usage:
            assert Decimal(new["EffectiveCost"]) == 0 != Decimal(new["BilledCost"])
        else:
            assert new["EffectiveCost"] == new["BilledCost"]
    assert seen > paid_by_usage | set(shares)


# The digests may change with the data tables, never with the machine or the version of DuckDB.
PINNED = {
    "cur2": "094972e7485657a4e84b8d832b2401808aeee364de691b9cc0426224e6cb945c",
    "focus-1.0": "d8dae7e6d040f38f069a7210153007e9bf511dec71d925c910f7fb89cf821c13",
    "focus-1.2": "4b2bfd6e8c8c68fc5ff12cfa7ecb1d32d20f4e6d309b6e31c54221b71470e14c",
}


@pytest.mark.parametrize("name", DATA_EXPORTS)
def test_the_text_is_that_of_every_other_machine(tmp_path: Path, name: str) -> None:
    version = Version(date(2024, 1, 1), "20240201T050312Z", rows=1000, parts=1)
    top = write_version(tmp_path, "", "bill", version, layout=Layout(name))
    text = csv_text(tmp_path / keys_of(top)[0])
    assert sha256(text.encode()).hexdigest() == PINNED[name]


def test_the_number_of_files_changes_no_row(tmp_path: Path, rows: Rows) -> None:
    version = Version(VERSION.month, VERSION.assembly_id, VERSION.rows, 3, VERSION.restated)
    for layout in (Layout("cur2", "parquet"), Layout("focus-1.2")):
        top = write_version(tmp_path, "", "bill", version, layout=layout)
        assert len(keys_of(top)) == 3
        assert all_rows(tmp_path, top) == rows(layout)


def test_the_same_seed_makes_the_same_rows_and_another_seed_does_not(tmp_path: Path) -> None:
    layout = Layout("cur2", "parquet")
    version = Version(VERSION.month, "a", 200, parts=1)
    written = []
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        top = write_version(tmp_path / name, "", "bill", version, layout=layout, seed=seed)
        written.append(all_rows(tmp_path / name, top))
    assert written[0] == written[1] != written[2]
