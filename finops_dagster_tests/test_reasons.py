"""Why a month failed, or what it waits for, reaches people: terminal, state, JSON, report."""

from __future__ import annotations

import os

import duckdb
import pytest

from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project


@pytest.mark.parametrize("command", [("aws", "run-pipeline"), ("state", "verify")])
def test_who_holds_the_database_is_said_while_it_is_waited_for(
    project: Project, finops: Finops, command: tuple[str, ...]
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    finops.here("aws", "run-pipeline")
    with duckdb.connect(str(project.database_file)):
        process = finops.start(*command)
        assert process.stderr is not None
        said = process.stderr.readline()
    printed, complained = process.communicate()
    assert process.returncode == 0, printed + complained
    assert f"data/finops.duckdb is open in process {os.getpid()} (" in said
    assert said.endswith("; waiting for it\n")
    assert complained == ""
