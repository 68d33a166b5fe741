"""The chain from a plain shell, as CI uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import Project

ROOT = Path(__file__).parents[1]
SETTINGS = """
[[exports]]
name = "acme"
vendor = "aws"
format = "cur1"
source = "file://source"
export_name = "acme-cur"
start_month = "2024-01"
table = "aws_billing_data"
"""


@pytest.fixture(autouse=True)
def settings(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "finops.toml").write_text(SETTINGS)
    monkeypatch.setenv("FINOPS_CONFIG", "finops.toml")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def materialize(month: str) -> subprocess.CompletedProcess[str]:
    dagster = Path(sys.executable).parent / "dagster"
    command = f"{dagster} asset materialize -m finops_dagster.definitions"
    return subprocess.run(
        f"{command} --select 'group:acme' --partition {month}",
        shell=True,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_month_is_loaded_with_exit_code_0(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", "2")])
    done = materialize("2024-01")
    assert done.returncode == 0, done.stdout
    assert project.totals("2024-01") == (2, 3)


def test_what_fails_has_another_exit_code_and_its_reason(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    assert materialize("2024-01").returncode == 0
    deliver(project.put, "2024-01", [items("2024-01", "1.2.3")], version="v2")
    failed = materialize("2024-01")
    assert failed.returncode == 1
    reason = "line 2, column \"lineItem/UnblendedCost\": '1.2.3' cannot be kept exactly"
    assert reason in failed.stdout
    missing = materialize("2024-02")
    assert missing.returncode == 1
    assert "acme has no manifest of 2024-02" in missing.stdout
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)


def test_months_side_by_side_wait_for_their_turn_at_the_database(project: Project) -> None:
    months = ["2024-01", "2024-02", "2024-03"]
    for month in months:
        deliver(project.put, month, [items(month, "1")])
    dagster = Path(sys.executable).parent / "dagster"
    command = [str(dagster), "asset", "materialize", "-m", "finops_dagster.definitions"]
    runs = [
        subprocess.Popen(
            [*command, "--select", "group:acme", "--partition", month],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for month in months
    ]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output
    assert [project.totals(month) for month in months] == [(1, 1)] * 3
