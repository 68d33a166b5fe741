"""`finops state export` and `import`: move the state of months to another machine.

The document is JSON or YAML. The import takes only what the data on this machine confirms.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
import yaml
from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from finops_dagster.billing.content import FileContent, is_version_of
from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import RoundedColumn, decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import Restatement
from finops_dagster.billing.version import Load
from finops_dagster.cli.options import Selection
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.lake import restore_load
from finops_dagster.pipeline import FOCUS_STAGES
from finops_dagster.pipeline.history import History, Materialization, open_history
from finops_dagster.pipeline.runs import open_instance
from finops_dagster.settings import Settings
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables import ledger
from finops_dagster.tables.restatements import (
    restatements,
    restatements_by_month,
    restore_restatements,
)

MonthName = Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
Stage = Literal[
    "manifest",
    "staged_files",
    "billing_table",
    "parquet",
    "warehouse_table",
    "focus",
    "warehouse_focus",
]
# The fields of the document with the ledger's columns.
_LEDGER_COLUMNS = {
    "version": "manifest_id",
    "rows": "row_count",
    "cost": "total_cost",
    "sums": "money_sums",
    "costs": "cost_by_currency",
    "files": "file_count",
    "bytes": "byte_count",
    "run": "run_id",
    "format": "format",
    "rounded": "decimals_rounded",
    "content": "files",
    "delivery": "delivery",
}


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadDocument(_Document):
    """A load of a month, as the ledger records it.

    `version` is its version id; `files` and `bytes` are numbers; `sums` are by money column, and
    `costs` by currency. Documents of earlier releases have no content, no load number, and only the
    headline cost.
    """

    month: MonthName
    version: str
    rows: int
    cost: Decimal
    sums: dict[str, Decimal] | None = None
    costs: dict[str, Decimal] | None = None
    files: int
    bytes: int
    run: str
    format: str
    loaded_at: datetime
    state: Literal["loaded", "superseded"]
    rounded: tuple[RoundedColumn, ...] | None = None
    load_number: int | None = None
    content: tuple[FileContent, ...] | None = None
    delivery: Delivery | None = None

    @classmethod
    def of(cls, load: Load) -> LoadDocument:
        """Return a load of the ledger as an entry of the document."""
        row = load.row() | {"total_cost": decimal_text(load.totals.cost)}
        fields = {name: row[column] for name, column in _LEDGER_COLUMNS.items()}
        fields |= {"month": str(load.month), "loaded_at": load.loaded_at, "state": load.state}
        return cls.model_validate({**fields, "load_number": load.number})

    def load(self, export: ExportSettings, number: int) -> Load:
        """Return the load for the ledger; `number` is its load number if the document has none."""
        fields = self.model_dump(mode="json")
        return Load.of_row(
            {column: fields[name] for name, column in _LEDGER_COLUMNS.items()},
            export=export.name,
            month=BillingMonth.parse(self.month),
            table=export.table_name,
            state=self.state,
            loaded_at=self.loaded_at,
            number=self.load_number or number,
        )


class ExportState(_Document):
    """The state of an export: its loads, and its last materializations by month and stage.

    `restatements` are by month, the newest first; documents of earlier releases have none.
    """

    name: str
    vendor: str
    table: str
    versions: list[LoadDocument]
    months: dict[MonthName, dict[Stage, Materialization]]
    restatements: dict[MonthName, list[Restatement]] = {}


class StateDocument(_Document):
    """The state of all exports. Runs are information for the reader and are not imported."""

    layout: Literal[1] = 1
    finops_dagster: str
    exported_at: datetime
    exports: list[ExportState]
    runs: list[dict[str, Any]]


def write_document(document: StateDocument, file: Path) -> None:
    """Write the document as JSON or YAML, by the file's suffix; replace an existing file.

    Raises BillError for another suffix or a missing folder, and OSError.
    """
    if _is_yaml(file):
        text = yaml.safe_dump(document.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    else:
        text = document.model_dump_json(indent=1)
    try:
        file.write_text(text, encoding="utf-8")
    except FileNotFoundError as error:
        raise BillError(
            f"{file} cannot be written: the folder {file.parent} does not exist; create it, or "
            "name another file"
        ) from error


def read_document(file: Path) -> StateDocument:
    """Read a document that `write_document` wrote. Raises BillError."""
    try:
        text = file.read_text(encoding="utf-8")
        document = yaml.safe_load(text) if _is_yaml(file) else json.loads(text)
        # YAML has dates where JSON has text.
        return StateDocument.model_validate_json(json.dumps(document, default=str), strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise BillError(
            f"{file} was not written by finops state export: {problem}; write it again on the old "
            "machine: finops state export FILE"
        ) from error
    except OSError as error:
        raise BillError(
            f"{file} cannot be read: {error.strerror}; name the file that finops state export wrote"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise BillError(
            f"{file} cannot be read: {' '.join(str(error).split())}; write it again on the old "
            "machine: finops state export FILE"
        ) from error


def _is_yaml(file: Path) -> bool:
    if file.suffix not in (".json", ".yaml", ".yml"):
        raise BillError(f"{file} has another suffix than .json, .yaml or .yml; rename it")
    return file.suffix != ".json"


def state_document(settings: Settings, selection: Selection) -> StateDocument:
    """Return the loads, the last materializations and the runs of the selected exports.

    Raises BillError if the settings do not have the export, or if a DuckDB file cannot be opened.
    """
    stored, exports = StoredMonths(settings), selection.exports(settings)
    with open_history() as history:
        return StateDocument(
            finops_dagster=package_version("finops-dagster"),
            exported_at=datetime.now(UTC).replace(microsecond=0),
            exports=[
                ExportState(
                    name=export.name,
                    vendor=export.vendor,
                    table=export.table_name,
                    versions=list(_load_documents(stored, export.name)),
                    months=_materializations(history, export),
                    restatements=_restatements_by_month(stored, export.name),
                )
                for export in exports
            ],
            runs=[
                {
                    "run": run.id,
                    "export": export.name,
                    "month": run.month or None,
                    "status": run.status,
                    "began": run.started,
                    "ended": run.ended,
                }
                for run in history.runs
                for export in exports
                if export.name in run.stages
            ],
        )


def _ledgers(stored: StoredMonths, export: str) -> Iterator[DuckDBPyConnection]:
    """Yield a connection to each existing DuckDB file of the export, the oldest month first."""
    files = {month.database_path: month for month in stored.months(Selection(export=export))}
    for file in filter(Path.exists, reversed(files)):
        with files[file].connect() as connection:
            yield connection


def _load_documents(stored: StoredMonths, export: str) -> Iterator[LoadDocument]:
    """Yield the loads in the ledgers of all DuckDB files of the export."""
    for connection in _ledgers(stored, export):
        yield from map(LoadDocument.of, ledger.loads(connection, export))


def _restatements_by_month(stored: StoredMonths, export: str) -> dict[str, list[Restatement]]:
    """Return the restatements in the ledgers of all DuckDB files of the export, by month."""
    return {
        str(month): restated
        for connection in _ledgers(stored, export)
        for month, restated in restatements_by_month(connection, export).items()
    }


def _materializations(history: History, export: ExportSettings) -> Any:
    """Return the last materializations by month and stage, with plain values as metadata."""
    months: dict[str, dict[str, Materialization]] = defaultdict(dict)
    last = history.materializations(export.name, set(map(str, export.months())))
    for stage, by_month in last.items():
        for month, materialization in by_month.items():
            # Tables and links of Dagster's UI are objects; a document can only keep plain values.
            plain_metadata = {
                name: value
                for name, value in materialization.metadata.items()
                if isinstance(value, str | int | float)
            }
            months[month][stage] = replace(materialization, metadata=plain_metadata)
    return dict(sorted(months.items()))


def import_document(
    settings: Settings, document: StateDocument, on_month: Callable[[str], None]
) -> list[str]:
    """Restore loads and materializations of the months that the data on this machine confirms.

    Loads are recorded in the ledger, materializations in Dagster's event log. `on_month` gets a
    line for each month with a confirmed stage. Returns a line for each export or stage that is
    refused. Raises BillError for a DuckDB file that cannot be opened, and WarehouseUnavailable.
    """
    stored, refused = StoredMonths(settings), list[str]()
    with open_instance() as instance:
        for export_state in document.exports:
            try:
                (export,) = Selection(export_state.vendor, export_state.name).exports(settings)
            except BillError as error:
                refused.append(f"{export_state.name}  refused: {error}")
                continue
            # What is in the event log already is not recorded a second time.
            logged = History(instance).materializations(export_state.name, export_state.months)
            for name, stages in export_state.months.items():
                month = StoredMonth(export, BillingMonth.parse(name), stored)
                confirmed, problems = _confirmed_stages(month, export_state)
                refused += problems
                for stage in confirmed:
                    last = logged[stage].get(name)
                    if last is None or last.version != stages[stage].version:
                        key = dg.AssetKey([export.name, stage])
                        _report(instance, key, name, stages[stage])
                if confirmed:
                    on_month(f"{month}: {', '.join(confirmed)}")
    return refused


def _confirmed_stages(
    month: StoredMonth, export_state: ExportState
) -> tuple[list[Stage], list[str]]:
    """Restore the month's ledger, and return the stages whose version the data confirms.

    The second list has a line for each of the others.
    """
    table_version, stages = _restore_ledger(month, export_state), export_state.months[month.key[1]]
    confirmed, problems = list[Stage](), list[str]()
    for stage, materialization in stages.items():
        version = _confirmed_version(month, stage, materialization.version, table_version)
        if version is None or version != materialization.version:
            problems.append(
                f"{month}  refused: {stage} has {materialization.version} in the file, but "
                f"{version or 'no complete month'} on this machine; run finops state "
                f"reprocess {month}"
            )
        else:
            confirmed.append(stage)
    return confirmed, problems


def _report(
    instance: dg.DagsterInstance, key: dg.AssetKey, month: str, imported: Materialization
) -> None:
    # The run is not in the event log of this machine, so the event has none.
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=key,
            partition=month,
            description=f"Imported; recorded by run {imported.run} at {imported.at}.",
            metadata=imported.metadata,
            tags={"dagster/data_version": str(imported.version)},
        )
    )


def _restore_ledger(month: StoredMonth, export_state: ExportState) -> str | None:
    """Restore the loads and restatements that the ledger lacks if the table confirms them.

    Returns the version in the table.
    """
    if not month.database_path.exists():
        return None
    name = str(month.month)
    entries = [entry for entry in export_state.versions if entry.month == name]
    # The document has the newest load first; load numbers count from the oldest.
    documented = [
        entry.load(month.export, number)
        for number, entry in enumerate(reversed(entries), 1)
        if entry.format in month.formats
    ]
    with month.connect() as connection:
        recorded = set(ledger.loads(connection, month.export.name))
        missing = [load for load in documented if load not in recorded]
        for load in missing:
            if load.state == "loaded":
                restore_load(connection, load, month.formats[load.format], month.lake_file)
        current = month.verified_load(connection)
        # Superseded loads have no rows; they are trusted if the loaded one is confirmed.
        if current in documented:
            ledger.restore_loads(connection, [load for load in missing if load.state != "loaded"])
            known = {r.number for r in restatements(connection, month.export.name, month.month)}
            unknown = [r for r in export_state.restatements.get(name, []) if r.number not in known]
            restore_restatements(connection, month.export.name, month.month, unknown)
        return current.manifest_id if current else None


def _confirmed_version(
    month: StoredMonth, stage: str, documented: str | None, table_version: str | None
) -> str | None:
    """Return the version that the stage's data confirms; for the manifest, the vendor's id.

    The manifest and the staged files need not exist any more once the table has their version.
    """
    if stage == "billing_table":
        return table_version
    if stage == "parquet":
        return month.lake_record.manifest_id if month.lake_record else None
    if stage == "warehouse_table":
        if month.storage.warehouse is None or month.lake_record is None:
            return None
        version = month.storage.warehouse.measured_version(month.month_file)
        return version.manifest_id if version else None
    if stage in FOCUS_STAGES:
        return month.versions.get(stage)
    manifest = month.staging.manifest()
    if manifest is None or (table_version and is_version_of(table_version, manifest.id)):
        is_table_version = (
            stage == "manifest"
            and table_version
            and documented
            and is_version_of(table_version, documented)
        )
        return documented if is_table_version else table_version
    if stage == "manifest":
        return manifest.id
    current = month.staging.current_record()
    is_whole = month.staging.version(manifest).content() is not None
    return current.manifest_id if current and is_whole else None
