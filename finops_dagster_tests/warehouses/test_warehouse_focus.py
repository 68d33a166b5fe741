"""The charges in every warehouse: a table for each export, and a view that unites them."""

from datetime import date
from decimal import Decimal

import pytest

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.focus.month import ChargesRecord
from finops_dagster.lake import FolderFile
from finops_dagster_tests.cur import line_items
from finops_dagster_tests.project import Project
from finops_dagster_tests.small_mapping import small_mapping, taxed
from finops_dagster_tests.warehouses.adapters import Adapter, Row, sorted_rows

TABLE = "aws_billing_data_focus"


@pytest.fixture(autouse=True)
def _mapping(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())


def rows(warehouse: Adapter, *columns: str, table: str = TABLE) -> list[Row]:
    """Return columns of a table of charges, or of the view, which has the table's types."""
    # Snowflake has all names in capitals, of which its adapter makes small letters.
    stored = warehouse.columns(TABLE)
    types = {name: stored.get(name, stored.get(name.lower(), "")) for name in columns}
    cells = ", ".join(warehouse.cell(name, types[name]) for name in columns)
    found = warehouse.query(f"SELECT {cells} FROM {warehouse.quoted_name(table)}")
    native_types = [types[name] for name in columns]
    return sorted_rows([list(map(warehouse.value, row, native_types)) for row in found])


def test_first_load(project: Project, warehouse: Adapter) -> None:
    project.deliver(taxed("1", "0.5", tax="3"))
    run = project.load()
    assert run.outcomes()["warehouse_focus"] == "loaded"
    assert run.metadata("warehouse_focus")["manifest_id"] == "v1"
    assert run.metadata("warehouse_focus")["total_cost_exact"] == "1.5"
    assert "warnings" not in run.metadata("warehouse_focus")
    columns = ("BilledCost", "x_manifest_id", "x_billing_month", "x_source_line_items", "Tags")
    assert rows(warehouse, *columns) == sorted_rows(
        [cost, "v1", date(2024, 1, 1), '["abc"]', {"service": "AmazonEC2"}]
        for cost in (Decimal("0.5"), Decimal(1))
    )
    record = ChargesRecord.from_file(FolderFile(project.focus_path()))
    assert record is not None
    ledger = [("2024-01", record.warehouse_version_id, 2, "loaded", None)]
    assert warehouse.ledger(TABLE) == ledger
    assert project.load().outcomes()["warehouse_focus"] == "unchanged"


@pytest.mark.thorough
def test_a_month_is_replaced_whole_after_a_restatement_and_another_mapping(
    project: Project, warehouse: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1", "2", month=month)
        project.load(month)
    project.deliver("8", version="v2")
    project.load()
    loaded = rows(warehouse, "x_billing_month", "BilledCost", "x_manifest_id")
    assert loaded == sorted_rows(
        [
            [date(2024, 1, 1), Decimal(8), "v2"],
            [date(2024, 2, 1), Decimal(1), "v1"],
            [date(2024, 2, 1), Decimal(2), "v1"],
        ]
    )
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping("newer"))
    assert project.load().outcomes()["warehouse_focus"] == "loaded"
    assert rows(warehouse, "x_billing_month", "BilledCost", "x_manifest_id") == loaded


def test_a_view_unites_the_charges_of_all_exports(project: Project, warehouse: Adapter) -> None:
    project.add_export(name="beta", export_name="beta-cur", table="beta")
    project.deliver("1")
    project.load()
    assert rows(warehouse, "x_export", "BilledCost", table="focus") == [("acme", Decimal(1))]
    project.deliver(line_items("2024-01", "2"), export_name="beta-cur")
    project.load(export="beta")
    assert rows(warehouse, "x_export", "BilledCost", table="focus") == [
        ("acme", Decimal(1)),
        ("beta", Decimal(2)),
    ]
