"""The DuckDB file: a run waits for it, names the process that has it open, and closes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.tables.database import BillingDatabase, DuckDB

MONTH = BillingMonth(2024, 1)
OPEN_FILE = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
)


def database(path: Path, wait: int = 0) -> BillingDatabase:
    return BillingDatabase(str(path), DuckDB(memory_limit="1GB", lock_wait_seconds=wait))


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start another process that has the file open until its standard input ends."""
    command = [sys.executable, "-c", OPEN_FILE, str(tmp_path / "finops.duckdb")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_the_process_that_has_the_file_open_is_named(
    tmp_path: Path, other_process: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(BillError, match=f"is still open in process {other_process.pid} "),
        database(tmp_path / "finops.duckdb").connect("acme", MONTH),
    ):
        pass


def test_the_file_can_be_opened_once_that_process_is_killed(
    tmp_path: Path, other_process: subprocess.Popen[str]
) -> None:
    other_process.kill()
    other_process.wait()
    with database(tmp_path / "finops.duckdb", wait=60).connect("acme", MONTH) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_file_is_closed_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "finops.duckdb"
    with pytest.raises(ZeroDivisionError), database(path).connect("acme", MONTH):
        raise ZeroDivisionError
    command = [sys.executable, "-c", OPEN_FILE, str(path)]
    assert subprocess.run(command, input="\n", text=True, check=True, capture_output=True).stdout


def test_a_file_that_is_not_a_database_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "finops.duckdb"
    path.write_bytes(b"something else" * 1000)
    with (
        pytest.raises(BillError, match=r"finops\.duckdb is damaged and was not changed "),
        database(path).connect("acme", MONTH),
    ):
        pass
    assert path.read_bytes() == b"something else" * 1000


@pytest.mark.parametrize("where", ["file", "scratch"])
def test_the_limits_reach_every_connection(tmp_path: Path, where: str) -> None:
    spill = tmp_path / "a" / "spill"
    limits = DuckDB("60MB", 1, spill)
    opened = limits.open(tmp_path / "finops.duckdb") if where == "file" else limits.open_in_memory()
    with opened as connection:
        settings = connection.execute(
            "SELECT current_setting('memory_limit'), current_setting('threads')"
        ).fetchall()
        connection.execute("CREATE TEMP TABLE t AS SELECT hash(r) FROM range(9_000_000) r(r)")
        assert any(spill.rglob("*.*"))
    assert settings == [("57.2 MiB", 1)]
    assert not any(spill.iterdir())
