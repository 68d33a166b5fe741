"""Locks of files that another run may hold for long: who is waited for is said."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

SECONDS_BEFORE_WORDS = 2
SECONDS_BETWEEN_WORDS = 60


@contextmanager
def waiting_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file until the block ends. While another run does `what`, which holds it,
    the run's log and standard error say so after two seconds, and every minute from then on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    for seconds in itertools.chain([SECONDS_BEFORE_WORDS], itertools.repeat(SECONDS_BETWEEN_WORDS)):
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            dg.get_dagster_logger().warning(f"another run is {what}; waiting for it")
    try:
        yield
    finally:
        lock.release()
