"""`finops state export` and `import`: what is known of months, carried to another machine as far as
the data that is there proves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import cast

import dagster as dg

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.history import History, open_history
from finops_dagster.cli.options import Selection
from finops_dagster.cli.state_document import (
    ExportState,
    Materialization,
    Month,
    RunState,
    Stage,
    StateDocument,
    Version,
)
from finops_dagster.lake import read_record, restore
from finops_dagster.pipeline.build import Resources, build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import open_instance
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.tables.load import held_version


def document_of(settings: Settings, selection: Selection) -> StateDocument:
    """Return the ledger of every export, or of one; what every stage recorded last of every month;
    and all runs of these exports. Raises BillError where there is no such export."""
    exports = list(map(Export, selection.exports(settings)))
    database = build_resources(settings).database
    with open_history() as history:
        return StateDocument(
            finops_dagster=version("finops-dagster"),
            exported_at=datetime.now(UTC).replace(microsecond=0),
            exports=[
                ExportState(
                    name=export.name,
                    vendor=export.settings.vendor,
                    table=export.table,
                    versions=list(_versions(export, database)),
                    months=_months(export, history),
                )
                for export in exports
            ],
            runs=[
                RunState(
                    run=run.id,
                    export=export.name,
                    month=run.month or None,
                    status=run.status,
                    began=run.began,
                    ended=run.ended,
                )
                for run in history.runs
                for export in exports
                if export.name in run.stages
            ],
        )


def _versions(export: Export, database: BillingDatabase) -> Iterator[Version]:
    """Yield what the ledgers of all the export's files have."""
    months = {database.path(export.name, month): month for month in export.months()}
    for path, month in months.items():
        if path.exists():
            with database.connect(export.name, month) as connection:
                yield from map(Version.of, ledger.loads(connection, export.name))


def _months(export: Export, history: History) -> dict[Month, dict[Stage, Materialization]]:
    """Return by month and stage what was materialized last."""
    months: dict[Month, dict[Stage, Materialization]] = {}
    wanted = set(map(str, export.months()))
    for stage, by_month in history.materializations(export.name, wanted).items():
        for month, made in by_month.items():
            scalars = {k: v for k, v in made.metadata.items() if isinstance(v, str | int | float)}
            months.setdefault(month, {})[cast(Stage, stage)] = Materialization(
                version=str(made.version), at=made.at, run=made.run, metadata=scalars
            )
    return dict(sorted(months.items()))


def take_over(
    settings: Settings, document: StateDocument, on_month: Callable[[str], None]
) -> list[str]:
    """Report to the event log, and restore in the ledger, what the document has of months whose
    data is here and proves it. `on_month` is called with each; a line for each stage that does not
    fit is returned."""
    resources, refused = build_resources(settings), []
    with open_instance() as instance:
        for state in document.exports:
            try:
                (chosen,) = Selection(state.vendor, state.name).exports(settings)
            except BillError as error:
                refused.append(f"{state.name}  refused: {error}")
                continue
            export = Export(chosen)
            known = History(instance).materializations(state.name, state.months)
            for month, stages in state.months.items():
                data = _MonthData(export, BillingMonth.parse(month), resources)
                data.restore([one for one in state.versions if one.month == month])
                proved = {s: data.version(s, stages[s].version) for s in stages}
                fitting = [s for s in stages if proved[s] == stages[s].version]
                for stage in fitting:
                    now = known[stage].get(month)
                    if now is None or now.version != stages[stage].version:
                        _report(instance, export.key(stage), month, stages[stage])
                if fitting:
                    on_month(f"{export.name} {month}: {', '.join(fitting)}")
                refused += [
                    f"{export.name} {month}  refused: {stage} was {stages[stage].version}, "
                    f"but {proved[stage] or 'nothing whole'} is here"
                    for stage in stages
                    if stage not in fitting
                ]
    return refused


def _report(
    instance: dg.DagsterInstance, key: dg.AssetKey, month: str, made: Materialization
) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=key,
            partition=month,
            description=f"Imported; run {made.run} made it at {made.at}.",
            metadata=made.metadata,
            tags={"dagster/data_version": made.version},
        )
    )


class _MonthData:
    """The data of one month that is here, against what a document has of it."""

    def __init__(self, export: Export, month: BillingMonth, resources: Resources) -> None:
        self._export, self._month, self._resources = export, month, resources
        self._path = resources.lake.path(export.name, month)
        self._table: str | None = None

    def restore(self, versions: list[Version]) -> None:
        """Give the ledger what it does not have, if the table proves it."""
        export, database = self._export, self._resources.database
        if not database.path(export.name, self._month).exists():
            return
        recorded = [
            one.load(export.name, export.table, number)
            for number, one in enumerate(reversed(versions), 1)
            if one.format in export.formats
        ]
        with database.connect(export.name, self._month) as connection:
            known = set(ledger.loads(connection, export.name))
            missing = [load for load in recorded if load not in known]
            for load in missing:
                if load.state == "loaded":
                    restore(connection, load, export.formats[load.format], self._path)
            held = held_version(connection, export.name, self._month, export.formats)
            self._table = held.manifest_id if held else None
            if held in recorded:
                ledger.restore(connection, [load for load in missing if load.state != "loaded"])

    def version(self, stage: str, wanted: str) -> str | None:
        """Return the version that the stage's output proves; of the manifest, the vendor's id of
        it. What was read and fetched has done its work once the table holds it."""
        if stage == "billing_table":
            return self._table
        if stage == "parquet":
            record = read_record(self._path)
            return record.manifest_id if record else None
        if stage == "warehouse_table":
            return self._in_warehouse()
        table, staged = self._table, self._resources.staging.month(self._export.name, self._month)
        manifest = staged.manifest()
        if manifest is None or (table and is_version_of(table, manifest.id)):
            is_of_table = stage == "manifest" and table and is_version_of(table, wanted)
            return wanted if is_of_table else table
        if stage == "manifest":
            return manifest.id
        current = staged.current()
        is_whole = staged.version(manifest).content() is not None
        return current.manifest_id if current and is_whole else None

    def _in_warehouse(self) -> str | None:
        resources = self._resources
        if resources.warehouse is None or read_record(self._path) is None:
            return None
        file = month_file(self._export, self._month, resources.lake, resources.database.duckdb)
        held = resources.warehouse.held_version(file)
        return held.manifest_id if held else None
