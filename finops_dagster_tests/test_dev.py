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
from pathlib import Path
from typing import Any

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import ROOT, Project

LOCATION = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "finops_dagster.definitions",
}


class Ui:
    """A running `dagster dev`, asked as the browser asks it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]

    def runs(self) -> dict[str, str]:
        """The status of the newest run of each month."""
        runs = self.ask("{runsOrError {... on Runs {results {status tags {key value}}}}}")
        months = {}
        for run in reversed(runs["runsOrError"]["results"]):
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            months[tags["dagster/partition"]] = run["status"]
        return months

    def wait_for(self, runs: dict[str, str]) -> None:
        """Look until the runs are so."""
        for look in Retrying(stop=stop_after_delay(120), wait=wait_fixed(0.5), reraise=True):
            with look:
                assert self.runs() == runs


@pytest.fixture
def ui(project: Project) -> Iterator[Ui]:
    home = project.folder / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    shutil.copy(ROOT / "workspace.yaml", project.folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**project.shell_environment(), "DAGSTER_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        ui = Ui(port)
        for look in Retrying(stop=stop_after_delay(120), wait=wait_fixed(0.5), reraise=True):
            with look:
                assert ui.runs() == {}
        yield ui
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_backfill_and_the_sensor_load_months(project: Project, ui: Ui) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    launched = ui.ask(
        "mutation ($backfill: LaunchBackfillParams!) {"
        "launchPartitionBackfill(backfillParams: $backfill) {__typename}}",
        backfill={
            "selector": {
                "repositorySelector": LOCATION,
                "partitionSetName": "acme_month_partition_set",
            },
            "partitionNames": ["2024-01", "2024-02", "2024-03"],
        },
    )
    assert launched["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess"
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
