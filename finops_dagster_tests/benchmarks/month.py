"""`make bench`: one month of a large bill through the chain, against bare DuckDB doing the least.

Both sides are whole processes, run in turn and measured by the operating system. Bare DuckDB reads
the same files with the same types: a CREATE TABLE AS over read_csv, then a COPY to zstd Parquet.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

from finops_dagster.billing.columns import SqlType, column_names, literal, quoted
from finops_dagster.billing.vendors.aws_cur1 import AwsCur1
from finops_dagster.demo.export import Version, write_version

ROOT = Path(__file__).parents[2]
SETTINGS = """
[storage]
staging_dir = "staging"
parquet_dir = "parquet"
[database.duckdb]
database_path = "finops.duckdb"
memory_limit = "{memory_limit}"
[[exports]]
name = "bench"
vendor = "aws"
format = "cur1"
source = "file://{source}"
export_name = "bench-cur"
start_month = "2024-01"
"""
BARE = """
import duckdb, sys
connection = duckdb.connect("bare.duckdb", config={{"memory_limit": sys.argv[1]}})
connection.execute("SET preserve_insertion_order = false")
connection.execute({create!r})
connection.execute("COPY month TO 'bare.parquet' (FORMAT parquet, COMPRESSION zstd)")
"""


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds and peak resident megabytes."""

    seconds: float
    megabytes: float


def main() -> None:
    """Make the data once, run both sides in turn, print and keep the figures."""
    options = _options()
    folder = ROOT / "data" / "bench"
    source = folder / f"source-{options.rows}-{options.columns}-{options.parts}"
    console = Console()
    if not source.exists():
        console.print(f"making {options.rows:,} rows of {options.columns} columns, once")
        version = Version(date(2024, 1, 1), "20240203T000000Z", options.rows, options.parts)
        write_version(source, "", "bench-cur", version, columns=options.columns)
    work = folder / "work"
    sides: dict[str, list[Run]] = {"bare DuckDB": [], "first load": [], "unchanged": []}
    for number in range(options.runs):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        sides["bare DuckDB"].append(_bare(work, source, options.memory_limit))
        sides["first load"].append(_chain(work, source, options.memory_limit))
        sides["unchanged"].append(_chain(work, source, options.memory_limit))
        console.print(f"run {number + 1} of {options.runs}: " + _seconds(sides))
    shutil.rmtree(work)
    _report(console, sides, options, folder / "month.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=150)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory-limit", default="2GB")
    return parser.parse_args()


def _bare(work: Path, source: Path, memory_limit: str) -> Run:
    script = BARE.format(create=_create_table(sorted(source.rglob("*.csv.gz"))))
    return measured([sys.executable, "-c", script, memory_limit], work)


def _create_table(files: list[Path]) -> str:
    vendor = AwsCur1()
    with gzip.open(files[0], "rt", encoding="utf-8", newline="") as text:
        headers = next(csv.reader(text))
    (manifest,) = files[0].parent.glob("*-Manifest.json")
    declared = {
        f"{column['category']}/{column['name']}": column["type"]
        for column in json.loads(manifest.read_text())["columns"]
    }
    names = column_names(headers, {}, vendor)
    types = {h: vendor.sql_type(h, declared[h]) or SqlType.TEXT for h in headers}
    columns = ", ".join(f"{literal(names[h])}: {literal(types[h])}" for h in headers)
    paths = ", ".join(literal(str(file)) for file in files)
    return (
        f"CREATE TABLE {quoted('month')} AS FROM read_csv([{paths}], header = true, "
        f"auto_detect = false, delim = ',', quote = '\"', escape = '\"', columns = {{{columns}}})"
    )


def _chain(work: Path, source: Path, memory_limit: str) -> Run:
    settings = work / "finops.toml"
    settings.write_text(SETTINGS.format(source=source, memory_limit=memory_limit))
    home = work / "dagster"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    command = [
        *(str(Path(sys.executable).parent / "dagster"), "asset", "materialize"),
        *("-m", "finops_dagster.definitions", "--select", "group:bench", "--partition", "2024-01"),
    ]
    return measured(command, work, FINOPS_CONFIG=str(settings), DAGSTER_HOME=str(home))


def measured(command: list[str], work: Path, **environment: str) -> Run:
    """Run a process to its end; a failure shows its output."""
    with (work / "output.txt").open("w+b") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=work, env={**os.environ, **environment}, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(output.read().decode()[-4000:])
    return Run(seconds, usage.ru_maxrss / 1024)


def _seconds(sides: dict[str, list[Run]]) -> str:
    return ", ".join(f"{side} {runs[-1].seconds:.1f} s" for side, runs in sides.items())


def _report(
    console: Console, sides: dict[str, list[Run]], options: argparse.Namespace, file: Path
) -> None:
    figures = {
        side: {
            "seconds": round(statistics.median(run.seconds for run in runs), 2),
            "peak_megabytes": round(max(run.megabytes for run in runs)),
        }
        for side, runs in sides.items()
    }
    bare = figures["bare DuckDB"]["seconds"]
    table = Table(
        title=f"{options.rows:,} rows x {options.columns} columns in {options.parts} gzip parts, "
        f"memory_limit {options.memory_limit}, median of {options.runs}"
    )
    for heading in ("", "seconds", "against bare", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for side, figure in figures.items():
        ratio = f"{figure['seconds'] / bare:.2f} x"
        table.add_row(side, f"{figure['seconds']:.1f}", ratio, f"{figure['peak_megabytes']:,}")
    console.print(table)
    aim = 1.3 * bare + 5
    console.print(f"The aim for a first load is 1.3 x bare DuckDB + 5 s = {aim:.1f} s.")
    machine = {
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
    }
    file.write_text(json.dumps({"options": vars(options), **machine, "figures": figures}, indent=1))
    console.print(f"Kept in {file.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
