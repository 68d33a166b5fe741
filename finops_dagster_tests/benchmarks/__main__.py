"""`make bench`: every measure against what it must reach, in one table.

The whole takes a quarter of an hour, on a machine that does nothing else, and some ten minutes more
when it first makes its bills; `--only` chooses from it. docs/performance.md keeps what came of it.
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
from finops_dagster_tests.benchmarks.chain import Figure
from finops_dagster_tests.benchmarks.many import (
    backfill,
    file_size,
    growth,
    imports,
    query,
    sensor,
)
from finops_dagster_tests.benchmarks.month import memory, month
from finops_dagster_tests.benchmarks.state import state
from finops_dagster_tests.benchmarks.warehouse import warehouse

# Each yields its figures, of a month with so many rows, as the medians of so many runs.
MEASURES: list[Callable[[int, int], Iterable[Figure]]] = [
    month, memory, backfill, imports, sensor, file_size, query, growth, state, warehouse
]  # fmt: skip


def main() -> None:
    """Run what was chosen, and show each figure when it is there and all of them at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of measures; else all of them")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the S3 server's word on each request
    console = plain_console()
    title = f"{options.rows:,} rows x 154 columns, medians of {options.runs}"
    table = Table("measure", "figure", "at most", "", "beside", title=title)
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
