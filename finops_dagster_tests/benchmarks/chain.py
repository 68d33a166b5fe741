"""What a benchmark is made of: figures, processes that the operating system measures, and a project
in a folder of its own over a bill that is made once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
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
_EXPORT = """
[[exports]]
name = "{name}"
vendor = "aws"
format = "cur1"
source = "{source}"
export_name = "bench-cur"
start_month = "2022-01"
"""
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
    """What was measured, and what it must not exceed, in `unit`; `beside` is what else was seen."""

    measure: str
    value: float
    unit: str = "s"
    most: float | None = None
    beside: str = ""

    def row(self) -> list[str]:
        """The figure as a row of the table."""

        def shown(value: float) -> str:
            return f"{value:,.{0 if self.unit == 'MB' else 2}f} {self.unit}"

        if self.most is None:
            return [self.measure, shown(self.value), "", "", self.beside]
        verdict = "reached" if self.value <= self.most else "missed"
        return [self.measure, shown(self.value), shown(self.most), verdict, self.beside]


@dataclass(frozen=True)
class Run:
    """One finished process, or the median of several: wall and CPU seconds, and peak resident
    megabytes."""

    seconds: float
    cpu: float
    megabytes: float

    @classmethod
    def median(cls, runs: Iterable[Run]) -> Run:
        """The median of each measure, of memory the peak."""
        seconds, cpu, megabytes = zip(*((r.seconds, r.cpu, r.megabytes) for r in runs), strict=True)
        return cls(median(seconds), median(cpu), max(megabytes))

    def figure(self, measure: str, most: float | None = None, beside: str = "") -> Figure:
        """The wall seconds, with CPU seconds beside."""
        used = f"{self.cpu:.2f} s of CPU"
        return Figure(measure, self.seconds, "s", most, f"{used}; {beside}" if beside else used)


def apart(work: Callable[..., object], *arguments: object) -> None:
    """Do work in a process of its own: a child's peak is told as its parent's where that was
    higher, so the benchmark itself stays small."""
    process = get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def once(name: str, make: Callable[..., object], *arguments: object) -> Path:
    """A folder below data/bench, which `make(folder, *arguments)` fills where it is missing."""
    folder = FOLDER / name
    if not folder.exists():
        making = folder.with_name(f"{name}.part")
        shutil.rmtree(making, ignore_errors=True)
        apart(make, making, *arguments)
        making.rename(folder)
    return folder


def source(rows: int, columns: int = 154, parts: int = 4, months: Sequence[date] = ()) -> Path:
    """The folder with the bill, January 2024 where no months are named."""
    months = months or [date(2024, 1, 1)]
    versions = [BillVersion(month, VERSION, rows, parts) for month in months]
    return once(f"source-{rows}x{columns}-{parts}-{len(months)}", _write, versions, columns)


def _write(folder: Path, versions: list[BillVersion], columns: int) -> None:
    for version in versions:
        write_version(folder, "", "bench-cur", version, layout=Layout(columns=columns))


def small_months() -> str:
    """The source of three years of 5,000 rows each."""
    return f"file://{source(5000, 150, 1, YEARS)}"


@dataclass(frozen=True)
class Chain:
    """An empty project over a source."""

    work: Path

    @classmethod
    def over(
        cls, source: Path | str, *, memory_limit: str = "2GB", exports: int = 1, more: str = ""
    ) -> Chain:
        """Make it, in the place of the one before; `more` are keys of its export, and tables."""
        work = FOLDER / "work"
        shutil.rmtree(work, ignore_errors=True)
        home = work / "dagster"
        home.mkdir(parents=True)
        shutil.copy(ROOT / "dagster.yaml", home)
        source = f"file://{source}" if isinstance(source, Path) else source
        names = ["bench", *(f"bench_{number}" for number in range(1, exports))]
        tables = "".join(_EXPORT.format(name=name, source=source) + more for name in names)
        (work / "finops.toml").write_text(_SETTINGS.format(memory_limit=memory_limit) + tables)
        os.environ |= {
            "DAGSTER_HOME": str(home),
            "FINOPS_CONFIG": "finops.toml",
            "PYTHONPATH": str(ROOT),
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
        }
        return cls(work)

    def materialize(self, module: str = "finops_dagster.definitions") -> Run:
        """`dagster asset materialize` of the month, the whole chain."""
        dagster = str(Path(sys.executable).parent / "dagster")
        selection = ["--select", "group:bench", "--partition", MONTH]
        return self.run([dagster, "asset", "materialize", "-m", module, *selection])

    def finops(self, *words: str) -> Run:
        """A `finops` command."""
        return self.run([*FINOPS, *words])

    def python(self, code: str, *words: str) -> Run:
        """A Python program."""
        return self.run([sys.executable, "-c", code, *words])

    def run(self, command: Sequence[str]) -> Run:
        """Run a command to its end in the project's folder; a failure shows its output, which is
        in `output.txt`. What others have left to be written to disk is written before."""
        os.sync()
        with (self.work / "output.txt").open("w+") as output:
            started = time.monotonic()
            process = subprocess.Popen(command, cwd=self.work, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                output.seek(0)
                sys.exit(output.read()[-4000:])
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def stage_seconds(self, stage: str) -> float:
        """What a stage said of its time when it last had the month."""
        of_stage = dg.AssetRecordsFilter(dg.AssetKey(["bench", stage]), asset_partitions=[MONTH])
        with dg.DagsterInstance.get() as instance:
            (record,) = instance.fetch_materializations(of_stage, limit=1).records
        assert record.asset_materialization is not None
        return float(str(record.asset_materialization.metadata["seconds"].value))
