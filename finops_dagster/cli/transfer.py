"""`finops state export` and `import`: what is known of months as a document, JSON or YAML, carried
to another machine as far as the data that is there proves it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from finops_dagster.billing.content import FileContent, is_version_of
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import RoundedColumn, decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.cli.history import History, Materialization, open_history
from finops_dagster.cli.options import Selection
from finops_dagster.cli.stored_months import StoredMonth, StoredMonths
from finops_dagster.lake import restore_load
from finops_dagster.pipeline.runs import open_instance
from finops_dagster.settings import Settings
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables import ledger

MonthName = Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
Stage = Literal["manifest", "staged_files", "billing_table", "parquet", "warehouse_table"]
# What the document calls the columns of the ledger.
_COLUMNS = {
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
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VersionDocument(_Part):
    """A version of a month as the ledger has it. Documents of earlier releases have no files, no
    number of the load, and of money the headline cost alone."""

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

    @classmethod
    def of(cls, load: Load) -> VersionDocument:
        """Return what the ledger has of a version."""
        row = load.row() | {"total_cost": decimal_text(load.totals.cost)}
        known = {name: row[column] for name, column in _COLUMNS.items()}
        known |= {"month": str(load.month), "loaded_at": load.loaded_at, "state": load.state}
        return cls.model_validate({**known, "load_number": load.number})

    def load(self, export: ExportSettings, number: int) -> Load:
        """Return the version as the ledger has it; `number` is that of its load where the document
        has none."""
        known = self.model_dump(mode="json")
        return Load.of_row(
            {column: known[name] for name, column in _COLUMNS.items()},
            export=export.name,
            month=BillingMonth.parse(self.month),
            table=export.table_name,
            state=self.state,
            loaded_at=self.loaded_at,
            number=self.load_number or number,
        )


class ExportState(_Part):
    """What is known of an export: its ledger, and its materializations by month and stage."""

    name: str
    vendor: str
    table: str
    versions: list[VersionDocument]
    months: dict[MonthName, dict[Stage, Materialization]]


class StateDocument(_Part):
    """All that is known of all months at one time. Runs are for reading, and are not imported."""

    layout: Literal[1] = 1
    finops_dagster: str
    exported_at: datetime
    exports: list[ExportState]
    runs: list[dict[str, Any]]


def write(document: StateDocument, file: Path) -> None:
    """Write JSON, or YAML where the file is named so. Raises BillError."""
    if _is_yaml(file):
        text = yaml.safe_dump(document.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    else:
        text = document.model_dump_json(indent=1)
    file.write_text(text, encoding="utf-8")


def read(file: Path) -> StateDocument:
    """Read what `write` wrote. Raises BillError."""
    try:
        text = file.read_text(encoding="utf-8")
        document = yaml.safe_load(text) if _is_yaml(file) else json.loads(text)
        return StateDocument.model_validate_json(json.dumps(document, default=str), strict=False)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise BillError(
            f"{file} is not what finops state export writes: {where}: {problem['msg']}"
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BillError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def _is_yaml(file: Path) -> bool:
    if file.suffix not in (".json", ".yaml", ".yml"):
        raise BillError(f"{file}: name a file that ends in .json, .yaml or .yml")
    return file.suffix != ".json"


def document_of(settings: Settings, selection: Selection) -> StateDocument:
    """Return the ledger of every export, or of one; what every stage recorded last of every month;
    and all runs of these exports. Raises BillError where there is no such export."""
    stored, exports = StoredMonths(settings), selection.exports(settings)
    with open_history() as history:
        return StateDocument(
            finops_dagster=version("finops-dagster"),
            exported_at=datetime.now(UTC).replace(microsecond=0),
            exports=[
                ExportState(
                    name=export.name,
                    vendor=export.vendor,
                    table=export.table_name,
                    versions=list(_versions(stored, export.name)),
                    months=_materializations(history, export),
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


def _versions(stored: StoredMonths, export: str) -> Iterator[VersionDocument]:
    """Yield what the ledgers of all the export's files have."""
    files = {month.database_path: month for month in stored.months(Selection(export=export))}
    for file in filter(Path.exists, reversed(files)):
        with files[file].connect() as connection:
            yield from map(VersionDocument.of, ledger.loads(connection, export))


