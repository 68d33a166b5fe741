"""Benchmarks of the commands that read state, with the history of 10 exports of 36 months."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import dagster as dg
import duckdb

from finops_dagster.billing.money import Totals
from finops_dagster.billing.version import Load
from finops_dagster.lake import FolderLake, writing_month_to_lake
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import load_settings
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.tables import ledger
from finops_dagster_tests.benchmarks.project import (
    YEARS,
    BenchmarkProject,
    Figure,
    Run,
    small_months,
)

_EXPORTS, _MONTHS, _COLUMNS = 10, len(YEARS), 150
_EVENT = {
    "metadata": {"outcome": "loaded", "seconds": 1.5, "dagster/partition_row_count": 1},
    "tags": {"dagster/data_version": "v1"},
}
# Of each month of each export: what 20 restatements changed, and superseded loads.
_CHANGES, _SUPERSEDED, _MEGABYTES = 2_720, 60, 200
_MILLION = f"""
INSERT INTO finops_state.restatements BY NAME
SELECT export, billing_month, number // 136 + 1 AS restatement_number, 'v1' AS manifest_id,
    'v0' AS replaced_id, TIMESTAMP '2024-02-03 04:05:06' AS restated_at, 'run' AS run_id,
    'USD' AS currency, 'service ' || number AS service, '123456789012' AS account,
    number + 0.5 AS cost_before, number + 0.25 AS cost_after, 1 AS rows_before, 2 AS rows_after
FROM finops_state.manifests, range({_CHANGES}) AS numbers(number)
"""
_LOADS = f"""
INSERT INTO finops_state.manifests BY NAME
SELECT * EXCLUDE number REPLACE ('old ' || number AS manifest_id, 'superseded' AS state,
    number + 1 AS load_number)
FROM finops_state.manifests, range({_SUPERSEDED}) AS numbers(number)
"""
_COMMANDS = {
    "state loaded": 1,
    "state list": 2,  # with columns of runs and failures
    "aws show-state": 2,
    "state show bench 2024-01": None,
    "state report": None,
    "state export state.json": None,
}


def state(_: int, runs: int) -> Iterator[Figure]:
    """Measure each command as a process, in a project whose months were all loaded once."""
    project = BenchmarkProject.create(small_months(), exports=_EXPORTS)
    _make_history(project)
    for command, limit in _COMMANDS.items():
        run = Run.median(project.finops(*command.split()) for _ in range(runs))
        yield run.figure(f"finops {command}, {_EXPORTS} exports of {_MONTHS} months", limit)


def state_moved(_: int, runs: int) -> Iterator[Figure]:
    """Measure export and import of a million rows of the ledger, most of them of restatements."""
    project = BenchmarkProject.create(small_months(), exports=_EXPORTS)
    _make_history(project)
    database = project.work / "finops.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute(_MILLION)
        connection.execute(_LOADS)
    rows = f"{_EXPORTS * _MONTHS * (_CHANGES + _SUPERSEDED):,} rows"
    exported = project.finops("state", "export", "state.json")
    yield exported.figure(f"finops state export state.json, {rows} of the ledger")
    yield Figure("its peak of memory", exported.megabytes, "MB", _MEGABYTES)
    with duckdb.connect(str(database)) as connection:
        connection.execute("DELETE FROM finops_state.restatements")
        connection.execute("DELETE FROM finops_state.manifests WHERE state = 'superseded'")
    imported = project.finops("state", "import", "state.json")
    yield imported.figure(f"finops state import state.json, {rows} of the ledger")
    yield Figure("the peak of its largest process", imported.megabytes, "MB", _MEGABYTES)


def _make_history(project: BenchmarkProject) -> None:
    """Write Dagster's events, the ledger, and small Parquet files of many columns."""
    settings = load_settings(project.work / "finops.toml")
    months = settings.exports[0].months()[:_MONTHS]
    names = ", ".join(f"{number} AS column_{number}" for number in range(_COLUMNS))
    totals = Totals(1, Decimal("1.5"))
    with (
        dg.DagsterInstance.get() as instance,
        duckdb.connect(str(project.work / "finops.duckdb")) as connection,
    ):
        ledger.create_tables(connection)
        for name, table in ((export.name, export.table_name) for export in settings.exports):
            connection.execute(
                f"CREATE TABLE {table} AS SELECT unnest(generate_series(DATE "
                f"'{months[0].first_day}', DATE '{months[-1].first_day}', INTERVAL 1 MONTH))::DATE "
                f"AS billing_month, 'v1' AS manifest_id, {names}, "
                "1.5::DECIMAL(38,18) AS lineitem_unblendedcost"
            )
            for month in months:
                load = Load("v1", totals, export=name, month=month, table=table)
                ledger.record_load(connection, load, 1.0)
                file = FolderLake(project.work / "parquet").file(name, month)
                with writing_month_to_lake(connection, load, file, AwsCur1()):
                    pass
                for stage in STAGES[:4]:
                    event = dg.AssetMaterialization([name, stage], partition=str(month), **_EVENT)
                    instance.report_runless_asset_event(event)
