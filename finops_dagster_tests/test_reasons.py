"""Terminal, state, JSON and report say why a month failed, or what it waits for."""

import errno
import os
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from filelock import FileLock
from pytest import MonkeyPatch

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.pipeline import checks, stage
from finops_dagster.pipeline.history import open_history
from finops_dagster.pipeline.instance import open_instance
from finops_dagster.pipeline.postgres_driver import check_driver
from finops_dagster.settings_table import SettingsError
from finops_dagster.traces import record_unexpected_error
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project

DATABASE, FILES = "data/finops.duckdb", "data/staging/acme/2024-01/v1"
WAITS = {
    "aws run-pipeline": f"{DATABASE} is open in process {os.getpid()} (",
    "state verify": f"{DATABASE} is open in process {os.getpid()} (",
    "state reprocess acme 2024-01": f"another run is staging the files in {FILES}; waiting",
}


@pytest.mark.thorough
def test_a_wait_for_a_lock_is_reported(project: Project, finops: Finops) -> None:
    project.deliver("1")
    finops.run_process("aws", "run-pipeline")  # which derives charges too, as the command does
    for command, reason in WAITS.items():
        lock = FileLock(f"{FILES}/.lock") if FILES in reason else duckdb.connect(DATABASE)
        with lock:
            process = finops.start(*command.split())
            assert process.stderr is not None
            line = process.stderr.readline()
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
        assert reason in line
        assert line.endswith("; waiting for it\n")
        assert "waiting" not in errors


@pytest.fixture
def with_server_down(project: Project, monkeypatch: MonkeyPatch) -> Finops:
    """Deliver a month for a PostgreSQL server that is down."""
    project.deliver("1")
    monkeypatch.setenv("OPEN_FINOPS_DATABASE_BACKEND", "postgresql")
    for name, value in {"HOST": project.folder, "DATABASE": "bills", "USER": "loader"}.items():
        monkeypatch.setenv(f"FINOPS_DATABASE__POSTGRESQL__{name}", str(value))
    return Finops(project)


@pytest.mark.thorough
def test_the_cause_of_a_retry_is_reported_at_once(with_server_down: Finops) -> None:
    cause = f"database bills at {with_server_down.project.folder}: "
    with with_server_down.start("aws", "run-pipeline") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        *_, last = with_server_down.json("state", "show", "acme", "2024-01")
        process.kill()
    assert line.startswith(f"acme 2024-01  {cause}")
    assert line.endswith("; trying again in 10 s (1 of 3)\n")
    assert last["error"].startswith(f"in progress, trying again: {cause}")


