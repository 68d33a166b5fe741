"""`dagster dev` as `make dev` starts it: the UI's server, a backfill, and the sensor's daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.canaries import CANARIES, leaks
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.listening import addresses
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.s3 import S3Server

LOCATION = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "finops_dagster.definitions",
}


class Ui:
    """A running `dagster dev`, asked as the browser asks it."""

    def __init__(self, process: int, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"
        self.process = process

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]

    def runs(self, job: str = "acme_month") -> dict[str, str]:
        """The status of the newest run of each month."""
        runs = self.ask("{runsOrError {... on Runs {results {jobName status tags {key value}}}}}")
        months = {}
        for run in reversed(runs["runsOrError"]["results"]):
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            if run["jobName"] == job:
                months[tags["dagster/partition"]] = run["status"]
        return months

    def ticks(self, sensor: str) -> list[tuple[str, str]]:
        """Status and first cause of the sensor's ticks, the newest first."""
        answer = self.ask(
            "query ($sensor: SensorSelector!) {sensorOrError(sensorSelector: $sensor) "
            "{... on Sensor {sensorState {ticks {status error {causes {message}}}}}}}",
            sensor={**LOCATION, "sensorName": sensor},
        )
        ticks = answer["sensorOrError"]["sensorState"]["ticks"]
        causes = [tick["error"]["causes"] if tick["error"] else [] for tick in ticks]
        return [
            (tick["status"], said[0]["message"] if said else "")
            for tick, said in zip(ticks, causes, strict=True)
        ]

    def backfill(self, *months: str) -> None:
        """Ask for the months, as the job's page does."""
        launched = self.ask(
            "mutation ($backfill: LaunchBackfillParams!) {"
            "launchPartitionBackfill(backfillParams: $backfill) {__typename}}",
            backfill={
                "selector": {
                    "repositorySelector": LOCATION,
                    "partitionSetName": "acme_month_partition_set",
                },
                "partitionNames": months,
            },
        )
        assert launched["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess"

    def wait_for(self, runs: dict[str, str], job: str = "acme_month") -> None:
        """Look until the runs of the job are so."""
        for look in _looks():
            with look:
                assert self.runs(job) == runs


def _looks() -> Retrying:
    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(0.5), reraise=True)


@contextmanager
def dagster_dev(project: Project, more_settings: str = "") -> Iterator[Ui]:
    """`dagster dev` in the project's folder, with more exports beside its own."""
    home = project.folder / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    shutil.copy(ROOT / "workspace.yaml", project.folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**project.shell_environment(more_settings), "DAGSTER_HOME": str(home), **CANARIES},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        ui = Ui(process.pid, port)
        for look in _looks():
            with look:
                ui.runs()
        yield ui
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def ui(project: Project) -> Iterator[Ui]:
    with dagster_dev(project) as ui:
        yield ui


def test_make_starts_it_for_this_machine_alone() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "dev"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "dagster dev --host 127.0.0.1 --port 3000\n" in planned.stdout


def test_a_backfill_and_the_sensor_load_months(project: Project, ui: Ui) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    ui.backfill("2024-01", "2024-02", "2024-03")
    ui.wait_for({"2024-01": "SUCCESS", "2024-02": "SUCCESS", "2024-03": "FAILURE"})
    assert [project.totals(month) for month in ("2024-01", "2024-02")] == [(1, 1), (1, 1)]

    deliver(project.put, "2024-03", [items("2024-03", "4")], version="v1")
    started = ui.ask(
        "mutation ($sensor: SensorSelector!) {startSensor(sensorSelector: $sensor) {__typename}}",
        sensor={**LOCATION, "sensorName": "acme_manifests"},
    )
    assert started["startSensor"]["__typename"] == "Sensor"
    ui.wait_for(dict.fromkeys(["2024-01", "2024-02", "2024-03"], "SUCCESS"))
    assert project.totals("2024-03") == (1, 4)
    assert addresses(ui.process) == {"127.0.0.1"}
    assert leaks([project.folder / "home", project.folder / "data"]) == []


def test_a_terminal_and_the_daemon_run_one_month_at_once_and_a_killed_terminal_blocks_nobody(
    project: Project, finops: Finops, ui: Ui
) -> None:
    home = {"DAGSTER_HOME": str(project.folder / "home")}
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    with duckdb.connect(str(project.database_file)):
        killed, waiting = (
            finops.start("aws", "run-pipeline", "--start-date", month, "--end-date", month, **home)
            for month in ("2024-02", "2024-01")
        )
        for look in _looks():
            with look:
                assert ui.runs() == {"2024-01": "STARTED", "2024-02": "STARTED"}
        killed.kill()
        killed.wait()
        # Both places in the queue are taken, one of them by a run whose process is gone.
        ui.backfill("2024-01")
        ui.wait_for({"2024-01": "STARTED", "2024-02": "FAILURE"})
    printed, _ = waiting.communicate()
    assert printed.startswith("acme 2024-01  ")
    ui.wait_for({"2024-01": "SUCCESS", "2024-02": "FAILURE"})
    assert project.query("SELECT count(*) FROM finops_state.runs") == [(1,)]
    assert project.totals("2024-01") == (1, 1)
    assert finops("state", "verify", "acme", "2024-01", **home) == "all agree\n"


# The first line is acme's, whose block comes before.
THREE_BROKEN_EXPORTS = """
sensor = true

[[exports]]
name = "silent"
vendor = "aws"
source = "s3://acme-billing"
endpoint_url = "http://127.0.0.1:{silent}"
export_name = "cur"
start_month = "2024-01"
sensor = true

[[exports]]
name = "nowhere"
vendor = "aws"
source = "s3://acme-billing-of-nobody"
endpoint_url = "{s3}"
export_name = "cur"
start_month = "2024-01"
sensor = true

[[exports]]
name = "garbled"
vendor = "aws"
source = "file://source"
export_name = "garbled"
start_month = "2024-01"
sensor = true
"""


def test_an_export_that_is_broken_fails_alone_and_delays_no_other(
    project: Project, s3: S3Server
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.put("garbled/20240101-20240201/garbled-Manifest.json", b"{")
    with socket.create_server(("127.0.0.1", 0)) as takes_connections_and_never_answers:
        port = takes_connections_and_never_answers.getsockname()[1]
        with dagster_dev(project, THREE_BROKEN_EXPORTS.format(silent=port, s3=s3.url)) as ui:
            ui.wait_for({"2024-01": "FAILURE"}, job="garbled_month")
            ui.wait_for({"2024-01": "SUCCESS"})
            for look in _looks():
                with look:
                    status, error = ui.ticks("nowhere_manifests")[0]
                    assert status == "FAILURE"
                    assert "s3://acme-billing-of-nobody/cur/: there is no such bucket" in error
            assert ui.ticks("garbled_manifests")[0][0] == "SUCCESS"
    assert project.totals("2024-01") == (1, 1)
