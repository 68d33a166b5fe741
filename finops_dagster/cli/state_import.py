"""Taking over what another machine's document says, as far as the data that is here proves it."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from finops_dagster.billing.content import Content, is_version_of
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.event_log import EventLog
from finops_dagster.cli.state_document import File, Materialization, StateDocument, Version
from finops_dagster.lake import recovery as proof
from finops_dagster.lake.footer import Footer, read_footer
from finops_dagster.pipeline.build import Resources, build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import open_instance
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.settings import Settings
from finops_dagster.tables import ledger
from finops_dagster.tables.ledger import Load, Recorded
from finops_dagster.tables.load import held_version


def take_over(
    settings: Settings, document: StateDocument, on_month: Callable[[str], None]
) -> list[str]:
    """Report to the event log, and restore in the ledger, what the document says of months whose
    data is here and proves it. `on_month` is called with each; a line for each stage that does not
    fit is returned."""
    resources, refused = build_resources(settings), []
    with open_instance() as instance:
        for told in document.exports:
            try:
                (chosen,) = Asked(told.vendor, told.name).exports(settings)
            except BillError as error:
                refused.append(f"{told.name}  refused: {error}")
                continue
            export, known = Export(chosen), EventLog().versions(told.name)
            for month, stages in told.months.items():
                here = _Here(export, BillingMonth.parse(month), resources)
                here.restore([one for one in told.versions if one.month == month])
                problems = {stage: here.problem(stage, stages[stage]) for stage in stages}
                fitting = [stage for stage, problem in problems.items() if problem is None]
                for stage in fitting:
                    if known[stage].get(month) != stages[stage].version:
                        _report(instance, export, stage, month, stages[stage])
                if fitting:
                    on_month(f"{export.name} {month}: {', '.join(fitting)}")
                refused += [
                    f"{export.name} {month}  refused: {stage} was {stages[stage].version}, "
                    f"but {problem}"
                    for stage, problem in problems.items()
                    if problem is not None
                ]
    return refused


def _report(
    instance: dg.DagsterInstance, export: Export, stage: str, month: str, told: Materialization
) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=export.key(stage),
            partition=month,
            description=f"Imported; run {told.run} made it at {told.at}.",
            metadata=told.metadata,
            tags={"dagster/data_version": told.version},
        )
    )


class _Here:
    """The data of one month that is here, against what a document says of it."""

    def __init__(self, export: Export, month: BillingMonth, resources: Resources) -> None:
        self._export, self._month = export, month
        self._database, self._lake = resources.database, resources.lake
        self._warehouse = resources.warehouse
        self._staged = resources.staging.month(export.name, month)
        self._held: Load | None = None

    def restore(self, versions: list[Version]) -> None:
        """Give the ledger what it does not have, if the table proves it."""
        export, path = self._export, self._lake.path(self._export.name, self._month)
        if not self._database.path(export.name, self._month).exists():
            return
        with self._database.connect(export.name, self._month) as connection:
            recorded = [
                _recorded(export, one, number)
                for number, one in enumerate(reversed(versions), 1)
                if one.format in export.formats
            ]
            has = {one.load for one in ledger.versions(connection, export.name)}
            for one in recorded:
                vendor = export.formats[one.load.format]
                if one.state == "loaded" and one.load not in has:
                    proof.restore(connection, one, vendor, path)
            self._held = held_version(connection, export.name, self._month, export.formats)
            if any(one.load == self._held for one in recorded):
                ledger.restore(
                    connection,
                    [one for one in recorded if one.state != "loaded" and one.load not in has],
                )

    def problem(self, stage: str, told: Materialization) -> str | None:
        """What is here instead of what a stage is said to hold."""
        has = self._version(stage, told.version)
        return None if has == told.version else f"{has or 'nothing whole'} is here"

    def _version(self, stage: str, told: str) -> str | None:
        """The version that the stage's output proves; of the manifest, the vendor's id of it. What
        was read and fetched has done its work once the table holds it."""
        held = None if self._held is None else self._held.manifest_id
        if stage == "billing_table":
            return held
        if stage == "parquet":
            footer = self._footer()
            return None if footer is None else footer.manifest_id
        if stage == "warehouse_table":
            return self._in_warehouse()
        manifest = self._staged.manifest()
        if manifest is None or (held and is_version_of(held, manifest.id)):
            return told if stage == "manifest" and held and is_version_of(held, told) else held
        if stage == "manifest":
            return manifest.id
        current = self._staged.current()
        is_here = self._staged.version(manifest).content() is not None
        return current.manifest_id if current and is_here else None

    def _footer(self) -> Footer | None:
        return read_footer(self._lake.path(self._export.name, self._month))

    def _in_warehouse(self) -> str | None:
        if self._warehouse is None or self._footer() is None:
            return None
        file = month_file(self._export, self._month, self._lake, self._database.duckdb)
        held = self._warehouse.held_version(file)
        return None if held is None else held.manifest_id


def _recorded(export: Export, told: Version, number: int) -> Recorded:
    """A version as the ledger has it; `number` is that of its load where the document has none."""
    load = Load(
        export.name,
        BillingMonth.parse(told.month),
        told.version,
        export.table,
        Totals(told.rows, told.cost),
        told.files,
        told.bytes,
        told.run,
        told.format,
        rounded=told.rounded,
        content=_content(told.content),
    )
    return Recorded(load, told.loaded_at, told.state, told.load_number or number)


def _content(files: list[File] | None) -> Content | None:
    return None if files is None else Content.of_rows(file.model_dump() for file in files)
