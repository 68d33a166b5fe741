"""A DuckDB file: open while a stage needs it, in one process at a time, always closed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.months import BillingMonth
from finops_dagster.locks import SECONDS_BEFORE_WORDS, SECONDS_BETWEEN_WORDS
from finops_dagster.tables import ledger
from finops_dagster.tables import load as table

_SECONDS_BETWEEN_WORDS = 5
_DAMAGED = ("Corrupt database file", "not a valid DuckDB database file")
_NEWER = "created with a newer version of DuckDB"
_MADE_ANEW = (
    "move it away and run its months again: they are loaded anew from the files that they came from"
)


class WaitingDuckDB(DuckDBResource):
    """A DuckDBResource that waits for its turn at a file, and that closes the connection also when
    the body raises.

    DuckDB lets one process write a file and keeps every other out. The lock is the operating
    system's: it is gone when its process is.
    """

    memory_limit: str
    threads: int | None = None
    lock_wait_seconds: int

    @contextmanager
    def open(self, path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file; one that is written is made where it is missing. Raises BillError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._opened(path, read_only)) as connection:
            try:
                yield connection
            except (duckdb.Error, BillError) as error:
                if _is_damaged(path, str(error)):
                    raise BillError(_explained(path, error)) from error
                raise

    def _opened(self, path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
        waiting = Retrying(
            retry=retry_if_exception(_is_locked),
            stop=stop_after_delay(self.lock_wait_seconds),
            wait=wait_exponential_jitter(multiplier=0.05, max=2),
            before_sleep=_saying_who_holds(path),
            reraise=True,
        )
        try:
            return waiting(duckdb.connect, str(path), read_only=read_only, config=self._config())
        except duckdb.Error as error:
            raise BillError(_explained(path, error)) from error

    def _config(self) -> dict[str, str | bool | int | float | list[str]]:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit,
            "preserve_insertion_order": False,
            **self.connection_config,
        }
        return config if self.threads is None else {**config, "threads": self.threads}


class BillingDatabase(WaitingDuckDB):
    """The chain's own database, whose path may hold {export} and {month}."""

    def path(self, export: str, month: BillingMonth) -> Path:
        """Where the file lies that holds the month, or will lie."""
        return Path(self.database.format(export=export, month=month))

    @contextmanager
    def connect(
        self, export: str, month: BillingMonth, *, mend: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file that holds the month, with the ledger; `mend` sets a damaged table of the
        ledger aside for an empty one. Raises BillError."""
        with self.open(self.path(export, month)) as connection:
            if mend:
                ledger.set_aside_damaged(connection)
            ledger.create(connection)
            yield connection

    @contextmanager
    def scratch(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A database in memory, for reading files without a turn at the file on disk."""
        with closing(duckdb.connect(config=self._config())) as connection:
            table.prepare_casts(connection)
            yield connection


@contextmanager
def watched(
    connection: duckdb.DuckDBPyConnection, did: str, total: int, shown: Callable[[int], str]
) -> Iterator[None]:
    """Say every few seconds how far the statement in progress is: `loaded 400,000 rows of 1,000,000
    rows`. The run's log and the terminal show it."""
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    log, is_over = dg.get_dagster_logger(), Event()

    def watch() -> None:
        while not is_over.wait(_SECONDS_BETWEEN_WORDS):
            done = connection.query_progress() / 100
            if done > 0:
                log.info(f"{did} {shown(round(done * total))} of {shown(total)}")

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def rows_shown(rows: int) -> str:
    """`1,000,000 rows`."""
    return f"{rows:,} rows"


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "lock" in str(error)


def _holder(text: str) -> str:
    match = re.search(r"held in (.+?) \(PID (\d+)\)", text)
    return f"process {match[2]} ({match[1]})" if match else "another process"


def _saying_who_holds(path: Path) -> Callable[[RetryCallState], None]:
    """Say who holds the file after two seconds, and every minute from then on: in the run's log,
    and on standard error."""
    moments = itertools.count(SECONDS_BEFORE_WORDS, SECONDS_BETWEEN_WORDS)
    next_moment = next(moments)

    def say(state: RetryCallState) -> None:
        nonlocal next_moment
        if (state.seconds_since_start or 0) >= next_moment and state.outcome is not None:
            next_moment = next(moments)
            holder = _holder(str(state.outcome.exception()))
            dg.get_dagster_logger().warning(f"{path} is open in {holder}; waiting for it")

    return say


def _is_damaged(path: Path, said: str) -> bool:
    """Whether DuckDB says so, which holds a checksum of every block; of no other file's bytes."""
    signs = (*_DAMAGED, f'enough bytes from file "{path.resolve()}"')
    return any(sign in said for sign in signs)


def _explained(path: Path, error: Exception) -> str:
    if _is_locked(error):
        return (
            f"{path} is still open in {_holder(str(error))}; close it there, or set "
            "database.duckdb.lock_wait_seconds higher"
        )
    if _is_damaged(path, str(error)):
        return f"{path} is damaged, and was left as it is ({first_line(error)}); {_MADE_ANEW}"
    if _NEWER in str(error):
        return (
            f"{path} was written by a newer DuckDB than this one, {duckdb.__version__}; install "
            f"that one, or {_MADE_ANEW}"
        )
    return f"{path} cannot be opened: {first_line(error)}"
