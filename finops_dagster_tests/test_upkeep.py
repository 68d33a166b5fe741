"""The schedule `state_upkeep`: a backup in a folder or in the lake's store, and what it deletes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finops_dagster.settings import Settings
from finops_dagster.upkeep import backup_store, upkeep_definitions
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.servers.s3 import S3Server

DAY = 24 * 3600


def keep_up(project: Project, settings: Settings) -> dg.ExecuteInProcessResult:
    """Run the job of the schedule, and return its result."""
    job = upkeep_definitions(settings).resolve_job_def("state_upkeep")
    return job.execute_in_process(instance=project.instance, raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_a_backup_is_written_and_what_is_old_is_deleted(
    project: Project, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.deliver("1", "2")
    finops("aws", "run-pipeline")
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / ".dagster"))
    project.instance = dg.DagsterInstance.get()
    for path in (project.folder / "data/staging/acme").rglob("*"):
        os.utime(path, (time.time() - 31 * DAY, time.time() - 31 * DAY))
    backups, now = project.folder / "data/parquet/backups", datetime.now(UTC)
    backups.mkdir()
    names = [f"state-{now - timedelta(days=days):%Y%m%dT%H%M%SZ}.json" for days in (6, 8)]
    for name in (*names, "notes.json"):
        (backups / name).write_text("{}")

    result = keep_up(project, finops_settings(project))
    assert result.success
    assert (backups / names[0]).exists() and (backups / "notes.json").exists()
    assert not (backups / names[1]).exists()
    recorded = metadata(result)
    lines = [json.loads(line) for line in Path(recorded["backup"]).read_text().splitlines()]
    assert [line["version"] for line in lines if line["kind"] == "load"] == ["v1"]
    assert recorded["deleted"] == 2
    assert [line.rpartition("/")[2] for line in recorded["changes"]] == ["v1", names[1]]
    assert [p.name for p in (project.folder / "data/staging").iterdir()] == ["acme"]
    assert finops("state", "import", recorded["backup"]) == "months imported: 1\n"
    assert finops("aws", "run-pipeline").startswith("acme 2024-01  unchanged")


def finops_settings(project: Project) -> Settings:
    """Return settings whose months are those of the `finops` command in the project."""
    project.export |= {"start_month": "2024-01"}
    return project.settings()


@pytest.mark.thorough
def test_backups_go_to_the_store_of_the_lake(project: Project, s3: S3Server, bucket: str) -> None:
    project.storage = {
        "parquet_dir": f"s3://{bucket}/lake",
        "lake": {"endpoint_url": s3.url, "region": "us-east-1"},
    }
    project.deliver("1")
    project.load()
    store, folder = backup_store(project.settings())
    old = project.folder / "old.json"
    old.write_text("{}")
    store.upload(old, f"{folder}/state-20240101T040000Z.json")
    result = keep_up(project, project.settings())
    assert result.success
    (backup,) = store.files(folder)
    assert backup.location == metadata(result)["backup"]
    assert backup.location.startswith(f"s3://{bucket}/lake/backups/state-")


def test_nothing_is_deleted_without_a_backup(project: Project) -> None:
    (project.folder / "file").write_text("")
    settings = Settings.model_validate(
        {"exports": [project.export], "upkeep": {"backup_dir": "file/backups"}}
    )
    result = keep_up(project, settings)
    (failure,) = result.get_step_failure_events()
    message = failure.step_failure_data.user_failure_data.description
    assert message.startswith(f"{project.folder}/file/backups/state-")
    assert "cannot be written: " in message
    assert len(message.splitlines()) == 1


BACKUP, RESTORE = re.findall(
    r"```sh\n(.*?)```",
    (ROOT / "docs/operations.md").read_text().partition("### How do I back up and restore")[2],
    re.DOTALL,
)[:2]


def run_in_shell(commands: str, environment: dict[str, str]) -> None:
    process = subprocess.run(
        ["bash", "-e", "-c", commands], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.thorough
def test_a_backup_and_the_lake_give_back_what_a_machine_had(
    project: Project, finops: Finops
) -> None:
    with PostgreSQLServer() as server:
        with server.connect() as connection:
            connection.execute("CREATE DATABASE dagster")
        address = f"//postgres@/dagster?host={server.host}"
        home = project.folder / ".dagster"
        home.mkdir()
        storage = {"postgres_url": f"postgresql+psycopg2:{address}"}
        (home / "dagster.yaml").write_text(json.dumps({"storage": {"postgres": storage}}))
        environment = {
            **finops.environment,
            "DAGSTER_HOME": str(home),
            "DAGSTER_PG_URL": f"postgresql:{address}",
            "PATH": f"{Path(sys.executable).parent}:{server.programs}:{os.environ['PATH']}",
        }
        for version, cost in {"v1": "1", "v2": "2"}.items():
            project.deliver(cost, version=version)
            finops.run_process("aws", "run-pipeline", DAGSTER_HOME=str(home))
        run_in_shell(BACKUP, environment)
        before = finops.json("state", "list")
        versions = project.ledger()

        (project.folder / "data/finops.duckdb").unlink()
        shutil.rmtree(project.folder / "data/staging")
        with server.connect() as connection:
            connection.execute("DROP DATABASE dagster")
            connection.execute("CREATE DATABASE dagster")
        run_in_shell(RESTORE, environment)
        assert finops.json("state", "list") == before
        assert project.ledger() == versions == [("v1", "superseded"), ("v2", "loaded")]
        runs = finops.json("aws", "show-state", "--runs")
        assert [run["status"] for run in runs] == ["success"] * 3


@pytest.mark.parametrize("schedule", [False, True])
def test_the_schedule_is_off_unless_the_settings_switch_it_on(
    project: Project, schedule: bool
) -> None:
    settings = Settings.model_validate(
        {"exports": [project.export], "upkeep": {"schedule": schedule}}
    )
    definition = upkeep_definitions(settings).get_schedule_def("state_upkeep")
    assert definition.default_status.value == ("RUNNING" if schedule else "STOPPED")
    assert definition.job_name == "state_upkeep"
