"""Locks and notes of the processes that run months on this machine, and who may read their files.

A process holds the operating system's lock for its run, which ends when the process does. A process
number would not do: after a reboot, or in the next container, it is another's.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# What ends a run that a person stopped.
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_locked_here: set[str] = set()


def keep_files_private() -> None:
    """Let nobody else read what this process and its children write from now on.

    DuckDB, Dagster and SQLite make files of their own, which no mode at opening would reach; so it
    is the process's umask, and only what is itself started says this: `finops`, the demo, and the
    module that Dagster loads. A folder's default access list (`setfacl -d`) goes before it.
    """
    os.umask(0o077)


def collect_garbage_seldom() -> None:
    """Let Python search this process for garbage less often: what was imported, above all Dagster,
    stays, and to search it takes a tenth of a short run."""
    gc.set_threshold(100_000)


@contextmanager
def instance_lock(home: Path) -> Iterator[None]:
    """Hold the lock of DAGSTER_HOME, under which its files are made and removed."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".finops.lock"):
        yield


@contextmanager
def run_lock(home: Path, run: str) -> Iterator[None]:
    """Hold the run's lock until the block ends, if this process does not hold it already."""
    if run in _locked_here:
        yield
        return
    lock = FileLock(_file(home, run))
    with instance_lock(home):
        _file(home, run).parent.mkdir(exist_ok=True)
        lock.acquire()
        write_note(home, run, process=os.getpid())
    _locked_here.add(run)
    try:
        yield
        with instance_lock(home):
            remove_lock(home, run)
    finally:
        _locked_here.remove(run)
        lock.release()


def is_lost(home: Path, run: str) -> bool:
    """Whether a process of this machine had the run's lock, and has ended without removing it: it
    was killed, or stopped by an error. Dagster may know the run as ended all the same."""
    lock = _file(home, run)
    if run in _locked_here or not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def lost_runs(home: Path) -> list[str]:
    """Return the ids of the runs of which `is_lost` is true, ended or not."""
    known = sorted(path.name for path in _file(home, "").glob("*") if not path.suffix)
    return [run for run in known if is_lost(home, run)]


def remove_lock(home: Path, run: str) -> None:
    """Remove the lock file and the note of a run that has ended."""
    for name in (run, f"{run}.json"):
        _file(home, name).unlink(missing_ok=True)


def write_note(home: Path, run: str, **values: Any) -> None:
    """Add to what the run's process tells the commands of this machine: its number as `process`,
    and as `retry` the stage that is tried again, and why."""
    note = json.dumps({**read_note(home, run), **values})
    _file(home, f"{run}.json").write_text(note)


def read_note(home: Path, run: str) -> dict[str, Any]:
    """Return what the run's process told; nothing of a run that has ended, or of another
    machine."""
    try:
        note: dict[str, Any] = json.loads(_file(home, f"{run}.json").read_text())
    except (OSError, ValueError):
        return {}
    return note


def _file(home: Path, name: str) -> Path:
    return home / "finops_runs" / name
