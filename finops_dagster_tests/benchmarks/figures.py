"""What a benchmark is made of: processes that the operating system measures, and figures that are
held against what they must reach."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "bench"


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds and peak resident megabytes."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it must not exceed, in `unit`; `beside` is what else was seen."""

    measure: str
    value: float
    unit: str
    most: float | None = None
    beside: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether it is reached; None where nothing must be."""
        return None if self.most is None else self.value <= self.most


def apart(work: Callable[..., object], *given: object) -> None:
    """Do work in a process of its own: a child's peak is told as its parent's where that was
    higher, so the benchmark itself stays small."""
    process = get_context("spawn").Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def measured(command: Sequence[str], work: Path, **environment: str) -> Run:
    """Run a process to its end; a failure shows its output, which is in `output.txt`. What others
    have left to be written to disk is written before."""
    os.sync()
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


def median_seconds(runs: Iterable[Run]) -> float:
    """The median of the runs' wall seconds."""
    return statistics.median(run.seconds for run in runs)


def most_megabytes(runs: Iterable[Run]) -> float:
    """The highest peak of the runs."""
    return max(run.megabytes for run in runs)
