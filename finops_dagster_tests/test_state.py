"""State that people can see and mend: months that failed, runs that died, and what disagrees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project


@contextmanager
def waiting_run(project: Project, finops: Finops) -> Iterator[subprocess.Popen[str]]:
    """A run of January that has begun, and waits for the database that this process holds."""
    with duckdb.connect(str(project.database_file)):
        process = finops.start("aws", "run-pipeline")
        try:
            for look in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
                with look:
                    (row,) = finops.json("worker", "list")
                    assert row["stage"] == "billing_table"
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def test_a_month_is_shown_stage_by_stage_with_its_error(project: Project, finops: Finops) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1.5")], version="v1")
    finops.here("aws", "run-pipeline")
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    assert list(stages) == ["manifest", "staged_files", "billing_table", "parquet"]
    table = stages["billing_table"]
    assert (table["version"], table["rows"], table["cost"]) == ("v1", 1, "1.5")
    assert (table["outcome"], table["checks"], table["error"]) == ("loaded", "5 passed", None)
    assert len({row["run"] for row in stages.values()}) == 1

    deliver(project.put, "2024-01", [items("2024-02", "2")], version="v2")
    finops.here("aws", "run-pipeline")
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    table = stages["billing_table"]
    assert (stages["manifest"]["version"], table["version"]) == ("v2", "v1")
    assert "say that they belong to another billing month" in table["error"]
    assert table["checks"] == "failed: reconciles"
    assert stages["parquet"]["error"] == "not reached: billing_table failed"
    assert "not reached: billing_table failed" in finops("state", "show", "acme", "2024-01")


def test_the_runs_of_a_month_are_listed_with_what_came_of_each(
    project: Project, finops: Finops
) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    finops.here("aws", "run-pipeline")
    deliver(project.put, "2024-01", [items("2024-01", "much")], version="v2")
    finops.here("aws", "run-pipeline", "--end-date", "2024-01")
    deliver(project.put, "2024-01", [items("2024-02", "1")], version="v3")
    finops.here("aws", "run-pipeline", "--end-date", "2024-01")
    runs = finops.json("aws", "show-state", "--runs", "--end-date", "2024-01")
    assert [(run["month"], run["status"], run["last_stage"]) for run in runs] == [
        ("2024-01", "failure", "billing_table"),
        ("2024-01", "failure", "staged_files"),
        ("2024-01", "success", "parquet"),
    ]
    assert "another billing month" in runs[0]["reason"]
    assert "'much' cannot be kept exactly" in runs[1]["reason"]
    assert runs[2]["reason"] is None
    starts = [datetime.fromisoformat(run["start"]) for run in runs]
    assert starts == sorted(starts, reverse=True)
    assert starts[0].tzinfo is not None
    assert all(0 < run["seconds"] < 600 for run in runs)
    every = finops.json("aws", "show-state", "--runs", "--export", "acme")
    assert [run["month"] for run in every] == ["2024-01", "2024-01", "2024-01", "2024-02"]


def test_failed_and_stale_months_are_listed_and_asked_for_again(
    project: Project, finops: Finops
) -> None:
    for month in ("2024-01", "2024-02", "2024-03"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    deliver(project.put, "2024-02", [items("2024-02", "much")], version="v1")
    finops.here("aws", "run-pipeline")
    assert [row["month"] for row in finops.json("state", "list", "--failed")] == ["2024-02"]
    assert "'much' cannot be kept exactly" in " ".join(finops("state", "list", "--failed").split())
    assert finops.json("state", "list", "--active") == []
    deliver(project.put, "2024-02", [items("2024-02", "7")], version="v2")
    deliver(project.put, "2024-03", [items("2024-03", "7")], version="v2")
    assert [row["month"] for row in finops.json("state", "list", "--stale")] == [
        "2024-03",
        "2024-02",
    ]
    said = finops("state", "reset-failed").splitlines()
    assert said[0] == "failed months: 1"
    assert said[1].startswith("acme 2024-02  exported  v2  1 rows  7.00")
    assert finops("state", "reset-failed") == "failed months: 0\n"
    assert finops.json("state", "list", "--failed") == []
    said = finops("state", "reprocess", "acme", "2024-01")
    assert said.startswith("acme 2024-01  exported  v1")


@pytest.mark.thorough
def test_what_disagrees_is_found_and_mended_by_the_command_that_is_named(
    project: Project, finops: Finops
) -> None:
    for month in ("2024-01", "2024-02", "2024-03"):
        deliver(project.put, month, [items(month, "1", "2")], version="v1")
    finops.here("aws", "run-pipeline")
    assert finops("state", "verify").startswith("all agree\n")

    project.parquet("2024-01").unlink()
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute(
            "DELETE FROM aws_billing_data "
            "WHERE billing_month = DATE '2024-02-01' AND lineitem_unblendedcost = 2"
        )
    project.load("2024-03", force=True)  # in another instance's history, so the same version
    finops("state", "verify", code=1)
    found = {row["month"]: row for row in finops.json("state", "verify", "acme")}
    assert found.keys() == {"2024-01", "2024-02"}
    assert "2024-01.parquet has no whole month, the table v1" in found["2024-01"]["what_differs"]
    assert "the table does not hold its rows" in found["2024-02"]["what_differs"]
    for row in found.values():
        finops(*row["mend"].split()[1:])
    assert finops("state", "verify").startswith("all agree\n")
    assert project.totals("2024-02") == (2, 3)


@pytest.mark.thorough
def test_a_database_that_is_lost_is_found_and_made_again(project: Project, finops: Finops) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    finops.here("aws", "run-pipeline")
    (project.folder / "data/finops.duckdb").unlink()
    (row,) = finops.json("state", "verify", "acme", "2024-01")
    assert row["what_differs"] == "the table holds None, the event log has v1"
    finops(*row["mend"].split()[1:])
    assert finops("state", "verify").startswith("all agree\n")


@pytest.mark.parametrize("how", ["ctrl-c", pytest.param("worker-stop", marks=pytest.mark.thorough)])
def test_a_run_is_stopped_and_the_same_command_goes_on(
    project: Project, finops: Finops, how: str
) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    with waiting_run(project, finops) as process:
        (row,) = finops.json("worker", "list", "--export", "acme")
        assert (row["export"], row["month"], row["lost"]) == ("acme", "2024-02", False)
        assert row["estimated_completion"] is None, "nothing was ever timed"
        assert finops.json("worker", "list", "--export", "other") == []
        if how == "ctrl-c":
            process.send_signal(signal.SIGINT)
        else:
            assert "is asked to stop" in finops("worker", "stop", row["run"][:8])
        printed, complained = process.communicate()
    assert process.returncode == 1
    assert complained.splitlines()[-1] == "stopped; the same command goes on where it stopped"
    assert "2024-01" not in printed
    assert finops("worker", "list") == "no run is in progress\n"
    said = finops("aws", "run-pipeline")
    assert said.count("exported  v1") == 2


def test_a_run_in_progress_is_estimated_by_those_before_it(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    finops.here("aws", "run-pipeline")
    deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2")
    with waiting_run(project, finops):
        (row,) = finops.json("worker", "list")
        (run, _) = finops.json("aws", "show-state", "--runs")
    assert (run["status"], run["last_stage"]) == ("started", row["stage"])
    started, end = (run["start"], row["estimated_completion"])
    assert datetime.fromisoformat(started) <= datetime.fromisoformat(end)


def test_a_run_whose_process_died_is_lost_and_can_be_mended(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    with waiting_run(project, finops) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (row,) = finops.json("worker", "list")
    assert row["lost"] is True
    project.parquet("2024-01").parent.mkdir(parents=True)
    unfinished = project.parquet("2024-01").with_name("acme-2024-01.parquet.part")
    unfinished.write_bytes(b"PAR1")
    rows = finops.json("state", "cleanup", "--stale", "--dry-run")
    assert [(one["what"], one["which"]) for one in rows] == [
        ("lost run", row["run"]),
        ("unfinished file", f"data/{unfinished.relative_to(project.folder / 'data')}"),
    ]
    assert unfinished.exists()
    said = finops("worker", "stop", row["run"])
    reason = f"process {process.pid} is gone"
    assert said == f"run {row['run']} is marked failed: {reason}; run its month again\n"
    assert finops("worker", "list") == "no run is in progress\n"
    assert finops("worker", "stop", row["run"], code=1).startswith("0 runs in progress")
    (stage,) = [
        row
        for row in finops.json("state", "show", "acme", "2024-01")
        if row["stage"] == "billing_table"
    ]
    assert stage["error"] == f"Ended by finops worker stop: {reason}."
    (change,) = finops.json("state", "changes")
    assert (change["command"], change["changes"]) == ("worker stop", [said.strip()])


@pytest.mark.thorough
def test_what_dead_runs_left_is_cleaned_up_and_what_goes_on_is_not(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    unfinished = project.folder / "data/staging/acme/2024-01/acme-1.csv.gz.part"
    with waiting_run(project, finops) as process:
        unfinished.write_bytes(b"\x1f\x8b")
        assert finops.json("state", "cleanup", "--stale") == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    rows = finops.json("state", "cleanup", "--stale")
    assert [row["what"] for row in rows] == ["lost run", "unfinished file"]
    assert not unfinished.exists()
    assert finops.json("worker", "list") == []
    assert [run["status"] for run in finops.json("aws", "show-state", "--runs")] == ["failure"]
    assert finops.json("state", "cleanup", "--stale") == []
    said = finops("aws", "run-pipeline")
    assert said.startswith("acme 2024-01  exported  v1")


# Calls finops in a process that ends itself when a stage has done its work and is about to say so.
KILLED_AT = """
import os, signal, sys
from dagster import DagsterInstance
from finops_dagster.cli.app import main
told = DagsterInstance.handle_new_event
def handle_new_event(self, event, **options):
    made = event.asset_materialization
    if made is not None and made.asset_key.path[-1] == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return told(self, event, **options)
