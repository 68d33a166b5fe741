"""What is DuckDB's own: one process writes the file, and then nobody else has it open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.warehouses.page import load_what_they_ask_for, queries

READ = (
    "import duckdb, sys; connection = duckdb.connect(sys.argv[1], read_only=True);"
    "print('open', flush=True); input()"
)


@pytest.fixture
def path(project: Project) -> Path:
    """A warehouse with one month, written by a chain that waits for nobody."""
    file = project.folder / "data/warehouse.duckdb"
    project.database["duckdb"] = {"warehouse_path": str(file), "lock_wait_seconds": 0}
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    return file


@pytest.fixture
def reader(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open for reading until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", READ, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_reader_is_in_the_way_of_a_load_alone(
    project: Project, reader: subprocess.Popen[str]
) -> None:
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"
    error = project.materialize("2024-01", force=True).error
    assert f"warehouse.duckdb is still open in process {reader.pid} " in error
    reader.kill()
    reader.wait()
    assert project.load("2024-01", force=True).outcomes()["warehouse_table"] == "loaded"


def test_the_file_holds_the_exports_tables_and_nothing_else(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()")
        assert set(tables.fetchall()) == {
            ("main", "aws_billing_data"),
            ("main", "aws_billing_data_loads"),
        }
        named = connection.execute("SELECT lineitem_unblendedcost FROM warehouse.aws_billing_data")
        assert named.fetchall() == [(Decimal(1),)]


def test_the_queries_of_its_page(project: Project) -> None:
    project.database["duckdb"] = {"warehouse_path": "data/warehouse.duckdb"}
    load_what_they_ask_for(project)
    with duckdb.connect("data/warehouse.duckdb", read_only=True) as connection:
        services, teams, versions = (connection.execute(q).fetchall() for q in queries("DuckDB"))
    assert sum(cost for _, cost in services) == sum(cost for _, _, cost in teams)
    assert len({team for _, team, _ in teams}) > 1
    assert [row[:3] for row in versions] == [("2026-01", "v1", 200)]


@pytest.mark.thorough
def test_the_command_knows_the_stage_where_a_warehouse_path_is_set(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    where = ("--database-config", "warehouse_path=data/warehouse.duckdb")
    assert "acme 2024-01  loaded  v1  1 rows  1.00" in finops(*where, "aws", "run-pipeline")
    (row,) = finops.json(*where, "aws", "show-state")
    assert row["warehouse_table"] == "v1"
    assert "DuckDB data/warehouse.duckdb" in finops(*where, "config", "check")
    assert finops.json(*where, "state", "verify") == []
