"""Benchmarks of one large month, beside bare DuckDB, dlt and a plain download."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

from finops_dagster.billing.columns import glob_literal, literal
from finops_dagster_tests.benchmarks.project import (
    AWS_KEYS,
    BenchmarkProject,
    Figure,
    Run,
    source,
)
from finops_dagster_tests.cur import upload
from finops_dagster_tests.project import ROOT
from finops_dagster_tests.servers.s3 import S3Server

_DLT = ROOT / ".venv-dlt" / "bin" / "python"
_TYPES = {
    "BigDecimal": "DECIMAL(38,18)",
    "OptionalBigDecimal": "DECIMAL(38,18)",
    "DateTime": "TIMESTAMP",
}
# The least that DuckDB can do with the same types: it verifies, counts and reconciles nothing.
BARE = """
import duckdb, sys
connection = duckdb.connect("bare.duckdb", config={"memory_limit": "2GB"})
connection.execute("SET preserve_insertion_order = false")
connection.execute("CREATE TABLE month AS " + sys.argv[1])
connection.execute("COPY month TO 'bare.parquet' (FORMAT parquet, COMPRESSION zstd)")
"""
# With the types that DuckDB guesses: costs are doubles.
_WITH_DLT = """
import sys, dlt
from dlt.sources.filesystem import filesystem, read_csv_duckdb
files = filesystem(bucket_url=f"file://{sys.argv[1]}", file_glob="**/*.csv.gz")
rows = (files | read_csv_duckdb(use_pyarrow=True)).with_name("month")
destination = dlt.destinations.duckdb("dlt.duckdb")
dlt.pipeline("bill", destination=destination, dataset_name="bill", pipelines_dir="dlt").run(rows)
"""
# One stream of one client writes all of the bucket to disk, and prints the seconds.
_STREAM = """
import sys, time, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
listed = client.list_objects_v2(Bucket="bench")["Contents"]
started = time.monotonic()
for entry in listed:
    with open("stream", "wb") as file:
        body = client.get_object(Bucket="bench", Key=entry["Key"])["Body"]
        for chunk in body.iter_chunks(1024 * 1024):
            file.write(chunk)
print(time.monotonic() - started)
"""


def month(rows: int, runs: int) -> Iterator[Figure]:
    """Measure all stages of a month, and what they are compared with, in turn as processes."""
    bill = source(rows)
    processes: dict[str, list[Run]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    with closing(S3Server()) as server:
        client = server.client()
        client.create_bucket(Bucket="bench")
        upload(bill, lambda key, body: client.put_object(Bucket="bench", Key=key, Body=body))
        for _ in range(runs):
            project = BenchmarkProject.create(bill)
            processes["bare"].append(project.python(BARE, _read_csv(bill)))
            processes["first"].append(project.materialize())
            load = project.stage_seconds("billing_table") + project.stage_seconds("parquet")
            seconds["load"].append(load)
            copied = project.stage_seconds("staged_files")
            processes["unchanged"].append(project.materialize())
            empty = project.materialize("finops_dagster_tests.benchmarks.empty_assets")
            processes["empty"].append(empty)
            processes["verified"].append(project.unchanged("aws"))
            keys = f'{AWS_KEYS}endpoint_url = "{server.url}"\n'
            project = BenchmarkProject.create("s3://bench", keys=keys)
            project.python(_STREAM, server.url)
            seconds["stream"].append(float((project.work / "output.txt").read_text().split()[-1]))
            processes["s3"].append(project.materialize())
            seconds["download"].append(project.stage_seconds("staged_files") - copied)
    yield from _figures(
        {name: Run.median(runs) for name, runs in processes.items()},
        {name: median(values) for name, values in seconds.items()},
    )
    if _DLT.exists():
        run = BenchmarkProject.create(bill).run([str(_DLT), "-c", _WITH_DLT, str(bill)])
        yield run.figure("dlt with the same files into DuckDB", notes="costs are doubles; one run")


def _read_csv(bill: Path) -> str:
    manifest = next(bill.rglob("*-Manifest.json"))
    columns = ", ".join(
        f"{literal(c['category'] + '/' + c['name'])}: '{_TYPES.get(c['type'], 'VARCHAR')}'"
        for c in json.loads(manifest.read_text())["columns"]
    )
    return (
        f"FROM read_csv({glob_literal(bill, '**/*.csv.gz')}, header = true, auto_detect = false, "
        f"delim = ',', quote = '\"', escape = '\"', columns = {{{columns}}})"
    )


def _figures(processes: dict[str, Run], seconds: dict[str, float]) -> Iterator[Figure]:
    bare, first, unchanged = processes["bare"], processes["first"], processes["unchanged"]
    yield bare.figure("bare DuckDB, which verifies nothing")
    measure = "staged files to committed table and Parquet, against bare DuckDB"
    yield Figure(measure, seconds["load"] / bare.seconds, "x", 1.10)
    yield first.figure(
        "all stages from a folder, all checks included",
        1.25 * bare.seconds + 3,
        f"{first.seconds / bare.seconds:.2f} x bare DuckDB, {first.cpu / bare.cpu:.2f} x its CPU; "
        f"peak {first.megabytes:,.0f} MB",
    )
    measure = "what a download from S3 on loopback adds to it, against a single stream"
    notes = f"all stages with boto3's start {processes['s3'].seconds:.2f} s"
    yield Figure(measure, seconds["download"], "s", seconds["stream"], notes)
    yield processes["verified"].figure("the month unchanged, by finops aws run-pipeline", 3)
    yield unchanged.figure("the month unchanged, by dagster asset materialize, without charges")
    notes = f"{unchanged.cpu - processes['empty'].cpu:.2f} s of CPU"
    measure = "of that ours, against five empty assets with as many checks"
    yield Figure(measure, unchanged.seconds - processes["empty"].seconds, "s", 0.5, notes)


def memory(rows: int, _: int) -> Iterator[Figure]:
    """Measure the peak memory of a month and of one ten times as large."""
    for size in (rows, 10 * rows):
        run = BenchmarkProject.create(source(size), memory_limit="1GB").materialize()
        measure = f"peak memory at memory_limit 1GB, {size:,} rows"
        notes = f"{run.seconds:.0f} s, {run.cpu:.0f} s of CPU"
        yield Figure(measure, run.megabytes, "MB", 1600, notes)
