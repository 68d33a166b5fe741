"""`make bench`: what state costs, with the history of 10 exports of 36 months: commands that read
it, an export of all of it, and its share of a stage."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import dagster as dg
import duckdb
from rich.console import Console
from rich.table import Table

from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.selection import Selection
from finops_dagster.cli.state_transfer import document_of
from finops_dagster.lake import Lake, exporting_month
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.runs import open_instance
from finops_dagster.settings import Settings, load_settings
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.tables import ledger
from finops_dagster.tables.ledger import Load
from finops_dagster_tests.benchmarks.figures import FOLDER, ROOT

EXPORTS, MONTHS, COLUMNS, REPEATS = 10, 36, 150, 5
FIRST = BillingMonth(2023, 1)


def main() -> None:
    """Make the history once, and print the medians."""
    folder = FOLDER / "state"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    os.environ |= {"DAGSTER_HOME": str(folder / "dagster"), "FINOPS_CONFIG": "finops.toml"}
    settings = _history()
    table = Table(title=f"{EXPORTS} exports of {MONTHS} months, median of {REPEATS}, milliseconds")
    table.add_column("")
    table.add_column("median", justify="right")
    for name, command in {
        "finops state loaded, whole process": ["state", "loaded"],
        "finops state list, whole process": ["state", "list"],
        "finops aws show-state, whole process": ["aws", "show-state"],
        "finops state show of one month, whole process": ["state", "show", "export_0", "2024-01"],
        "finops state report, whole process": ["state", "report"],
        "finops state export, whole process": ["state", "export", "state.json"],
    }.items():
        table.add_row(name, _median(lambda words=command: _finops(words)))
    table.add_row("a state export itself", _median(lambda: document_of(settings, Selection())))
    for name, work in _shares_of_a_stage().items():
        table.add_row(name, _median(work))
    Console().print(table)
    shutil.rmtree(folder)


def _history() -> Settings:
    """Months that were all loaded once: events, ledger, and small Parquet files of many columns."""
    Path("finops.toml").write_text(
        "".join(
            f'[[exports]]\nname = "export_{number}"\nvendor = "aws"\nformat = "cur1"\n'
            f'source = "file://source"\nexport_name = "cur"\nstart_month = "{FIRST}"\n'
            for number in range(EXPORTS)
        )
    )
    settings = load_settings()
    months = settings.exports[0].months()[:MONTHS]
    Path("data").mkdir()
    with open_instance() as instance, duckdb.connect("data/finops.duckdb") as connection:
        ledger.create(connection)
        names = ", ".join(f"{number} AS column_{number}" for number in range(COLUMNS))
        for export in settings.exports:
            connection.execute(
                f"CREATE TABLE {export.table_name} AS SELECT unnest(generate_series(DATE "
                f"'{FIRST.first_day}', DATE '{months[-1].first_day}', INTERVAL 1 MONTH))::DATE "
                f"AS billing_month, 'v1' AS manifest_id, {names}, "
                "1.5::DECIMAL(38,18) AS lineitem_unblendedcost"
            )
            for month in months:
                load = _load(export.name, month)
                ledger.record(connection, load, 1.0)
                path = Lake(settings.storage.parquet_dir).path(export.name, month)
                with exporting_month(connection, load, path, AwsCur1()):
                    pass
                for stage in STAGES[:4]:
                    _report(instance, export.name, stage, month)
    return settings


def _load(export: str, month: BillingMonth) -> Load:
    totals = Totals(1, Decimal("1.5"))
    return Load(export, month, "v1", export, totals, 1, 1000, "a-run", "cur1")


def _report(instance: dg.DagsterInstance, export: str, stage: str, month: BillingMonth) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            [export, stage],
            partition=str(month),
            metadata={"outcome": "loaded", "seconds": 1.5, "dagster/partition_row_count": 1},
            tags={"dagster/data_version": "v1"},
        )
    )


def _finops(words: list[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "finops_dagster.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _shares_of_a_stage() -> dict[str, Callable[[], object]]:
    """What a stage does for state beside its work, the database being open."""
    connection = duckdb.connect("data/finops.duckdb")
    instance = open_instance()
    load = _load("export_0", FIRST)
    wanted = dg.AssetRecordsFilter(
        dg.AssetKey(["export_0", "parquet"]), asset_partitions=[str(FIRST)]
    )

    def write() -> None:
        connection.execute("BEGIN TRANSACTION")
        ledger.record_export(connection, load, "aws", {"a/b": "a_b"})
        ledger.record(connection, load, 1.0)
        connection.execute("ROLLBACK")

    return {
        "a stage: the ledger's layout is looked at": lambda: ledger.create(connection),
        "a stage: the ledger is asked": lambda: ledger.loaded(connection, "export_0", FIRST),
        "a stage: the ledger is written": write,
        "a stage: the version before is asked of the event log": lambda: (
            instance.fetch_materializations(wanted, limit=1)
        ),
    }


def _median(work: Callable[[], object]) -> str:
    seconds = []
    for _ in range(REPEATS):
        started = time.monotonic()
        work()
        seconds.append(time.monotonic() - started)
    return f"{statistics.median(seconds) * 1000:,.1f}"


if __name__ == "__main__":
    main()
