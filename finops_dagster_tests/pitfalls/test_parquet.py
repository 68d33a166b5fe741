"""Parquet files, whose amounts are doubles."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import Project

COST = "lineitem_unblendedcost"


PARQUET = """
    COPY (SELECT * FROM (VALUES {rows}) AS bill(bill_billing_period_start_date,
        line_item_unblended_cost)) TO '{path}' (FORMAT parquet)
"""


def deliver_parquet(project: Project, *rows: str, version: str = "v1") -> Path:
    """Deliver January in Parquet, a row as SQL; the manifest is the CSV one's."""
    path = project.source / "acme-cur/20240101-20240201" / version / "acme-cur-1.snappy.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(PARQUET.format(rows=", ".join(rows), path=path))
    project.put(str(path), path.read_bytes())
    columns = [
        {"category": "bill", "name": "billing_period_start_date", "type": "DateTime"},
        {"category": "line_item", "name": "unblended_cost", "type": "BigDecimal"},
    ]
    changes = {
        "compression": "Parquet",
        "columns": columns,
        "reportKeys": [str(path.relative_to(project.source))],
    }
    deliver(project.put, "2024-01", [], version=version, changes=changes)
    return path


def test_19_doubles_count_as_the_decimals_they_were_made_of(project: Project) -> None:
    costs = ["29.27", "0.1", "8e-7", "-1234567.8912345", "0.30000000000000004"]
    deliver_parquet(project, *(f"(TIMESTAMP '2024-01-01', {cost}::DOUBLE)" for cost in costs))
    project.load("2024-01")
    assert project.column(COST, "2024-01") == sorted(Decimal(cost) for cost in costs)


def test_19_doubles_with_more_decimals_than_the_table_are_rounded_and_counted(
    project: Project,
) -> None:
    deliver_parquet(
        project,
        "(TIMESTAMP '2024-01-01', 1.2345678901234567e-7)",
        "(TIMESTAMP '2024-01-01', 0.5::DOUBLE)",
    )
    outcome = project.materialize("2024-01")
    assert project.column(COST, "2024-01") == [Decimal("1.23456789012E-7"), Decimal("0.5")]
    assert outcome.metadata("staged_files")["costs_rounded"] == 1


@pytest.mark.parametrize(
    ("kind", "cost"),
    [("DOUBLE", "'NaN'"), ("DOUBLE", "'Infinity'"), ("DOUBLE", "1e30"), ("VARCHAR", "'a lot'")],
)
def test_19_a_cell_that_is_no_amount_is_an_error_that_names_file_row_and_column(
    project: Project, kind: str, cost: str
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v0")
    project.load("2024-01")
    path = deliver_parquet(
        project,
        f"('2024-01-01'::TIMESTAMP, 1::{kind})",
        f"('2024-01-01'::TIMESTAMP, {cost}::{kind})",
    )
    error = project.materialize("2024-01").error
    assert f'{path.name}, row 2, column "line_item_unblended_cost": ' in error
    assert "cannot be kept exactly as DECIMAL(38,18)" in error
    assert project.totals("2024-01") == (1, 1)


@pytest.mark.parametrize("cut", [1, 100], ids=["in-the-footer", "before-it"])
def test_19_a_damaged_parquet_file_keeps_the_old_month(project: Project, cut: int) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v0")
    project.load("2024-01")
    path = deliver_parquet(project, "(TIMESTAMP '2024-01-01', 1.0)")
    path.write_bytes(path.read_bytes()[:-cut])
    error = project.materialize("2024-01").error
    assert str(path) in error
    assert "the month was left as it was" in error
    assert project.totals("2024-01") == (1, 1)


def test_19_an_empty_parquet_file_is_no_data(project: Project) -> None:
    path = deliver_parquet(project, "(TIMESTAMP '2024-01-01', 1.0)")
    emptied = path.with_name("acme-cur-2.snappy.parquet")
    emptied.write_bytes(b"")
    keys = [str(p.relative_to(project.source)) for p in (path, emptied)]
    deliver(project.put, "2024-01", [], version="v1", changes={"reportKeys": keys})
    project.load("2024-01")
    assert project.totals("2024-01") == (1, 1)