def _materializations(history: History, export: ExportSettings) -> Any:
    """Return by month and stage what was materialized last, with its metadata of plain values."""
    months: dict[str, dict[str, Materialization]] = defaultdict(dict)
    last = history.materializations(export.name, set(map(str, export.months())))
    for stage, by_month in last.items():
        for month, made in by_month.items():
            decimal_text = {
                k: v for k, v in made.metadata.items() if isinstance(v, str | int | float)
            }
            months[month][stage] = replace(made, metadata=decimal_text)
    return dict(sorted(months.items()))


def take_over(
    settings: Settings, document: StateDocument, on_month: Callable[[str], None]
) -> list[str]:
    """Report to the event log, and restore in the ledger, what the document has of months whose
    data is here and proves it. `on_month` is called with each; a line for each stage that does not
    fit is returned."""
    stored, refused = StoredMonths(settings), list[str]()
    with open_instance() as instance:
        for state in document.exports:
            try:
                (export,) = Selection(state.vendor, state.name).exports(settings)
            except BillError as error:
                refused.append(f"{state.name}  refused: {error}")
                continue
            known = History(instance).materializations(state.name, state.months)
            for name, stages in state.months.items():
                month = StoredMonth(export, BillingMonth.parse(name), stored)
                table = _restored(month, [one for one in state.versions if one.month == name])
                fitting = []
                for stage, made in stages.items():
                    proved = _proved(month, stage, made.version, table)
                    if proved is None or proved != made.version:
                        refused.append(
                            f"{month}  refused: {stage} was {made.version}, but "
                            f"{proved or 'nothing whole'} is here"
                        )
                        continue
                    fitting.append(stage)
                    reported = known[stage].get(name)
                    if reported is None or reported.version != made.version:
                        _report(instance, dg.AssetKey([export.name, stage]), name, made)
                if fitting:
                    on_month(f"{month}: {', '.join(fitting)}")
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
            tags={"dagster/data_version": str(made.version)},
        )
    )


def _restored(month: StoredMonth, versions: list[VersionDocument]) -> str | None:
    """Give the ledger what it does not have, if the table proves it; return the version that the
    table holds."""
    if not month.database_path.exists():
        return None
    recorded = [
        one.load(month.export, number)
        for number, one in enumerate(reversed(versions), 1)
        if one.format in month.formats
    ]
    with month.connect() as connection:
        known = set(ledger.loads(connection, month.export.name))
        missing = [load for load in recorded if load not in known]
        for load in missing:
            if load.state == "loaded":
                restore_load(connection, load, month.formats[load.format], month.parquet_path)
        loaded = month.verified_load(connection)
        if loaded in recorded:
            ledger.restore_loads(connection, [load for load in missing if load.state != "loaded"])
        return loaded.manifest_id if loaded else None


def _proved(month: StoredMonth, stage: str, wanted: str | None, table: str | None) -> str | None:
    """Return the version that the stage's output proves; of the manifest, the vendor's id of it.
    What was read and fetched has done its work once the table holds it."""
    if stage == "billing_table":
        return table
    if stage == "parquet":
        return month.lake_record.manifest_id if month.lake_record else None
    if stage == "warehouse_table":
        if month.stores.warehouse is None or month.lake_record is None:
            return None
        loaded = month.stores.warehouse.verified_version(month.month_file)
        return loaded.manifest_id if loaded else None
    manifest = month.staging.manifest()
    if manifest is None or (table and is_version_of(table, manifest.id)):
        is_of_table = stage == "manifest" and table and wanted and is_version_of(table, wanted)
        return wanted if is_of_table else table
    if stage == "manifest":
        return manifest.id
    current = month.staging.current_record()
    is_whole = month.staging.version(manifest).content() is not None
    return current.manifest_id if current and is_whole else None
