"""A disk that is full: of all that the chain writes, or with Dagster's history on another one. It
takes a file system of its own: Linux gives one to anybody where `unshare` is allowed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.project import ROOT

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_FULL = {
    "loading": r"failed: .*duckdb.*its disk is full",
    "staging": r"failed: .*data/staging.*its disk is full",
    "exporting": r"failed: .*data/parquet.*its disk is full",
    "telling Dagster": "Dagster's history in .* cannot be written",
}


class NotHere(Exception):
    """This machine cannot inject the fault; says why."""


def disk(folder: Path, chance: Random) -> Iterator[str]:
    """Each month stays what it was, one line says that the disk is full, and the next run makes up
    for it when there is room. Runs this module as a program in the namespace."""
    try:
        subprocess.run([*_NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere("unshare is not allowed here") from error
    words = [*_NAMESPACE, sys.executable, "-m", __name__, str(folder), str(chance.getrandbits(32))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, text=True, **pipes) as process:
        try:
            yield from map(str.strip, process.stdout)
            raise AssertionError(process.stderr.read())
        finally:
            process.terminate()


def _fill(folder: Path, chance: Random) -> Iterator[str]:
    (folder / "data/small").mkdir(parents=True)
    (folder / "home").mkdir()
    disks = [_fill_again(folder / name, chance) for name in ("all", "data")]
    while True:
        yield from map(next, disks)


def _fill_again(folder: Path, chance: Random) -> Iterator[str]:
    small = folder / "small"
    small.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=1G", "none", small)
    if folder.name == "data":
        (small / "home").symlink_to(folder.parent / "home", target_is_directory=True)
    chain = Chain(small, chance, bucket=folder / "source", months=("2024-01",))
    chain.deliver(rows=2000)
    while True:
        chain.run_and_settle()
        used = shutil.disk_usage(small).used
        chain.deliver(rows=chance.randint(2000, 20000))
        room = chance.randrange(4 * 2 ** chance.randrange(10, 21))
        _mount("-o", f"remount,size={used + room}", small)
        code, output = chain.start().end()
        chain.whole()
        _mount("-o", "remount,size=1G", small)
        if code:
            where = next(name for name, words in _FULL.items() if re.search(words, output))
            chain.run_and_settle()
            yield f"{folder.name}: {where}"


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    for what in _fill(Path(sys.argv[1]), Random(int(sys.argv[2]))):
        print(what, flush=True)  # noqa: T201
