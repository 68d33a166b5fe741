"""Why a month failed, or what it waits for, reaches people: terminal, state, JSON, report."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from filelock import FileLock

from finops_dagster.billing.disk import disk_problem
from finops_dagster.cli import month_runs
from finops_dagster.pipeline import billing_table, stage
from finops_dagster.pipeline.postgres_history import check_driver
from finops_dagster.pipeline.runs import open_instance
from finops_dagster.settings_table import SettingsError
from finops_dagster.traces import unforeseen
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project


@pytest.mark.parametrize(
    "command",
    [("aws", "run-pipeline"), pytest.param(("state", "verify"), marks=pytest.mark.thorough)],
)
def test_who_holds_the_database_is_said_while_it_is_waited_for(
    project: Project, finops: Finops, command: tuple[str, ...]
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    finops.here("aws", "run-pipeline")
    with duckdb.connect(str(project.database_file)):
        process = finops.start(*command)
        assert process.stderr is not None
        said = process.stderr.readline()
    printed, complained = process.communicate()
    assert process.returncode == 0, printed + complained
    assert f"data/finops.duckdb is open in process {os.getpid()} (" in said
    assert said.endswith("; waiting for it\n")
    assert "waiting" not in complained


@pytest.mark.thorough
def test_a_run_that_stages_the_same_files_is_said_while_it_is_waited_for(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    finops.here("aws", "run-pipeline")
    (lock,) = (project.folder / "data/staging/acme/2024-01").glob("*/.lock")
    with FileLock(lock):
        process = finops.start("state", "reprocess", "acme", "2024-01")
        assert process.stderr is not None
        said = process.stderr.readline()
    printed, complained = process.communicate()
    assert process.returncode == 0, printed + complained
    folder = lock.parent.relative_to(project.folder)
    assert said.endswith(f"another run is staging the files in {folder}; waiting for it\n")


def report(finops: Finops) -> dict[str, list[dict[str, Any]]]:
    """The tables of `finops state report`."""
    sections: dict[str, list[dict[str, Any]]] = json.loads(
        finops.here("state", "report", "--format", "json").stdout
    )
    return sections


@pytest.fixture
def without_server(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A month that is to go to a PostgreSQL that is down."""
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    monkeypatch.setenv("OPEN_FINOPS_DATABASE_BACKEND", "postgresql")
    for name, value in {"HOST": project.folder, "DATABASE": "bills", "USER": "loader"}.items():
        monkeypatch.setenv(f"FINOPS_DATABASE__POSTGRESQL__{name}", str(value))
    return project


def test_the_cause_of_a_retry_is_said_at_once(without_server: Project) -> None:
    finops = Finops(without_server)
    cause = f"database bills at {without_server.folder}: "
    with finops.start("aws", "run-pipeline") as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
        process.kill()
    assert said.startswith(f"acme 2024-01  {cause}")
    assert said.endswith("; trying again in 10 s (1 of 3)\n")
    assert stages["warehouse_table"]["error"].startswith(f"in progress, trying again: {cause}")


def test_the_last_failure_says_the_cause_everywhere(
    without_server: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SECONDS_BETWEEN_RETRIES", 0)
    finops = Finops(without_server)
    printed = finops.here("aws", "run-pipeline")
    cause = f"database bills at {without_server.folder}: "
    (line,) = printed.stdout.splitlines()
    assert line.startswith(f"acme 2024-01  failed: {cause}")
    assert line.endswith("; tried 4 times")
    assert [one[-8:] for one in printed.stderr.splitlines()] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]
    (month,) = finops.json("state", "list")
    (*_, last) = finops.json("state", "show", "acme", "2024-01")
    reason = line.removeprefix("acme 2024-01  failed: ")
    assert month["reason"] == last["error"] == reason
    (failed,) = report(finops)["failures_by_cause"]
    assert (failed["cause"], failed["last"]) == ("WarehouseUnavailable", reason)


