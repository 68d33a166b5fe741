"""What Dagster's event log says of months, asked of its tables: importing Dagster takes longer than
all that a person asks. The columns are those of the version that this project is pinned to."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar, cast

import yaml

from finops_dagster.settings import dagster_home

Ask = Callable[..., list[Any]]
T = TypeVar("T")
Months = dict[str, dict[str, dict[str, T]]]
_EXPORT = "finops/export"
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
_MATERIALIZATIONS = f"""
SELECT log.asset_key, log.partition, log.event FROM event_logs log
JOIN (SELECT max(id) AS id FROM event_logs
      WHERE dagster_event_type = '{_MADE}' AND partition LIKE :month
      GROUP BY asset_key, partition) newest
ON newest.id = log.id
JOIN asset_keys asset ON asset.asset_key = log.asset_key
WHERE asset.wipe_timestamp IS NULL OR log.timestamp > asset.wipe_timestamp
"""
_NEWEST = f"""
SELECT asset_key, event FROM event_logs WHERE dagster_event_type = '{_MADE}'
ORDER BY id DESC LIMIT :most
"""
_CHECKS = """
SELECT asset_key, check_name, execution_status FROM asset_check_executions
WHERE id IN (SELECT max(id) FROM asset_check_executions
             WHERE partition = :month AND execution_status <> 'PLANNED'
             GROUP BY asset_key, check_name)
"""
_RUN = """
SELECT dagster_event_type, step_key, event FROM event_logs WHERE run_id = :run
AND dagster_event_type IN ('ENGINE_EVENT', 'STEP_START', 'STEP_FAILURE', 'PIPELINE_FAILURE',
                           'PIPELINE_CANCELED', 'STEP_UP_FOR_RETRY') ORDER BY id
"""
_PLANNED_IN = f"""
SELECT DISTINCT run_id, asset_key FROM event_logs WHERE dagster_event_type = '{_PLANNED}'
"""
_STATUSES = "SELECT run_id, status FROM runs"
_RUNS = """
SELECT run.run_id, run.status, run.start_time, run.end_time, run.create_timestamp,
       tag.key, tag.value
FROM runs run LEFT JOIN run_tags tag ON tag.run_id = run.run_id ORDER BY run.id DESC
"""


@dataclass(frozen=True)
class Materialization:
    """What a stage said of a month when it had it: its version, when, in which run, and what it
    measured."""

    version: str | None
    at: datetime
    run: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run with its tags, and the exports whose months it is for; `began` is when it was asked
    for, where it has not begun."""

    id: str
    status: str
    began: datetime
    ended: datetime | None
    tags: dict[str, str]
    exports: set[str]

    @property
    def month(self) -> str:
        """The month that it is for."""
        return self.tags.get("dagster/partition", "")


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

    def materializations(self, month: str = "%") -> Months[Materialization]:
        """By export, stage and month, what was said last."""
        with _events() as ask:
            rows = ask(_MATERIALIZATIONS, month=month)
        return _by_export_and_stage(
            [(key, of_month, _materialization(event)) for key, of_month, event in rows]
        )

    def newest(self, most: int) -> Iterator[tuple[str, str, Materialization]]:
        """The newest materializations of all exports, with their export and stage."""
        with _events() as ask:
            for asset_key, event in ask(_NEWEST, most=most):
                export, *_, stage = json.loads(asset_key)
                yield export, stage, _materialization(event)

    def checks(self, export: str, month: str) -> dict[str, dict[str, str]]:
        """By stage and check, how it ended: SUCCEEDED, FAILED."""
        with _events() as ask:
            rows: list[tuple[str, str, str]] = ask(_CHECKS, month=month)
        return _by_export_and_stage(rows)[export]

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        runs: dict[str, Run] = {}
        with _tables("history/runs.db", "run_storage") as ask:
            for run, status, started, ended, created, key, value in ask(_RUNS):
                began = _time(started) or datetime.fromisoformat(str(created)).replace(tzinfo=UTC)
                one = runs.setdefault(run, Run(run, status, began, _time(ended), {}, set()))
                one.tags[key] = value
        for run, export in self._exports_of(runs.values()):
            runs[run].exports.add(export)
        return list(runs.values())

    def _exports_of(self, runs: Collection[Run]) -> Iterator[tuple[str, str]]:
        """The exports of each run. The job of an export has them in a tag; a run of assets, as
        `dagster asset materialize` and the UI begin, in what it planned."""
        untagged = {run.id for run in runs if _EXPORT not in run.tags}
        yield from ((run.id, run.tags[_EXPORT]) for run in runs if run.id not in untagged)
        if untagged:
            with _events() as ask:
                for run, asset_key in ask(_PLANNED_IN):
                    if run in untagged:
                        yield run, json.loads(asset_key)[0]

    def events_of(self, run: str) -> list[tuple[str, str | None, dict[str, Any]]]:
        """What a run said of its process, its steps and its end: type, step, and what Dagster
        calls the event."""
        with _tables(f"history/runs/{run}.db", "event_log_storage") as ask:
            return [
                (of_type, step, json.loads(event)["dagster_event"])
                for of_type, step, event in ask(_RUN, run=run)
            ]

    def last_runs(self) -> set[str]:
        """The runs that said the last of any stage of any month."""
        with _events() as ask:
            return {run for (run,) in ask(_LAST_RUNS)}

    @cached_property
    def _versions(self) -> Months[str]:
        with _events() as ask:
            return _by_export_and_stage(ask(_VERSIONS))

    @cached_property
    def _unfinished(self) -> Months[str]:
        with _events() as ask:
            return _by_export_and_stage(ask(_UNFINISHED))

    @cached_property
    def _statuses(self) -> dict[str, str]:
        with _tables("history/runs.db", "run_storage") as ask:
            return dict(ask(_STATUSES))


def _by_export_and_stage(rows: list[tuple[str, str, T]]) -> Months[T]:
    found: Months[T] = defaultdict(lambda: defaultdict(dict))
    for asset_key, month, value in rows:
        export, *_, stage = json.loads(asset_key)
        found[export][stage][month] = value
    return found


def _materialization(text: str) -> Materialization:
    event = json.loads(text)
    told = event["dagster_event"]["event_specific_data"]["materialization"]
    return Materialization(
        told["tags"].get("dagster/data_version"),
        datetime.fromtimestamp(event["timestamp"], UTC),
        event["run_id"],
        metadata_of(told),
    )


def metadata_of(told: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an event by label, each as the one value that its kind has."""
    return {
        entry["label"]: next(
            value for name, value in entry["entry_data"].items() if name != "__class__"
        )
        for entry in told["metadata_entries"]
    }


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


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
            yield lambda sql, **values: connection.execute(sql, values).fetchall()
    else:
        yield lambda _, **__: []


@contextmanager
def _elsewhere(storage: str) -> Iterator[Ask]:
    from dagster._core.storage.event_log import SqlEventLogStorage
    from dagster._core.storage.runs import SqlRunStorage
    from sqlalchemy import text

    from finops_dagster.pipeline.runs import open_instance

    with open_instance() as instance:
        opened = (
            cast(SqlEventLogStorage, instance.event_log_storage).index_connection()
            if storage == "event_log_storage"
            else cast(SqlRunStorage, instance.run_storage).connect()
        )
        with opened as connection:
            yield lambda sql, **values: [
                tuple(row) for row in connection.execute(text(sql), values)
            ]
