"""Locks of files that another run may hold for long: a message names who is waited for."""

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
def waiting_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file until the block ends. While another run does `what`, which holds it,
    a warning says so after two seconds, and every minute from then on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waits = itertools.repeat(SECONDS_BETWEEN_WAIT_WARNINGS)
    for seconds in itertools.chain([SECONDS_BEFORE_WAIT_WARNING], waits):
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            run_logger().warning(f"another run is {what}; waiting for it")
    try:
        yield
    finally:
        lock.release()
