"""`finops dev`, which `make dev` starts: the UI's server, the queue, the sensors, and the runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.project import ROOT

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
        for look in looks():
            with look:
                assert self.runs(job) == runs


def looks() -> Retrying:
    """Attempts for two minutes; the last one's failure is raised."""
    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(0.5), reraise=True)


@contextmanager
def dagster_dev(folder: Path, environment: Mapping[str, str]) -> Iterator[Ui]:
    """`finops dev` in a project's folder, its DAGSTER_HOME in `home` there, and what it prints in
    `dev.log`."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "finops_dagster.cli", "dev", "--port", str(port)],
            cwd=folder,
            env={**environment, "DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ui = Ui(process.pid, port)
        for look in looks():
            with look:
                ui.runs()
        yield ui
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
