"""Tell how far long work is: in the run's log where a run goes on, else on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

SECONDS_BEFORE_WAIT_WARNING = 2
SECONDS_BETWEEN_WAIT_WARNINGS = 60
_SECONDS_BETWEEN_REPORTS = 5


def run_logger() -> logging.Logger:
    """Return the log of Dagster's run where Dagster is at work, else the package's own, of which
    Python writes warnings to standard error. Nothing is imported for it."""
    dagster = sys.modules.get("dagster")
    # While Dagster itself is being imported it has no such function yet.
    of_run: Callable[[], logging.Logger] | None = getattr(dagster, "get_dagster_logger", None)
    return logging.getLogger("finops_dagster") if of_run is None else of_run()


@contextmanager
def logging_progress(
    verb: str, total: int, shown: Callable[[int], str], count: Callable[[], int]
) -> Iterator[None]:
    """Log every few seconds how far the block is: `loaded 400,000 rows of 1,000,000 rows`. `count`
    is called from another thread, and a 0 is not logged."""
    logger, has_lost_connection = run_logger(), Event()

    def watch() -> None:
        while not has_lost_connection.wait(_SECONDS_BETWEEN_REPORTS):
            if (done := count()) > 0:
                logger.info(f"{verb} {shown(done)} of {shown(total)}")

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        has_lost_connection.set()
        watcher.join()


def format_rows(rows: int) -> str:
    """`1,000,000 rows`."""
    return f"{rows:,} rows"
