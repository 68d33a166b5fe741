"""The `finops` command, called in the folder of a project."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner, Result

from finops_dagster.cli.app import app
from finops_dagster_tests.project import Project

FINOPS = [sys.executable, "-m", "finops_dagster.cli"]


class Finops:
    """Calls the command in the project's folder."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.environment = project.shell_environment()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """The command in a process of its own, which goes on."""
        return subprocess.Popen(
            [*FINOPS, *arguments],
            cwd=self.project.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What the command prints; `code` is the exit code that it must have."""
        process = self.start(*arguments, **environment)
        printed, complained = process.communicate()
        assert process.returncode == code, printed + complained
        assert "Traceback" not in complained
        return printed + complained

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows that the command prints for a program, called in this process."""
        rows: list[dict[str, Any]] = json.loads(self.here(*arguments, "--json").stdout)
        return rows

    def here(self, *arguments: str) -> Result:
        """The command in this process, for what a test only builds on: starting one takes two
        seconds."""
        where = {"FINOPS_CONFIG": "finops.toml", "DAGSTER_HOME": f"{self.project.folder}/.dagster"}
        return CliRunner(env=where).invoke(app, arguments)
