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
from rich.console import Console
from rich.table import Table

from finops_dagster_tests.benchmarks import many, month, state, warehouse
from finops_dagster_tests.benchmarks.chain import Figure


def main() -> None:
    """Run what was chosen, and show each figure when it is there and all of them at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--large-rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of measures; else all of them")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the S3 server's word on each request
    measures: dict[str, Callable[[], Iterable[Figure]]] = {
        "month": lambda: month.month(options.rows, options.runs),
        "memory": lambda: month.memory([options.rows, options.large_rows]),
        "backfill": many.backfill,
        "imports": lambda: many.imports(options.runs),
        "sensor": lambda: many.sensor(options.runs),
        "file_size": many.file_size,
        "query": lambda: many.query(options.rows, options.runs),
        "growth": many.growth,
        "state": lambda: state.state(options.runs),
        "warehouse": lambda: warehouse.warehouse(options.rows, options.runs),
    }
    console = Console()
    table = Table(title=f"{options.rows:,} rows x 154 columns, medians of {options.runs}")
    for heading in ("measure", "figure", "at most", "", "beside"):
        table.add_column(heading)
    for name in options.only or measures:
        for figure in measures[name]():
            console.print(f"{figure.measure}: {figure.shown(figure.value)}")
            most = "" if figure.most is None else figure.shown(figure.most)
            holds = (
                "" if figure.most is None else ["missed", "reached"][figure.value <= figure.most]
            )
            table.add_row(figure.measure, figure.shown(figure.value), most, holds, figure.beside)
    console.print(table)
    console.print(
        f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, "
        f"DuckDB {duckdb.__version__}, Dagster {dagster.__version__}"
    )


if __name__ == "__main__":
    main()
