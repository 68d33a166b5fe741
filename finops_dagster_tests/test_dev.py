"""`finops dev`, which `make dev` starts: the UI's server, a backfill, and the sensor's daemon."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import duckdb
import pytest

from finops_dagster_tests.canaries import CANARIES, leaks
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.dagster_dev import LOCATION, Ui, dagster_dev, looks
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.listening import addresses
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture
def ui(project: Project) -> Iterator[Ui]:
    with dagster_dev(project.folder, {**project.shell_environment(), **CANARIES}) as ui:
        yield ui


@pytest.mark.thorough
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


@pytest.mark.thorough
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
        for look in looks():
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
    assert finops("state", "verify", "acme", "2024-01", **home).startswith("all agree\n")


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


@pytest.mark.thorough
def test_an_export_that_is_broken_fails_alone_and_delays_no_other(
    project: Project, s3: S3Server
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.put("garbled/20240101-20240201/garbled-Manifest.json", b"{")
    with socket.create_server(("127.0.0.1", 0)) as takes_connections_and_never_answers:
        port = takes_connections_and_never_answers.getsockname()[1]
        broken = THREE_BROKEN_EXPORTS.format(silent=port, s3=s3.url)
        with dagster_dev(project.folder, project.shell_environment(broken)) as ui:
            ui.wait_for({"2024-01": "FAILURE"}, job="garbled_month")
            ui.wait_for({"2024-01": "SUCCESS"})
            for look in looks():
                with look:
                    status, error = ui.ticks("nowhere_manifests")[0]
                    assert status == "FAILURE"
                    assert "s3://acme-billing-of-nobody/cur/: S3 refuses (NoSuchBucket: " in error
            assert ui.ticks("garbled_manifests")[0][0] == "SUCCESS"
            assert addresses(ui.process) == {"127.0.0.1"}
    log = (project.folder / "dev.log").read_text()
    assert "Serving dagster-webserver" in log
    assert "Warning" not in log
    assert project.totals("2024-01") == (1, 1)
