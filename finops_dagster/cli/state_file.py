"""The file of `finops state export`: a sequence of records, read and written one by one.

In JSON each record is a line, in YAML a document. First comes `file`, then each `export` with its
months, each `month` with its loads and restatements, then the runs, and `end`. Files of earlier
releases are one document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from finops_dagster.billing.content import FileContent
from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import RoundedColumn, decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import Restatement
from finops_dagster.billing.version import Load
from finops_dagster.pipeline.history import Materialization
from finops_dagster.sources.settings import ExportSettings

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
# The fields of a load with the ledger's columns.
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
_WRITE_AGAIN = (
    "write it again where the months are loaded (finops state export FILE), or use another backup"
)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    """The first record of a file: which release wrote it, and when."""

    kind: Literal["file"] = "file"
    layout: Literal[2] = 2
    finops_dagster: str
    exported_at: datetime


class ExportRecord(_Record):
    """An export, whose months follow."""

    kind: Literal["export"] = "export"
    name: str
    vendor: str
    table: str


class MonthRecord(_Record):
    """The last materialization of each stage of a month, whose loads and restatements follow."""

    kind: Literal["month"] = "month"
    month: MonthName
    stages: dict[Stage, Materialization]


class LoadRecord(_Record):
    """A load of a month, as the ledger records it.

    `version` is its version id; `files` and `bytes` are the number and size of the vendor's files;
    `cost` is the headline cost, `sums` are by money column, and `costs` by currency. Files of
    earlier releases have no content, no load number, and only the headline cost.
    """

    kind: Literal["load"] = "load"
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
    def from_load(cls, load: Load) -> LoadRecord:
        """Return a load of the ledger as a record."""
        row = load.to_row() | {"total_cost": decimal_text(load.totals.cost)}
        fields = {name: row[column] for name, column in _LEDGER_COLUMNS.items()}
        fields |= {"month": str(load.month), "loaded_at": load.loaded_at, "state": load.state}
        return cls.model_validate({**fields, "load_number": load.number})

    def to_load(self, export: ExportSettings, number: int) -> Load:
        """Return the load for the ledger of `export`, with that export's name and table.

        `number` is its load number if the record has none.
        """
        fields = self.model_dump(mode="json")
        return Load.from_row(
            {column: fields[name] for name, column in _LEDGER_COLUMNS.items()},
            export=export.name,
            month=BillingMonth.parse(self.month),
            table=export.table_name,
            state=self.state,
            loaded_at=self.loaded_at,
            number=self.load_number or number,
        )


class RestatementRecord(_Record):
    """A restatement of the month whose record comes before it."""

    kind: Literal["restatement"] = "restatement"
    restatement: Restatement


class RunRecord(_Record):
    """A run, as information for the reader; it is not imported."""

    kind: Literal["run"] = "run"
    run: str
    export: str
    month: str | None
    status: str
    began: datetime
    ended: datetime | None


class EndRecord(_Record):
    """The end of a file; a file without it is cut short."""

    kind: Literal["end"] = "end"


Record = (
    FileRecord | ExportRecord | MonthRecord | LoadRecord | RestatementRecord | RunRecord | EndRecord
)
_RECORDS: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


class MonthState(_Record):
    """The records of one month in a file; loads and restatements are the newest first."""

    export: ExportRecord
    month: MonthName
    stages: dict[Stage, Materialization]
    loads: list[LoadRecord] = []
    restatements: list[Restatement] = []


class _OldExport(_Record):
    name: str
    vendor: str
    table: str
    versions: list[LoadRecord]
    months: dict[MonthName, dict[Stage, Materialization]]
    restatements: dict[MonthName, list[Restatement]] = {}

    def months_of(self) -> Iterator[MonthState]:
        """Yield the months of the export, as `read_months` yields those of a newer file."""
        export = ExportRecord(name=self.name, vendor=self.vendor, table=self.table)
        for month, stages in self.months.items():
            loads = [load for load in self.versions if load.month == month]
            restatements = self.restatements.get(month, [])
            yield MonthState(
                export=export, month=month, stages=stages, loads=loads, restatements=restatements
            )


class _OldDocument(_Record):
    """The one document of an earlier release."""

    layout: Literal[1] = 1
    finops_dagster: str
    exported_at: datetime
    exports: list[_OldExport]
    runs: list[dict[str, Any]]


def write_records(records: Iterable[Record], file: Path) -> None:
    """Write records to a JSON file (.json, .jsonl) or a YAML file (.yaml, .yml).

    An existing file is replaced only once all records are written. Raises BillError for another
    suffix or a missing folder, and OSError if the file cannot be written.
    """
    is_yaml, part = _is_yaml(file), file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            for record in records:
                if is_yaml:
                    _write_yaml(record, stream)
                else:
                    stream.write(record.model_dump_json() + "\n")
        part.replace(file)
    except FileNotFoundError as error:
        raise BillError(
            f"{file} cannot be written: the folder {file.parent} does not exist; create it, or "
            "name another file"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _write_yaml(record: Record, stream: TextIO) -> None:
    yaml.safe_dump(
        record.model_dump(mode="json"),
        stream,
        sort_keys=False,
        allow_unicode=True,
        explicit_start=True,
    )


def read_months(file: Path) -> Iterator[MonthState]:
    """Yield the months of a file, one at a time; of an earlier release's file, all are in memory.

    Raises BillError, as the caller iterates, if the file cannot be read or is not of `finops state
    export`. That a file is cut short is found only after its last month.
    """
    try:
        yield from _months(file)
    except OSError as error:
        raise BillError(
            f"{file} cannot be read: {error.strerror}; name the file that finops state export wrote"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise BillError(f"{file} cannot be read: {text}; {_WRITE_AGAIN}") from error


def _months(file: Path) -> Iterator[MonthState]:
    with file.open(encoding="utf-8") as stream:
        texts = _yaml_texts(stream) if _is_yaml(file) else _json_texts(stream)
        first = next(texts, "")
        if not _is_record(first):
            document: _OldDocument = _parsed(TypeAdapter(_OldDocument), first, file)
            yield from chain.from_iterable(old.months_of() for old in document.exports)
            return
        record: Record | None = None
        export: ExportRecord | None = None
        month: MonthState | None = None
        for text in chain([first], texts):
            record = _parsed(_RECORDS, text, file)
            if isinstance(record, LoadRecord | RestatementRecord) and month is not None:
                _add(month, record)
                continue
            if month is not None:
                yield month
                month = None
            if isinstance(record, ExportRecord):
                export = record
            elif isinstance(record, MonthRecord) and export is not None:
                month = MonthState(export=export, month=record.month, stages=record.stages)
        if not isinstance(record, EndRecord):
            raise BillError(f"{file} is cut short: its last record is missing; {_WRITE_AGAIN}")


def _add(month: MonthState, record: LoadRecord | RestatementRecord) -> None:
    if isinstance(record, LoadRecord):
        month.loads.append(record)
    else:
        month.restatements.append(record.restatement)


def _json_texts(stream: TextIO) -> Iterator[str]:
    """Yield the lines; of a document of an earlier release, its whole text."""
    first = stream.readline()
    if _is_record(first):
        yield first
        yield from stream
    else:
        yield first + stream.read()


def _yaml_texts(stream: TextIO) -> Iterator[str]:
    # YAML has dates where JSON has text.
    for document in yaml.safe_load_all(stream):
        yield json.dumps(document, default=str)


def _is_record(text: str) -> bool:
    return text.startswith('{"kind"')


def _parsed(adapter: TypeAdapter[Any], text: str, file: Path) -> Any:
    try:
        return adapter.validate_json(text, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise BillError(f"{file} cannot be read: {first['msg']}; {_WRITE_AGAIN}") from error
        problem = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise BillError(
            f"{file} was not written by finops state export: {problem}; {_WRITE_AGAIN}"
        ) from error


def _is_yaml(file: Path) -> bool:
    if file.suffix not in (".json", ".jsonl", ".yaml", ".yml"):
        raise BillError(
            f"{file} has another suffix than .json, .jsonl, .yaml or .yml; choose a name with one "
            "of these"
        )
    return file.suffix in (".yaml", ".yml")
