"""Progress of long work, in the log of the run."""

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
    """Return Dagster's logger if Dagster is imported already, else the package's own.

    By default, Python prints only the warnings and errors of the package's logger.
    """
    # Dagster is slow to import, so it is only used if it is loaded already.
    dagster = sys.modules.get("dagster")
    # While Dagster is being imported, it has no such function yet.
    get_logger: Callable[[], logging.Logger] | None = getattr(dagster, "get_dagster_logger", None)
    return logging.getLogger("finops_dagster") if get_logger is None else get_logger()


@contextmanager
def logging_progress(
    verb: str, total: int, format_amount: Callable[[int], str], amount_done: Callable[[], int]
) -> Iterator[None]:
    """Log the progress of the block every few seconds: `loaded 400,000 rows of 1,000,000 rows`.

    `verb` is in the past tense. `amount_done` returns the amount so far, of `total`. It is called
    from another thread; 0 is not logged. The messages are of level INFO.
    """
    logger, has_ended = run_logger(), Event()

    def watch() -> None:
        while not has_ended.wait(_SECONDS_BETWEEN_REPORTS):
            if (amount := amount_done()) > 0:
                logger.info(f"{verb} {format_amount(amount)} of {format_amount(total)}")

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        has_ended.set()
        watcher.join()
