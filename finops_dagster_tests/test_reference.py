"""What docs/reference.md says that others may build on is so."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import ROOT, SETTINGS, Project

REFERENCE = (ROOT / "docs/reference.md").read_text()
STAGES = ("manifest", "staged_files", "billing_table", "parquet", "warehouse_table")


def documented(stage: str) -> tuple[set[str], set[str]]:
    """Metadata keys and checks of a stage, as the page lists them."""
    (row,) = re.findall(rf"^\| `{stage}` \|(.*)\|(.*)\|$", REFERENCE, re.MULTILINE)
    keys, checks = (set(re.findall(r"`([^`]+)`", cell)) for cell in row)
    return keys, checks


def test_metadata_and_checks_are_those_on_the_page(project: Project) -> None:
    project.database = {"duckdb": {"warehouse_path": "data/warehouse.duckdb"}}
    for version, cost in (("v1", "1"), ("v2", "2")):
        deliver(project.put, "2024-01", [items("2024-01", cost)], version=version)
        outcome = project.load("2024-01")
    checks = [name.split(".") for name in outcome.checks()]
    for stage in STAGES:
        keys = set(outcome.metadata(stage))
        assert documented(stage) == (keys, {check for of, check in checks if of == stage})


def test_the_lines_of_python_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config").mkdir()
    Path("config/finops.toml").write_text(SETTINGS)
    (code,) = re.findall(r"```python\n(.*?)```", REFERENCE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["definitions"], dg.Definitions)
    for module, name in re.findall(r"`([a-z_.]+)\.([a-zA-Z_]+)(?:\(|`)", REFERENCE):
        if module != "finops_dagster" and (ROOT / "finops_dagster" / module.split(".")[0]).exists():
            assert hasattr(__import__(f"finops_dagster.{module}", fromlist=[name]), name)
