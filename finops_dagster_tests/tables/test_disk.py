"""The disk stops a load: the message is about the disk, and no file of the vendor is invalid."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.tables.count import count_month
from finops_dagster.tables.database import BillingDatabase, DuckDB
from finops_dagster.tables.files import read_headers
from finops_dagster.tables.load import MonthLoader

MONTH, FORMAT = BillingMonth(2024, 1), AwsCur1()
NOBODY = 65534


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Provide a function that lets this process write no file beyond a number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def bill(folder: Path, rows: int = 10) -> Path:
    """Write a bill whose rows take as much room in DuckDB as in the file."""
    path, numbers = folder / "bill.csv", random.Random("bill")
    lines = (f"0.{row:06},{numbers.randbytes(20).hex()}\n" for row in range(rows))
    path.write_text(f"lineItem/UnblendedCost,lineItem/ResourceId\n{''.join(lines)}")
    return path


def error_of_load(path: Path, then: Callable[[], object], memory_limit: str = "1GB") -> str:
    """Load the bill into `bill.duckdb` beside it; `then` is called after the bill was counted.

    Returns the message of `memory_or_disk_problem` for the error.
    """
    files = read_headers([path], FORMAT)
    totals, _ = count_month(files, FORMAT, (), DuckDB())
    limits = DuckDB(memory_limit, threads=1, temp_dir=path.parent / "temp")
    database = BillingDatabase(str(path.with_suffix(".duckdb")), limits)
    load = Load("v1", totals, export="acme", month=MONTH, table="bill")
    with database.connect("acme", MONTH) as connection:
        then()
        with (
            pytest.raises(Exception) as error,
            MonthLoader(connection, load, FORMAT).replacing_month(files, ()),
        ):
            pass
    return problem(error.value)


def error_of_count(path: Path, then: Callable[[], object]) -> str:
    """Count the bill; `then` is called after its header was read. Returns as `error_of_load`."""
    files = read_headers([path], FORMAT)
    then()
    with pytest.raises(Exception) as error:
        count_month(files, FORMAT, (), DuckDB())
    return problem(error.value)


def problem(error: BaseException) -> str:
    message = memory_or_disk_problem(error)
    assert message is not None, error
    return message


@pytest.mark.parametrize(
    ("rows", "memory_limit", "size", "file"),
    [
        pytest.param(150_000, "40MB", 300_000, "bill.duckdb", id="database"),
        pytest.param(150_000, "1GB", 300_000, "bill.duckdb", id="commit"),
        pytest.param(10_000, "1GB", 300_000, "bill.duckdb.wal", id="log"),
        pytest.param(150_000, "20MB", 50_000, "temp/bill.duckdb.tmp/duckdb_temp", id="temporary"),
    ],
)
@pytest.mark.quick("database", "log")
def test_full_disk_of_the_database_is_named(
    tmp_path: Path,
    limit_files: Callable[[int], None],
    rows: int,
    memory_limit: str,
    size: int,
    file: str,
) -> None:
    """With little memory, DuckDB writes rows before the commit."""
    message = error_of_load(bill(tmp_path, rows), lambda: limit_files(size), memory_limit)
    assert message.startswith(str(tmp_path / file))
    assert " cannot be written: it would be larger than its disk" in message


def removed(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def forbidden(path: Path) -> None:
    path.chmod(0)
    if os.geteuid() == 0:  # For root, modes do not count.
        os.seteuid(NOBODY)


@pytest.mark.parametrize("error_of", [error_of_count, error_of_load])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (removed, "does not exist; restore it"),
        (folder, "is a folder where a file should be"),
        (forbidden, "cannot be opened: this user has no permission"),
    ],
)
def test_file_that_cannot_be_opened_is_not_invalid(
    tmp_path: Path,
    change: Callable[[Path], None],
    reason: str,
    error_of: Callable[[Path, Callable[[], object]], str],
) -> None:
    try:
        message = error_of(bill(tmp_path), lambda: change(tmp_path / "bill.csv"))
    finally:
        os.seteuid(os.getuid())
    assert message.startswith(f"{tmp_path / 'bill.csv'} {reason}")
