"""A month is wholly old or wholly new, and the event log says which, whatever fails."""

import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType

import dagster as dg
import pytest

import finops_dagster
from finops_dagster.billing.money import reconcile
from finops_dagster.pipeline.resources import StageRecords
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import STAGES, Project
from finops_dagster_tests.warehouses.adapters import ADAPTERS, Adapter, install, running_adapter

CODE = f"{Path(finops_dagster.__file__).parent}/"
ALL_STAGES = [*STAGES, "warehouse_table"]


class Broken(Exception):
    """An error that the test raises."""


@contextmanager
def calls_from_reconcile_on(watch: Callable[[CodeType], None]) -> Iterator[None]:
    """Watch the calls of the project's functions in this thread, from a stage's reconciliation on.

    If `watch` raises, so does the call. `Records.put` is left out: it only puts a value into
    memory, after the stage.
    """
    frames: dict[int, FrameType] = {}
    has_begun = False

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal has_begun
        if event != "call" or not frame.f_code.co_filename.startswith(CODE):
            return
        goes_on = id(frame) in frames  # a generator, after its yield
        frames[id(frame)] = frame
        has_begun = has_begun or frame.f_code is reconcile.__code__
        if has_begun and not goes_on and frame.f_code is not StageRecords.put.__code__:
            watch(frame.f_code)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def recorded_version(project: Project, stage: str) -> str | None:
    """Return the version of January that Dagster's event log has of a stage."""
    of_january = dg.AssetRecordsFilter(dg.AssetKey(["acme", stage]), asset_partitions=["2024-01"])
    (record,) = project.instance.fetch_materializations(of_january, limit=1).records
    assert record.asset_materialization is not None
    return (record.asset_materialization.tags or {})["dagster/data_version"]


def version_in(project: Project, stage: str, warehouse: Adapter) -> str:
    """Return the version of January that the table, the lake or the warehouse has."""
    if stage == "warehouse_table":
        ((version,),) = warehouse.rows("aws_billing_data", ["manifest_id"], "2024-01")
    else:
        rows = "aws_billing_data" if stage == "billing_table" else project.parquet_scan()
        ((version,),) = project.query(f"SELECT DISTINCT manifest_id FROM {rows}")
    return str(version)


@pytest.mark.parametrize(
    ("stage", "backend", "every"),
    [
        ("billing_table", "duckdb", 24),
        *(
            pytest.param(stage, backend, every, marks=mark)
            for every, mark in ((12, pytest.mark.thorough), (1, pytest.mark.faults))
            for stage, backend in (
                ("billing_table", "duckdb"),
                ("parquet", "duckdb"),
                *(("warehouse_table", backend) for backend in ADAPTERS),
            )
        ),
    ],
)
def test_a_month_is_whole_whichever_function_of_a_stage_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str, backend: str, every: int
) -> None:
    """Restate a month while a function of the stage raises: one run for each `every`th function.

    The functions are those that the stage calls from its reconciliation on. Afterwards the event
    log must name the version that the stage has.
    """
    with running_adapter(backend) as warehouse:
        install(warehouse, project, monkeypatch)
        versions = (f"v{number}" for number in itertools.count(1))

        def restate() -> str:
            version = next(versions)
            project.deliver(version[1:], version=version)
            project.load(stages=ALL_STAGES[: ALL_STAGES.index(stage)])
            return version

        restate()
        project.load()
        newest = restate()
        called: dict[CodeType, None] = {}
        with calls_from_reconcile_on(lambda code: called.update({code: None})):
            project.load(stages=[stage])
        assert called
        for broken in list(called)[::every]:

            def fail(code: CodeType, broken: CodeType = broken) -> None:
                if code is broken:
                    raise Broken

            before = version_in(project, stage, warehouse)
            newest = restate() if before == newest else newest
            with suppress(Broken), calls_from_reconcile_on(fail):
                project.materialize(stages=[stage])
            gc.collect()  # what failed within SQLite leaves a statement, and its lock, to it
            after = version_in(project, stage, warehouse)
            assert after in (before, newest)
            if stage == "warehouse_table" and not warehouse.reconciles_before_commit:
                # It cannot be asked before it commits; then the next run makes up for it.
                project.load(stages=[stage])
                after = version_in(project, stage, warehouse)
            assert recorded_version(project, stage) == after, broken
        project.load()
        assert version_in(project, stage, warehouse) == newest


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("stage", "backend"),
    [
        ("billing_table", "duckdb"),
        ("parquet", "duckdb"),
        *(("warehouse_table", name) for name in ("duckdb", "postgresql", "bigquery", "snowflake")),
    ],
)
def test_a_kill_between_commit_and_event_is_found_and_repaired_by_the_next_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str, backend: str
) -> None:
    with running_adapter(backend) as warehouse:
        monkeypatch.setenv("OPEN_FINOPS_DATABASE_BACKEND", backend)
        for name, value in warehouse.environment.items():
            monkeypatch.setenv(name, value)
        for name, value in warehouse.settings.items():
            monkeypatch.setenv(f"FINOPS_DATABASE__{backend}__{name}".upper(), str(value))
        warehouse.reset()
        finops = Finops(project)
        project.deliver("1", version="v1")
        finops("aws", "run-pipeline")
        project.deliver("2", version="v2")
        finops.run_until_killed_at(stage)
        assert version_in(project, stage, warehouse) == "v2"
        assert [row["lost"] for row in finops.json("worker", "list")] == [True]
        differences = [row["what_differs"] for row in finops.json("state", "verify")]
        assert any("v2" in row and "the event log" in row and "v1" in row for row in differences)
        finops("aws", "run-pipeline")
        assert finops.json("state", "verify") == []
        assert finops.json("worker", "list") == []
        assert version_in(project, stage, warehouse) == "v2"
