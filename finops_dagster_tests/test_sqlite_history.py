"""Dagster's history in SQLite, whose connections are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from finops_dagster.pipeline.runs import open_instance
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import Project

MONTHS = [f"2024-{number:02}" for number in range(1, 13)]


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The SQLite files that are opened by SQLAlchemy, as often as they are."""
    files: list[str] = []

    def listen(connection: sqlite3.Connection, _: object) -> None:
        (_, _, file) = connection.execute("PRAGMA database_list").fetchone()
        files.append(Path(file).stem)

    event.listen(Engine, "connect", listen)
    yield files
    event.remove(Engine, "connect", listen)


@pytest.mark.thorough
def test_a_further_month_opens_the_file_of_its_run_and_no_other(
    project: Project, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / "home"))
    with open_instance() as project.instance:
        for month in MONTHS:
            deliver(project.put, month, [items(month, "1")])
            opened.clear()
            run = project.load(month).run_id
            if month != MONTHS[0]:
                assert set(opened) == {run}
    with dg.DagsterInstance.get() as plain:
        assert len(plain.get_runs()) == len(MONTHS)
        for run in plain.get_runs():
            assert {log.dagster_event_type for log in plain.all_logs(run.run_id)} >= {
                dg.DagsterEventType.RUN_SUCCESS,
                dg.DagsterEventType.ASSET_MATERIALIZATION,
            }
