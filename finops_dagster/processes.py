"""Locks and notes of the runs on this machine, and the permissions of their processes' files.

A process holds a lock for its run, which the operating system releases when the process ends. A
process id would not do: after a reboot, or in the next container, another process has it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# The names of the errors with which a run ends that a person stopped.
INTERRUPT_ERRORS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_SECONDS_BETWEEN_TRIES = 0.1
_own_locks: set[str] = set()


def set_private_umask() -> None:
    """Set the umask so that other users cannot read the files that this process creates.

    Child processes inherit it. It is the only way to restrict the files that DuckDB, Dagster and
    SQLite create. Call it where a process starts: `finops`, the demo, and the module that Dagster
    loads. A default access list of a folder (`setfacl -d`) takes precedence over it.
    """
    os.umask(0o077)


def raise_gc_threshold() -> None:
    """Let the garbage collector of this process run less often, which saves time.

    Objects in reference cycles are freed later.
    """
    # A tenth of a short run goes into searching modules, above all Dagster's, which always stay.
    gc.set_threshold(100_000)


def freeze_imports() -> None:
    """Exclude all objects so far from garbage collection, so that the process ends faster.

    Call it after Dagster is imported, and before DuckDB is: else it does nothing.
    """
    # When the process ends, Python searches all that Dagster imported for garbage three times,
    # which takes half a second; frozen objects are not searched.
    if "duckdb" in sys.modules:
        return
    # Dagster keeps copies of the globals of modules that use it. Frozen, they would keep DuckDB's
    # objects, which DuckDB reports as leaks. At its end, Python empties the modules that something
    # still refers to: here a list that refers to itself, so that it is never freed.
    modules: list[object] = []
    modules.append(modules)
    gc.freeze()
    atexit.register(lambda: modules.extend(sys.modules.values()))


@contextmanager
def instance_lock(home: Path) -> Iterator[None]:
    """Hold the lock of DAGSTER_HOME, which is `home`, during the block.

    It guards the creation and removal of files there. Waits without limit while another process
    holds it; the block must not take it again. Creates the folder if it is missing.
    """
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".finops.lock"):
        yield


@contextmanager
def run_lock(home: Path, run_id: str) -> Iterator[None]:
    """Hold the run's lock during the block; do nothing if this process holds it already.

    Waits while another process of the run holds it: an executor may start a process for each stage.
    Writes the run's note with the process id. At the end of the block, the lock file and the note
    are removed. If the block raises, they stay, and `is_lost_run` is then true. Creating and
    removing them takes the instance lock, which the caller must not hold.
    """
    if run_id in _own_locks:
        yield
        return
    lock = FileLock(_path(home, run_id))
    while not lock.is_locked:
        with instance_lock(home):
            _path(home, run_id).parent.mkdir(exist_ok=True)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                update_run_note(home, run_id, process=os.getpid())
        if not lock.is_locked:
            # Not within the instance lock, which the other process needs to remove its lock.
            time.sleep(_SECONDS_BETWEEN_TRIES)
    _own_locks.add(run_id)
    try:
        yield
        with instance_lock(home):
            remove_run_lock(home, run_id)
    finally:
        _own_locks.remove(run_id)
        lock.release()


def is_lost_run(home: Path, run_id: str) -> bool:
    """Return whether the run left its lock file, but no process holds it: it was killed, or failed.

    Dagster may show the run as ended already. Always false for a run of another machine.
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
    """Return the ids of the runs on this machine for which `is_lost_run` is true."""
    run_ids = sorted(path.name for path in _path(home, "").glob("*") if not path.suffix)
    return [run_id for run_id in run_ids if is_lost_run(home, run_id)]


def remove_run_lock(home: Path, run_id: str) -> None:
    """Remove the lock file and the note of a run that has ended; they may be missing.

    The caller must hold the instance lock.
    """
    for name in (run_id, f"{run_id}.json"):
        _path(home, name).unlink(missing_ok=True)


def update_run_note(home: Path, run_id: str, **values: Any) -> None:
    """Add values to the run's note: a JSON file beside its lock, which commands read.

    Call it within `run_lock`, which creates the note's folder. `process` is the id of the run's
    process, which `run_lock` writes. `retried` has the last error of each stage that was tried
    again, by stage.
    """
    note = json.dumps({**read_run_note(home, run_id), **values})
    _path(home, f"{run_id}.json").write_text(note)


def read_run_note(home: Path, run_id: str) -> dict[str, Any]:
    """Return the values that `update_run_note` wrote; empty if there is no note, or it is damaged.

    There is none of a run on another machine, and none of an ended run, unless it is a lost one.
    """
    try:
        note: dict[str, Any] = json.loads(_path(home, f"{run_id}.json").read_text())
    except (OSError, ValueError):
        return {}
    return note


def _path(home: Path, name: str) -> Path:
    return home / "finops_runs" / name
