"""The version of a month in each output, read by libraries alone and none of the project's code."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from finops_dagster_tests.warehouses.adapters import Adapter
from finops_dagster_tests.warehouses.duckdb import DuckDB

_TABLE = "aws_billing_data"
_COLUMNS = ["manifest_id", "lineitem_unblendedcost"]


@dataclass(frozen=True)
class Bill:
    """Rows and cost of a version of a month, as delivered or as an output has it."""

    version: str
    rows: int
    cost: Decimal


def duckdb_bill(database: Path, month: str) -> Bill | None:
    """Return the month in the table; assert that the ledger agrees."""
    if not database.is_file() or _TABLE not in DuckDB(database).tables():
        return None
    bill = _bill(DuckDB(database).rows(_TABLE, _COLUMNS, month))
    loaded = query(
        database,
        "SELECT manifest_id, row_count, total_cost FROM finops_state.manifests "
        f"WHERE state = 'loaded' AND billing_month = '{month}-01'",
    )
    assert [Bill(*row) for row in loaded] == ([bill] if bill else []), f"{month}: {loaded}, {bill}"
    return bill


def parquet_bill(path: Path) -> Bill | None:
    """Return the month in a file of the lake; assert that its footer agrees."""
    if not path.is_file():
        return None
    rows = pq.read_table(path, columns=_COLUMNS, partitioning=None).to_pylist()
    bill, footer = _bill([tuple(row.values()) for row in rows]), pq.read_metadata(path).metadata
    recorded = footer[b"manifest_id"].decode(), Decimal(footer[b"total_cost"].decode())
    assert bill, f"{path} has no rows"
    assert recorded == (bill.version, bill.cost), f"{path}: the footer has {recorded}, not {bill}"
    return bill


def warehouse_bill(warehouse: Adapter, month: str) -> Bill | None:
    """Return the month in the warehouse; assert that its ledger agrees."""
    tables = warehouse.tables()
    if not {_TABLE, f"{_TABLE}_loads"} <= tables or _COLUMNS[1] not in warehouse.columns(_TABLE):
        return None
    bill = _bill(warehouse.rows(_TABLE, _COLUMNS, month))
    loaded = [row for row in warehouse.ledger(_TABLE) if row[0] == month and row[3] == "loaded"]
    recorded = loaded[-1][1:3] if loaded else None
    assert recorded == (bill and (bill.version, bill.rows)), f"{month}: {recorded}, not {bill}"
    return bill


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query of a DuckDB file."""
    with duckdb.connect(str(database)) as connection:
        return connection.execute(sql).fetchall()


def copy_of_database(database: Path, folder: str) -> Path:
    """Copy a DuckDB file and its log, and return the copy.

    DuckDB replays the log of a crashed process as soon as the file is opened. The original must
    stay as the crash left it, for the run under test to replay.
    """
    for path in (database, database.with_name(f"{database.name}.wal")):
        if path.is_file():
            shutil.copy(path, folder)
    return Path(folder) / database.name


def _bill(rows: Sequence[tuple[Any, ...]]) -> Bill | None:
    """Return rows of version and cost as one bill; assert that they are of one version."""
    versions = {version for version, _ in rows}
    assert len(versions) <= 1, f"a mix of {versions}"
    return Bill(versions.pop(), len(rows), sum((c for _, c in rows), Decimal(0))) if rows else None
