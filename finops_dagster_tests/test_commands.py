"""The chain from a plain shell, as CI uses it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import ROOT, Project

DAGSTER = Path(sys.executable).parent / "dagster"
COMMAND = [str(DAGSTER), "asset", "materialize", "-m", "finops_dagster.definitions"]


def started(project: Project, month: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--select", "group:acme", "--partition", month, *options],
        env=project.shell_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def materialize(project: Project, month: str, *options: str) -> tuple[int, str]:
    """Exit code and output."""
    process = started(project, month, *options)
    output, _ = process.communicate()
    return process.returncode, output


def test_a_month_is_loaded_with_exit_code_0(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", "2")])
    code, output = materialize(project, "2024-01")
    assert code == 0, output
    assert project.totals("2024-01") == (2, 3)


def test_a_run_writes_json_where_its_configuration_names_the_logger(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    (text,) = re.findall(r"--config-json '(.*)'", (ROOT / "docs/operations.md").read_text())
    code, output = materialize(project, "2024-01", "--config-json", text)
    assert code == 0, output
    records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    said = [record["dagster_meta"] for record in records]
    assert {meta["job_tags"]["dagster/partition"] for meta in said} == {"2024-01"}
    assert {"acme__staged_files", "acme__parquet"} <= {meta["step_key"] for meta in said}
    assert " - DEBUG - " not in output


@pytest.mark.thorough
def test_what_fails_has_another_exit_code_and_its_reason(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    assert materialize(project, "2024-01")[0] == 0
    deliver(project.put, "2024-01", [items("2024-01", "1.2.3")], version="v2")
    code, output = materialize(project, "2024-01")
    assert code == 1
    assert "line 2, column \"lineItem/UnblendedCost\": '1.2.3' cannot be kept exactly" in output
    code, output = materialize(project, "2024-02")
    assert code == 1
    assert "acme has no manifest of 2024-02" in output
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)


@pytest.mark.thorough
def test_months_side_by_side_wait_for_their_turn_at_the_database(project: Project) -> None:
    months = ["2024-01", "2024-02", "2024-03"]
    for month in months:
        deliver(project.put, month, [items(month, "1")])
    runs = [started(project, month) for month in months]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output
    assert [project.totals(month) for month in months] == [(1, 1)] * 3
