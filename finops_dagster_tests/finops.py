"""The `finops` command, called in the folder of a project."""

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
# Runs the pipeline in a process that ends itself when a stage has done its work and Dagster is to
# record it.
KILLED_AT = """
import os, signal, sys
from dagster import DagsterInstance
from finops_dagster.cli.app import main
record = DagsterInstance.handle_new_event
def record_or_die(self, event, **options):
    made = event.asset_materialization
    if made is not None and made.asset_key.path[-1] == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return record(self, event, **options)
DagsterInstance.handle_new_event = record_or_die
sys.argv = ["finops", "aws", "run-pipeline"]
main()
"""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended; `exception` is what its one line on standard error was made of."""

    exit_code: int
    stdout: str
    stderr: str
    exception: BaseException | None

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class Finops:
    def __init__(self, project: Project, more_settings: str = "") -> None:
        self.project = project
        self.environment = project.shell_environment(more_settings)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What the command prints; `code` is the exit code that it must have."""
        done = self.run(*arguments)
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.stderr
        return done.output

    def json(self, *arguments: str) -> Any:
        """The rows, or the document, that the command prints for a program."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def run(self, *arguments: str) -> CommandResult:
        """The command in this process, as starting one takes two seconds."""
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
        process = self.start(*arguments, **environment)
        printed, complained = process.communicate()
        assert process.returncode == code, printed + complained
        assert "Traceback" not in complained
        return printed + complained

    def run_until_killed_at(self, stage: str) -> None:
        """Run the pipeline until the stage has done its work, and kill it there."""
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT.format(stage=stage)],
            cwd=self.project.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,  # what Dagster leaves behind would keep a pipe open
            stderr=subprocess.DEVNULL,
        )
        assert killed.returncode == -signal.SIGKILL
