"""One month of a large bill: against bare DuckDB, dlt and the download, and in how much memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from statistics import median

from finops_dagster_tests.benchmarks.bare import DLT, bare_duckdb, dlt, single_stream
from finops_dagster_tests.benchmarks.chain import Chain, Figure, Run, median_seconds, source
from finops_dagster_tests.cur import upload
from finops_dagster_tests.servers.s3 import S3Server

_BUCKETS = count()


def month(rows: int, runs: int) -> Iterator[Figure]:
    """Both sides are whole processes, run in turn."""
    bill = source(rows)
    whole: dict[str, list[Run]] = defaultdict(list)
    parts: dict[str, list[float]] = defaultdict(list)
    with closing(S3Server()) as server:
        bucket = _bucket(server, bill)
        for _ in range(runs):
            chain = Chain.over(f"file://{bill}")
            whole["bare"].append(bare_duckdb(chain, bill))
            whole["first"].append(chain.materialize())
            load = chain.stage_seconds("billing_table") + chain.stage_seconds("parquet")
            parts["load"].append(load)
            copied = chain.stage_seconds("staged_files")
            whole["unchanged"].append(chain.materialize())
            empty = chain.materialize("finops_dagster_tests.benchmarks.empty_chain")
            whole["empty"].append(empty)
            chain = Chain.over(f"s3://{bucket}", more=f'endpoint_url = "{server.url}"\n')
            parts["stream"].append(single_stream(chain, server.url, bucket))
            whole["s3"].append(chain.materialize())
            parts["download"].append(chain.stage_seconds("staged_files") - copied)
    seconds = {name: median_seconds(each) for name, each in whole.items()}
    peak = max(run.megabytes for run in whole["first"])
    yield from _figures(seconds, {name: median(each) for name, each in parts.items()}, peak)
    if DLT.exists():
        run = dlt(Chain.over(f"file://{bill}"), bill)
        beside = f"{run.seconds / seconds['bare']:.1f} x bare DuckDB; costs are doubles; one run"
        yield Figure("dlt with the same files into DuckDB", run.seconds, beside=beside)


def _figures(
    whole: dict[str, float], parts: dict[str, float], megabytes: float
) -> Iterator[Figure]:
    bare = whole["bare"]
    yield Figure("bare DuckDB, which verifies nothing", bare)
    against = "staged files to committed table and Parquet, against bare DuckDB"
    yield Figure(against, parts["load"] / bare, "x", 1.10)
    beside = f"{whole['first'] / bare:.2f} x bare DuckDB; peak {megabytes:,.0f} MB"
    first = "the whole chain from a folder, all checks included"
    yield Figure(first, whole["first"], "s", 1.25 * bare + 3, beside)
    beside = (
        "at most what a single stream needs for it; the whole chain with boto3's start "
        f"{whole['s3']:.2f} s"
    )
    adds = "what a download from S3 on loopback adds to it"
    yield Figure(adds, parts["download"], "s", parts["stream"], beside)
    yield Figure("the month unchanged, whole chain", whole["unchanged"], "s", 3)
    beside = "against four empty assets with as many checks"
    yield Figure("of that ours", whole["unchanged"] - whole["empty"], "s", 0.5, beside)


def memory(rows: list[int]) -> Iterator[Figure]:
    """The peak of the whole chain's process, however large the month is."""
    for each in rows:
        run = Chain.over(f"file://{source(each)}", memory_limit="1GB").materialize()
        measure = f"peak memory at memory_limit 1GB, {each:,} rows"
        yield Figure(measure, run.megabytes, "MB", 1600, f"{run.seconds:.0f} s")


def _bucket(server: S3Server, bill: Path) -> str:
    client, name = server.client(), f"bench-{next(_BUCKETS)}"
    client.create_bucket(Bucket=name)
    upload(bill, lambda key, body: client.put_object(Bucket=name, Key=key, Body=body))
    return name
