"""All that is known of all months as one document."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version

from finops_dagster.billing.money import plain
from finops_dagster.cli import event_log
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog
from finops_dagster.cli.state_document import (
    ExportState,
    File,
    Materialization,
    Month,
    RunState,
    Stage,
    StateDocument,
    Version,
)
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.build import build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase


def document_of(settings: Settings, asked: Asked) -> StateDocument:
    """Return the ledger of every export, or of one; what every stage said last of every month; and
    all runs of these exports. Raises BillError where there is no such export."""
    exports = asked.exports(settings)
    database = build_resources(settings).database
    log = EventLog()
    made = log.materializations()
    return StateDocument(
        finops_dagster=version("finops-dagster"),
        exported_at=datetime.now(UTC).replace(microsecond=0),
        exports=[
            ExportState(
                name=export.name,
                vendor=export.settings.vendor,
                table=export.table,
                versions=_versions(export, database),
                months=_months(made[export.name]),
            )
            for export in map(Export, exports)
        ],
        runs=_runs(log, {export.name for export in exports}),
    )


def _versions(export: Export, database: BillingDatabase) -> list[Version]:
    """What the ledgers of all the export's files have."""
    months = {database.path(export.name, month): month for month in export.months()}
    found = []
    for path, month in months.items():
        if path.exists():
            with database.connect(export.name, month) as connection:
                found += ledger.versions(connection, export.name)
    return [
        Version(
            month=str(one.load.month),
            version=one.load.manifest_id,
            rows=one.load.totals.rows,
            cost=Decimal(plain(one.load.totals.cost)),
            files=one.load.files,
            bytes=one.load.bytes,
            run=one.load.run_id,
            format=one.load.format,
            loaded_at=one.loaded_at,
            state=one.state,
            rounded=one.load.rounded,
            load_number=one.number,
            content=one.load.content and [File(**row) for row in one.load.content.rows()],
        )
        for one in found
    ]


def _months(
    stages: dict[str, dict[str, event_log.Materialization]],
) -> dict[Month, dict[Stage, Materialization]]:
    """By month and stage what was materialized last."""
    months: dict[Month, dict[Stage, Materialization]] = {}
    for stage in STAGES:
        for month, made in stages[stage].items():
            months.setdefault(month, {})[stage] = Materialization(
                version=str(made.version),
                at=made.at,
                run=made.run,
                metadata={
                    name: value
                    for name, value in made.metadata.items()
                    if isinstance(value, str | int | float | bool)
                },
            )
    return dict(sorted(months.items()))


def _runs(log: EventLog, exports: set[str]) -> list[RunState]:
    return [
        RunState(
            run=run.id,
            export=run.tags["finops/export"],
            month=run.month or None,
            status=run.status.lower(),
            began=run.began,
            ended=run.ended,
        )
        for run in log.runs()
        if run.tags.get("finops/export") in exports
    ]
