"""A month a pod: Dagster's launcher for Kubernetes, and disks that end with their pods."""

import json
import os
import signal
from pathlib import Path
from threading import Event
from typing import Any

import kubernetes_validate
import pytest

from finops_dagster_tests.deploy.cluster import Deployment, attempts, deployed
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.kubernetes import PID, can_isolate
from finops_dagster_tests.servers.s3 import S3Server

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not can_isolate(), reason="a pod needs unshare, as root or with namespaces"),
]
MONTHS = ["2024-01", "2024-02", "2024-03"]
SIZES = """
[[run_sizes]]
up_to = "1MB"
[run_sizes.tags]
"dagster-k8s/config" = {{container_config = {{resources = {{requests = {{memory = "1Gi"}}}}}}}}

[[run_sizes]]
[run_sizes.tags]
"dagster-k8s/config" = {{container_config = {{resources = {{requests = {{memory = "7Gi"}}}}}}}}
"""
SETTINGS = """
[storage]
staging_dir = "{folder}/pod/scratch/staging"
parquet_dir = "s3://acme-lake/finops"

[storage.lake]
endpoint_url = "{url}"

[database.duckdb]
database_path = "{folder}/pod/scratch/{{month}}.duckdb"

[[exports]]
name = "acme"
vendor = "aws"
format = "cur1"
source = "s3://{bucket}"
endpoint_url = "{url}"
export_name = "acme-cur"
start_month = "2024-01"
end_month = "2024-03"
sensor = true
"""


class Download:
    """Holds the first download of a month at the store, until `released`."""

    def __init__(self, s3: S3Server, period: str) -> None:
        self.begun, self.released = Event(), Event()
        self.period = period
        s3.fault = self.hold

    def hold(self, environ: dict[str, Any], _: object) -> None:
        path = environ["PATH_INFO"]
        if self.period in path and environ["REQUEST_METHOD"] == "GET" and ".json" not in path:
            self.begun.set()
            self.released.wait(60)


def kill_pod(deployment: Deployment, month: str) -> None:
    """Kill the process of the pod that loads a month."""
    (run,) = [run for run in deployment.runs() if run["month"] == month]
    job = f"dagster-run-{run['run']}"
    (pod,) = [p for p in deployment.cluster.pods() if p["metadata"]["labels"]["job-name"] == job]
    os.killpg(int(pod["metadata"]["annotations"][PID]), signal.SIGKILL)


def test_each_month_is_loaded_by_a_pod_and_a_killed_one_by_the_next(
    project: Project, s3: S3Server, put_in_bucket: object, tmp_path: Path
) -> None:
    for month in MONTHS:
        project.deliver("1", "2", month=month)
    bucket = str(project.export["source"]).removeprefix("s3://")
    settings = (SETTINGS + SIZES).format(folder=tmp_path, bucket=bucket, url=s3.url)
    s3.client().create_bucket(Bucket="acme-lake")
    download = Download(s3, "20240201-20240301")
    with deployed(tmp_path, settings, s3) as deployment:
        assert download.begun.wait(60)
        kill_pod(deployment, "2024-02")
        download.released.set()
        for attempt in attempts():
            with attempt:
                ended = [(run["month"], run["status"]) for run in deployment.runs()]
                assert {m for m, status in ended if status == "success"} == {*MONTHS}
        assert [status for _, status in ended].count("failure") == 1
        jobs = deployment.cluster.objects("apis/batch/v1/jobs")
        months = json.loads(deployment.finops("state", "list", "--json"))
        assert "hunter2" not in json.dumps(jobs)
    assert sorted(month["month"] for month in months) == MONTHS
    assert {month["rows"] for month in months} == {2}
    for job in jobs:
        kubernetes_validate.validate(job, "1.34", strict=True)
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
    sizes = [container["resources"]["requests"]["memory"] for container in containers]
    # What the sensor requests and the one that is repeated; the run of the report has no size.
    assert sizes.count("7Gi") == len(MONTHS) + 1
