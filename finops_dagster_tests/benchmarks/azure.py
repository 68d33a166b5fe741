"""Benchmarks of Azure: a large FOCUS month beside bare DuckDB, and a sensor over many runs."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from statistics import median
from time import monotonic, process_time

import dagster as dg
from moto.s3.models import s3_backends

from finops_dagster.billing.columns import SqlType, files_literal, literal
from finops_dagster.demo.azure.export import AzureRun, write_run
from finops_dagster.sources.azure.format import AzureFocus
from finops_dagster_tests.azure import Run as ExportRun
from finops_dagster_tests.azure import deliver
from finops_dagster_tests.benchmarks.month import BARE
from finops_dagster_tests.benchmarks.project import (
    AZURE_KEYS,
    YEARS,
    BenchmarkProject,
    Figure,
    Run,
    made_once,
)
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

_RUNS_OF_A_MONTH = 30


def azure_month(rows: int, runs: int) -> Iterator[Figure]:
    """Measure all stages of a FOCUS month, and what they are compared with, as processes."""
    bill = made_once(f"azure-{rows}", _write_month, rows)
    processes: dict[str, list[Run]] = defaultdict(list)
    load = []
    for _ in range(runs):
        project = BenchmarkProject.create(bill, keys=AZURE_KEYS)
        processes["bare"].append(project.python(BARE, _read_csv(bill)))
        processes["first"].append(project.materialize())
        load.append(project.stage_seconds("billing_table") + project.stage_seconds("parquet"))
        processes["unchanged"].append(project.materialize())
    bare, first, unchanged = (Run.median(of_kind) for of_kind in processes.values())
    yield bare.figure("an Azure FOCUS month with bare DuckDB, which verifies nothing")
    measure = "its staged files to committed table and Parquet, against bare DuckDB"
    yield Figure(measure, median(load) / bare.seconds, "x", 1.10)
    yield first.figure(
        "all its stages from a folder, all checks included",
        1.25 * bare.seconds + 3,
        f"{first.seconds / bare.seconds:.2f} x bare DuckDB, {first.cpu / bare.cpu:.2f} x its CPU; "
        f"peak {first.megabytes:,.0f} MB",
    )
    yield unchanged.figure("the Azure month unchanged, all stages", 3)


def _write_month(folder: Path, rows: int) -> None:
    run = AzureRun(date(2024, 1, 1), datetime(2024, 2, 5, 3, 12), resources=rows // 30, parts=4)
    write_run(folder, "", "bench-focus", run)


def _read_csv(bill: Path) -> str:
    with gzip.open(next(bill.rglob("*.csv.gz")), "rt", encoding="utf-8-sig") as text:
        headers = next(csv.reader(text))
    types = {header: AzureFocus().sql_type(header, None) or SqlType.TEXT for header in headers}
    # DuckDB reads no JSON as a map, so maps are read as text first.
    maps = [header for header, kind in types.items() if kind is SqlType.TEXT_MAP]
    columns = ", ".join(
        f"{literal(header)}: '{SqlType.TEXT if header in maps else kind}'"
        for header, kind in types.items()
    )
    replaced = ", ".join(f"{name}::JSON::{SqlType.TEXT_MAP} AS {name}" for name in maps)
    return (
        f"SELECT * REPLACE ({replaced}) FROM read_csv({files_literal(bill, '**/*.csv.gz')}, "
        "header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
        f"columns = {{{columns}}})"
    )


def azure_sensor(_: int, runs: int) -> Iterator[Figure]:
    """Measure a sensor's tick that finds nothing new, over months of many runs each."""
    with closing(S3Server()) as server:
        server.client().create_bucket(Bucket="bench")
        backend = s3_backends["123456789012"]["aws"]
        for first_day in YEARS:
            for number in range(1, _RUNS_OF_A_MONTH + 1):
                run = ExportRun(f"{first_day:%Y-%m}", number)
                deliver(lambda key, body: backend.put_object("bench", key, body), run, b"", b"")
        project = Project(BenchmarkProject.create("s3://bench", keys=AZURE_KEYS).work)
        project.export = {
            "name": "acme", "vendor": "azure", "format": "focus", "source": "s3://bench/exports",
            "endpoint_url": server.url, "start_month": f"{YEARS[0]:%Y-%m}",
        }  # fmt: skip
        project.instance = dg.DagsterInstance.get()
        cursor, seconds, cpu = project.tick().cursor, [], []
        first = _requests(server)
        for _ in range(runs):
            started, used = monotonic(), process_time()
            cursor = project.tick(cursor).cursor
            seconds.append(monotonic() - started)
            cpu.append(process_time() - used)
            later = _requests(server)
    measure = f"a sensor's tick, {len(YEARS)} Azure months of {_RUNS_OF_A_MONTH} runs"
    notes = f"{median(cpu):.2f} s of CPU with the store's; {later}; the first tick {first}"
    yield Figure(measure, median(seconds), "s", 1, notes)


def _requests(server: S3Server) -> str:
    """Return how many requests there were since the last call."""
    read = sum(path.endswith(".json") for _, path in server.requests)
    text = f"{read} GET and {len(server.requests) - read} LIST requests"
    server.requests.clear()
    return text
