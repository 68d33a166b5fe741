"""All that is known of all months as one document: for debugging, and for another machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import dagster as dg
import yaml

from finops_dagster.assets import STAGES
from finops_dagster.assets.export import Export
from finops_dagster.billing import ledger
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import plain
from finops_dagster.code_location import build_definitions
from finops_dagster.resources.duckdb import BillingDatabase
from finops_dagster.runs import open_instance
from finops_dagster.settings import Settings

Document = dict[str, Any]
_LAYOUT = 1


def write(document: Document, file: Path) -> None:
    """Write JSON, or YAML where the file is named so. Raises BillError."""
    if _is_yaml(file):
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    else:
        text = json.dumps(document, indent=1, ensure_ascii=False)
    file.write_text(text, encoding="utf-8")


def read(file: Path) -> Document:
    """Read what `write` wrote. Raises BillError."""
    try:
        text = file.read_text(encoding="utf-8")
        document = yaml.safe_load(text) if _is_yaml(file) else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BillError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or document.get("layout") != _LAYOUT:
        raise BillError(f"{file} is not what finops state export writes")
    return document


def _is_yaml(file: Path) -> bool:
    if file.suffix not in (".json", ".yaml", ".yml"):
        raise BillError(f"{file}: name a file that ends in .json, .yaml or .yml")
    return file.suffix != ".json"


def document_of(settings: Settings) -> Document:
    """The ledger of every export, the last word of every stage of every month, and all runs."""
    database = cast(BillingDatabase, (build_definitions(settings).resources or {})["database"])
    with open_instance() as instance:
        return {
            "layout": _LAYOUT,
            "finops_dagster": version("finops-dagster"),
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "exports": [
                {
                    "name": export.name,
                    "vendor": export.settings.vendor,
                    "table": export.table,
                    "versions": _versions(export, database),
                    "months": _months(instance, export),
                }
                for export in map(Export, settings.exports)
            ],
            "runs": _runs(instance, {export.name for export in settings.exports}),
        }


def _versions(export: Export, database: BillingDatabase) -> list[Document]:
    """What the ledgers of all the export's files have."""
    months = {database.path(export.name, month): month for month in export.months()}
    found = []
    for path, month in months.items():
        if path.exists():
            with database.connect(export.name, month) as connection:
                found += ledger.versions(connection, export.name)
    return [
        {
            "month": str(one.load.month),
            "version": one.load.manifest_id,
            "rows": one.load.totals.rows,
            "cost": plain(one.load.totals.cost),
            "files": one.load.files,
            "bytes": one.load.bytes,
            "run": one.load.run_id,
            "format": one.load.format,
            "loaded_at": one.loaded_at.isoformat(),
            "state": one.state,
        }
        for one in found
    ]


def _months(instance: dg.DagsterInstance, export: Export) -> dict[str, dict[str, Document]]:
    """By month and stage what was materialized last."""
    months: dict[str, dict[str, Document]] = {}
    of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    for stage in STAGES:
        key = export.key(stage)
        last = instance.event_log_storage.get_latest_storage_id_by_partition(key, of_type)
        wanted = dg.AssetRecordsFilter(key, storage_ids=list(last.values()))
        found = instance.fetch_materializations(wanted, limit=len(last)).records if last else []
        for record in found:
            made = record.asset_materialization
            assert made is not None and made.partition is not None
            months.setdefault(made.partition, {})[stage] = {
                "version": (made.tags or {}).get("dagster/data_version"),
                "at": datetime.fromtimestamp(record.timestamp, UTC).isoformat(),
                "run": record.run_id,
                "metadata": {
                    name: value.value
                    for name, value in made.metadata.items()
                    if isinstance(value.value, str | int | float | bool)
                },
            }
    return dict(sorted(months.items()))


def _runs(instance: dg.DagsterInstance, exports: set[str]) -> list[Document]:
    return [
        {
            "run": record.dagster_run.run_id,
            "export": record.dagster_run.tags["finops/export"],
            "month": record.dagster_run.tags.get("dagster/partition"),
            "status": record.dagster_run.status.value.lower(),
            "began": _time(record.start_time),
            "ended": _time(record.end_time),
        }
        for record in instance.get_run_records()
        if record.dagster_run.tags.get("finops/export") in exports
    ]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