def test_the_cause_of_a_failure_is_the_same_everywhere(
    with_server_down: Finops, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SECONDS_BETWEEN_RETRIES", 0)
    printed = with_server_down.run("aws", "run-pipeline")
    (line,) = printed.stdout.splitlines()
    cause = f"database bills at {with_server_down.project.folder}: "
    assert line.startswith(f"acme 2024-01  failed: {cause}")
    assert line.endswith("; tried 4 times; run the month again later")
    assert [text[-8:] for text in printed.stderr.splitlines()] == [
        "(1 of 3)",
        "(2 of 3)",
        "(3 of 3)",
    ]
    (month,) = with_server_down.json("state", "list")
    *_, last = with_server_down.json("state", "show", "acme", "2024-01")
    (failed,) = with_server_down.json("state", "report")["failures_by_cause"]
    reason = line.removeprefix("acme 2024-01  failed: ")
    assert month["reason"] == last["error"] == failed["last"] == reason
    assert failed["cause"] == "WarehouseUnavailable"


@pytest.mark.thorough
def test_an_unexpected_error_of_a_run(
    project: Project, finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    not_fewer_rows, month_numbers = checks.not_fewer_rows, count(1)

    def surprise(*arguments: object) -> dg.AssetCheckResult:
        if next(month_numbers) == 2:
            raise KeyError("[/b] nobody\nknew")
        return not_fewer_rows(*arguments)

    for month in ("2024-01", "2024-02", "2024-03"):
        project.deliver("1", month=month)
    with monkeypatch.context() as broken:
        broken.setattr(checks, "not_fewer_rows", surprise)
        printed = finops.run("aws", "run-pipeline")
    assert printed.exit_code == 1
    third, second, first = printed.stdout.splitlines()
    assert printed.stderr.splitlines() == [second], "what failed is the last line"
    assert third.startswith("acme 2024-03  exported  v1")
    assert first.startswith("acme 2024-01  exported  v1")
    log = project.folder / ".dagster/finops_errors.log"
    reason = (
        "KeyError: '[/b] nobody\\nknew' (unexpected error: report it, with the trace at the end "
        f"of {log})"
    )
    assert second == f"acme 2024-02  failed: {reason}"
    assert "in surprise\n    raise KeyError" in log.read_text()
    (month,) = finops.json("state", "list", "--failed")
    assert month["reason"] == reason
    monkeypatch.setenv("DAGSTER_HOME", str(log.parent))
    with open_instance() as instance:
        (_, run, _) = instance.get_runs()
        failed = dg.DagsterEventType.STEP_FAILURE
        (record,) = instance.get_records_for_run(run.run_id, of_type=failed).records
    assert "in surprise" in str(record.event_log_entry)


def test_an_unexpected_error_of_a_command(finops: Finops) -> None:
    broken = "from finops_dagster.cli import app; app.app = lambda: {}['x']; app.main()"
    ended = subprocess.run(
        [sys.executable, "-c", broken], env=finops.environment, capture_output=True, text=True
    )
    log = finops.project.folder / ".dagster/finops_errors.log"
    line = f"KeyError: 'x' (unexpected error: report it, with the trace at the end of {log})\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", line)
    assert "in <lambda>" in log.read_text()


def test_the_log_of_traces_is_limited_and_optional(tmp_path: Path) -> None:
    log = tmp_path / "finops_errors.log"
    log.write_text("x" * 1_000_001)
    line = f"ValueError: rare (unexpected error: report it, with the trace at the end of {log})"
    assert record_unexpected_error(ValueError("rare"), tmp_path) == line
    assert "ValueError: rare" in log.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {log.name, f"{log.name}.1"}
    log.unlink()
    log.mkdir()
    line = record_unexpected_error(ValueError("rare"), tmp_path)
    assert line.startswith(
        "ValueError: rare (unexpected error: report it; its trace cannot be written to "
    )


def test_a_month_with_an_invalid_manifest_has_no_versions(project: Project, finops: Finops) -> None:
    project.put("acme-cur/20240101-20240201/acme-cur-Manifest.json", b"{")
    finops("aws", "run-pipeline", code=1)
    (row,) = finops.json("state", "list")
    assert (row["manifest"], row["staged_files"], row["last_run"]) == (None, None, "failure")
    assert "same" not in finops("state", "list")


@pytest.mark.thorough
def test_runs_that_dagster_started_are_reported(
    project: Project, finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    """`dagster asset materialize` and the UI start runs without the tag of the export's job."""
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / ".dagster"))
    project.deliver("1")
    project.deliver("much", month="2024-02")
    with open_instance() as instance:
        project.instance = instance
        project.load("2024-01")
        assert not project.materialize("2024-02").success
    report = finops.json("state", "report")
    (restarts,) = report["restarts"]
    assert (restarts["runs"], restarts["succeeded"], restarts["failed"]) == (2, 1, 1)
    (failed,) = report["failures_by_cause"]
    assert (failed["stage"], failed["cause"]) == ("staged_files", "CellInvalid")
    assert failed["months"] == "2024-02"
    assert "'much' cannot be kept exactly" in failed["last"]


def test_the_cause_of_a_failure_outside_of_the_stages(
    project: Project, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / ".dagster"))
    project.deliver("1")
    with open_instance() as instance:
        project.instance = instance
        lost, canceled = (
            instance.create_run_for_job(project.definitions().resolve_job_def("acme_month"))
            for _ in range(2)
        )
        instance.report_run_failed(lost)
        instance.report_run_canceled(canceled)
        locks = project.folder / ".dagster/finops_runs"
        locks.write_text("no folder")
        failed = project.materialize("2024-01")
    with open_history() as history:
        causes = {run_id: failure.cause for run_id, failure in history.failures.items()}
    assert causes == {
        lost.run_id: "the process was lost",
        canceled.run_id: "canceled",
        failed.run_id: "FileExistsError",
    }


