"""One month of a large bill: against bare DuckDB, dlt and the download, and in how much memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from statistics import median

from finops_dagster_tests.benchmarks.bare import DLT, bare_duckdb, dlt, single_stream
from finops_dagster_tests.benchmarks.chain import Chain, source
from finops_dagster_tests.benchmarks.figures import Figure, Run, median_seconds, most_megabytes
from finops_dagster_tests.cur import upload
from finops_dagster_tests.servers.s3 import S3Server

_BUCKETS = count()


def month(rows: int, runs: int) -> Iterator[Figure]:
    """Both sides are whole processes, run in turn."""
    bill = source(rows)
    bare: list[Run] = []
    first: list[Run] = []
    unchanged: list[Run] = []
    empty: list[Run] = []
    from_s3: list[Run] = []
    streams, load_and_export, download = [], [], []
    with closing(S3Server()) as server:
        bucket = _bucket(server, bill)
        for _ in range(runs):
            chain = Chain.over(f"file://{bill}")
            bare.append(bare_duckdb(chain, bill))
            first.append(chain.materialize())
            seconds = chain.stage_seconds()
            load_and_export.append(seconds["billing_table"] + seconds["parquet"])
            copied = seconds["staged_files"]
            unchanged.append(chain.materialize())
            empty.append(chain.materialize("finops_dagster_tests.benchmarks.empty_chain"))
            chain = Chain.over(f"s3://{bucket}", more=f'endpoint_url = "{server.url}"\n')
            streams.append(single_stream(chain, server.url, bucket))
            from_s3.append(chain.materialize())
            download.append(chain.stage_seconds()["staged_files"] - copied)
    at_best = median_seconds(bare)
    yield Figure("bare DuckDB, which verifies nothing", at_best, "s")
    yield Figure(
        "staged files to committed table and Parquet, against bare DuckDB",
        median(load_and_export) / at_best,
        "x",
        1.10,
    )
    whole = median_seconds(first)
    yield Figure(
        "the whole chain from a folder, all checks included",
        whole,
        "s",
        1.25 * at_best + 3,
        f"{whole / at_best:.2f} x bare DuckDB; peak {most_megabytes(first):,.0f} MB",
    )
    yield Figure(
        "what a download from S3 on loopback adds to it",
        median(download),
        "s",
        median(streams),
        "at most what a single stream needs for it; the whole chain with boto3's start "
        f"{median_seconds(from_s3):.2f} s",
    )
    again = median_seconds(unchanged)
    yield Figure("the month unchanged, whole chain", again, "s", 3)
    yield Figure(
        "of that ours",
        again - median_seconds(empty),
        "s",
        0.5,
        "against four empty assets with as many checks",
    )
    if DLT.exists():
        yield _dlt(bill, at_best)


def memory(rows: list[int]) -> Iterator[Figure]:
    """The peak of the whole chain's process, however large the month is."""
    for each in rows:
        run = Chain.over(f"file://{source(each)}", memory_limit="1GB").materialize()
        yield Figure(
            f"peak memory at memory_limit 1GB, {each:,} rows",
            run.megabytes,
            "MB",
            1600,
            f"{run.seconds:.0f} s",
        )


def _dlt(bill: Path, at_best: float) -> Figure:
    chain = Chain.over(f"file://{bill}")
    run: Run = dlt(chain, bill)
    beside = f"{run.seconds / at_best:.1f} x bare DuckDB; costs are doubles; one run"
    return Figure("dlt with the same files into DuckDB", run.seconds, "s", None, beside)


def _bucket(server: S3Server, bill: Path) -> str:
    client, name = server.client(), f"bench-{next(_BUCKETS)}"
    client.create_bucket(Bucket=name)
    upload(bill, lambda key, body: client.put_object(Bucket=name, Key=key, Body=body))
    return name
