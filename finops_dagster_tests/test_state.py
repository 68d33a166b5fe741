"""`finops state` and `finops worker`: failed and stale months, verification, lost runs."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster.cli.worker import runs_in_progress, time_left_text
from finops_dagster.pipeline.history import History, Run
from finops_dagster_tests.cur import line_items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import STAGES, Project
from finops_dagster_tests.servers.postgresql import PostgreSQLServer


@contextmanager
def waiting_run(project: Project, finops: Finops) -> Iterator[subprocess.Popen[str]]:
    """Start a run that waits for the DuckDB file, which this process keeps locked."""
    with duckdb.connect(str(project.database_file)):
        process = finops.start("aws", "run-pipeline")
        try:
            for attempt in Retrying(stop=stop_after_delay(300), wait=wait_fixed(0.2), reraise=True):
                with attempt:
                    (row,) = finops.json("worker", "list")
                    assert row["stage"] == "billing_table"
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_month_is_shown_by_stage_and_by_run(project: Project, finops: Finops) -> None:
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
    project.deliver(line_items("2024-02", "2"), version="v3")
    finops("aws", "run-pipeline", "--end-date", "2024-01", code=1)
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    table = stages["billing_table"]
    assert (stages["manifest"]["version"], table["version"]) == ("v3", "v1")
    assert "of another billing month" in table["error"]
    assert table["checks"] == "failed: reconciles"
    assert stages["parquet"]["error"] == "not reached: billing_table failed"
    assert "not reached: billing_table failed" in finops("state", "show", "acme", "2024-01")
    too_early = finops("state", "show", "acme", "2020-01", code=1)
    assert too_early.startswith("acme has no month 2020-01; choose from 2024-01 (start_month) to ")

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
    all_runs = finops.json("aws", "show-state", "--runs", "--export", "acme")
    assert [run["month"] for run in all_runs] == ["2024-01", "2024-01", "2024-01", "2024-02"]


@pytest.mark.thorough
def test_failed_and_stale_months_are_listed_and_run_again(project: Project, finops: Finops) -> None:
    def listed(option: str) -> list[str]:
        return [row["month"] for row in finops.json("state", "list", option)]

    for month, cost in {"2024-01": "1", "2024-02": "much", "2024-03": "1"}.items():
        project.deliver(cost, month=month)
    finops("aws", "run-pipeline", code=1)
    assert (listed("--failed"), listed("--active")) == (["2024-02"], [])
    cell = "line 2, column \"lineItem/UnblendedCost\": 'much' cannot be kept exactly"
    assert cell in " ".join(finops("state", "list", "--failed").split())
    for month in ("2024-02", "2024-03"):
        project.deliver("7", month=month, version="v2")
    assert listed("--stale") == ["2024-03", "2024-02"]
    count, line = finops("state", "reset-failed").splitlines()
    assert count == "failed months: 1"
    assert line.startswith("acme 2024-02  exported  v2  1 row  7.00")
    assert finops("state", "reset-failed") == "failed months: 0\n"
    assert listed("--failed") == []
    line = finops("state", "reprocess", "acme", "2024-01")
    assert line.startswith("acme 2024-01  exported  v1")


@pytest.mark.thorough
def test_stages_that_a_later_failed_run_completed_are_not_missing(project: Project) -> None:
    project.deliver("much")
    assert not project.materialize(stages=[*STAGES]).success
    project.deliver("1", version="v2")
    blocked = project.parquet_path().parent.parent
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("no folder")
    run = project.materialize(stages=[*STAGES])
    assert (run.success, run.stages()[-1]) == (False, "billing_table")
    status, _ = History(project.instance).month_status("acme", "2024-01")
    assert status == "failure"
    blocked.unlink()
    project.load(stages=["parquet"])
    assert History(project.instance).month_status("acme", "2024-01") == ("success", None)


def test_options_that_exclude_each_other_are_named(finops: Finops) -> None:
    for command, pair in {
        "state verify --repair --json": "--json and --repair exclude each other; leave out one",
        "state verify --mend --json": "--json and --repair exclude each other; leave out one",
        "state report --json --format html": "--json and --format html exclude each other; leave",
        "state report --json --format table": "--json and --format table exclude each other; leave",
    }.items():
        assert pair in " ".join(finops(*command.split(), code=2).replace("│", " ").split())
    report = finops.run("state", "report", "--json", "--format", "json").stdout
    assert report == finops.run("state", "report", "--json").stdout != ""


@pytest.mark.thorough
@pytest.mark.parametrize("by_command", [False, True])
def test_differences_are_found_and_repaired(
    project: Project, finops: Finops, by_command: bool
) -> None:
    for month in ("2024-01", "2024-02", "2024-03"):
        project.deliver("1", "2", month=month)
    finops("aws", "run-pipeline")
    assert finops("state", "verify").startswith("all agree\n")

    project.parquet_path("2024-01").unlink()
    project.execute(
        "DELETE FROM aws_billing_data "
        "WHERE billing_month = DATE '2024-02-01' AND lineitem_unblendedcost = 2"
    )
    # A load in the history of another instance leaves the same version, which is no difference.
    project.load("2024-03", force=True)
    finops("state", "verify", code=1)
    differences = {row["month"]: row for row in finops.json("state", "verify", "acme")}
    assert differences.keys() == {"2024-01", "2024-02"}
    assert (
        "2024-01.parquet has no complete month, the table v1"
        in differences["2024-01"]["what_differs"]
    )
    assert "the table does not have its rows and cost" in differences["2024-02"]["what_differs"]
    if by_command:
        printed = "".join(finops(*row["repair"].split()[1:]) for row in differences.values())
    else:
        printed = finops("state", "verify", "--repair")
        assert (
            finops("state", "verify", "--mend") == "--mend is now called --repair; use that name\n"
        )
    assert "acme 2024-01  exported  v1  2 rows  3.00" in printed
    assert "acme 2024-02  loaded  v1  2 rows  3.00" in printed
    assert finops("state", "verify").startswith("all agree\n")
    assert project.totals("2024-02") == (2, 3)

    project.database_file.unlink()
    (row,) = finops.json("state", "verify", "acme", "2024-01")
    assert row["what_differs"] == "the table has no version, the event log v1"
    finops(*row["repair"].split()[1:])
    assert finops("state", "verify", "acme", "2024-01").startswith("all agree\n")


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["ctrl-c", "worker-stop"])
def test_a_stopped_run_continues_with_the_same_command(
    project: Project, finops: Finops, way: str
) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
    with waiting_run(project, finops) as process:
        (row,) = finops.json("worker", "list", "--export", "acme")
        assert (row["export"], row["month"], row["lost"]) == ("acme", "2024-02", False)
        assert row["estimated_completion"] is None, "nothing was ever timed"
        assert row["seconds_left"] is None
        assert finops.json("worker", "list", "--export", "other") == []
        if way == "ctrl-c":
            process.send_signal(signal.SIGINT)
        else:
            assert "is stopping" in finops("worker", "stop", row["run"][:8])
        stdout, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr.splitlines()[-1] == "stopped; run the same command again to continue"
    assert "2024-01" not in stdout
    assert finops("worker", "list") == "no run is in progress\n"
    assert finops("aws", "run-pipeline").count("exported  v1") == 2


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["stop", "cleanup"])
def test_a_lost_run_is_seen_and_marked_as_failed(
    project: Project, finops: Finops, way: str
) -> None:
    project.deliver("1")
    finops("aws", "run-pipeline")
    project.deliver("2", version="v2")
    unfinished = project.parquet_path().with_name("acme-2024-01.parquet.part")
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
    assert [(row["what"], row["which"]) for row in rows] == [
        ("lost run", row["run"]),
        ("unfinished file", str(unfinished.relative_to(project.folder))),
    ]
    assert unfinished.exists()
    if way == "cleanup":
        assert finops.json("state", "cleanup", "--stale") == rows
        assert not unfinished.exists()
        assert finops.json("state", "cleanup", "--stale") == []
    else:
        stopped = finops("worker", "stop", row["run"])
        reason = f"process {process.pid} is gone"
        assert stopped == f"run {row['run']} is marked as failed: {reason}; run its month again\n"
        assert finops("worker", "stop", row["run"], code=1).startswith("no run in progress has")
        _, _, table, _ = finops.json("state", "show", "acme", "2024-01")
        assert table["error"] == f"Ended by finops worker stop: {reason}; run its month again."
        (change,) = finops.json("state", "changes")
        assert (change["command"], change["changes"]) == ("worker stop", [stopped.strip()])
    assert finops("worker", "list") == "no run is in progress\n"
    (run, _) = finops.json("aws", "show-state", "--runs")
    assert run["status"] == "failure"
    assert finops("aws", "run-pipeline").startswith("acme 2024-01  exported  v2")


def test_an_end_is_estimated_if_every_export_has_been_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {"acme": {"manifest": [1.0, 3.0], "parquet": [5.0]}, "new": {"parquet": []}}
    monkeypatch.setattr(History, "stage_seconds", lambda _, export: seconds[export])
    assert History(None).usual_duration(["acme"]) == timedelta(seconds=7)
    assert History(None).usual_duration(["acme", "new"]) is None
    assert History(None).usual_duration([]) is None


@pytest.mark.parametrize(
    ("seconds", "left", "text"),
    [(180, 120, "0:02:00 of 0:05:00"), (400, 0, "0:00:00 of 0:06:40"), (180, None, "unknown")],
)
def test_the_time_left_is_shown_of_the_whole(seconds: int, left: int | None, text: str) -> None:
    assert time_left_text({"seconds": seconds, "seconds_left": left}) == text


@pytest.mark.parametrize(("began", "left"), [(60, range(235, 241)), (900, range(1))])
def test_the_time_left_is_what_earlier_loads_took_less_what_has_passed(
    monkeypatch: pytest.MonkeyPatch, began: int, left: range
) -> None:
    monkeypatch.setattr(History, "stage_seconds", lambda *_: {"parquet": [300.0]})
    monkeypatch.setattr(History, "reached_stage", lambda *_: "parquet")
    started = datetime.now(UTC) - timedelta(seconds=began)
    history = History(None)
    history.runs = [Run("1", "started", "2024-01", started, None, {"acme": ("parquet",)})]
    (row,) = runs_in_progress(history)
    assert row["seconds_left"] in left


def test_commands_that_start_together_share_a_new_history(project: Project, finops: Finops) -> None:
    processes = [finops.start("worker", "list") for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["no run is in progress\n"] * 4


@pytest.fixture
def with_postgresql(project: Project, finops: Finops) -> Iterator[Finops]:
    """Yield a project with a loaded and a failed month, whose history is in PostgreSQL."""
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


@pytest.mark.thorough
def test_history_in_postgresql_answers_the_same(project: Project, with_postgresql: Finops) -> None:
    failed, loaded = with_postgresql.json("state", "list")
    assert (loaded["parquet"], loaded["cost"], loaded["last_run"]) == ("v1", "1.5", "success")
    assert (failed["billing_table"], failed["last_run"]) == (None, "failure")
    assert "'much' cannot be kept exactly" in failed["reason"]
    *_, parquet = with_postgresql.json("state", "show", "acme", "2024-01")
    assert (parquet["version"], parquet["rows"], parquet["outcome"]) == ("v1", 1, "exported")
    report = with_postgresql.json("state", "report")
    assert report["failures_by_cause"][0]["cause"] == "CellInvalid"
    assert {row["times"] for row in report["times"]} <= {1, 2}
    assert report["restarts"][0]["runs"] == 2
    runs = with_postgresql.json("aws", "show-state", "--runs")
    assert [run["status"] for run in runs] == ["success", "failure"]
    assert with_postgresql("state", "verify").startswith("all agree\n")
    assert with_postgresql.json("worker", "list") == []
    assert not (project.folder / ".dagster/history/runs.db").exists()


@pytest.mark.thorough
def test_runs_in_postgresql_are_listed_stopped_and_exported(
    project: Project, with_postgresql: Finops
) -> None:
    project.deliver("2", month="2024-02", version="v2")
    with waiting_run(project, with_postgresql) as process:
        (run,) = with_postgresql.json("worker", "list")
        assert (run["process"], run["lost"]) == (process.pid, False)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert "is marked as failed" in with_postgresql("worker", "stop", run["run"][:8])
    assert "acme 2024-02  exported  v2" in with_postgresql.run_process("aws", "run-pipeline")
    assert with_postgresql("state", "export", "state.json").endswith("1 export, 5 runs\n")
    deleted = with_postgresql.json("state", "cleanup", "--older-than", "0h")
    assert [row["what"] for row in deleted].count("run") == 3
    assert with_postgresql.run_process("state", "import", "state.json") == "months imported: 2\n"
    assert with_postgresql.run_process("state", "verify").startswith("all agree\n")
