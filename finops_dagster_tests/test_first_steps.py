"""The first steps of somebody who installed the package: in an empty folder, without the project's
own files."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from finops_dagster.pipeline.export import Export
from finops_dagster.settings import load_settings
from finops_dagster_tests.finops import FINOPS, Finops
from finops_dagster_tests.project import ROOT, Project

PACKAGE = ROOT / "finops_dagster"
DEMO = "data/demo/finops.toml"
# What the package brings is what the project shows.
SHOWN = {
    "cli/first_settings.toml": "config/finops.toml",
    "demo/demo.toml": "config/demo.toml",
    "dagster.yaml": "dagster.yaml",
}


def test_a_wheel_brings_all_that_the_first_steps_need(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source, site, empty = (tmp_path / name for name in ("source", "site", "empty"))
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    assert not (site / "finops_dagster_tests").exists()
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [*FINOPS, "init"], cwd=empty, env=environment, capture_output=True, text=True, check=True
    )
    assert "config/finops.toml is written" in done.stdout
    for packaged in (*SHOWN, "demo/kinds.csv", "demo/charges.sql"):
        text = (site / PACKAGE.name / packaged).read_text()
        assert text == (PACKAGE / packaged).read_text()
        assert packaged not in SHOWN or text == (ROOT / SHOWN[packaged]).read_text()


def test_the_first_settings_replace_nothing(project: Project, finops: Finops) -> None:
    del finops.environment["FINOPS_CONFIG"]
    assert "finops init writes a first one" in finops("config", code=1)
    assert finops("init").startswith("config/finops.toml is written.")
    written = project.folder / "config/finops.toml"
    (export,) = load_settings(written).exports
    assert export.name == "acme"
    assert written.read_text().count("#") > 15
    written.write_text("mine")
    assert "config/finops.toml is there already" in finops("init", code=1)
    assert written.read_text() == "mine"
    assert finops("init", "-c", "other.toml").startswith("other.toml is written.")


def test_the_demo_has_the_three_months_that_it_delivers() -> None:
    (export,) = load_settings(ROOT / "config/demo.toml").exports
    assert Export(export).partitions.get_partition_keys() == ["2024-01", "2024-02", "2024-03"]


def lines_without_seconds(text: str) -> set[str]:
    return {re.sub(r" +\d+\.\d s$", "", line).strip() for line in text.splitlines()}


@pytest.mark.thorough
def test_the_demo_runs_and_a_month_of_it_can_be_restated(project: Project, finops: Finops) -> None:
    others = {"OPEN_FINOPS_DATABASE_BACKEND": "bigquery", "FINOPS_STORAGE__PARQUET_DIR": "lake"}
    early = finops.process("demo", "--restate", code=1, **others)
    assert "give the command finops demo first" in early
    refused = finops.process("demo", "--backend", "sql", code=2, **others)
    assert "has settings of its own" in refused
    (session,) = re.findall(r"\$ make demo\n(.*?)\n\$", (ROOT / "README.md").read_text(), re.DOTALL)
    printed = lines_without_seconds(finops.process("demo", **others))
    assert lines_without_seconds(session) - {"..."} <= printed
    outside = {path.name for path in project.folder.iterdir()}
    assert outside == {"finops.toml", "data", ".dagster"}, "the person's own settings are not used"
    assert [path.name for path in (project.folder / "data").iterdir()] == ["demo"]
    stale = ("-c", DEMO, "state", "list", "--stale")
    assert finops.json(*stale) == []
    assert "AWS restated 2024-03" in finops.process("demo", "--restate")
    assert [row["month"] for row in finops.json(*stale)] == ["2024-03"]
    ran = finops("-c", DEMO, "aws", "run-pipeline").splitlines()
    assert ran[0].startswith("demo 2024-03  exported")
    assert finops.json(*stale) == []


def test_make_dev_is_finops_dev() -> None:
    make = ["make", "--dry-run", "dev", "CONFIG=mine.toml", "PORT=3001"]
    planned = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "finops --config mine.toml dev --port 3001\n" in planned.stdout


def test_one_command_pins_the_whole_dagster_family(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    make = ["make", "dagster", "VERSION=1.14.3"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    pinned = "".join(
        (tmp_path / name).read_text() for name in ("pyproject.toml", "constraints.txt")
    )
    pins = re.findall(r"\bdagster(-[a-z]+)?==([0-9.]+)", pinned)
    core = {"", "-graphql", "-pipes", "-shared", "-webserver"}
    assert {(name in core, version) for name, version in pins} == {
        (True, "1.14.3"),
        (False, "0.30.3"),
    }
    assert len(pins) == 14
    assert subprocess.run(make[:2], cwd=tmp_path, capture_output=True).returncode == 2
