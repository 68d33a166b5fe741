"""Every DuckDB connection of the project: its limits, its turn at a file, and its end."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.months import BillingMonth
from finops_dagster.progress import (
    SECONDS_BEFORE_WAIT_WARNING,
    SECONDS_BETWEEN_WAIT_WARNINGS,
    logging_progress,
    run_logger,
)
from finops_dagster.tables import ledger

Option = str | bool | int | float | list[str]
"""What DuckDB's configuration takes."""

_DAMAGED = ("Corrupt database file", "not a valid DuckDB database file")
_LONGEST_PAUSE = 2
_NEWER = "created with a newer version of DuckDB"
_MADE_ANEW = (
    "move it away and run its months again: they are loaded anew from the files that they came from"
)


class Limits(Protocol):
    """The settings that reach every connection."""

    @property
    def memory_limit(self) -> str: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def temp_dir(self) -> Path | None: ...
    @property
    def lock_wait_seconds(self) -> int: ...


@dataclass(frozen=True)
class DuckDB:
    """The one place that connects to DuckDB. `temp_dir` is for what `memory_limit` has no room for:
    beside the database's file, or in the working directory, where none is set."""

    memory_limit: str = "2GB"
    threads: int | None = None
    temp_dir: Path | None = None
    lock_wait_seconds: int = 3600

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """Return the connections within the limits of the settings."""
        return cls(limits.memory_limit, limits.threads, limits.temp_dir, limits.lock_wait_seconds)

    @contextmanager
    def scratch(self, **config: Option) -> Iterator[DuckDBPyConnection]:
        """Open a database in memory; `config` are options of DuckDB's own."""
        # Another process's connection would use the same files under the default, `.tmp`.
        temp_dir = (self.temp_dir or Path()) / f".tmp-{uuid4().hex[:12]}"
        config = {"temp_directory": str(temp_dir), **config}
        with closing(duckdb.connect(config=self._config(config))) as connection:
            yield connection

    @contextmanager
    def open(
        self, path: Path, *, read_only: bool = False, **config: Option
    ) -> Iterator[DuckDBPyConnection]:
        """Open the file; one that is written is made where it is missing. Raises BillError.

        DuckDB lets one process write a file and keeps every other out, which wait for their turn.
        The lock is the operating system's: it is gone when its process is.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.temp_dir is not None:
            config = {"temp_directory": str(self.temp_dir / f"{path.name}.tmp"), **config}
        with closing(self._opened(path, read_only, self._config(config))) as connection:
            try:
                yield connection
            except (duckdb.Error, BillError) as error:
                if _is_damaged(path, str(error)):
                    raise BillError(_explained(path, error)) from error
                raise

    def _opened(self, path: Path, read_only: bool, config: dict[str, Option]) -> DuckDBPyConnection:
        """Connect once the lock is free; while it is not, warn who has it, after two seconds and
        every minute from then on."""
        start, pause, next_warning = time.monotonic(), 0.05, SECONDS_BEFORE_WAIT_WARNING
        while True:
            try:
                return duckdb.connect(str(path), read_only=read_only, config=config)
            except duckdb.Error as error:
                seconds = time.monotonic() - start
                if not _is_locked(error) or seconds >= self.lock_wait_seconds:
                    raise BillError(_explained(path, error)) from error
                if seconds >= next_warning:
                    run_logger().warning(f"{path} is open in {_holder(str(error))}; waiting for it")
                    next_warning += SECONDS_BETWEEN_WAIT_WARNINGS
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _config(self, more: dict[str, Option]) -> dict[str, Option]:
        if self.temp_dir is not None:
            self.temp_dir.mkdir(parents=True, exist_ok=True)  # DuckDB makes the last folder alone
        threads = {} if self.threads is None else {"threads": self.threads}
        return {"memory_limit": self.memory_limit, **threads, **more}


@dataclass(frozen=True)
class BillingDatabase:
    """The chain's own database, whose path may hold {export} and {month}."""

    database: str
    duckdb: DuckDB = DuckDB()

    def path(self, export: str, month: BillingMonth) -> Path:
        """Return where the file lies that holds the month, or will lie."""
        return Path(self.database.format(export=export, month=month))

    @contextmanager
    def connect(
        self, export: str, month: BillingMonth, *, mend: bool = False
    ) -> Iterator[DuckDBPyConnection]:
        """Open the file that holds the month, with the ledger; `mend` sets a damaged table of the
        ledger aside for an empty one. Raises BillError."""
        path = self.path(export, month)
        # Months are not sorted: to keep the order of their files would take memory.
        with self.duckdb.open(path, preserve_insertion_order=False) as connection:
            if mend:
                ledger.rename_damaged_tables(connection)
            ledger.create_tables(connection)
            yield connection


@contextmanager
def logging_query_progress(
    connection: DuckDBPyConnection, verb: str, total: int, shown: Callable[[int], str]
) -> Iterator[None]:
    """Log every few seconds how far the connection's statement is."""
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    with logging_progress(
        verb, total, shown, lambda: round(connection.query_progress() / 100 * total)
    ):
        yield


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "lock" in str(error)


def _holder(text: str) -> str:
    match = re.search(r"held in (.+?) \(PID (\d+)\)", text)
    return f"process {match[2]} ({match[1]})" if match else "another process"


def _is_damaged(path: Path, message: str) -> bool:
    """Whether DuckDB says so, which holds a checksum of every block; of no other file's bytes."""
    signs = (*_DAMAGED, f'enough bytes from file "{path.resolve()}"')
    return any(sign in message for sign in signs)


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
