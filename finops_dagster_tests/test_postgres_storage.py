"""The commands answer the same where Dagster keeps its history in PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.test_state import waiting_run


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


def test_what_is_known_of_months_and_runs_is_the_same(project: Project, stored: Finops) -> None:
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
def test_runs_are_seen_stopped_cleaned_up_and_moved(project: Project, stored: Finops) -> None:
    project.deliver("2", month="2024-02", version="v2")
    with waiting_run(project, stored) as process:
        (run,) = stored.json("worker", "list")
        assert (run["process"], run["lost"]) == (process.pid, False)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert "is marked failed" in stored("worker", "stop", run["run"][:8])
    assert "acme 2024-02  exported  v2" in stored("aws", "run-pipeline")
    assert stored("state", "export", "state.json").endswith("1 exports, 5 runs\n")
    gone = stored.json("state", "cleanup", "--older-than", "0h")
    assert [row["what"] for row in gone].count("run") == 3
    assert stored("state", "import", "state.json") == "months taken over: 2\n"
    assert stored("state", "verify").startswith("all agree\n")
