"""State that people can see and mend: months that failed, runs that died, and what disagrees."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.cur import items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import STAGES, Project


@contextmanager
def waiting_run(project: Project, finops: Finops) -> Iterator[subprocess.Popen[str]]:
    """A run of January that has begun, and waits for the database that this process holds."""
    with duckdb.connect(str(project.database_file)):
        process = finops.start("aws", "run-pipeline")
        try:
            for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
                with attempt:
                    (row,) = finops.json("worker", "list")
                    assert row["stage"] == "billing_table"
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_month_is_shown_stage_by_stage_and_run_by_run(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1.5", month=month)
    finops("aws", "run-pipeline")
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    assert tuple(stages) == STAGES
    table = stages["billing_table"]
    assert (table["version"], table["rows"], table["cost"]) == ("v1", 1, "1.5")
    assert (table["outcome"], table["checks"], table["error"]) == ("loaded", "5 passed", None)
    assert len({row["run"] for row in stages.values()}) == 1

    project.deliver("much", version="v2")
    finops("aws", "run-pipeline", "--end-date", "2024-01", code=1)
    project.deliver(items("2024-02", "2"), version="v3")
    finops("aws", "run-pipeline", "--end-date", "2024-01", code=1)
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    table = stages["billing_table"]
    assert (stages["manifest"]["version"], table["version"]) == ("v3", "v1")
    assert "say that they belong to another billing month" in table["error"]
    assert table["checks"] == "failed: reconciles"
    assert stages["parquet"]["error"] == "not reached: billing_table failed"
    assert "not reached: billing_table failed" in finops("state", "show", "acme", "2024-01")

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


def test_failed_and_stale_months_are_listed_and_run_again(project: Project, finops: Finops) -> None:
    def listed(choice: str) -> list[str]:
        return [row["month"] for row in finops.json("state", "list", choice)]

    for month, cost in {"2024-01": "1", "2024-02": "much", "2024-03": "1"}.items():
        project.deliver(cost, month=month)
    finops("aws", "run-pipeline", code=1)
    assert (listed("--failed"), listed("--active")) == (["2024-02"], [])
    cell = "line 2, column \"lineItem/UnblendedCost\": 'much' cannot be kept exactly"
    assert cell in " ".join(finops("state", "list", "--failed").split())
    for month in ("2024-02", "2024-03"):
        project.deliver("7", month=month, version="v2")
    assert listed("--stale") == ["2024-03", "2024-02"]
    first, second = finops("state", "reset-failed").splitlines()
    assert first == "failed months: 1"
    assert second.startswith("acme 2024-02  exported  v2  1 rows  7.00")
    assert finops("state", "reset-failed") == "failed months: 0\n"
    assert listed("--failed") == []
    again = finops("state", "reprocess", "acme", "2024-01")
    assert again.startswith("acme 2024-01  exported  v1")


@pytest.mark.thorough
def test_what_disagrees_is_mended_by_the_command_named(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02", "2024-03"):
        project.deliver("1", "2", month=month)
    finops("aws", "run-pipeline")
    assert finops("state", "verify").startswith("all agree\n")

    project.parquet("2024-01").unlink()
    project.change(
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

    project.database_file.unlink()
    row, *_ = finops.json("state", "verify", "acme", "2024-01")
    assert row["what_differs"] == "the table holds None, the event log has v1"
    finops(*row["mend"].split()[1:])
    assert finops("state", "verify", "acme", "2024-01").startswith("all agree\n")


@pytest.mark.parametrize("how", ["ctrl-c", pytest.param("worker-stop", marks=pytest.mark.thorough)])
def test_a_stopped_run_is_gone_on_with(project: Project, finops: Finops, how: str) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
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
    assert finops("aws", "run-pipeline").count("exported  v1") == 2


def test_a_run_in_progress_is_estimated_and_one_whose_process_died_is_lost_and_can_be_mended(
    project: Project, finops: Finops
) -> None:
    project.deliver("1")
    finops("aws", "run-pipeline")
    project.deliver("2", version="v2")
    with waiting_run(project, finops) as process:
        (row,) = finops.json("worker", "list")
        assert row["lost"] is False
        (run, _) = finops.json("aws", "show-state", "--runs")
        assert (run["status"], run["last_stage"]) == ("started", row["stage"])
        started, end = (run["start"], row["estimated_completion"])
        assert datetime.fromisoformat(started) <= datetime.fromisoformat(end)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (row,) = finops.json("worker", "list")
    assert row["lost"] is True
    unfinished = project.parquet().with_name("acme-2024-01.parquet.part")
    unfinished.write_bytes(b"PAR1")
    rows = finops.json("state", "cleanup", "--stale", "--dry-run")
    assert [(one["what"], one["which"]) for one in rows] == [
        ("lost run", row["run"]),
        ("unfinished file", str(unfinished.relative_to(project.folder))),
    ]
    assert unfinished.exists()
    stopped = finops("worker", "stop", row["run"])
    reason = f"process {process.pid} is gone"
    assert stopped == f"run {row['run']} is marked failed: {reason}; run its month again\n"
    assert finops("worker", "list") == "no run is in progress\n"
    assert finops("worker", "stop", row["run"], code=1).startswith("0 runs in progress")
    stages = {stage["stage"]: stage for stage in finops.json("state", "show", "acme", "2024-01")}
    assert stages["billing_table"]["error"] == f"Ended by finops worker stop: {reason}."
    (change,) = finops.json("state", "changes")
    assert (change["command"], change["changes"]) == ("worker stop", [stopped.strip()])


@pytest.mark.thorough
def test_what_dead_runs_left_is_cleaned_up_and_no_more(project: Project, finops: Finops) -> None:
    project.deliver("1")
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
    assert finops("aws", "run-pipeline").startswith("acme 2024-01  exported  v1")


def test_commands_that_begin_at_once_share_a_new_history(project: Project, finops: Finops) -> None:
    processes = [finops.start("worker", "list") for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["no run is in progress\n"] * 4
