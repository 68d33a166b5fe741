"""Locks and notes of the processes that run months on this machine, and their files' permissions.

A process holds the operating system's lock of its run, which is released when the process ends. A
process id would not do: after a reboot, or in the next container, another process has it.
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

# The errors of a run that was stopped by hand.
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_own_locks: set[str] = set()


def keep_files_private() -> None:
    """Set the umask so that no other user can read the files of this process and its children.

    DuckDB, Dagster and SQLite create files themselves, with the umask alone. It is set where a
    process of this project starts: `finops`, the demo, and the module that Dagster loads. A default
    access list of a folder (`setfacl -d`) takes precedence.
    """
    os.umask(0o077)


def collect_garbage_seldom() -> None:
    """Run Python's garbage collector less often in this process."""
    # Imported modules stay, above all Dagster's, and to search them takes a tenth of a short run.
    gc.set_threshold(100_000)


@contextmanager
def instance_lock(home: Path) -> Iterator[None]:
    """Hold the lock of DAGSTER_HOME, which guards the creation and removal of its files."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".finops.lock"):
        yield


@contextmanager
def run_lock(home: Path, run_id: str) -> Iterator[None]:
    """Hold the run's lock; where this process holds it already, do nothing."""
    if run_id in _own_locks:
        yield
        return
    lock = FileLock(_path(home, run_id))
    with instance_lock(home):
        _path(home, run_id).parent.mkdir(exist_ok=True)
        lock.acquire()
        write_note(home, run_id, process=os.getpid())
    _own_locks.add(run_id)
    try:
        yield
        with instance_lock(home):
            remove_lock(home, run_id)
    finally:
        _own_locks.remove(run_id)
        lock.release()


def is_lost(home: Path, run_id: str) -> bool:
    """Return whether the run's process ended without removing its lock: it was killed or failed.

    Dagster may know that the run has ended. Always false for a run of another machine.
    """
    lock = _path(home, run_id)
    if run_id in _own_locks or not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def lost_runs(home: Path) -> list[str]:
    """Return the ids of the runs that are lost."""
    run_ids = sorted(path.name for path in _path(home, "").glob("*") if not path.suffix)
    return [run_id for run_id in run_ids if is_lost(home, run_id)]


def remove_lock(home: Path, run_id: str) -> None:
    """Remove the lock file and the note of a run that has ended."""
    for name in (run_id, f"{run_id}.json"):
        _path(home, name).unlink(missing_ok=True)


def write_note(home: Path, run_id: str, **values: Any) -> None:
    """Add values to the run's note, which commands on this machine read.

    `process` is the id of its process; `retry` is the stage that is tried again, and why.
    """
    note = json.dumps({**read_note(home, run_id), **values})
    _path(home, f"{run_id}.json").write_text(note)


def read_note(home: Path, run_id: str) -> dict[str, Any]:
    """Return the run's note; empty for a run that has ended or runs on another machine."""
    try:
        note: dict[str, Any] = json.loads(_path(home, f"{run_id}.json").read_text())
    except (OSError, ValueError):
        return {}
    return note


def _path(home: Path, name: str) -> Path:
    return home / "finops_runs" / name
