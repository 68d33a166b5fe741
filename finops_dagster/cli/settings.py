"""The settings in force, where each comes from, and whether what they name can be reached."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.discovery import available_versions
from finops_dagster.cli.options import Options
from finops_dagster.object_stores import ObjectStores, StoreError, StoreUnavailable
from finops_dagster.settings import Settings, dagster_home, settings_file
from finops_dagster.settings_table import leaves
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.database import DuckDB
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import WarehouseUnavailable
from finops_dagster.warehouses.duckdb import Settings as DuckDBSettings


def origins(options: Options) -> list[dict[str, Any]]:
    """Each setting with its value, and the option, variable, file or default that gave it."""
    settings = options.settings()
    file = settings_file(options.config)
    written = dict(leaves(tomllib.loads(file.read_text())))
    backend = settings.database.backend
    given = {f"database.{backend}.{pair.partition('=')[0]}" for pair in options.database_config}
    if options.backend:
        given.add("database.backend")

    def origin(name: str) -> str:
        variable = "FINOPS_" + name.replace(".", "__").upper()
        if name in given:
            return "command line"
        if name == "database.backend" and os.environ.get("OPEN_FINOPS_DATABASE_BACKEND"):
            return "OPEN_FINOPS_DATABASE_BACKEND"
        if variable in os.environ:
            return variable
        return str(file) if name in written else "default"

    return [
        {"setting": name, "value": value, "from": origin(name)}
        for name, value in leaves(settings.model_dump(mode="json", by_alias=True))
        if value is not None
    ]


def reach_all(settings: Settings) -> list[dict[str, Any]]:
    """Return what each export, each folder and each database answers; `problem` is empty where all
    is well."""
    storage = settings.storage
    questions: dict[str, Callable[[], str]] = {
        export.name: partial(_months, export) for export in settings.exports
    } or {"exports": _no_exports}
    questions |= {
        "storage.staging_dir": partial(_writable, storage.staging_dir),
        "storage.parquet_dir": partial(_writable, storage.parquet_dir),
        "DAGSTER_HOME": partial(_writable, dagster_home()),
        "duckdb": partial(_duckdb, settings.database.duckdb),
    }
    if settings.database.has_warehouse:
        questions["warehouse"] = partial(_warehouse, settings)
    return [{"what": what, **_answer(ask)} for what, ask in questions.items()]


def _answer(ask: Callable[[], str]) -> dict[str, str]:
    try:
        return {"answer": ask(), "problem": ""}
    except (BillError, StoreError, StoreUnavailable, WarehouseUnavailable) as error:
        return {"answer": "", "problem": str(error)}


def _no_exports() -> str:
    raise BillError(
        "no export is set: add an [[exports]] table, as finops config discover prints it"
    )


def _months(export: ExportSettings) -> str:
    source = VENDORS[export.vendor].source(export, ObjectStores())
    versions = available_versions(source, export.months()[::-1])
    return f"{len(versions)} months, {min(versions)} to {max(versions)}"


def _writable(folder: Path, file: Path | None = None) -> str:
    """Write a file in the folder, or in the nearest one above where it is still to be made, and
    open `file` for writing where it exists, without changing it."""
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        with TemporaryFile(dir=existing):
            pass
        if file is not None and file.exists():
            file.open("r+b").close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = file if file is not None and file.exists() else folder
        raise BillError(f"{where} cannot be written: {reason}") from error
    return str(folder) if folder == existing else f"{folder} is made when it is needed"


def _duckdb(settings: DuckDBSettings) -> str:
    """Open the file for reading where there is one; one a month is made when it is needed."""
    path = Path(settings.database_path)
    _writable(path.parent, path)
    if not path.exists():
        return f"{path} is made when the first month comes"
    with replace(DuckDB.of(settings), lock_wait_seconds=0).open(path, read_only=True):
        return f"{path}, {path.stat().st_size / 1e6:,.1f} MB"


def _warehouse(settings: Settings) -> str:
    path = settings.database.duckdb.warehouse_path
    if settings.database.backend == "duckdb" and path:
        _writable(Path(path).parent, Path(path))
    return open_warehouse(settings.database).reach()
