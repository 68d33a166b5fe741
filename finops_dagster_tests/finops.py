"""The `finops` command in the folder of a project, for tests."""

import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any
from unittest.mock import patch

from finops_dagster.cli.app import main
from finops_dagster_tests.project import Project

FINOPS = [sys.executable, "-m", "finops_dagster.cli"]
# Runs the pipeline in a process that kills itself when the stage has done its work, just before
# Dagster records the materialization.
KILLED_AT = """
import os, signal, sys
from dagster import DagsterInstance
from finops_dagster.cli.app import main
record = DagsterInstance.handle_new_event
def record_or_die(self, event, **options):
    materialization = event.asset_materialization
    if materialization is not None and materialization.asset_key.path[-1] == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return record(self, event, **options)
DagsterInstance.handle_new_event = record_or_die
sys.argv = ["finops", "aws", "run-pipeline"]
main()
"""


@dataclass(frozen=True)
class CommandResult:
    """The end of a command; `exception` is the error behind its line on standard error."""

    exit_code: int
    stdout: str
    stderr: str
    exception: BaseException | None

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class Finops:
    """Calls commands with the settings of a project, in its folder."""

    def __init__(self, project: Project, more_settings: str = "") -> None:
        self.project = project
        self.environment = project.shell_environment(more_settings)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command, assert its exit code, and return what it prints."""
        result = self.run(*arguments)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.stderr
        return result.output

    def json(self, *arguments: str) -> Any:
        """Run a command with --json, and return the rows or the document that it prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def run(self, *arguments: str) -> CommandResult:
        """Run a command in this process: starting another one takes two seconds."""
        home = {"DAGSTER_HOME": f"{self.project.folder}/.dagster"}
        stdout, stderr, umask = StringIO(), StringIO(), os.umask(0)
        os.umask(umask)
        try:
            with (
                patch.dict(os.environ, {**home, **self.environment, **os.environ}),
                patch.object(sys, "argv", ["finops", *arguments]),
                redirect_stdout(stdout),
                redirect_stderr(stderr),
            ):
                main()
            code, error = 0, None
        except SystemExit as end:
            code, error = int(end.code or 0), end.__context__
        finally:
            os.umask(umask)
        return CommandResult(code, stdout.getvalue(), stderr.getvalue(), error)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*FINOPS, *arguments],
            cwd=self.project.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_process(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run a command in a process of its own, assert its exit code, and return its output."""
        process = self.start(*arguments, **environment)
        stdout, stderr = process.communicate()
        assert process.returncode == code, stdout + stderr
        assert "Traceback" not in stderr
        return stdout + stderr

    def run_until_killed_at(self, stage: str) -> None:
        """Run the pipeline, and kill its process when the stage has done its work.

        The stage's data is written, but Dagster has not recorded its materialization.
        """
        process = subprocess.run(
            [sys.executable, "-c", KILLED_AT.format(stage=stage)],
            cwd=self.project.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,  # what Dagster leaves behind would keep a pipe open
            stderr=subprocess.DEVNULL,
        )
        assert process.returncode == -signal.SIGKILL


def older_document(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the export of a state as an earlier release wrote it: one document.

    `records` are the lines of `finops state export` of this release. The document lacks their sums
    of money columns and costs by currency.
    """
    months: dict[str, Any] = {}
    versions = []
    for record in records:
        if record["kind"] == "month":
            months[record["month"]] = record["stages"]
        elif record["kind"] == "load":
            versions.append({k: v for k, v in record.items() if k not in ("kind", "sums", "costs")})
    (export,) = (record for record in records if record["kind"] == "export")
    names = {name: export[name] for name in ("name", "vendor", "table")}
    state = {**names, "versions": versions, "months": months}
    about = {name: records[0][name] for name in ("finops_dagster", "exported_at")}
    return {"layout": 1, **about, "exports": [state], "runs": []}
