"""`finops dev`: the Dagster UI, a backfill, and the daemon with the sensors."""

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.exposure import SECRETS, leaks, listening_addresses
from finops_dagster_tests.finops import FINOPS, Finops
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.s3 import S3Server

LOCATION = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "finops_dagster.definitions",
}


class Ui:
    """A running `finops dev`, called by GraphQL as the browser does."""

    def __init__(self, finops: Finops, process: int, port: int) -> None:
        self.finops, self.process = finops, process
        self.url = f"http://127.0.0.1:{port}/graphql"

    def graphql_type(self, query: str, **variables: Any) -> str:
        """Send a GraphQL query and return the type of its result."""
        body = json.dumps({"query": f"{query} {{__typename}}}}", "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            (field,) = json.load(response)["data"].values()
        return str(field["__typename"])

    def runs(self, export: str) -> dict[str, str]:
        runs = self.finops.json("aws", "show-state", "--runs", "--export", export)
        return {run["month"]: run["status"] for run in reversed(runs)}

    def wait_for(self, runs: dict[str, str], export: str = "acme") -> None:
        """Wait until the export has these runs, as status by month."""
        for attempt in attempts():
            with attempt:
                assert self.runs(export) == runs

    def start_sensor(self, sensor: str) -> None:
        mutation = "mutation ($sensor: SensorSelector!) {startSensor(sensorSelector: $sensor)"
        assert self.graphql_type(mutation, sensor={**LOCATION, "sensorName": sensor}) == "Sensor"

    def backfill(self, *months: str) -> None:
        """Launch a backfill of the months, as the job's page does."""
        mutation = (
            "mutation ($params: LaunchBackfillParams!) "
            "{launchPartitionBackfill(backfillParams: $params)"
        )
        job = {"repositorySelector": LOCATION, "partitionSetName": "acme_month_partition_set"}
        params = {"selector": job, "partitionNames": months}
        assert self.graphql_type(mutation, params=params) == "LaunchBackfillSuccess"


def attempts() -> Retrying:
    """Return attempts for two minutes, seldom, as each costs time; the last failure is raised."""
    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(1), reraise=True)


@contextmanager
def finops_dev(project: Project, more_settings: str = "", **environment: str) -> Iterator[Ui]:
    """Run `finops dev` in the project's folder, with its output in `dev.log`."""
    home = project.folder / ".dagster"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    finops = Finops(project, more_settings)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (project.folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*FINOPS, "dev", "--port", str(port)],
            cwd=project.folder,
            env={**finops.environment, **environment, "DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ui = Ui(finops, process.pid, port)
        for attempt in attempts():
            with attempt:
                assert ui.graphql_type("{runsOrError") == "Runs"
        yield ui
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def ui(project: Project) -> Iterator[Ui]:
    with finops_dev(project, **SECRETS) as ui:
        yield ui


@pytest.mark.thorough
def test_a_backfill_and_the_sensor_load_months(project: Project, ui: Ui) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
    ui.backfill("2024-01", "2024-02", "2024-03")
    ui.wait_for({"2024-01": "success", "2024-02": "success", "2024-03": "failure"})
    assert project.totals("2024-01") == project.totals("2024-02") == (1, 1)

    project.deliver("4", month="2024-03")
    ui.start_sensor("acme_manifests")
    ui.wait_for(dict.fromkeys(["2024-01", "2024-02", "2024-03"], "success"))
    assert project.totals("2024-03") == (1, 4)
    assert listening_addresses(ui.process) == {"127.0.0.1"}
    assert leaks([project.folder / ".dagster", project.folder / "data"]) == []


@pytest.mark.thorough
def test_a_killed_run_does_not_block_the_queue(project: Project, finops: Finops, ui: Ui) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
    with duckdb.connect(str(project.database_file)):
        killed, waiting = (
            finops.start("aws", "run-pipeline", "--start-date", month, "--end-date", month)
            for month in ("2024-02", "2024-01")
        )
        ui.wait_for({"2024-01": "started", "2024-02": "started"})
        killed.kill()
        killed.wait()
        # The queue runs two at once. One of the two places is taken by the killed run.
        ui.backfill("2024-01")
        ui.wait_for({"2024-01": "started", "2024-02": "failure"})
    stdout, _ = waiting.communicate()
    assert stdout.startswith("acme 2024-01  ")
    ui.wait_for({"2024-01": "success", "2024-02": "failure"})
    assert project.query("SELECT count(*) FROM finops_state.runs") == [(1,)]
    assert project.totals() == (1, 1)
    assert finops("state", "verify", "acme", "2024-01").startswith("all agree\n")


def broken_export(name: str, source: str, endpoint_url: str) -> str:
    return f"""
[[exports]]
name = "{name}"
vendor = "aws"
source = "{source}"
endpoint_url = "{endpoint_url}"
export_name = "{name}"
start_month = "2024-01"
sensor = true
"""


@pytest.mark.thorough
def test_a_broken_export_fails_alone_and_delays_no_other(project: Project, s3: S3Server) -> None:
    project.deliver("1")
    project.put("garbled/20240101-20240201/garbled-Manifest.json", b"{")
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        port = silent_server.getsockname()[1]
        exports = (
            broken_export("silent", "s3://acme-billing", f"http://127.0.0.1:{port}"),
            broken_export("nowhere", "s3://acme-billing-of-nobody", s3.url),
            broken_export("garbled", "file://source", s3.url),
        )
        with finops_dev(project, "".join(("sensor = true", *exports))) as ui:
            ui.wait_for({"2024-01": "failure"}, "garbled")
            ui.wait_for({"2024-01": "success"})
            for attempt in attempts():
                with attempt:
                    log = (project.folder / "dev.log").read_text()
                    assert "nobody/nowhere/: S3 refuses (NoSuchBucket: " in log
            assert listening_addresses(ui.process) == {"127.0.0.1"}
    assert "Serving dagster-webserver" in log
    assert "Warning" not in log
    assert project.totals() == (1, 1)


def test_a_port_in_use_is_one_line_and_starts_nothing(project: Project, finops: Finops) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        refused = finops("dev", "--port", port, code=1)
    assert refused.startswith(f"port {port} of 127.0.0.1 cannot be used (Address already in use);")
    assert len(refused.splitlines()) == 1
    assert not (project.folder / ".dagster").exists()
