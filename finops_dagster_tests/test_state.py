"""State that people can see and mend: months that failed, runs that died, and what disagrees."""

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
from finops_dagster_tests.servers.postgresql import PostgreSQLServer


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
    assert (table["outcome"], table["checks"], table["error"]) == ("loaded", "4 passed", None)
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


@pytest.mark.parametrize("named", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_what_disagrees_is_mended(project: Project, finops: Finops, named: bool) -> None:
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
    assert "2024-01.parquet has no complete month, the table v1" in found["2024-01"]["what_differs"]
    assert "the table does not have its rows" in found["2024-02"]["what_differs"]
    if named:
        mended = "".join(finops(*row["repair"].split()[1:]) for row in found.values())
    else:
        mended = finops("state", "verify", "--repair")
        assert finops("state", "verify", "--mend") == "--mend is now called --repair\n"
    for month in found:
        assert f"acme {month}  exported  v1  2 rows  3.00" in mended
    assert finops("state", "verify").startswith("all agree\n")
    assert project.totals("2024-02") == (2, 3)

    project.database_file.unlink()
    (row,) = finops.json("state", "verify", "acme", "2024-01")
    assert row["what_differs"] == "the table has no version, the event log v1"
    finops(*row["repair"].split()[1:])
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
            assert "was asked to stop" in finops("worker", "stop", row["run"][:8])
        printed, complained = process.communicate()
    assert process.returncode == 1
    assert complained.splitlines()[-1] == "stopped; run the same command again to continue"
    assert "2024-01" not in printed
    assert finops("worker", "list") == "no run is in progress\n"
    assert finops("aws", "run-pipeline").count("exported  v1") == 2


@pytest.mark.parametrize("how", ["stop", pytest.param("cleanup", marks=pytest.mark.thorough)])
def test_a_run_is_estimated_and_its_death_seen(project: Project, finops: Finops, how: str) -> None:
    project.deliver("1")
    finops("aws", "run-pipeline")
    project.deliver("2", version="v2")
    unfinished = project.parquet().with_name("acme-2024-01.parquet.part")
    with waiting_run(project, finops) as process:
        (row,) = finops.json("worker", "list")
        assert row["lost"] is False
        unfinished.write_bytes(b"PAR1")
        assert finops.json("state", "cleanup", "--stale") == []
        (run, _) = finops.json("aws", "show-state", "--runs")
        assert (run["status"], run["last_stage"]) == ("started", row["stage"])
        started, end = (run["start"], row["estimated_completion"])
        assert datetime.fromisoformat(started) <= datetime.fromisoformat(end)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (row,) = finops.json("worker", "list")
    assert row["lost"] is True
    rows = finops.json("state", "cleanup", "--stale", "--dry-run")
    assert [(one["what"], one["which"]) for one in rows] == [
        ("lost run", row["run"]),
        ("unfinished file", str(unfinished.relative_to(project.folder))),
    ]
    assert unfinished.exists()
    if how == "cleanup":
        assert finops.json("state", "cleanup", "--stale") == rows
        assert not unfinished.exists()
        assert finops.json("state", "cleanup", "--stale") == []
    else:
        stopped = finops("worker", "stop", row["run"])
        reason = f"process {process.pid} is gone"
        assert stopped == f"run {row['run']} is marked as failed: {reason}; run its month again\n"
        assert finops("worker", "stop", row["run"], code=1).startswith("0 runs in progress")
        _, _, table, _ = finops.json("state", "show", "acme", "2024-01")
        assert table["error"] == f"Ended by finops worker stop: {reason}."
        (change,) = finops.json("state", "changes")
        assert (change["command"], change["changes"]) == ("worker stop", [stopped.strip()])
    assert finops("worker", "list") == "no run is in progress\n"
    (run, _) = finops.json("aws", "show-state", "--runs")
    assert run["status"] == "failure"
    assert finops("aws", "run-pipeline").startswith("acme 2024-01  exported  v2")


def test_commands_that_begin_at_once_share_a_new_history(project: Project, finops: Finops) -> None:
    processes = [finops.start("worker", "list") for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["no run is in progress\n"] * 4


@pytest.fixture
def stored(project: Project, finops: Finops) -> Iterator[Finops]:
    """A month that was loaded, and one that failed, with their history in PostgreSQL."""
    with PostgreSQLServer() as server:
        with server.connect() as connection:
            connection.execute("CREATE DATABASE dagster")
        url = f"postgresql+psycopg2://postgres@/dagster?host={server.host}"
        home = project.folder / ".dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n")
        project.deliver("1.5")
        project.deliver("much", month="2024-02")
        finops("aws", "run-pipeline", code=1)
        yield finops


def test_postgresql_knows_the_same(project: Project, stored: Finops) -> None:
    failed, loaded = stored.json("state", "list")
    assert (loaded["parquet"], loaded["cost"], loaded["last_run"]) == ("v1", "1.5", "success")
    assert (failed["billing_table"], failed["last_run"]) == (None, "failure")
    assert "'much' cannot be kept exactly" in failed["reason"]
    *_, parquet = stored.json("state", "show", "acme", "2024-01")
    assert (parquet["version"], parquet["rows"], parquet["outcome"]) == ("v1", 1, "exported")
    report = stored.json("state", "report")
    assert report["failures_by_cause"][0]["cause"] == "CellInvalid"
    assert {row["times"] for row in report["times"]} <= {1, 2}
    assert report["restarts"][0]["runs"] == 2
    runs = stored.json("aws", "show-state", "--runs")
    assert [run["status"] for run in runs] == ["success", "failure"]
    assert stored("state", "verify").startswith("all agree\n")
    assert stored.json("worker", "list") == []
    assert not (project.folder / ".dagster/history/runs.db").exists()


@pytest.mark.thorough
def test_runs_in_postgresql_are_seen_stopped_and_moved(project: Project, stored: Finops) -> None:
    project.deliver("2", month="2024-02", version="v2")
    with waiting_run(project, stored) as process:
        (run,) = stored.json("worker", "list")
        assert (run["process"], run["lost"]) == (process.pid, False)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert "is marked as failed" in stored("worker", "stop", run["run"][:8])
    assert "acme 2024-02  exported  v2" in stored("aws", "run-pipeline")
    assert stored("state", "export", "state.json").endswith("1 exports, 5 runs\n")
    gone = stored.json("state", "cleanup", "--older-than", "0h")
    assert [row["what"] for row in gone].count("run") == 3
    assert stored("state", "import", "state.json") == "months imported: 2\n"
    assert stored("state", "verify").startswith("all agree\n")
