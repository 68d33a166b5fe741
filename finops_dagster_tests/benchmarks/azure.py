"""Benchmarks of Azure: a large FOCUS month beside bare DuckDB, and a sensor over many runs."""

from __future__ import annotations

import csv
import gzip
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from itertools import product
from pathlib import Path
from statistics import median
from time import monotonic, process_time

import dagster as dg

from finops_dagster.billing.columns import SqlType, glob_literal, literal
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
from finops_dagster_tests.servers.azurite import AzureServer

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
        processes["verified"].append(project.unchanged("azure"))
    bare, first, unchanged, verified = (Run.median(of_kind) for of_kind in processes.values())
    yield bare.figure("an Azure FOCUS month with bare DuckDB, which verifies nothing")
    measure = "its staged files to committed table and Parquet, against bare DuckDB"
    yield Figure(measure, median(load) / bare.seconds, "x", 1.10)
    yield first.figure(
        "all its stages from a folder, all checks included",
        1.25 * bare.seconds + 3,
        f"{first.seconds / bare.seconds:.2f} x bare DuckDB, {first.cpu / bare.cpu:.2f} x its CPU; "
        f"peak {first.megabytes:,.0f} MB",
    )
    yield verified.figure("the Azure month unchanged, by finops azure run-pipeline", 3)
    yield unchanged.figure("the Azure month unchanged, by dagster asset materialize")


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
        f"SELECT * REPLACE ({replaced}) FROM read_csv({glob_literal(bill, '**/*.csv.gz')}, "
        "header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
        f"columns = {{{columns}}})"
    )


def azure_sensor(_: int, runs: int) -> Iterator[Figure]:
    """Measure a sensor's tick that finds nothing new, over months of many runs each."""
    with closing(AzureServer()) as server:
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = server.connection_string
        container = server.container("bench")
        container.create_container()
        for first_day, number in product(YEARS, range(1, _RUNS_OF_A_MONTH + 1)):
            deliver(container.upload_blob, ExportRun(f"{first_day:%Y-%m}", number), b"", b"")
        project = Project(BenchmarkProject.create("file://nowhere", keys=AZURE_KEYS).work)
        project.export = {
            "name": "acme", "vendor": "azure", "format": "focus",
            "source": f"{server.url}/bench/exports", "start_month": f"{YEARS[0]:%Y-%m}",
        }  # fmt: skip
        project.instance = dg.DagsterInstance.get()
        cursor, seconds, cpu, requests = None, [], [], []
        for _ in range(runs + 1):
            server.requests.clear()
            started, used = monotonic(), process_time()
            cursor = project.tick(cursor).cursor
            seconds.append(monotonic() - started)
            cpu.append(process_time() - used)
            read = sum(path.endswith(".json") for _, path in server.requests)
            requests.append(f"{read} GET and {len(server.requests) - read} LIST requests")
    measure = f"a sensor's tick, {len(YEARS)} Azure months of {_RUNS_OF_A_MONTH} runs"
    notes = (
        f"{median(cpu[1:]):.2f} s of CPU with the proxy's before Azurite; {requests[-1]}; "
        f"the first tick {seconds[0]:.2f} s, {requests[0]}"
    )
    yield Figure(measure, median(seconds[1:]), notes=notes)
