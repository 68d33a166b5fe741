"""What the command reads from Dagster's tables is what Dagster itself says."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from finops_dagster.cli.event_log import EventLog
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.runs import open_instance
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import Project


@pytest.fixture
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of a month that was restated and then failed, one that is whole, and one that was
    never delivered."""
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / "home"))
    with open_instance() as instance:
        project.instance = instance
        for month in ("2024-01", "2024-02"):
            deliver(project.put, month, [items(month, "1")], version="v1")
            project.load(month)
        deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2")
        project.load("2024-01")
        deliver(project.put, "2024-01", [items("2024-01", "much")], version="v3")
        for month in ("2024-01", "2024-03"):
            assert not project.materialize(month).success
    return project.folder / "home"


def what_dagster_says() -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    versions, unfinished = {}, {}
    with open_instance() as instance:
        log = instance.event_log_storage
        for stage in STAGES:
            key = dg.AssetKey(["acme", stage])
            made = dg.DagsterEventType.ASSET_MATERIALIZATION
            tags = log.get_latest_tags_by_partition(key, made, tag_keys=["dagster/data_version"])
            if tags:
                versions[stage] = {m: found["dagster/data_version"] for m, found in tags.items()}
            runs = log.get_latest_asset_partition_materialization_attempts_without_materializations(
                key
            )
            if runs:
                unfinished[stage] = {month: run for month, (run, _) in runs.items()}
    return versions, unfinished


def test_versions_and_unfinished_months_are_what_dagster_says(home: Path) -> None:
    versions, unfinished = what_dagster_says()
    assert versions["manifest"] == {"2024-01": "v3", "2024-02": "v1"}
    assert unfinished["billing_table"].keys() == {"2024-01", "2024-03"}
    assert EventLog().versions("acme") == versions
    assert EventLog().unfinished_runs("acme") == unfinished
    assert EventLog().unfinished_months("acme") == {"2024-01": "failure", "2024-03": "failure"}
    assert EventLog().versions("other") == {}


@pytest.mark.thorough
def test_a_history_in_another_place_is_found_through_dagster(home: Path, tmp_path: Path) -> None:
    versions, unfinished = what_dagster_says()
    shutil.copytree(home / "history", tmp_path / "elsewhere/history")
    shutil.rmtree(home / "history")
    assert EventLog().versions("acme") == {}
    (home / "dagster.yaml").write_text(f"storage: {{sqlite: {{base_dir: {tmp_path}/elsewhere}}}}")
    log = EventLog()
    assert (log.versions("acme"), log.unfinished_runs("acme")) == (versions, unfinished)
    assert log.unfinished_months("acme") == {"2024-01": "failure", "2024-03": "failure"}


@pytest.mark.thorough
def test_what_was_wiped_does_not_count(home: Path) -> None:
    with open_instance() as instance:
        instance.wipe_assets([dg.AssetKey(["acme", "parquet"])])
    assert "parquet" not in EventLog().versions("acme")
    assert EventLog().versions("acme") == what_dagster_says()[0]


def test_runs_materializations_and_checks_are_what_dagster_says(home: Path) -> None:
    log = EventLog()
    made = log.materializations("2024-01")["acme"]
    with open_instance() as instance:
        records = instance.get_run_records()
        assert [(run.id, run.status, run.tags) for run in log.runs()] == [
            (one.dagster_run.run_id, one.dagster_run.status.value, one.dagster_run.tags)
            for one in records
        ]
        assert [run.began for run in log.runs()] == [
            datetime.fromtimestamp(one.start_time or 0, UTC) for one in records
        ]
        for stage in ("manifest", "staged_files", "billing_table", "parquet"):
            wanted = dg.AssetRecordsFilter(
                dg.AssetKey(["acme", stage]), asset_partitions=["2024-01"]
            )
            (record,) = instance.fetch_materializations(wanted, limit=1).records
            told = record.asset_materialization
            assert told is not None
            assert made[stage]["2024-01"].run == record.run_id
            assert made[stage]["2024-01"].at == datetime.fromtimestamp(record.timestamp, UTC)
            said = {name: value.value for name, value in told.metadata.items()}
            scalars = {k: v for k, v in said.items() if isinstance(v, str | int | float)}
            assert made[stage]["2024-01"].metadata.items() >= scalars.items()
    assert set(log.checks("acme", "2024-02")["parquet"].values()) == {"SUCCEEDED"}
    (newest, *_) = log.newest(1)
    assert newest[:2] == ("acme", "manifest")
