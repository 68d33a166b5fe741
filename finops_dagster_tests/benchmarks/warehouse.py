"""`make bench`, second part: one month of the lake into PostgreSQL, and into it once more.

Each load is a process of its own, measured by the operating system. The server, on the same
machine, has no replicas and so writes no WAL of what a load fills; one that has some needs a
quarter more time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import Lake, exporting_month
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.settings import load_settings
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.tables import ledger
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.ledger import Load
from finops_dagster.tables.load import measure
from finops_dagster.warehouses import open_warehouse
from finops_dagster_tests.benchmarks.figures import FOLDER, ROOT, Run, apart, measured
from finops_dagster_tests.servers.postgresql import PostgreSQLServer

SETTINGS = """
[storage]
parquet_dir = "."
[database]
backend = "postgresql"
[database.postgresql]
host = "{host}"
database = "postgres"
user = "postgres"
[[exports]]
name = "bench"
vendor = "aws"
format = "cur1"
source = "file://source"
export_name = "bench-cur"
start_month = "2024-01"
"""
MONTH = BillingMonth(2024, 1)
# Of each thirty columns: ids, times, amounts, what the vendor says in words, and tags.
COLUMNS = {
    "identity_lineitemid": "md5(CAST(line AS VARCHAR))",
    "bill_billingperiodstartdate": "TIMESTAMP '2024-01-01'",
    "lineitem_usagestartdate": "TIMESTAMP '2024-01-01' + to_hours(CAST(line % 743 AS INTEGER))",
    "lineitem_usageenddate": "TIMESTAMP '2024-01-01' + to_hours(CAST(line % 743 + 1 AS INTEGER))",
    "lineitem_unblendedcost": "CAST(hash(line) % 100000000000 AS DECIMAL(38,18)) / 10000000000",
    **{
        f"pricing_amount{number}": f"CAST(hash(line, {number}) % 100000 AS DECIMAL(38,18)) / 1000"
        for number in range(5)
    },
    **{
        f"product_word{number}": f"'a word of the vendor, ' || hash(line, {number}) % 1000"
        for number in range(12)
    },
    **{
        f"resourcetags_user_{number}": f"CASE WHEN line % 3 = 0 THEN 'team ' || line % {number} END"
        for number in range(7, 13)
    },
}
SIDES = ("first load", "restatement")


def main() -> None:
    """Make the lake's file once, load it twice a run, print and keep the figures."""
    options = _options()
    if options.load:
        return _load(options.load)
    console = Console()
    lake = FOLDER / f"lake-{options.rows}"
    path = lake / Lake(Path()).path("bench", MONTH)
    if not path.exists():
        console.print(f"making {options.rows:,} rows, once")
        apart(_write_month, path, options.rows)
    loads: dict[str, list[Run]] = {side: [] for side in SIDES}
    with PostgreSQLServer() as server:
        settings = lake / "postgresql.toml"
        settings.write_text(SETTINGS.format(host=server.host))
        for number in range(options.runs):
            with server.connect() as connection:
                connection.execute("DROP SCHEMA IF EXISTS finops CASCADE")
                for side in SIDES:
                    connection.execute("CHECKPOINT")  # as after the hours between two versions
                    loads[side].append(_loaded(lake, settings))
            told = ", ".join(f"{side} {runs[-1].seconds:.1f} s" for side, runs in loads.items())
            console.print(f"run {number + 1} of {options.runs}: {told}")
    _report(console, loads, options, FOLDER / "warehouse.json")
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _write_month(path: Path, rows: int) -> None:
    vendor = AwsCur1()
    columns = ", ".join(f"CAST({sql} AS {_type(name)}) AS {name}" for name, sql in COLUMNS.items())
    with duckdb.connect() as connection:
        ledger.create(connection)
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f"CREATE TABLE bench AS SELECT DATE '{MONTH.first_day}' AS billing_month, "
            f"'20240203T000000Z' AS manifest_id, {columns} FROM range({rows}) lines(line)"
        )
        totals = measure(connection, "bench", MONTH, vendor, [vendor.cost]).totals
        load = Load("bench", MONTH, "20240203T000000Z", "bench", totals, 1, 1, "bench", "cur1")
        with exporting_month(connection, load, path, vendor):
            pass


def _type(name: str) -> SqlType:
    if name.endswith("date"):
        return SqlType.TIME
    return SqlType.MONEY if "cost" in name or "amount" in name else SqlType.TEXT


def _loaded(lake: Path, settings: Path) -> Run:
    """A load in another process: the seconds of the load alone, the megabytes of all."""
    command = [sys.executable, "-m", "finops_dagster_tests.benchmarks.warehouse", "--load"]
    whole = measured([*command, str(settings)], lake, PYTHONPATH=str(ROOT))
    return Run(float((lake / "output.txt").read_text().split()[-1]), whole.megabytes)


def _load(path: Path) -> None:
    settings = load_settings(path)
    lake = Lake(settings.storage.parquet_dir)
    file = month_file(Export(settings.exports[0]), MONTH, lake, DuckDB())
    warehouse = open_warehouse(settings.database)
    started = time.monotonic()
    warehouse.replace_month(file)
    print(time.monotonic() - started)  # noqa: T201


def _report(
    console: Console, loads: dict[str, list[Run]], options: argparse.Namespace, file: Path
) -> None:
    figures = {
        side: {
            "seconds": round(statistics.median(run.seconds for run in runs), 2),
            "rows_a_second": round(options.rows / statistics.median(r.seconds for r in runs)),
            "peak_megabytes": round(max(run.megabytes for run in runs)),
        }
        for side, runs in loads.items()
    }
    table = Table(
        title=f"{options.rows:,} rows x {len(COLUMNS) + 2} columns into PostgreSQL, "
        f"median of {options.runs}"
    )
    for heading in ("", "seconds", "rows/s", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for side, figure in figures.items():
        seconds, rows, megabytes = figure.values()
        table.add_row(side, f"{seconds:.1f}", f"{rows:,}", f"{megabytes:,}")
    console.print(table)
    console.print("The aim is 150,000 rows/s, with all that a load is: fill, measure, exchange.")
    machine = {"cores": os.cpu_count(), "machine": platform.platform()}
    file.write_text(json.dumps({"options": vars(options), **machine, "figures": figures}, indent=1))
    console.print(f"Kept in {file.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
