"""All that is known of all months as one document."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import cast

import dagster as dg

from finops_dagster.assets import STAGES
from finops_dagster.assets.export import Export
from finops_dagster.billing import ledger
from finops_dagster.billing.money import plain
from finops_dagster.cli.state_document import (
    ExportState,
    Materialization,
    Month,
    RunState,
    Stage,
    StateDocument,
    Version,
)
from finops_dagster.code_location import build_definitions
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.runs import open_instance
from finops_dagster.settings import Settings


def document_of(settings: Settings) -> StateDocument:
    """The ledger of every export, the last word of every stage of every month, and all runs."""
    database = cast(BillingDatabase, (build_definitions(settings).resources or {})["database"])
    with open_instance() as instance:
        return StateDocument(
            finops_dagster=version("finops-dagster"),
            exported_at=datetime.now(UTC).replace(microsecond=0),
            exports=[
                ExportState(
                    name=export.name,
                    vendor=export.settings.vendor,
                    table=export.table,
                    versions=_versions(export, database),
                    months=_months(instance, export),
                )
                for export in map(Export, settings.exports)
            ],
            runs=_runs(instance, {export.name for export in settings.exports}),
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
        )
        for one in found
    ]


def _months(
    instance: dg.DagsterInstance, export: Export
) -> dict[Month, dict[Stage, Materialization]]:
    """By month and stage what was materialized last."""
    months: dict[Month, dict[Stage, Materialization]] = {}
    of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    for stage in STAGES:
        key = export.key(stage)
        last = instance.event_log_storage.get_latest_storage_id_by_partition(key, of_type)
        wanted = dg.AssetRecordsFilter(key, storage_ids=list(last.values()))
        found = instance.fetch_materializations(wanted, limit=len(last)).records if last else []
        for record in found:
            made = record.asset_materialization
            assert made is not None and made.partition is not None
            months.setdefault(made.partition, {})[stage] = Materialization(
                version=(made.tags or {})["dagster/data_version"],
                at=_time(record.timestamp),
                run=record.run_id,
                metadata={
                    name: value.value
                    for name, value in made.metadata.items()
                    if isinstance(value.value, str | int | float | bool)
                },
            )
    return dict(sorted(months.items()))


def _runs(instance: dg.DagsterInstance, exports: set[str]) -> list[RunState]:
    return [
        RunState(
            run=record.dagster_run.run_id,
            export=record.dagster_run.tags["finops/export"],
            month=record.dagster_run.tags.get("dagster/partition"),
            status=record.dagster_run.status.value.lower(),
            began=record.start_time and _time(record.start_time),
            ended=record.end_time and _time(record.end_time),
        )
        for record in instance.get_run_records()
        if record.dagster_run.tags.get("finops/export") in exports
    ]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
