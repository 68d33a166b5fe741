"""Benchmarks of what grows elsewhere: a lake in a store, scratch on the disk, many exports."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread

from finops_dagster_tests.benchmarks.project import AWS_KEYS, BenchmarkProject, Figure, source
from finops_dagster_tests.cur import bucket_put, upload
from finops_dagster_tests.servers.s3 import S3Server

_SCRATCH_MEGABYTES = 2_000
# The stages that write files into the lake, and the folders of their files.
_LAKE_STAGES = {"parquet": "bench", "focus": "focus"}
# The lake's own client uploads a file, after a first request as in a run, and prints the seconds.
_UPLOAD = """
import sys, time
from pathlib import Path
from finops_dagster.object_stores import open_store
from finops_dagster.object_stores.settings import StoreSettings
source, url, path = sys.argv[1:]
store, key = open_store(StoreSettings(source=source, endpoint_url=url, region="us-east-1"))
store.files(key)
started = time.monotonic()
store.upload(Path(path), key)
print(time.monotonic() - started)
"""


def lake_in_store(rows: int, runs: int) -> Iterator[Figure]:
    """Measure what a lake on S3 adds to the stages that write it, against the uploads alone.

    The month is loaded once, from S3. Then all stages run in turn for an empty folder and for an
    empty lake on S3: only the files of the lake are written again.
    """
    seconds = defaultdict[str, list[float]](list)
    with closing(S3Server()) as server:
        for bucket in ("bench", "bench-lake"):
            server.client().create_bucket(Bucket=bucket)
        upload(source(rows), bucket_put(server, "bench"))
        keys = f'{AWS_KEYS}endpoint_url = "{server.url}"\n'
        project = BenchmarkProject.create("s3://bench", keys=keys)
        project.materialize(focus=True)
        for number in range(runs):
            folder, store = f"parquet-{number}", f"s3://bench-lake/{number}"
            with _environment(FINOPS_STORAGE__PARQUET_DIR=folder):
                project.materialize(focus=True)
            into_folder = {stage: project.stage_seconds(stage) for stage in _LAKE_STAGES}
            with _environment(
                FINOPS_STORAGE__PARQUET_DIR=store,
                FINOPS_STORAGE__LAKE__ENDPOINT_URL=server.url,
                FINOPS_STORAGE__LAKE__REGION="us-east-1",
            ):
                project.materialize(focus=True)
            for stage, path in _LAKE_STAGES.items():
                into_store = project.stage_seconds(stage)
                (file,) = (project.work / folder / path).rglob("*.parquet")
                project.python(_UPLOAD, f"{store}/alone", server.url, str(file))
                printed = (project.work / "output.txt").read_text()
                seconds[f"{stage} folder"].append(into_folder[stage])
                seconds[f"{stage} adds"].append(into_store - into_folder[stage])
                seconds[f"{stage} alone"].append(float(printed.split()[-1]))
    for stage in _LAKE_STAGES:
        adds = seconds[f"{stage} adds"]
        into_folder, alone = (median(seconds[f"{stage} {what}"]) for what in ("folder", "alone"))
        measure = f"what a lake on S3 adds to the stage {stage}, against its upload alone"
        notes = f"{min(adds):.2f} s to {max(adds):.2f} s on loopback; a folder {into_folder:.2f} s"
        yield Figure(measure, median(adds), "s", alone, notes)


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
