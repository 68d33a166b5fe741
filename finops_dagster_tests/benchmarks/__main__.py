"""`make bench`: every measure against what it must reach, in one table that is kept as JSON.

The whole takes a quarter of an hour, on a machine that does nothing else, and some ten minutes more
when it first makes its bills; `--only` chooses from it. docs/performance.md keeps what came of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict

import dagster
import duckdb
from rich.console import Console
from rich.table import Table

from finops_dagster_tests.benchmarks import growth, many, month
from finops_dagster_tests.benchmarks.figures import FOLDER, ROOT, Figure


def main() -> None:
    """Run what was chosen, show each figure when it is there, and keep them all."""
    options = _options()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the S3 server's word on each request
    measures: dict[str, Callable[[], Iterable[Figure]]] = {
        "month": lambda: month.month(options.rows, options.runs),
        "memory": lambda: month.memory([options.rows, options.large_rows]),
        "backfill": many.backfill,
        "imports": lambda: many.imports(options.runs),
        "sensor": lambda: many.sensor(options.runs),
        "file_size": many.file_size,
        "query": lambda: many.query(options.rows, options.runs),
        "growth": growth.growth,
    }
    console = Console()
    table = Table(title=f"{options.rows:,} rows x 154 columns, medians of {options.runs}")
    for heading in ("measure", "figure", "at most", "", "beside"):
        table.add_column(heading)
    figures = []
    for name in options.only or measures:
        for figure in measures[name]():
            console.print(f"{figure.measure}: {_shown(figure.value, figure.unit)}")
            figures.append(figure)
    for figure in figures:
        most = "" if figure.most is None else _shown(figure.most, figure.unit)
        holds = {None: "", True: "reached", False: "missed"}[figure.holds]
        table.add_row(figure.measure, _shown(figure.value, figure.unit), most, holds, figure.beside)
    console.print(table)
    facts = {**_machine(), "rows": options.rows, "large_rows": options.large_rows}
    console.print(", ".join(f"{name} {fact}" for name, fact in facts.items()))
    kept = FOLDER / "figures.json"
    told = {**facts, "runs": options.runs, "figures": list(map(asdict, figures))}
    kept.write_text(json.dumps(told, indent=1))
    console.print(f"Kept in {kept.relative_to(ROOT)}.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--large-rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of measures; else all of them")
    return parser.parse_args()


def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "dagster": dagster.__version__,
    }


def _shown(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if unit == "MB" else f"{value:,.2f} {unit}"


if __name__ == "__main__":
    main()
