"""The project in Dagster's command `dg`: it lists all definitions, and loads a month."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finops_dagster_tests.project import ROOT, Project

pytestmark = pytest.mark.thorough


def dg(project: Project, *arguments: str) -> str:
    """Run `dg` in the folder of a project, and return what it prints on standard output."""
    shutil.copy(ROOT / "pyproject.toml", project.folder)
    process = subprocess.run(
        [str(Path(sys.executable).parent / "dg"), *arguments],
        cwd=project.folder,
        env=project.shell_environment() | {"DAGSTER_HOME": str(project.folder)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_dg_lists_all_definitions(project: Project) -> None:
    listed = json.loads(dg(project, "list", "defs", "--json"))
    graph = project.definitions().resolve_asset_graph()
    assets = {asset["asset_key"]: asset for asset in listed["assets"]}
    assert assets.keys() >= {key.to_user_string() for key in graph.get_all_asset_keys()}
    parquet = assets["acme/parquet"]
    assert (parquet["group_name"], parquet["kinds"]) == ("acme", ["parquet"])
    assert {"key": "finops/export", "value": "acme"} in parquet["tags"]
    assert "reconciles" in {check["name"] for check in listed["asset_checks"]}
    assert {job["name"] for job in listed["jobs"]} == {"acme_month", "state_upkeep"}
    assert {sensor["name"] for sensor in listed["sensors"]} >= {"acme_manifests", "lost_runs"}


def test_dg_launches_a_month(project: Project) -> None:
    project.deliver("1", "2")
    dg(project, "launch", "--assets", "group:acme", "--partition", "2024-01")
    assert project.totals() == (2, 3)


def test_kinds_and_tags_select_assets(project: Project) -> None:
    project.deliver("1", "2")
    dg(project, "launch", "--assets", "group:acme", "--partition", "2024-01")
    path = project.parquet_path()
    for selection in ("kind:parquet", 'tag:"finops/dataset"="bill" and key:"acme/parquet"'):
        path.unlink()
        dg(project, "launch", "--assets", selection, "--partition", "2024-01")
        assert project.parquet_totals() == (2, 3)
