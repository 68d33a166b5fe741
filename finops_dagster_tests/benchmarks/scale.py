"""Benchmarks of what grows elsewhere: a lake in a store, scratch on the disk, many exports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread

from finops_dagster_tests.benchmarks.project import BenchmarkProject, Figure, source
from finops_dagster_tests.servers.s3 import S3Server

_BUCKET, _SCRATCH_MEGABYTES = "bench-lake", 2_000
# One client uploads a file as the lake does, with a checksum, and prints the seconds.
_UPLOAD = """
import sys, time, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
started = time.monotonic()
extra = {"ChecksumAlgorithm": "SHA256"}
client.upload_file(sys.argv[3], sys.argv[2], "alone.parquet", ExtraArgs=extra)
print(time.monotonic() - started)
"""


def lake_in_store(rows: int, runs: int) -> Iterator[Figure]:
    """Measure what a lake on S3 adds to the stage that writes the month, against its upload."""
    bill, seconds = source(rows), {"folder": list[float](), "store": [], "upload": []}
    with closing(S3Server()) as server:
        server.client().create_bucket(Bucket=_BUCKET)
        for number in range(runs):
            project = BenchmarkProject.create(bill)
            project.materialize()
            seconds["folder"].append(project.stage_seconds("parquet"))
            (file,) = (project.work / "parquet").rglob("bench-*.parquet")
            project.python(_UPLOAD, server.url, _BUCKET, str(file))
            printed = (project.work / "output.txt").read_text()
            seconds["upload"].append(float(printed.split()[-1]))
            with _environment(
                FINOPS_STORAGE__PARQUET_DIR=f"s3://{_BUCKET}/{number}",
                FINOPS_STORAGE__LAKE__ENDPOINT_URL=server.url,
                FINOPS_STORAGE__LAKE__REGION="us-east-1",
            ):
                project = BenchmarkProject.create(bill)
                project.materialize()
            seconds["store"].append(project.stage_seconds("parquet"))
    folder, store, upload = (median(seconds[name]) for name in ("folder", "store", "upload"))
    measure = "what a lake on S3 adds to the stage of the Parquet file, against its upload alone"
    notes = f"{folder:.2f} s into a folder, {store:.2f} s into S3 on loopback"
    yield Figure(measure, store - folder, "s", upload, notes)


def scratch(rows: int, _: int) -> Iterator[Figure]:
    """Measure the temporary disk space of a load of ten times the rows, beside what it leaves."""
    project = BenchmarkProject.create(source(10 * rows), memory_limit="1GB")
    with _highest_size(project.work) as highest:
        run = project.materialize()
    left = _megabytes(project.work)
    measure = f"scratch on the disk at memory_limit 1GB, {10 * rows:,} rows"
    notes = f"beside {left:,.0f} MB of files; {run.seconds:.0f} s"
    yield Figure(measure, highest() - left, "MB", _SCRATCH_MEGABYTES, notes)


def definitions(_: int, __: int) -> Iterator[Figure]:
    """Measure the import of the definitions of up to a thousand exports."""
    for exports in (10, 100, 1000):
        project = BenchmarkProject.create("file://nowhere", exports=exports)
        run = project.python("import finops_dagster.definitions")
        notes = f"peak {run.megabytes:,.0f} MB"
        yield run.figure(f"import of the definitions of {exports:,} exports", notes=notes)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    os.environ |= variables
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


@contextmanager
def _highest_size(folder: Path) -> Iterator[Callable[[], float]]:
    """Give the block a function that returns the most megabytes that the folder has had."""
    sizes, ended = [0.0], Event()

    def watch() -> None:
        while not ended.wait(0.2):
            sizes[0] = max(sizes[0], _megabytes(folder))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield lambda: sizes[0]
    finally:
        ended.set()
        thread.join()


def _megabytes(folder: Path) -> float:
    """Return the space on the disk of the files of a folder, some of which may go meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return size / 1e6
