"""Benchmarks of many months, exports and objects, and of how the time grows with each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import monotonic, process_time

import dagster as dg
import duckdb
from moto.s3.models import s3_backends

from finops_dagster.billing.columns import literal
from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.benchmarks.project import (
    MONTH,
    VERSION,
    YEARS,
    BenchmarkProject,
    Figure,
    Run,
    run_in_process,
    small_months,
    source,
)
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

_OLD_OBJECTS = 20_000
_TOTALS = """
SELECT billing_month, product_productname AS service, sum(lineitem_unblendedcost) AS cost
FROM bench GROUP BY 1, 2
QUALIFY row_number() OVER (PARTITION BY billing_month ORDER BY cost DESC) <= 10
ORDER BY 1, 3 DESC
"""


def backfill(_: int, __: int) -> Iterator[Figure]:
    """Measure the load of three years of small months by one command."""
    project = BenchmarkProject.create(small_months())
    run, months = project.finops("aws", "run-pipeline"), len(YEARS)
    charges = sum(project.stage_seconds("focus", f"{first_day:%Y-%m}") for first_day in YEARS)
    notes = (
        f"with its charges {run.seconds / months:.2f} s, {run.cpu / months:.2f} s of CPU; "
        f"{months} months of 5,000 rows in {run.seconds:.0f} s"
    )
    measure = "a small month of a backfill, without its charges in FOCUS"
    yield Figure(measure, (run.seconds - charges) / months, "s", 1.2, notes)


def imports(_: int, runs: int) -> Iterator[Figure]:
    """Measure the import of the definitions, which every process of Dagster needs first."""
    project = BenchmarkProject.create("file://nowhere", exports=10)
    ours, dagster = (
        Run.median(project.python(f"import {module}") for _ in range(runs))
        for module in ("finops_dagster.definitions", "dagster")
    )
    notes = f"{dagster.seconds:.2f} s of it, {dagster.cpu:.2f} s of CPU, import dagster"
    yield ours.figure("import finops_dagster.definitions, 10 exports", 1.5, notes)


def sensor(_: int, runs: int) -> Iterator[Figure]:
    """Measure a sensor's tick that finds nothing new."""
    with closing(S3Server()) as server:
        server.client().create_bucket(Bucket="bench")
        backend = s3_backends["123456789012"]["aws"]
        for first_day in YEARS:
            until = BillingMonth.of(first_day).next.first_day
            folder = f"bench-cur/{first_day:%Y%m%d}-{until:%Y%m%d}"
            backend.put_object("bench", f"{folder}/bench-cur-Manifest.json", b"{}")
            for number in range(_OLD_OBJECTS // len(YEARS)):
                backend.put_object("bench", f"{folder}/{VERSION}/old-{number}.csv.gz", b"")
        project = Project(BenchmarkProject.create("s3://bench").work)
        project.export |= {"source": "s3://bench", "endpoint_url": server.url}
        project.export |= {"export_name": "bench-cur", "start_month": "2022-01"}
        project.instance = dg.DagsterInstance.get()
        cursor, seconds, cpu = project.tick().cursor, [], []
        for _ in range(runs):
            server.requests.clear()
            started, used = monotonic(), process_time()
            cursor = project.tick(cursor).cursor
            seconds.append(monotonic() - started)
            cpu.append(process_time() - used)
        read = sum(path.endswith(".json") for _, path in server.requests)
        requests = f"{read} GET and {len(server.requests) - read} LIST requests"
        notes = f"{median(cpu):.2f} s of CPU with the store's; {requests}"
    measure = f"a sensor's tick, {len(YEARS)} months, {_OLD_OBJECTS:,} old objects beside"
    yield Figure(measure, median(seconds), "s", 1, notes)


def file_size(_: int, __: int) -> Iterator[Figure]:
    """Measure how a DuckDB file of six months grows when one of them is loaded ten times."""
    project = BenchmarkProject.create(source(60_000, 150, 1, YEARS[-6:]))
    file = project.work / "finops.duckdb"
    project.finops("aws", "run-pipeline")
    size_before = file.stat().st_size
    for _ in range(10):
        project.finops("state", "reprocess", "bench", "2024-09")
    size_after = file.stat().st_size
    measure = "DuckDB file of six months after one was loaded ten times, against before"
    notes = f"{size_before / 1e6:.0f} MB, then {size_after / 1e6:.0f} MB"
    yield Figure(measure, size_after / size_before, "x", 1.4, notes)


def query(rows: int, runs: int) -> Iterator[Figure]:
    """Measure a query over two years of Parquet, without the start of its process."""
    project = BenchmarkProject.create(source(rows))
    project.materialize()
    run_in_process(_two_years, project.work / "parquet", rows // 10)
    answered = Run.median(project.finops("query", _TOTALS) for _ in range(runs))
    start = Run.median(project.finops("--version") for _ in range(runs))
    measure = f"ten monthly totals by service over 24 months of {rows // 10:,} rows, beyond start"
    notes = f"{answered.cpu - start.cpu:.2f} s of CPU; the start is {start.seconds:.2f} s"
    yield Figure(measure, answered.seconds - start.seconds, "s", 0.5, notes)


def _two_years(lake: Path, rows: int) -> None:
    """Replace the lake's one month by 24, each the first rows of it."""
    (large,) = lake.rglob("*.parquet")
    whole = large.rename(lake / "whole.parquet")
    for first_day in YEARS[:24]:
        small = Path(str(large).replace(MONTH, f"{first_day:%Y-%m}"))
        small.parent.mkdir(exist_ok=True)
        duckdb.execute(
            f"COPY (SELECT * REPLACE (DATE '{first_day}' AS billing_month) "
            f"FROM read_parquet({literal(str(whole))}, hive_partitioning = false) LIMIT {rows}) "
            f"TO {literal(str(small))} (FORMAT parquet, COMPRESSION zstd)"
        )
    whole.unlink()


def growth(_: int, __: int) -> Iterator[Figure]:
    """Measure one run of all stages for each of several sizes."""
    for rows, columns, parts in [
        *((rows, 154, 4) for rows in (100_000, 300_000, 900_000)),
        *((300_000, columns, 4) for columns in (70, 140, 200)),
        *((300_000, 154, parts) for parts in (1, 4, 16)),
    ]:
        run = BenchmarkProject.create(source(rows, columns, parts)).materialize()
        notes = f"peak {run.megabytes:,.0f} MB"
        yield run.figure(f"{rows:,} rows of {columns} columns in {parts} parts", notes=notes)
    for months in (6, 12, 36):
        until = f"{YEARS[months - 1]:%Y-%m}"
        run = BenchmarkProject.create(small_months()).finops(
            "aws", "run-pipeline", "--end-date", until
        )
        yield run.figure(f"{months} months of 5,000 rows")
    for exports in (1, 10, 50):
        project = BenchmarkProject.create("file://nowhere", exports=exports)
        run = project.python("import finops_dagster.definitions")
        yield run.figure(f"import of the definitions of {exports} exports")
