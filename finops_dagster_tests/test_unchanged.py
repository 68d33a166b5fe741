"""A month in which nothing has changed is verified by `finops` without a run of Dagster."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.pipeline.instance import open_instance
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.small_mapping import small_mapping

RUN = ("aws", "run-pipeline", "--json")


@pytest.fixture
def finops(project: Project, monkeypatch: pytest.MonkeyPatch) -> Finops:
    """Return the commands of a project that has loaded a month of two line items."""
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    monkeypatch.setenv("DAGSTER_HOME", f"{project.folder}/.dagster")
    project.deliver("1", "2")
    finops = Finops(project)
    finops(*RUN)
    return finops


def run(finops: Finops) -> dict[str, dict[str, Any]]:
    """Run the pipeline, and return what it prints of each month."""
    rows = map(json.loads, finops.run(*RUN).stdout.splitlines())
    return {row["month"]: row for row in rows}


def run_ids() -> set[str]:
    """Return the ids of all runs in Dagster's history."""
    with open_instance() as instance:
        return {record.dagster_run.run_id for record in instance.get_run_records()}


def test_an_unchanged_month_is_verified_without_a_run_and_the_history_says_so(
    finops: Finops,
) -> None:
    (first,) = run_ids()
    row = run(finops)["2024-01"]
    assert (row["outcome"], row["rows"], row["cost"], row["run"]) == ("unchanged", 2, "3", first)
    assert run_ids() == {first}
    with open_instance() as instance:
        (record,) = instance.fetch_observations(dg.AssetKey(["acme", "manifest"]), limit=5).records
    assert record.asset_observation is not None
    assert "newest version" in (record.asset_observation.description or "")
    assert record.partition_key == "2024-01"


def newer_version(project: Project) -> None:
    project.deliver("1", "5", version="v2")


def newest_manifest(project: Project) -> Path:
    """Return the manifest that is read; the folder of its version has a copy."""
    return min(project.source.rglob("*Manifest.json"), key=lambda path: len(path.parts))


def same_version_written_again(project: Project) -> None:
    manifest = newest_manifest(project)
    manifest.write_bytes(manifest.read_bytes() + b"\n")


def deleted_row(project: Project) -> None:
    project.execute("DELETE FROM aws_billing_data WHERE lineitem_unblendedcost = 2")


def overwritten_file(project: Project) -> None:
    project.parquet_path().write_bytes(b"PAR1")


def missing_charges(project: Project) -> None:
    project.focus_path().unlink()


def lost_history(project: Project) -> None:
    shutil.rmtree(project.folder / ".dagster")


def damaged_staged_file(project: Project) -> None:
    (staged,) = project.folder.glob("data/staging/acme/2024-01/v1/*.csv.gz")
    staged.write_bytes(b"")


@pytest.mark.parametrize(
    "change",
    [
        newer_version,
        same_version_written_again,
        deleted_row,
        overwritten_file,
        missing_charges,
        lost_history,
        damaged_staged_file,
    ],
)
@pytest.mark.thorough
def test_a_month_with_anything_new_or_missing_takes_a_run(
    project: Project, finops: Finops, change: Callable[[Project], object]
) -> None:
    change(project)
    before = run_ids()
    row = run(finops)["2024-01"]
    assert row["run"] in run_ids() - before
    assert row["reason"] is None
    after = run_ids()
    assert run(finops)["2024-01"]["outcome"] == "unchanged"
    assert run_ids() == after


@pytest.mark.thorough
def test_a_month_whose_last_run_failed_takes_a_run(project: Project, finops: Finops) -> None:
    manifest = newest_manifest(project)
    written, times = manifest.read_bytes(), manifest.stat()
    manifest.write_bytes(b"{")
    assert run(finops)["2024-01"]["outcome"] == "failed"
    manifest.write_bytes(written)
    os.utime(manifest, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = run_ids()
    assert run(finops)["2024-01"]["outcome"] == "unchanged"
    assert len(run_ids() - before) == 1


@pytest.mark.thorough
def test_a_check_that_has_another_result_now_takes_a_run(project: Project, finops: Finops) -> None:
    project.deliver("3", month="2024-02")
    assert "usual_cost" not in run(finops)["2024-02"]["failed_checks"]
    project.deliver("1", version="v2")
    run(finops)
    before = run_ids()
    # The newest month is run first, so only now is its cost compared with that of the restated one.
    assert "usual_cost" in run(finops)["2024-02"]["failed_checks"]
    assert len(run_ids() - before) == 1


@pytest.mark.thorough
def test_force_always_takes_a_run(finops: Finops) -> None:
    before = run_ids()
    finops("state", "reprocess", "acme", "2024-01")
    assert len(run_ids() - before) == 1
