"""`finops state export`: write the state of months, to move it to another machine.

Loads are read and written month by month; the last materializations of an export are in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as package_version
from itertools import groupby
from typing import Any

from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Selection
from finops_dagster.cli.state_file import (
    EndRecord,
    ExportRecord,
    FileRecord,
    LoadRecord,
    MonthRecord,
    Record,
    RestatementRecord,
    RunRecord,
    Stage,
)
from finops_dagster.pipeline.history import History, Materialization
from finops_dagster.settings import Settings
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.tables.restatements import restatements


def state_records(settings: Settings, selection: Selection, history: History) -> Iterator[Record]:
    """Yield the records of a state file, in its order, for all months of the selected exports.

    They are loads, restatements, last materializations and runs. `start` and `end` of the selection
    are ignored. Raises BillError, as the caller iterates, if no export is selected, or if a DuckDB
    file cannot be opened.
    """
    exports, database = selection.exports(settings), settings.database.duckdb.billing_database()
    yield FileRecord(
        finops_dagster=package_version("finops-dagster"),
        exported_at=datetime.now(UTC).replace(microsecond=0),
    )
    for export in exports:
        yield ExportRecord(name=export.name, vendor=export.vendor, table=export.table_name)
        stages = _materializations(history, export)
        months = Selection().months(export)
        for _, file_months in groupby(months, partial(database.path, export.name)):
            yield from _month_records(database, export.name, list(file_months), stages)
    yield from _run_records(history, exports)
    yield EndRecord()


def _month_records(
    database: BillingDatabase,
    export: str,
    months: list[BillingMonth],
    stages: dict[str, dict[Stage, Materialization]],
) -> Iterator[Record]:
    """Yield the records of the months of one DuckDB file, which need not exist."""
    if not database.path(export, months[0]).exists():
        for month in months:
            if month_stages := stages.get(str(month)):
                yield MonthRecord(month=str(month), stages=month_stages)
        return
    with database.connect(export, months[0]) as connection:
        # A month of the ledger is small. Without a limit, DuckDB caches all that it has read.
        connection.execute("SET memory_limit = '32MB'")
        connection.execute("SET threads = 1")
        for month in months:
            month_stages = stages.get(str(month), {})
            loads = ledger.loads(connection, export, month)
            if month_stages or loads:
                yield MonthRecord(month=str(month), stages=month_stages)
                yield from map(LoadRecord.from_load, loads)
                for restatement in restatements(connection, export, month):
                    yield RestatementRecord(restatement=restatement)


def _run_records(history: History, exports: Iterable[ExportSettings]) -> Iterator[Record]:
    names = [export.name for export in exports]
    for run in history.runs:
        for name in names:
            if name in run.stages:
                yield RunRecord(
                    run=run.id,
                    export=name,
                    month=run.month or None,
                    status=run.status,
                    began=run.started,
                    ended=run.ended,
                )


def _materializations(
    history: History, export: ExportSettings
) -> dict[str, dict[Stage, Materialization]]:
    """Return the last materializations by month and stage, with plain values as metadata."""
    months: dict[str, dict[Any, Materialization]] = defaultdict(dict)
    last = history.materializations(export.name, set(map(str, export.months())))
    for stage, by_month in last.items():
        for month, materialization in by_month.items():
            # Tables and links of Dagster's UI are objects; a file can only keep plain values.
            plain_metadata = {
                name: value
                for name, value in materialization.metadata.items()
                if isinstance(value, str | int | float)
            }
            months[month][stage] = replace(materialization, metadata=plain_metadata)
    return months
