"""`make bench`: all benchmarks, each figure beside its limit, in one table.

All of them take a quarter of an hour on a machine that does nothing else, and ten minutes more the
first time, for making the bills; `--only` selects some. docs/performance.md keeps the results.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
from collections.abc import Callable, Iterable

import dagster
import duckdb
from rich.table import Table

from finops_dagster.terminal import console as plain_console
from finops_dagster_tests.benchmarks.azure import azure_month, azure_sensor
from finops_dagster_tests.benchmarks.focus import focus, focus_rules
from finops_dagster_tests.benchmarks.many import (
    backfill,
    file_size,
    growth,
    imports,
    query,
    sensor,
)
from finops_dagster_tests.benchmarks.month import memory, month
from finops_dagster_tests.benchmarks.pods import pods
from finops_dagster_tests.benchmarks.project import Figure
from finops_dagster_tests.benchmarks.report import report
from finops_dagster_tests.benchmarks.scale import definitions, lake_in_store, scratch
from finops_dagster_tests.benchmarks.state import state, state_moved
from finops_dagster_tests.benchmarks.warehouse import warehouse

# Each takes the rows of a month and the number of runs, and yields its figures as medians.
MEASURES: list[Callable[[int, int], Iterable[Figure]]] = [
    month, memory, backfill, imports, sensor, file_size, query, growth, state, state_moved,
    warehouse, azure_month, azure_sensor, focus, focus_rules, report,
    lake_in_store, scratch, definitions, pods,
]  # fmt: skip


def main() -> None:
    """Run the selected measures, print each figure at once and all of them in a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of measures; all without it")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the S3 server logs each request
    console = plain_console()
    title = f"{options.rows:,} rows x 154 columns, medians of {options.runs}"
    table = Table("measure", "figure", "limit", "", "notes", title=title)
    measures = {measure.__name__: measure for measure in MEASURES}
    for name in options.only or measures:
        for figure in measures[name](options.rows, options.runs):
            console.print(*figure.row(), sep=" | ", soft_wrap=True)
            table.add_row(*figure.row())
    console.print(table)
    console.print(
        f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, "
        f"DuckDB {duckdb.__version__}, Dagster {dagster.__version__}"
    )


if __name__ == "__main__":
    main()
