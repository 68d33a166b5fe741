"""What Dagster's event log says of months, asked of its tables: importing Dagster takes longer than
all that a person asks. The columns are those of the version that this project is pinned to."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property
from typing import Any, cast

import yaml

from finops_dagster.settings import dagster_home

Ask = Callable[[str], list[tuple[Any, ...]]]
Months = dict[str, dict[str, dict[str, str]]]
_MADE = "ASSET_MATERIALIZATION"
_PLANNED = "ASSET_MATERIALIZATION_PLANNED"
# A wiped asset keeps its events, and the time since when they count no more.
_VERSIONS = f"""
SELECT log.asset_key, log.partition, tag.value FROM event_logs log
JOIN (SELECT max(id) AS id FROM event_logs
      WHERE dagster_event_type = '{_MADE}' AND partition IS NOT NULL
      GROUP BY asset_key, partition) newest ON newest.id = log.id
JOIN asset_event_tags tag ON tag.event_id = log.id AND tag.key = 'dagster/data_version'
JOIN asset_keys asset ON asset.asset_key = log.asset_key
WHERE asset.wipe_timestamp IS NULL OR log.timestamp > asset.wipe_timestamp
"""
_UNFINISHED = f"""
SELECT log.asset_key, log.partition, log.run_id FROM event_logs log
JOIN (SELECT max(CASE WHEN dagster_event_type = '{_PLANNED}' THEN id END) AS planned,
             max(CASE WHEN dagster_event_type = '{_MADE}' THEN id END) AS made
      FROM event_logs
      WHERE dagster_event_type IN ('{_MADE}', '{_PLANNED}') AND partition IS NOT NULL
      GROUP BY asset_key, partition) newest ON newest.planned = log.id
WHERE newest.made IS NULL OR newest.made < newest.planned
"""
_LAST_RUNS = f"""
SELECT DISTINCT log.run_id FROM event_logs log
JOIN (SELECT max(id) AS id FROM event_logs
      WHERE dagster_event_type IN ('{_MADE}', '{_PLANNED}') AND partition IS NOT NULL
      GROUP BY asset_key, partition, dagster_event_type) newest ON newest.id = log.id
"""
_STATUSES = "SELECT run_id, status FROM runs"


class EventLog:
    """The history of all exports, as it is when it is first asked. What is asked of an export is
    given by stage and month."""

    def versions(self, export: str) -> dict[str, dict[str, str]]:
        """The version that was materialized last."""
        return self._versions[export]

    def unfinished_runs(self, export: str) -> dict[str, dict[str, str]]:
        """The run that set out to do the stage and has not: it goes on, or it failed."""
        return self._unfinished[export]

    def unfinished_months(self, export: str) -> dict[str, str]:
        """By month, how the last run that did not end well stands: started, failure, canceled."""
        return {
            month: self._statuses[run].lower()
            for by_month in self.unfinished_runs(export).values()
            for month, run in by_month.items()
            if run in self._statuses
        }

    def last_runs(self) -> set[str]:
        """The runs that said the last of any stage of any month."""
        with _events() as ask:
            return {run for (run,) in ask(_LAST_RUNS)}

    @cached_property
    def _versions(self) -> Months:
        with _events() as ask:
            return _by_export_and_stage(ask(_VERSIONS))

    @cached_property
    def _unfinished(self) -> Months:
        with _events() as ask:
            return _by_export_and_stage(ask(_UNFINISHED))

    @cached_property
    def _statuses(self) -> dict[str, str]:
        with _tables("history/runs.db", "run_storage") as ask:
            return dict(ask(_STATUSES))


def _by_export_and_stage(rows: list[tuple[Any, ...]]) -> Months:
    found: Months = defaultdict(lambda: defaultdict(dict))
    for asset_key, month, value in rows:
        export, *_, stage = json.loads(asset_key)
        found[export][stage][month] = value
    return found


def _events() -> AbstractContextManager[Ask]:
    return _tables("history/runs/index.db", "event_log_storage")


@contextmanager
def _tables(file: str, storage: str) -> Iterator[Ask]:
    """The tables in Dagster's own SQLite file, or in the database that dagster.yaml names."""
    home = dagster_home()
    instance = home / "dagster.yaml"
    config = yaml.safe_load(instance.read_text()) if instance.is_file() else None
    if config and {"storage", storage} & config.keys():
        with _elsewhere(storage) as ask:
            yield ask
    elif (home / file).is_file():
        with closing(sqlite3.connect(f"file:{home / file}?mode=ro", uri=True)) as connection:
            yield lambda sql: connection.execute(sql).fetchall()
    else:
        yield lambda _: []


@contextmanager
def _elsewhere(storage: str) -> Iterator[Ask]:
    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.runs import SqlRunStorage

    from finops_dagster.runs import open_instance

    with open_instance() as instance:
        opened = (
            cast(SqlEventLogStorage, instance.event_log_storage).index_connection()
            if storage == "event_log_storage"
            else cast(SqlRunStorage, instance.run_storage).connect()
        )
        with opened as connection:
            yield lambda sql: [tuple(row) for row in connection.exec_driver_sql(sql)]