def test_an_unforeseen_error_is_one_line_and_its_trace_is_kept(
    project: Project, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise KeyError("nobody\nknew")

    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    with monkeypatch.context() as broken:
        broken.setattr(billing_table, "not_fewer_rows", surprise)
        (line,) = finops.here("aws", "run-pipeline").stdout.splitlines()
    log = project.folder / ".dagster/finops_errors.log"
    assert line == (
        f"acme 2024-01  failed: KeyError: 'nobody\\nknew' (unforeseen; the full trace is at the "
        f"end of {log})"
    )
    assert "in surprise\n    raise KeyError" in log.read_text()
    (month,) = finops.json("state", "list", "--failed")
    assert month["reason"] == line.removeprefix("acme 2024-01  failed: ")
    with open_instance() as instance:
        (run,) = instance.get_runs()
        failed = dg.DagsterEventType.STEP_FAILURE
        (record,) = instance.get_records_for_run(run.run_id, of_type=failed).records
    assert "in surprise" in str(record.event_log_entry)


def test_an_unforeseen_error_of_a_command_is_one_line_too(finops: Finops) -> None:
    broken = "from finops_dagster.cli import app; app.app = lambda: {}['x']; app.main()"
    ended = subprocess.run(
        [sys.executable, "-c", broken],
        cwd=finops.project.folder,
        env=finops.environment,
        capture_output=True,
        text=True,
    )
    log = finops.project.folder / ".dagster/finops_errors.log"
    said = f"KeyError: 'x' (unforeseen; the full trace is at the end of {log})\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)
    assert "in <lambda>" in log.read_text()


def test_the_log_of_traces_does_not_grow_forever_and_is_not_needed(tmp_path: Path) -> None:
    log = tmp_path / "finops_errors.log"
    log.write_text("x" * 1_000_001)
    assert unforeseen(ValueError("rare"), tmp_path) == (
        f"ValueError: rare (unforeseen; the full trace is at the end of {log})"
    )
    assert "ValueError: rare" in log.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {log.name, f"{log.name}.1"}
    log.unlink()
    log.mkdir()
    said = unforeseen(ValueError("rare"), tmp_path)
    assert said.startswith("ValueError: rare (unforeseen; its trace cannot be kept in ")


def test_one_bad_month_never_keeps_the_next_from_being_run(
    project: Project, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_month = month_runs.run_month

    def broken(definitions, instance, export, month, **options):
        if str(month) == "2024-02":
            raise ZeroDivisionError("[/b] of the month")
        return run_month(definitions, instance, export, month, **options)

    monkeypatch.setattr(month_runs, "run_month", broken)
    for month in ("2024-01", "2024-02", "2024-03"):
        deliver(project.put, month, [items(month, "1")], version="v1")
    ended = finops.here("aws", "run-pipeline")
    assert ended.exit_code == 1
    said = {line.split()[1]: line for line in ended.stdout.splitlines()}
    assert said.keys() == {"2024-01", "2024-02", "2024-03"}
    assert "failed: ZeroDivisionError: [/b] of the month (unforeseen; " in said["2024-02"]
    assert "exported  v1" in said["2024-01"]
    assert "exported  v1" in said["2024-03"]


def test_a_month_that_failed_before_its_manifest_was_read_has_nothing(
    project: Project, finops: Finops
) -> None:
    project.put("acme-cur/20240101-20240201/acme-cur-Manifest.json", b"{")
    finops.here("aws", "run-pipeline")
    (row,) = finops.json("state", "list")
    assert (row["manifest"], row["staged_files"], row["last_run"]) == (None, None, "failure")
    assert "same" not in finops.here("state", "list").stdout


def test_runs_that_dagster_began_count_in_the_report(
    project: Project, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dagster asset materialize` and the UI begin them, without the tag of the export's job."""
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / ".dagster"))
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    deliver(project.put, "2024-02", [items("2024-02", "much")], version="v1")
    with open_instance() as instance:
        project.instance = instance
        project.load("2024-01")
        assert not project.materialize("2024-02").success
    sections = report(finops)
    (restarts,) = sections["restarts"]
    assert (restarts["runs"], restarts["succeeded"], restarts["failed"]) == (2, 1, 1)
    (failed,) = sections["failures_by_cause"]
    assert (failed["stage"], failed["cause"], failed["months"]) == (
        "staged_files",
        "CellInvalid",
        "2024-02",
    )
    assert "'much' cannot be kept exactly" in failed["last"]


@pytest.mark.parametrize("place", ["data", "data/staging", "data/parquet", ".dagster", None])
def test_a_file_where_a_folder_should_be_is_named_and_the_other_way_round(
    project: Project, finops: Finops, place: str | None
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    if place is None:
        project.parquet("2024-01").mkdir(parents=True)
        wanted = f"{project.parquet('2024-01').name} is a folder where a file should be; move it"
    else:
        path = project.folder / place
        path.parent.mkdir(exist_ok=True)
        path.touch()
        wanted = f"{place} is a file where a folder should be; move it away, or"
    said = finops("aws", "run-pipeline", code=1)
    assert wanted in said
    assert not re.search(r"Error|Errno|Exception", said)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "its disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "its disk is read-only"),
        (errno.EACCES, "this user has no permission"),
    ],
)
def test_what_the_disk_refuses_is_a_sentence(number: int, said: str) -> None:
    sentences = {
        disk_problem(OSError(number, os.strerror(number), "data/a.gz")),
        disk_problem(duckdb.IOException(f'Cannot open file "data/a.gz": {os.strerror(number)}')),
    }
    (sentence,) = sentences
    assert str(sentence).startswith("data/a.gz cannot be ")
    assert said in str(sentence)


def test_a_full_disk_is_said_without_a_path_and_nothing_of_what_is_not_of_the_disk() -> None:
    with pytest.raises(OSError) as full, open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x" * 100_000)
    assert str(disk_problem(full.value)).startswith("a file cannot be written: its disk is full")
    assert disk_problem(ValueError("Permission denied")) is None
    assert disk_problem(duckdb.IOException("Could not set lock on file")) is None


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
def test_a_history_in_postgresql_without_its_driver_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, remedy: str | None
) -> None:
    """As Dagster's own documentation gives it; with SQLAlchemy 2.1 no event could be written."""
    monkeypatch.setenv("DAGSTER_PG", "postgresql://dagster@db")
    instance = tmp_path / "dagster.yaml"
    instance.write_text(f"storage: {{{storage}}}\n")
    if remedy is None:
        check_driver(instance)
        return
    with pytest.raises(SettingsError, match=f"dagster.yaml: SQLAlchemy 2.*{re.escape(remedy)}"):
        check_driver(instance)
