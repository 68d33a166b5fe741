"""What the chain stands on goes away, or moves: its folders, its processes, and the time of day."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random

from finops_dagster_tests.faults.chain import PIPELINE, Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.faults.namespace import NotHere, in_a_namespace, say
from finops_dagster_tests.warehouses.duckdb import DuckDB

_PLACES = {
    "the staging folder": ("data/staging", ""),
    "the Parquet folder": ("data/parquet", "Parquet"),
    "the DuckDB file": ("data/finops.duckdb", "DuckDB"),
    "Dagster's history": ("home", ""),
}


def vanishing(folder: Path, chance: Random) -> Iterator[str]:
    """The next run makes what is missing from what is there, also where it vanished under a run."""
    warehouse = DuckDB(folder / "data/warehouse.duckdb")
    chain = Chain(folder, chance, warehouse, months=("2024-01", "2024-02"))
    must = MustHold(chain)
    for month in chain.months:
        chain.deliver(month)
    chain.run()
    while True:
        for name, (path, place) in _PLACES.items():
            during = chance.random() < 0.5
            chain.restate()
            command = chain.start() if during else None
            if command is not None:
                command.ended_within(chance.uniform(0, chain.seconds))
            gone = chain.folder / path
            shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink()
            if command is not None:
                command.end()
            must.forget(place or "nothing")
            chain.run()
            must.settled()
            yield f"{name} gone{' under a run' if during else ''}"


def clock(folder: Path, chance: Random) -> Iterator[str]:
    """A version that is loaded when the clock is wrong is known as what it is when it is right."""
    shifted = _faketime()
    chain = Chain(folder, chance, DuckDB(folder / "data/warehouse.duckdb"), months=("2024-01",))
    must = MustHold(chain)
    while True:
        days = chance.choice((-1, 1)) * chance.randint(1, 400)
        chain.deliver("2024-01")
        chain.run(**shifted, FAKETIME=f"{days:+}d")
        must.settled()
        chain.deliver("2024-01")
        chain.run()
        must.settled()
        assert "  unchanged  " in chain.run(), "a version that is held was loaded again"
        yield f"clock {'ahead' if days > 0 else 'behind'}"


def _faketime() -> dict[str, str]:
    """The environment of a process whose clock is another. Raises NotHere."""
    found = find_spec("libfaketime")
    if found is None or found.origin is None:
        raise NotHere("libfaketime is not installed")
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    plain = {"LD_PRELOAD": str(library), "DONT_FAKE_MONOTONIC": "1"}
    works = subprocess.run(
        ["date", "+%Y"], env={**os.environ, **plain, "FAKETIME": "+3650d"}, capture_output=True
    )
    year = subprocess.run(["date", "+%Y"], capture_output=True).stdout
    if works.returncode or int(works.stdout) < int(year) + 9:
        raise NotHere("libfaketime does not work here")
    return plain


def reboot(folder: Path, chance: Random) -> Iterator[str]:
    """After a reboot the number of the process that ran is soon another's: the run is ended all the
    same, by whoever runs next."""
    return in_a_namespace(__name__, folder, chance)


def _same_process_numbers(folder: Path, chance: Random) -> Iterator[str]:
    chain = Chain(folder, chance, months=("2024-01",))
    must = MustHold(chain)
    machine = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    while True:
        chain.deliver("2024-01")
        command = chain.start(*machine, *PIPELINE)
        command.ended_within(chance.uniform(0, chain.seconds))
        command.kill()
        must.whole()
        history = folder / "home/history/runs.db"
        began = history.is_file() and history.stat().st_size
        chain.run(*machine, *PIPELINE)
        must.settled()
        yield f"reboot{'' if began else ' before the first run'}"


if __name__ == "__main__":
    say(_same_process_numbers)
