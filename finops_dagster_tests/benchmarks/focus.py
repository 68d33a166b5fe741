"""Benchmarks of the FOCUS charges of a month."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import duckdb

from finops_dagster.billing.columns import literal
from finops_dagster_tests.benchmarks.project import (
    MONTH,
    BenchmarkProject,
    Figure,
    Run,
    made_once,
    source,
)
from finops_dagster_tests.focus.test_rules import GOOD, write

# Derives the charges of the loaded month and checks them, and prints the seconds of both.
_DERIVE_AND_CHECK = """
import sys
import time
from pathlib import Path

from finops_dagster.billing.months import BillingMonth
from finops_dagster.focus.aws_cur import AWS_CUR
from finops_dagster.focus.conformance import find_broken_rules
from finops_dagster.focus.month import FocusDerivation
from finops_dagster.lake import FolderLake, parquet_relation
from finops_dagster.tables.database import DuckDB

month = BillingMonth.parse(sys.argv[1])
lake, duckdb = FolderLake(Path("parquet")), DuckDB("1GB")
derivation = FocusDerivation(lake, duckdb, AWS_CUR, {"": "bench"}, month)
started = time.monotonic()
with derivation.replacing_month("benchmark"):
    pass
derived = time.monotonic()
with duckdb.open_in_memory() as connection:
    find_broken_rules(connection, parquet_relation(derivation.charges_file.local_path()))
print(derived - started, time.monotonic() - derived)
"""


def focus(rows: int, runs: int) -> Iterator[Figure]:
    """Measure the charges of a month of CUR v1, beside loading it, and the month unchanged."""
    bill = source(rows)
    load, derive, check = list[float](), list[float](), list[float]()
    first, unchanged, verified = list[Run](), list[Run](), list[Run]()
    for _ in range(runs):
        project = BenchmarkProject.create(bill, memory_limit="1GB")
        first.append(project.materialize(focus=True))
        load.append(project.stage_seconds("billing_table") + project.stage_seconds("parquet"))
        # Before the file is another one, whose charges would be checked again.
        unchanged.append(project.materialize(focus=True))
        verified.append(project.unchanged("aws"))
        project.python(_DERIVE_AND_CHECK, MONTH)
        # DuckDB may have drawn a progress bar before.
        seconds = map(float, (project.work / "output.txt").read_text().split()[-2:])
        for measured, value in zip((derive, check), seconds, strict=True):
            measured.append(value)
    yield Figure(
        f"deriving the charges of {rows:,} line items: bill to Parquet in place, against "
        "staged files to table and Parquet",
        median(derive) / median(load),
        "x",
        0.5,
        f"{median(derive):.2f} s, the load {median(load):.2f} s; "
        f"peak of all stages {Run.median(first).megabytes:,.0f} MB at memory_limit = 1GB",
    )
    yield Figure("checking them against the rules", median(check), "s", 20)
    of_finops = Run.median(verified)
    yield of_finops.figure("the month unchanged with its charges, by finops aws run-pipeline", 3)
    of_dagster = Run.median(unchanged)
    yield of_dagster.figure("the month unchanged with its charges, by dagster asset materialize")


def focus_rules(rows: int, runs: int) -> Iterator[Figure]:
    """Measure the check of a month's charges against every rule of FOCUS, as a process."""
    charges = made_once(f"charges-{rows}", _write_charges, rows)
    project = BenchmarkProject.create(charges, memory_limit="1GB")
    month = project.work / f"parquet/focus/bench/billing_month={MONTH}/bench-{MONTH}.parquet"
    month.parent.mkdir(parents=True)
    month.symlink_to(charges / "charges.parquet")
    checked = Run.median(project.finops("focus", "check") for _ in range(runs))
    notes = f"peak {checked.megabytes:,.0f} MB at memory_limit = 1GB"
    yield checked.figure(f"all rules of FOCUS over {rows:,} charges", 20, notes)


def _write_charges(folder: Path, rows: int) -> None:
    """Write charges that keep every rule, with as many resources as line items."""
    folder.mkdir(parents=True)
    with duckdb.connect() as connection:
        table = write(connection, *GOOD)
        connection.execute(
            f"COPY (SELECT charges.* REPLACE (if(CommitmentDiscountId IS NULL, "
            f"ResourceId || '-' || number, ResourceId) AS ResourceId, "
            f"[uuid()::VARCHAR] AS x_source_line_items) "
            f"FROM {table} AS charges, range({rows // len(GOOD) + 1}) AS numbers(number) "
            f"LIMIT {rows}) TO {literal(str(folder / 'charges.parquet'))} "
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 40960)"
        )