DagsterInstance.handle_new_event = handle_new_event
sys.argv = ["finops", "aws", "run-pipeline"]
main()
"""


@pytest.mark.thorough
def test_a_run_killed_in_any_stage_is_taken_up_by_the_next_where_it_stopped(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", "2")], version="v1")
    stages = ["manifest", "staged_files", "billing_table", "parquet"]
    for number, stage in enumerate(stages):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT.format(stage=stage)],
            cwd=project.folder,
            env=finops.environment,
            stdout=subprocess.DEVNULL,  # what Dagster leaves behind would keep a pipe open
            stderr=subprocess.DEVNULL,
        )
        assert killed.returncode == -signal.SIGKILL
        lost = [row["lost"] for row in finops.json("worker", "list")]
        assert lost == [True], "the runs killed before were ended by this one"
        told = finops.json("state", "show", "acme", "2024-01")
        assert [row["version"] for row in told] == ["v1"] * number + [None] * (4 - number)
        assert [row["outcome"] for row in told][1:number] == ["unchanged"] * max(0, number - 1)
    said = finops("aws", "run-pipeline")
    assert said.startswith("acme 2024-01  unchanged  v1  2 rows  3.00")
    assert finops.json("worker", "list") == []
    assert project.query("SELECT count(*) FROM finops_state.runs") == [(1,)]
    assert finops("state", "verify").startswith("all agree\n")


def test_commands_that_begin_at_once_share_a_new_history(project: Project, finops: Finops) -> None:
    processes = [finops.start("worker", "list") for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["no run is in progress\n"] * 4
