"""Faults that take a file system or a process tree of their own: Linux gives them to anybody, in a
namespace, where `unshare` is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.project import ROOT

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


class NotHere(Exception):
    """This machine cannot inject the fault; says why."""


def in_a_namespace(module: str, folder: Path, chance: Random) -> Iterator[str]:
    """What `module`, run as a program with the folder and a seed, prints of the faults that held.
    Raises AssertionError with what it said where it failed, and NotHere."""
    try:
        subprocess.run([*_NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere("unshare is not allowed here") from error
    words = [*_NAMESPACE, sys.executable, "-m", module, str(folder), str(chance.getrandbits(32))]
    with subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                yield line.strip()
            raise AssertionError(process.stderr.read())
        finally:
            process.terminate()


def say(fault: Callable[[Path, Random], Iterator[str]]) -> None:
    """Be that program: print each fault that held, until nobody reads on."""
    folder, seed = sys.argv[1:]
    for what in fault(Path(folder), Random(int(seed))):
        print(what, flush=True)  # noqa: T201


def mount(*words: str) -> None:
    """Mount in the namespace."""
    subprocess.run(["mount", *words], check=True)
