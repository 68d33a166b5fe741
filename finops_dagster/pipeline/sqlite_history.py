"""Dagster's history in SQLite, with connections that are kept.

For each event Dagster 1.13 opens a file, and lets SQLAlchemy compile the statement anew: half of
the time that a small month takes. Here every file keeps its connection, and its compiled
statements, until the instance is gone. What is written stays the same, and is committed as soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine

Connect = Callable[..., AbstractContextManager[Connection]]

# A run has a file of its own; a command has one run at a time, and reads back a little.
_FILES_OPEN = 8


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Let the instance keep its connections from now on, where its history is in Dagster's own
    SQLite files."""
    events, runs = instance.event_log_storage, instance.run_storage
    if type(events) is SqliteEventLogStorage and "_connect" not in vars(events):
        vars(events)["_connect"] = _of_events(events)
        vars(events)["has_table"] = cache(events.has_table)
    if type(runs) is SqliteRunStorage and "connect" not in vars(runs):
        vars(runs)["connect"] = _of_runs(runs)


def _of_events(events: SqliteEventLogStorage) -> Connect:
    engines = _Engines()

    @contextmanager
    def connect(shard: str) -> Iterator[Connection]:
        with events._db_lock:
            engine = engines.of(events.conn_string_for_shard(shard))
            if shard not in events._initialized_dbs:
                events._initdb(engine)
                events._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    return connect


def _of_runs(runs: SqliteRunStorage) -> Connect:
    engines = _Engines()
    return lambda: engines.of(runs._conn_string).begin()


class _Engines:
    """An engine a file, of the few that were asked for last."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}

    def of(self, url: str) -> Engine:
        """The engine of the file, with its pool of connections."""
        engine = self._engines.pop(url, None) or create_engine(
            url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        )
        self._engines[url] = engine
        if len(self._engines) > _FILES_OPEN:
            self._engines.pop(next(iter(self._engines))).dispose()
        return engine
