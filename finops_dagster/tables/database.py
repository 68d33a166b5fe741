"""Opens DuckDB connections: their limits, the wait for a locked file, and their errors."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, count_text, first_line
from finops_dagster.billing.months import BillingMonth
from finops_dagster.progress import (
    SECONDS_BEFORE_WAIT_WARNING,
    SECONDS_BETWEEN_WAIT_WARNINGS,
    logging_progress,
    run_logger,
)
from finops_dagster.tables import ledger

Option = str | bool | int | float | list[str]
"""The value of a DuckDB configuration option."""

# DuckDB's errors have no codes: they are recognized by parts of their texts.
_DAMAGED = ("Corrupt database file", "not a valid DuckDB database file")
_LONGEST_PAUSE_SECONDS = 2
_NEWER = "created with a newer version of DuckDB"
_RELOAD_ADVICE = "move it away and run its months again"


class Limits(Protocol):
    """The settings of `[database.duckdb]` that apply to every connection; see DuckDB."""

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
    """Opens DuckDB connections within the limits of the settings.

    Data that does not fit into `memory_limit` is written to `temp_dir`. Without `temp_dir`, it is
    written beside the database file or, for a database in memory, to the working directory. Without
    `threads`, all cores are used.
    """

    memory_limit: str = "2GB"
    threads: int | None = None
    temp_dir: Path | None = None
    lock_wait_seconds: int = 3600

    @classmethod
    def with_limits(cls, limits: Limits) -> Self:
        """Return a DuckDB with the limits of the settings."""
        return cls(limits.memory_limit, limits.threads, limits.temp_dir, limits.lock_wait_seconds)

    @contextmanager
    def open_in_memory(self, **config: Option) -> Iterator[DuckDBPyConnection]:
        """Open a new database in memory for the block.

        It has no macros: see `prepare_casts`. `config` are options of DuckDB, which override the
        limits.
        """
        # Under DuckDB's default, `.tmp`, two processes in one directory would share their files.
        temp_dir = (self.temp_dir or Path()) / f".tmp-{uuid4().hex[:12]}"
        config = {"temp_directory": str(temp_dir), **config}
        with closing(duckdb.connect(config=self._config(config))) as connection:
            yield connection

    @contextmanager
    def open(
        self, path: Path, *, read_only: bool = False, **config: Option
    ) -> Iterator[DuckDBPyConnection]:
        """Open a database file for the block; create it and its folder if they are missing.

        DuckDB lets one process write a file, or several read it. If another process has it open,
        this one waits up to `lock_wait_seconds`, with warnings. A process that is killed leaves no
        lock. `config` are options of DuckDB, which override the limits. Raises BillError if the
        file cannot be opened, if it is missing and `read_only`, and if the block finds it damaged;
        other errors of the block are raised unchanged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.temp_dir is not None:
            config = {"temp_directory": str(self.temp_dir / f"{path.name}.tmp"), **config}
        with closing(self._connect(path, read_only, self._config(config))) as connection:
            try:
                yield connection
            except (duckdb.Error, BillError) as error:
                if _is_damaged(path, str(error)):
                    raise BillError(_error_message(path, error)) from error
                raise

    def _connect(
        self, path: Path, read_only: bool, config: dict[str, Option]
    ) -> DuckDBPyConnection:
        """Connect when the file is free; meanwhile warn which process has it open."""
        start, pause, next_warning = time.monotonic(), 0.05, SECONDS_BEFORE_WAIT_WARNING
        while True:
            try:
                return duckdb.connect(str(path), read_only=read_only, config=config)
            except duckdb.Error as error:
                seconds = time.monotonic() - start
                if not _is_locked(error) or seconds >= self.lock_wait_seconds:
                    raise BillError(_error_message(path, error)) from error
                if seconds >= next_warning:
                    run_logger().warning(f"{path} is open in {_holder(str(error))}; waiting for it")
                    next_warning += SECONDS_BETWEEN_WAIT_WARNINGS
            # Random, so that the processes that wait do not all try at the same time.
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _config(self, options: dict[str, Option]) -> dict[str, Option]:
        if self.temp_dir is not None:
            # DuckDB creates the last folder of the path only.
            self.temp_dir.mkdir(parents=True, exist_ok=True)
        threads = {} if self.threads is None else {"threads": self.threads}
        return {"memory_limit": self.memory_limit, **threads, **options}


@dataclass(frozen=True)
class BillingDatabase:
    """The database of the billing tables: one file, or several.

    `database` is a path. With {export} or {month} in it, each export or month has its own file.
    """

    database: str
    duckdb: DuckDB = DuckDB()

    def path(self, export: str, month: BillingMonth) -> Path:
        """Return the path of the month's database file, which may not exist yet."""
        return Path(self.database.format(export=export, month=month))

    @contextmanager
    def connect(
        self, export: str, month: BillingMonth, *, repair: bool = False
    ) -> Iterator[DuckDBPyConnection]:
        """Open the month's database file for the block; create the file and its ledger if missing.

        Raises LedgerDamaged if a table of the ledger is damaged; with `repair`, it is renamed
        instead, and an empty one is created. Waits and raises BillError as `DuckDB.open`.
        """
        path = self.path(export, month)
        # To keep the order of a file's rows would take memory, and no order is promised.
        with self.duckdb.open(path, preserve_insertion_order=False) as connection:
            if repair:
                ledger.rename_damaged_tables(connection)
            ledger.create_tables(connection)
            yield connection


@contextmanager
def logging_query_progress(connection: DuckDBPyConnection, verb: str, rows: int) -> Iterator[None]:
    """Log every few seconds how many of `rows` rows the block's statement has processed.

    `verb` is in the past tense, such as `loaded`, for the message. DuckDB's progress settings are
    switched on, and stay on.
    """
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    with logging_progress(
        verb,
        rows,
        lambda count: count_text(count, "row"),
        lambda: round(connection.query_progress() / 100 * rows),
    ):
        yield


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "lock" in str(error)


def _holder(text: str) -> str:
    match = re.search(r"held in (.+?) \(PID (\d+)\)", text)
    return f"process {match[2]} ({match[1]})" if match else "another process"


def _is_damaged(path: Path, message: str) -> bool:
    # DuckDB has a checksum for each block of its file. A message without this path may be about
    # another file, which a statement reads.
    signs = (*_DAMAGED, f'enough bytes from file "{path.resolve()}"')
    return any(sign in message for sign in signs)


def _error_message(path: Path, error: Exception) -> str:
    if _is_locked(error):
        return (
            f"{path} is still open in {_holder(str(error))}; close it there, or raise "
            "database.duckdb.lock_wait_seconds"
        )
    if _is_damaged(path, str(error)):
        return f"{path} is damaged and was not changed ({first_line(error)}); {_RELOAD_ADVICE}"
    if _NEWER in str(error):
        return (
            f"{path} was written by a newer DuckDB than the installed {duckdb.__version__}; "
            f"install the newer one, or {_RELOAD_ADVICE}"
        )
    return memory_or_disk_problem(error) or (
        f"{path} cannot be opened: {first_line(error)}; check the file and its folder"
    )
