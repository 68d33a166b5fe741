"""One month of a large bill: against bare DuckDB, dlt and the download, and in how much memory."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

from finops_dagster.billing.columns import files_literal, literal
from finops_dagster_tests.benchmarks.chain import Chain, Figure, Run, source
from finops_dagster_tests.cur import upload
from finops_dagster_tests.project import ROOT
from finops_dagster_tests.servers.s3 import S3Server

_DLT = ROOT / ".venv-dlt" / "bin" / "python"
_TYPES = {
    "BigDecimal": "DECIMAL(38,18)",
    "OptionalBigDecimal": "DECIMAL(38,18)",
    "DateTime": "TIMESTAMP",
}
# The least that DuckDB can do with the same types. Nothing is verified, counted or reconciled.
_BARE = """
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
for each in listed:
    with open("stream", "wb") as file:
        body = client.get_object(Bucket="bench", Key=each["Key"])["Body"]
        for chunk in body.iter_chunks(1024 * 1024):
            file.write(chunk)
print(time.monotonic() - started)
"""


def month(rows: int, runs: int) -> Iterator[Figure]:
    """Both sides are whole processes, run in turn."""
    bill = source(rows)
    whole: dict[str, list[Run]] = defaultdict(list)
    parts: dict[str, list[float]] = defaultdict(list)
    with closing(S3Server()) as server:
        client = server.client()
        client.create_bucket(Bucket="bench")
        upload(bill, lambda key, body: client.put_object(Bucket="bench", Key=key, Body=body))
        for _ in range(runs):
            chain = Chain.over(bill)
            whole["bare"].append(chain.python(_BARE, _read_csv(bill)))
            whole["first"].append(chain.materialize())
            load = chain.stage_seconds("billing_table") + chain.stage_seconds("parquet")
            parts["load"].append(load)
            copied = chain.stage_seconds("staged_files")
            whole["unchanged"].append(chain.materialize())
            empty = chain.materialize("finops_dagster_tests.benchmarks.empty_chain")
            whole["empty"].append(empty)
            chain = Chain.over("s3://bench", more=f'endpoint_url = "{server.url}"\n')
            chain.python(_STREAM, server.url)
            parts["stream"].append(float((chain.work / "output.txt").read_text().split()[-1]))
            whole["s3"].append(chain.materialize())
            parts["download"].append(chain.stage_seconds("staged_files") - copied)
    yield from _figures(
        {name: Run.median(each) for name, each in whole.items()},
        {name: median(each) for name, each in parts.items()},
    )
    if _DLT.exists():
        run = Chain.over(bill).run([str(_DLT), "-c", _WITH_DLT, str(bill)])
        yield run.figure("dlt with the same files into DuckDB", beside="costs are doubles; one run")


def _read_csv(bill: Path) -> str:
    manifest = next(bill.rglob("*-Manifest.json"))
    columns = ", ".join(
        f"{literal(c['category'] + '/' + c['name'])}: '{_TYPES.get(c['type'], 'VARCHAR')}'"
        for c in json.loads(manifest.read_text())["columns"]
    )
    return (
        f"FROM read_csv({files_literal(bill, '**/*.csv.gz')}, header = true, auto_detect = false, "
        f"delim = ',', quote = '\"', escape = '\"', columns = {{{columns}}})"
    )


def _figures(whole: dict[str, Run], parts: dict[str, float]) -> Iterator[Figure]:
    bare, first, unchanged = whole["bare"], whole["first"], whole["unchanged"]
    yield bare.figure("bare DuckDB, which verifies nothing")
    against = "staged files to committed table and Parquet, against bare DuckDB"
    yield Figure(against, parts["load"] / bare.seconds, "x", 1.10)
    yield first.figure(
        "the whole chain from a folder, all checks included",
        1.25 * bare.seconds + 3,
        f"{first.seconds / bare.seconds:.2f} x bare DuckDB, {first.cpu / bare.cpu:.2f} x its CPU; "
        f"peak {first.megabytes:,.0f} MB",
    )
    adds = "what a download from S3 on loopback adds to it, against a single stream"
    beside = f"the whole chain with boto3's start {whole['s3'].seconds:.2f} s"
    yield Figure(adds, parts["download"], "s", parts["stream"], beside)
    yield unchanged.figure("the month unchanged, whole chain", 3)
    beside = f"{unchanged.cpu - whole['empty'].cpu:.2f} s of CPU"
    ours = "of that ours, against four empty assets with as many checks"
    yield Figure(ours, unchanged.seconds - whole["empty"].seconds, "s", 0.5, beside)


def memory(rows: int, _: int) -> Iterator[Figure]:
    """The peak of the whole chain's process, however large the month is."""
    for each in (rows, 10 * rows):
        run = Chain.over(source(each), memory_limit="1GB").materialize()
        measure = f"peak memory at memory_limit 1GB, {each:,} rows"
        beside = f"{run.seconds:.0f} s, {run.cpu:.0f} s of CPU"
        yield Figure(measure, run.megabytes, "MB", 1600, beside)
