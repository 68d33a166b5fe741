"""File locks that another process may hold for long; a warning says what this one waits for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from finops_dagster.progress import (
    SECONDS_BEFORE_WAIT_WARNING,
    SECONDS_BETWEEN_WAIT_WARNINGS,
    run_logger,
)


@contextmanager
def waiting_lock(path: Path, activity: str) -> Iterator[None]:
    """Hold the lock file at `path` during the block; wait while another process holds it.

    It waits without a limit, and logs a warning after two seconds and then every minute. `activity`
    says in the warning what the other process does: `loading 2024-01`. Creates the file and its
    folder. The block must not take the same lock again. The operating system releases the lock of a
    process that is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waits = itertools.repeat(SECONDS_BETWEEN_WAIT_WARNINGS)
    for seconds in itertools.chain([SECONDS_BEFORE_WAIT_WARNING], waits):
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            run_logger().warning(f"another run is {activity}; waiting for it")
    try:
        yield
    finally:
        lock.release()
