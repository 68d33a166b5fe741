"""The processes that runs are executed in, on this machine, and to whom their files are open.

Each holds a lock of the operating system's for its run, which ends when the process does. A process
number would not do: after a reboot, or in the next container, it is another's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# What ends a run that a person stopped.
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_held_here: set[str] = set()


def keep_files_private() -> None:
    """Let nobody else read what this process and its children write from now on.

    DuckDB, Dagster and SQLite make files of their own, which no mode at opening would reach; so it
    is the process's umask, and only what is itself started says this: `finops`, the demo, and the
    module that Dagster loads. A folder's default access list (`setfacl -d`) goes before it.
    """
    os.umask(0o077)


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Be the only one who makes or takes away files in DAGSTER_HOME."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".finops.lock"):
        yield


@contextmanager
def going_on(home: Path, run: str) -> Iterator[None]:
    """Say that the run goes on, until its process ends, or the block does by itself."""
    if run in _held_here:
        yield
        return
    lock = FileLock(_lock_of(home, run))
    with at_home(home):
        _lock_of(home, "").mkdir(exist_ok=True)
        lock.acquire()
        write_note(home, run, process=os.getpid())
    _held_here.add(run)
    try:
        yield
        with at_home(home):
            forget(home, run)
    finally:
        _held_here.remove(run)
        lock.release()


def is_here(home: Path, run: str) -> bool:
    """Whether the run's process is, or was, one of this machine."""
    return _lock_of(home, run).exists()


def is_lost(home: Path, run: str) -> bool:
    """Whether a process of this machine had the run and has it no more, without having forgotten
    it: it was killed, or ended by an error. Dagster may know the run as ended all the same."""
    lock = _lock_of(home, run)
    if run in _held_here or not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def lost_runs(home: Path) -> list[str]:
    """Return the ids of the runs of which `is_lost` is true, ended or not."""
    known = sorted(path.name for path in _lock_of(home, "").glob("*") if not path.suffix)
    return [run for run in known if is_lost(home, run)]


def forget(home: Path, run: str) -> None:
    """The run has ended, in whatever way."""
    _lock_of(home, run).unlink(missing_ok=True)
    _note_of(home, run).unlink(missing_ok=True)


def write_note(home: Path, run: str, **values: Any) -> None:
    """Add to what the run's process tells the commands of this machine: its number as `process`,
    and as `retry` the stage that is tried again, and why."""
    _note_of(home, run).write_text(json.dumps({**read_note(home, run), **values}))


def read_note(home: Path, run: str) -> dict[str, Any]:
    """Return what the run's process told; nothing of a run that has ended, or of another
    machine."""
    try:
        note: dict[str, Any] = json.loads(_note_of(home, run).read_text())
    except (OSError, ValueError):
        return {}
    return note


def _lock_of(home: Path, run: str) -> Path:
    return home / "finops_runs" / run


def _note_of(home: Path, run: str) -> Path:
    return home / "finops_runs" / f"{run}.json"
