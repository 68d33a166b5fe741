"""A full disk, with Dagster's history on it or on another one.

The disk is a file system of its own, which Linux lets any user mount where `unshare` is allowed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.faults.project import FaultProject
from finops_dagster_tests.project import ROOT

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_FULL = {
    "loading": r"failed: .*duckdb.*its disk is full",
    "staging": r"failed: .*data/staging.*its disk is full",
    "exporting": r"failed: .*data/parquet.*its disk is full",
    "recording the run": "Dagster's history in .* cannot be written",
}


class FaultUnavailable(Exception):
    """Raised where this machine cannot inject the fault; says why."""


def disk(folder: Path, random: Random) -> Iterator[str]:
    """Fill the disk during a run, in a file system that this module mounts as a program.

    Each month stays what it was, one line says that the disk is full, and the next run loads the
    month when there is room again.
    """
    try:
        subprocess.run([*_NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FaultUnavailable("unshare is not allowed here") from error
    command = [
        *_NAMESPACE,
        sys.executable,
        "-m",
        __name__,
        str(folder),
        str(random.getrandbits(32)),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        try:
            yield from map(str.strip, process.stdout)
            raise AssertionError(process.stderr.read())
        finally:
            process.terminate()


def _fill(folder: Path, random: Random) -> Iterator[str]:
    (folder / "data/small").mkdir(parents=True)
    (folder / "home").mkdir()
    disks = [_fill_again(folder / name, random) for name in ("all", "data")]
    while True:
        yield from map(next, disks)


def _fill_again(folder: Path, random: Random) -> Iterator[str]:
    small = folder / "small"
    small.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=1G", "none", small)
    if folder.name == "data":
        (small / "home").symlink_to(folder.parent / "home", target_is_directory=True)
    project = FaultProject(small, random, bucket=folder / "source", months=("2024-01",))
    project.deliver(rows=2000)
    while True:
        project.recover()
        used = shutil.disk_usage(small).used
        project.deliver(rows=random.randint(2000, 20000))
        room = random.randrange(4 * 2 ** random.randrange(10, 21))
        _mount("-o", f"remount,size={used + room}", small)
        code, output = project.start().end()
        project.assert_whole()
        _mount("-o", "remount,size=1G", small)
        if code:
            step = next(name for name, pattern in _FULL.items() if re.search(pattern, output))
            project.recover()
            yield f"{folder.name}: {step}"


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    for case in _fill(Path(sys.argv[1]), Random(int(sys.argv[2]))):
        print(case, flush=True)  # noqa: T201
