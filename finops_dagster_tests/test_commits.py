"""A month is wholly old or wholly new, and state says which, whatever fails beside its commit."""

from __future__ import annotations

import gc
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType

import dagster as dg
import pytest

import finops_dagster
from finops_dagster.billing.money import reconcile
from finops_dagster.pipeline.resources import Records
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.warehouses.adapters import ADAPTERS, Adapter, install, started

CODE = f"{Path(finops_dagster.__file__).parent}/"
STAGES = ["manifest", "staged_files", "billing_table", "parquet", "warehouse_table"]


class Broken(Exception):
    """What a fault of the test raises."""


@contextmanager
def calls_from_reconcile_on(watch: Callable[[CodeType], None]) -> Iterator[None]:
    """Watch the calls of the project's functions in this thread, from where a stage reconciles what
    it wrote; what `watch` raises, the call raises. Handing the version on is left out: it puts a
    value into memory, and Dagster calls it when the stage has ended."""
    frames: dict[int, FrameType] = {}
    has_begun = False

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal has_begun
        if event != "call" or not frame.f_code.co_filename.startswith(CODE):
            return
        goes_on = id(frame) in frames  # a generator, after its yield
        frames[id(frame)] = frame
        has_begun = has_begun or frame.f_code is reconcile.__code__
        if has_begun and not goes_on and frame.f_code is not Records.handle_output.__code__:
            watch(frame.f_code)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def version_told(project: Project, stage: str) -> str | None:
    """The version of January that Dagster's event log has of a stage."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(["acme", stage]), asset_partitions=["2024-01"])
    (record,) = project.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return (record.asset_materialization.tags or {})["dagster/data_version"]


def version_there(project: Project, stage: str, warehouse: Adapter) -> str:
    """The version of January that the table, the lake or the warehouse has."""
    if stage == "billing_table":
        ((version,),) = project.query("SELECT DISTINCT manifest_id FROM aws_billing_data")
    elif stage == "parquet":
        ((version,),) = project.query(
            f"SELECT DISTINCT manifest_id FROM read_parquet('{project.parquet('2024-01')}')"
        )
    else:
        ((version,),) = warehouse.rows("aws_billing_data", ["manifest_id"], "2024-01")
    return str(version)


def test_some_functions_of_the_table_fail_and_the_month_is_wholly_old_or_new(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_functions(project, monkeypatch, "billing_table", "duckdb", every=12)


@pytest.mark.parametrize(
    ("stage", "backend"),
    [
        ("billing_table", "duckdb"),
        ("parquet", "duckdb"),
        *(("warehouse_table", backend) for backend in ADAPTERS),
    ],
)
@pytest.mark.thorough
def test_whatever_function_of_a_stage_fails_the_month_is_wholly_old_or_new(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str, backend: str
) -> None:
    break_functions(project, monkeypatch, stage, backend, every=1)


def break_functions(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str, backend: str, *, every: int
) -> None:
    """Restate a month with a function broken, for each that the stage calls from where it
    reconciles on; the event log must name the version that is there."""
    with started(backend) as warehouse:
        install(warehouse, project, monkeypatch)
        versions = (f"v{number}" for number in itertools.count(1))

        def restate() -> str:
            version = next(versions)
            deliver(project.put, "2024-01", [items("2024-01", version[1:])], version=version)
            project.load("2024-01", stages=STAGES[: STAGES.index(stage)])
            return version

        restate()
        project.load("2024-01")
        newest = restate()
        called: dict[CodeType, None] = {}
        with calls_from_reconcile_on(lambda code: called.update({code: None})):
            project.load("2024-01", stages=[stage])
        assert called
        for broken in list(called)[::every]:

            def fail(code: CodeType, broken: CodeType = broken) -> None:
                if code is broken:
                    raise Broken

            before = version_there(project, stage, warehouse)
            newest = restate() if before == newest else newest
            with suppress(Broken), calls_from_reconcile_on(fail):
                project.materialize("2024-01", stages=[stage])
            gc.collect()  # what failed within SQLite leaves a statement, and its lock, to it
            there = version_there(project, stage, warehouse)
            assert there in (before, newest)
            if stage == "warehouse_table" and not warehouse.reconciles_before_commit:
                # It cannot be asked before it commits; then the next run makes up for it.
                project.load("2024-01", stages=[stage])
                there = version_there(project, stage, warehouse)
            assert version_told(project, stage) == there, broken
        project.load("2024-01")
        assert version_there(project, stage, warehouse) == newest


# Calls finops in a process that ends itself when a stage has committed and is about to say so.
KILLED_AT = """
import os, signal, sys
from dagster import DagsterInstance
from finops_dagster.cli.app import main
handle = DagsterInstance.handle_new_event
def handle_or_die(self, event, **options):
    made = event.asset_materialization
    if made is not None and made.asset_key.path[-1] == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return handle(self, event, **options)
DagsterInstance.handle_new_event = handle_or_die
sys.argv = ["finops", "aws", "run-pipeline"]
main()
"""


@pytest.mark.parametrize(
    ("stage", "backend"),
    [
        pytest.param("billing_table", "duckdb", marks=pytest.mark.thorough),
        pytest.param("warehouse_table", "postgresql", marks=pytest.mark.thorough),
        pytest.param("parquet", "duckdb", marks=pytest.mark.thorough),
        pytest.param("warehouse_table", "duckdb", marks=pytest.mark.thorough),
        pytest.param("warehouse_table", "bigquery", marks=pytest.mark.thorough),
        pytest.param("warehouse_table", "snowflake", marks=pytest.mark.thorough),
    ],
)
def test_a_kill_between_commit_and_event_is_seen_and_healed_by_the_next_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str, backend: str
) -> None:
    with started(backend) as warehouse:
        monkeypatch.setenv("OPEN_FINOPS_DATABASE_BACKEND", backend)
        for name, value in warehouse.environment.items():
            monkeypatch.setenv(name, value)
        for name, value in warehouse.settings.items():
            monkeypatch.setenv(f"FINOPS_DATABASE__{backend}__{name}".upper(), str(value))
        warehouse.reset()
        finops = Finops(project)
        deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
        assert finops.here("aws", "run-pipeline").exit_code == 0
        deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2")
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT.format(stage=stage)],
            cwd=project.folder,
            env=finops.environment,
            stdout=subprocess.DEVNULL,  # what Dagster leaves behind would keep a pipe open
            stderr=subprocess.DEVNULL,
        )
        assert killed.returncode == -signal.SIGKILL
        assert version_there(project, stage, warehouse) == "v2"
        differences = [row["what_differs"] for row in finops.json("state", "verify")]
        assert any("v2" in one and "the event log" in one and "v1" in one for one in differences)
        assert finops.here("aws", "run-pipeline").exit_code == 0
        assert finops.json("state", "verify") == []
        assert version_there(project, stage, warehouse) == "v2"