@pytest.mark.parametrize("place", ["data", "data/staging", "data/parquet", ".dagster", None])
@pytest.mark.quick("data/parquet")
def test_a_file_in_place_of_a_folder_is_named(
    project: Project, finops: Finops, place: str | None
) -> None:
    project.deliver("1")
    if place is None:
        project.parquet_path().mkdir(parents=True)
        wanted = f"{project.parquet_path().name} is a folder where a file should be; move it"
    else:
        path = project.folder / place
        path.parent.mkdir(exist_ok=True)
        path.touch()
        wanted = f"{place} is a file where a folder should be; move it away, or"
    message = finops("aws", "run-pipeline", code=1)
    assert wanted in message
    assert not re.search(r"Error|Errno|Exception", message)


DISKS = {
    errno.ENOSPC: "its disk is full",
    errno.EDQUOT: "quota is used up",
    errno.EROFS: "its disk is read-only",
    errno.EACCES: "this user has no permission",
}


def test_disk_errors_are_sentences() -> None:
    for number, reason in DISKS.items():
        of_python = OSError(number, os.strerror(number), "data/a.gz")
        of_duckdb = duckdb.IOException(f'Cannot open file "data/a.gz": {os.strerror(number)}')
        for sentence in map(str, map(memory_or_disk_problem, (of_python, of_duckdb))):
            assert sentence.startswith("data/a.gz cannot be ")
            assert reason in sentence
    with pytest.raises(OSError) as full, open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x" * 100_000)
    assert str(memory_or_disk_problem(full.value)).startswith(
        "a file cannot be written: its disk is full"
    )
    assert memory_or_disk_problem(ValueError("Permission denied")) is None
    assert memory_or_disk_problem(duckdb.IOException("Could not set lock on file")) is None


@pytest.mark.parametrize(
    ("storage", "remedy"),
    [
        ("postgres: {postgres_db: {username: dagster}}", "add scheme: postgresql+psycopg2 below"),
        ("postgres: {postgres_url: 'postgresql://dagster@db'}", "postgres_url begin with"),
        ("postgres: {postgres_url: {env: DAGSTER_PG}}", "postgres_url begin with"),
        ("postgres: {postgres_db: {scheme: postgresql+psycopg2}}", None),
        ("postgres: {postgres_url: 'postgresql+psycopg2://dagster@db'}", None),
        ("sqlite: {base_dir: /data}", None),
    ],
)
def test_an_event_log_in_postgresql_needs_its_driver_named(
    tmp_path: Path, monkeypatch: MonkeyPatch, storage: str, remedy: str | None
) -> None:
    """Dagster's documentation shows these; with SQLAlchemy 2.1 they cannot write an event."""
    monkeypatch.setenv("DAGSTER_PG", "postgresql://dagster@db")
    instance = tmp_path / "dagster.yaml"
    instance.write_text(f"storage: {{{storage}}}\n")
    if remedy is None:
        check_driver(instance)
        return
    with pytest.raises(SettingsError, match=f"dagster.yaml: SQLAlchemy 2.*{re.escape(remedy)}"):
        check_driver(instance)


def test_a_history_that_cannot_be_opened_is_one_line(finops: Finops, project: Project) -> None:
    home = project.folder / ".dagster"
    home.mkdir()
    url = "storage: {postgres: {postgres_url: {env: NO_SUCH_VARIABLE}}}"
    (home / "dagster.yaml").write_text(url)
    assert finops("state", "list", code=1) == (
        f"{home}/dagster.yaml: Dagster cannot open the storage of its history: the environment "
        "variable NO_SUCH_VARIABLE is not set; start its database, or correct this file\n"
    )


def test_a_history_in_sqlite_that_cannot_be_opened_is_one_line(
    finops: Finops, project: Project
) -> None:
    home = project.folder / ".dagster"
    (home / "history" / "runs.db").mkdir(parents=True)  # a folder in the place of the file
    assert finops("state", "list", code=1) == (
        f"Dagster's history in {home} cannot be written: unable to open database file; free space "
        "on its disk, or allow writing to it, and run the same command again\n"
    )
