"""The workflow of docs/ci.md: its commands load good months, and end with why one failed."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finops_dagster_tests.project import ROOT, Project

pytestmark = pytest.mark.thorough
(WORKFLOW,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/ci.md").read_text(), re.DOTALL)
JOB: dict[str, Any] = yaml.safe_load(WORKFLOW)["jobs"]["load"]
STEPS = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}


def run(project: Project, step: str, month: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does, with the workflow's own environment."""
    (project.folder / JOB["env"]["FINOPS_CONFIG"]).parent.mkdir(exist_ok=True)
    environment = {**project.shell_environment(), **JOB["env"], "MONTH": month}
    (project.folder / "finops.toml").rename(project.folder / JOB["env"]["FINOPS_CONFIG"])
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[step]],
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_steps_load_good_months_and_end_with_the_reason_of_a_broken_one(
    project: Project,
) -> None:
    assert list(STEPS) == ["install", "check", "load", "verify"]
    project.deliver("1", "2", month="2024-03")
    project.deliver("1.2.3", month="2024-02")
    for month in ("2024-02", ""):
        done = run(project, "load", month)
        assert done.returncode == 1
        reason = done.stdout.splitlines()[-1]
        assert reason.startswith("acme 2024-02  failed: ")
        assert "'1.2.3' cannot be kept exactly" in reason
    assert project.totals("2024-03") == (2, 3), "the other month is loaded"
    project.deliver("4", month="2024-02", version="v2")
    for step in ("check", "load", "verify"):
        done = run(project, step, "2024-02")
        assert done.returncode == 0, done.stdout
    assert project.totals("2024-02") == (1, 4)
