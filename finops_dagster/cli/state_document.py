"""The document that state is exported to and imported from, as JSON or YAML."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import RoundedColumn, Totals, plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load

Month = Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
Stage = Literal["manifest", "staged_files", "billing_table", "parquet", "warehouse_table"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Version(_Part):
    """A version of a month as the ledger has it; documents of earlier releases have no files and no
    number of the load."""

    month: Month
    version: str
    rows: int
    cost: Decimal
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
    def of(cls, load: Load) -> Version:
        """Return what the ledger has of a version."""
        return cls(
            month=str(load.month),
            version=load.manifest_id,
            rows=load.totals.rows,
            cost=Decimal(plain(load.totals.cost)),
            files=load.files,
            bytes=load.bytes,
            run=load.run_id,
            format=load.format,
            loaded_at=load.loaded_at,
            state=load.state,
            rounded=load.rounded,
            load_number=load.number,
            content=load.content and load.content.files,
        )

    def load(self, export: str, table: str, number: int) -> Load:
        """Return the version as the ledger has it; `number` is that of its load where the document
        has none."""
        return Load(
            self.version,
            Totals(self.rows, self.cost),
            self.format,
            self.files,
            self.bytes,
            None if self.content is None else Content.of(self.content),
            self.run,
            self.rounded,
            export=export,
            month=BillingMonth.parse(self.month),
            table=table,
            state=self.state,
            loaded_at=self.loaded_at,
            number=self.load_number or number,
        )


class Materialization(_Part):
    """What a stage recorded of a month last."""

    version: str
    at: datetime
    run: str
    metadata: dict[str, bool | int | float | str]


class ExportState(_Part):
    """What is known of an export: its ledger, and its materializations by month and stage."""

    name: str
    vendor: str
    table: str
    versions: list[Version]
    months: dict[Month, dict[Stage, Materialization]]


class RunState(_Part):
    """A run, for reading: runs are not imported."""

    run: str
    export: str
    month: str | None
    status: str
    began: datetime
    ended: datetime | None


class StateDocument(_Part):
    """All that is known of all months at one time."""

    layout: Literal[1] = 1
    finops_dagster: str
    exported_at: datetime
    exports: list[ExportState]
    runs: list[RunState]


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
        plain = yaml.safe_load(text) if _is_yaml(file) else json.loads(text)
        return StateDocument.model_validate_json(json.dumps(plain, default=str), strict=False)
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
