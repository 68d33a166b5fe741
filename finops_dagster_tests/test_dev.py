"""`finops dev`, which `make dev` starts: the UI's server, a backfill, and the sensors' daemon."""

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
    """A running `finops dev`, asked as the browser asks it; its runs are shown by `finops`."""

    def __init__(self, finops: Finops, process: int, port: int) -> None:
        self.finops, self.process = finops, process
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> str:
        """The type of a GraphQL answer."""
        body = json.dumps({"query": f"{query} {{__typename}}}}", "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            (field,) = json.load(answer)["data"].values()
        return str(field["__typename"])

    def runs(self, export: str) -> dict[str, str]:
        runs = self.finops.json("aws", "show-state", "--runs", "--export", export)
        return {run["month"]: run["status"] for run in reversed(runs)}

    def wait_for(self, runs: dict[str, str], export: str = "acme") -> None:
        """Look until the runs of the export are so."""
        for attempt in attempts():
            with attempt:
                assert self.runs(export) == runs

    def start_sensor(self, sensor: str) -> None:
        mutation = "mutation ($of: SensorSelector!) {startSensor(sensorSelector: $of)"
        assert self.ask(mutation, of={**LOCATION, "sensorName": sensor}) == "Sensor"

    def backfill(self, *months: str) -> None:
        """Ask for the months, as the job's page does."""
        mutation = (
            "mutation ($of: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $of)"
        )
        job = {"repositorySelector": LOCATION, "partitionSetName": "acme_month_partition_set"}
        launched = self.ask(mutation, of={"selector": job, "partitionNames": months})
        assert launched == "LaunchBackfillSuccess"


def attempts() -> Retrying:
    """Attempts for two minutes; the last one's failure is raised."""
    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(0.5), reraise=True)


@contextmanager
def finops_dev(project: Project, more_settings: str = "", **environment: str) -> Iterator[Ui]:
    """`finops dev` in the project's folder, and what it prints in `dev.log`."""
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
                assert ui.ask("{runsOrError") == "Runs"
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
def test_a_killed_terminal_blocks_nobody(project: Project, finops: Finops, ui: Ui) -> None:
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
        # Both places in the queue are taken, one of them by a run whose process is gone.
        ui.backfill("2024-01")
        ui.wait_for({"2024-01": "started", "2024-02": "failure"})
    printed, _ = waiting.communicate()
    assert printed.startswith("acme 2024-01  ")
    ui.wait_for({"2024-01": "success", "2024-02": "failure"})
    assert project.query("SELECT count(*) FROM finops_state.runs") == [(1,)]
    assert project.totals() == (1, 1)
    assert finops("state", "verify", "acme", "2024-01").startswith("all agree\n")


def broken(name: str, source: str, endpoint_url: str) -> str:
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
    with socket.create_server(("127.0.0.1", 0)) as takes_connections_and_never_answers:
        port = takes_connections_and_never_answers.getsockname()[1]
        exports = (
            broken("silent", "s3://acme-billing", f"http://127.0.0.1:{port}"),
            broken("nowhere", "s3://acme-billing-of-nobody", s3.url),
            broken("garbled", "file://source", s3.url),
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


def test_a_taken_port_is_one_line_and_starts_nothing(project: Project, finops: Finops) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = finops("dev", "--port", port, code=1)
    assert refused.startswith(f"port {port} of 127.0.0.1 cannot be used (Address already in use);")
    assert len(refused.splitlines()) == 1
    assert not (project.folder / ".dagster").exists()
