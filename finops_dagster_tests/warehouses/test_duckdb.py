"""DuckDB: a file that is written has no other process with it open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster_tests.cur import deliver, line_items
from finops_dagster_tests.project import Project

READ = (
    "import duckdb, sys; connection = duckdb.connect(sys.argv[1], read_only=True);"
    "print('open', flush=True); input()"
)


@pytest.fixture
def path(project: Project) -> Path:
    """Provide a warehouse with one month, whose loads do not wait for readers."""
    file = project.folder / "data/warehouse.duckdb"
    project.database["duckdb"] = {"warehouse_path": str(file), "lock_wait_seconds": 0}
    deliver(project.put, "2024-01", [line_items("2024-01", "1")], version="v1")
    project.load("2024-01")
    return file


@pytest.fixture
def reader(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Provide a process that has the file open for reading until its standard input ends."""
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


@pytest.mark.thorough
def test_reader_blocks_loads_only(project: Project, reader: subprocess.Popen[str]) -> None:
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"
    error = project.materialize("2024-01", force=True).error
    assert f"warehouse.duckdb is still open in process {reader.pid} " in error
    reader.kill()
    reader.wait()
    assert project.load("2024-01", force=True).outcomes()["warehouse_table"] == "loaded"


def test_file_has_only_the_tables_of_exports(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()")
        assert set(tables.fetchall()) == {
            ("main", "aws_billing_data"),
            ("main", "aws_billing_data_loads"),
        }
        named = connection.execute("SELECT lineitem_unblendedcost FROM warehouse.aws_billing_data")
        assert named.fetchall() == [(Decimal(1),)]
