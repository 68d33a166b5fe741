"""Figures, measured processes, and a project over a bill that is made once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import dagster as dg

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.project import ROOT

FOLDER = ROOT / "data" / "bench"
MONTH = "2024-01"
VERSION = "20250203T000000Z"
YEARS = [date(year, month, 1) for year in (2022, 2023, 2024) for month in range(1, 13)]
# Linux reports a child's peak memory as at least its parent's when it was started, so a small
# process starts the command.
_MEASURED = """
import json, os, sys, time
started = time.monotonic()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
seconds, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
with open(sys.argv[1], "w") as file:
    json.dump([seconds, cpu, usage.ru_maxrss / 1024], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
_EXPORT = """
[[exports]]
name = "{name}"
source = "{source}"
start_month = "2022-01"
"""
AWS_KEYS = 'vendor = "aws"\nformat = "cur1"\nexport_name = "bench-cur"\n'
AZURE_KEYS = 'vendor = "azure"\nformat = "focus"\n'
_SETTINGS = """
[storage]
staging_dir = "staging"
parquet_dir = "parquet"
[database.duckdb]
database_path = "finops.duckdb"
memory_limit = "{memory_limit}"
"""


@dataclass(frozen=True)
class Figure:
    """A measured value and the limit that it must not exceed, both in `unit`."""

    measure: str
    value: float
    unit: str = "s"
    limit: float | None = None
    notes: str = ""

    def row(self) -> list[str]:
        """Return the cells of the figure's row in the table."""

        def formatted(value: float) -> str:
            return f"{value:,.{0 if self.unit == 'MB' else 2}f} {self.unit}"

        if self.limit is None:
            return [self.measure, formatted(self.value), "", "", self.notes]
        verdict = "reached" if self.value <= self.limit else "missed"
        return [self.measure, formatted(self.value), formatted(self.limit), verdict, self.notes]


@dataclass(frozen=True)
class Run:
    """One finished process, or the median of several.

    `seconds` are those of the clock, `megabytes` the peak of resident memory.
    """

    seconds: float
    cpu: float
    megabytes: float

    @classmethod
    def median(cls, runs: Iterable[Run]) -> Run:
        """Return the medians of the seconds and the highest peak of memory."""
        seconds, cpu, megabytes = zip(*((r.seconds, r.cpu, r.megabytes) for r in runs), strict=True)
        return cls(median(seconds), median(cpu), max(megabytes))

    def figure(self, measure: str, limit: float | None = None, notes: str = "") -> Figure:
        """Return the seconds of the clock as a figure, with the CPU seconds in its notes."""
        used = f"{self.cpu:.2f} s of CPU"
        return Figure(measure, self.seconds, "s", limit, f"{used}; {notes}" if notes else used)


def run_in_process(work: Callable[..., object], *arguments: object) -> None:
    """Run a function in a process of its own; exit where it fails."""
    process = get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def made_once(name: str, make: Callable[..., object], *arguments: object) -> Path:
    """Return a folder below data/bench; `make(folder, *arguments)` fills it where it is missing."""
    folder = FOLDER / name
    if not folder.exists():
        unfinished = folder.with_name(f"{name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        run_in_process(make, unfinished, *arguments)
        unfinished.rename(folder)
    return folder


def source(rows: int, columns: int = 154, parts: int = 4, months: Sequence[date] = ()) -> Path:
    """Return the folder with a bill of these months, or of January 2024."""
    months = months or [date(2024, 1, 1)]
    versions = [BillVersion(month, VERSION, rows, parts) for month in months]
    return made_once(f"source-{rows}x{columns}-{parts}-{len(months)}", _write, versions, columns)


def _write(folder: Path, versions: list[BillVersion], columns: int) -> None:
    for version in versions:
        write_version(folder, "", "bench-cur", version, layout=Layout(columns=columns))


def small_months() -> str:
    """Return the address of a bill of 36 months of 5,000 rows each."""
    return f"file://{source(5000, 150, 1, YEARS)}"


@dataclass(frozen=True)
class BenchmarkProject:
    """A project in the folder `work`, which nothing was loaded into yet."""

    work: Path

    @classmethod
    def create(
        cls,
        source: Path | str,
        *,
        memory_limit: str = "2GB",
        exports: int = 1,
        keys: str = AWS_KEYS,
    ) -> BenchmarkProject:
        """Create the project in place of the previous one, and set the environment of this process.

        All `exports` read the same source; `keys` are further settings of each, in TOML.
        """
        work = FOLDER / "work"
        shutil.rmtree(work, ignore_errors=True)
        home = work / "dagster"
        home.mkdir(parents=True)
        shutil.copy(ROOT / "dagster.yaml", home)
        source = f"file://{source}" if isinstance(source, Path) else source
        names = ["bench", *(f"bench_{number}" for number in range(1, exports))]
        tables = "".join(_EXPORT.format(name=name, source=source) + keys for name in names)
        (work / "finops.toml").write_text(_SETTINGS.format(memory_limit=memory_limit) + tables)
        os.environ |= {
            "DAGSTER_HOME": str(home),
            "FINOPS_CONFIG": "finops.toml",
            "PYTHONPATH": str(ROOT),
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
        }
        with dg.DagsterInstance.get():
            pass  # A month is loaded into a history that exists already.
        return cls(work)

    def materialize(
        self, module: str = "finops_dagster.definitions", *, focus: bool = False
    ) -> Run:
        """Materialize the month by `dagster asset materialize`: its bill, or also its charges."""
        dagster = str(Path(sys.executable).parent / "dagster")
        assets = "group:bench" if focus else 'group:bench and not key:"bench/focus"'
        selection = ["--select", assets, "--partition", MONTH]
        return self.run([dagster, "asset", "materialize", "-m", module, *selection])

    def finops(self, *arguments: str) -> Run:
        """Run a `finops` command."""
        return self.run([*FINOPS, *arguments])

    def unchanged(self, vendor: str) -> Run:
        """Run the pipeline by `finops` for the month, of which every stage has the version already.

        Stages that have not run yet, such as those of the charges, are run first.
        """
        command = (vendor, "run-pipeline", "--start-date", MONTH, "--end-date", MONTH)
        self.finops(*command)
        return self.finops(*command)

    def python(self, code: str, *arguments: str) -> Run:
        """Run a Python program."""
        return self.run([sys.executable, "-c", code, *arguments])

    def run(self, command: Sequence[str]) -> Run:
        """Run a command in the project's folder and measure it; exit where it fails.

        The output is in `output.txt`, and its end is printed where the command fails.
        """
        os.sync()  # what earlier processes left to be written to disk must not slow this one down
        measured = [sys.executable, "-S", "-c", _MEASURED, "run.json", *command]
        with (self.work / "output.txt").open("w+") as output:
            if subprocess.call(measured, cwd=self.work, stdout=output, stderr=output) != 0:
                output.seek(0)
                sys.exit(output.read()[-4000:])
        return Run(*json.loads((self.work / "run.json").read_text()))

    def stage_seconds(self, stage: str, month: str = MONTH) -> float:
        """Return the seconds in the metadata of the stage's last materialization of the month."""
        of_stage = dg.AssetRecordsFilter(dg.AssetKey(["bench", stage]), asset_partitions=[month])
        with dg.DagsterInstance.get() as instance:
            (record,) = instance.fetch_materializations(of_stage, limit=1).records
        assert record.asset_materialization is not None
        return float(str(record.asset_materialization.metadata["seconds"].value))
