"""A benchmark of pods: how many months one loads in a minute, and two at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from finops_dagster_tests.benchmarks.project import AWS_KEYS, YEARS, Figure, source
from finops_dagster_tests.cur import bucket_put, upload
from finops_dagster_tests.deploy.cluster import Deployment, attempts, deployed
from finops_dagster_tests.servers.kubernetes import CPU, can_isolate
from finops_dagster_tests.servers.s3 import S3Server

_MONTHS = YEARS[:8]
_SETTINGS = """
[storage]
staging_dir = "{folder}/pod/scratch/staging"
parquet_dir = "s3://lake"

[storage.lake]
endpoint_url = "{url}"

[database.duckdb]
database_path = "{folder}/pod/scratch/{{month}}.duckdb"
memory_limit = "2GB"

[[exports]]
name = "bench"
source = "s3://bench"
endpoint_url = "{url}"
start_month = "{months[0]:%Y-%m}"
end_month = "{months[1]:%Y-%m}"
sensor = true
"""
# A run without a month writes the report.
_MONTHS_LOADED = """
SELECT run_id, start_time, end_time FROM runs WHERE partition IS NOT NULL AND status = 'SUCCESS'
"""


def pods(rows: int, _: int) -> Iterator[Figure]:
    """Measure months a minute by one pod at a time and by two, for small and for larger months."""
    if not can_isolate():
        sys.exit("a pod needs unshare, as root or with namespaces")
    for size in (5_000, rows // 10):
        for number in (1, 2):
            seconds, cpu = _load(source(size, 154, 1, _MONTHS), number)
            measure = f"months a minute of {size:,} rows with charges, {number} at a time"
            notes = f"{len(_MONTHS)} months in {seconds:.0f} s; {cpu:.1f} s of CPU for each pod"
            yield Figure(measure, 60 * len(_MONTHS) / seconds, "months", notes=notes)


def _load(bill: Path, number: int) -> tuple[float, float]:
    """Load the bill by `number` pods at a time; return all seconds, and a pod's of CPU.

    The seconds are those from the start of the first run to the end of the last.
    """
    with TemporaryDirectory() as name, closing(S3Server()) as s3:
        s3.reset()
        for bucket in ("bench", "lake"):
            s3.client().create_bucket(Bucket=bucket)
        upload(bill, bucket_put(s3, "bench"))
        folder, months = Path(name), (_MONTHS[0], _MONTHS[-1])
        settings = _SETTINGS.format(folder=folder, url=s3.url, months=months) + AWS_KEYS
        with deployed(folder, settings, s3, pods=number) as deployment:
            return _wait(deployment)


def _wait(deployment: Deployment) -> tuple[float, float]:
    """Wait until all months are loaded and their pods have ended; return as `_load`."""
    for attempt in attempts(3600):
        with attempt, deployment.postgresql.connect() as history:
            runs = history.execute(_MONTHS_LOADED).fetchall()
            assert len(runs) == len(_MONTHS), runs
            pods = [pod for run, _, _ in runs for pod in deployment.cluster.pods(run)]
            cpu = [float(pod["metadata"]["annotations"][CPU]) for pod in pods]
    seconds = max(end for _, _, end in runs) - min(start for _, start, _ in runs)
    return seconds, sum(cpu) / len(cpu)
