"""`finops init` and `finops config`: write, show and check the settings, and find exports."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finops_dagster.billing.columns import flat_name
from finops_dagster.billing.disk import check_writable
from finops_dagster.billing.errors import BillError, count_text, excerpts, shortened
from finops_dagster.cli.available import available_manifests
from finops_dagster.cli.errors import error_line
from finops_dagster.cli.options import Options, no_exports_error
from finops_dagster.cli.output import Row
from finops_dagster.cli.relations import open_bill_relations
from finops_dagster.focus.exports import no_charges_reason
from finops_dagster.object_stores import ObjectStores, StoreError, StoreUnavailable
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.reports.accounts import read_accounts
from finops_dagster.reports.budgets import unmatched_filter_messages
from finops_dagster.settings import DEFAULT_CONFIGS, Settings, dagster_home, settings_file
from finops_dagster.settings_table import SettingsError, flat_settings, problems_line
from finops_dagster.sources import VENDORS
from finops_dagster.sources.find_exports import FoundExport, SearchedStore
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.database import DuckDB
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.month_file import WarehouseUnavailable

_NAMES_SHOWN = 12


def write_first_settings(file: Path | None) -> Path:
    """Write the commented example to `file`, by default config/finops.toml; return its path.

    Also writes dagster.yaml and workspace.yaml into the working directory, unless they exist there.
    Creates the folder if it is missing. Raises BillError if the file cannot be written or exists
    already; without `file`, if any of DEFAULT_CONFIGS exists.
    """
    for existing in filter(Path.exists, [file] if file else DEFAULT_CONFIGS):
        raise BillError(
            f"{existing} exists already and was not changed; edit it, or name another file: "
            "finops init --config FILE"
        )
    written, package = file or DEFAULT_CONFIGS[0], Path(__file__).parents[1]
    files = {written: package / "cli" / "first_settings.toml"}
    dagster_files = (Path("dagster.yaml"), Path("workspace.yaml"))
    files |= {path: package / path for path in dagster_files if not path.exists()}
    try:
        written.parent.mkdir(parents=True, exist_ok=True)
        for path, original in files.items():
            with path.open("x", encoding="utf-8") as new:
                new.write(original.read_text(encoding="utf-8"))
    except OSError as error:
        raise BillError(
            f"{written} cannot be written: {error.strerror}; allow writing to its folder, or name "
            "another file: finops init --config FILE"
        ) from error
    return written


def find_exports(source: str, **store_settings: Any) -> list[FoundExport]:
    """Return the exports of every vendor below a URL or a folder, each with a unique name.

    A number is added to a name that an earlier export has. `store_settings` are the fields of
    StoreSettings except `source`. Raises BillError if there is no export, SettingsError for an
    invalid URL, and StoreError or StoreUnavailable if the store fails.
    """
    if "://" not in source or source.startswith("file://"):
        source = f"file://{Path(source.removeprefix('file://')).resolve()}"
    try:
        searched = SearchedStore(StoreSettings(source=source, **store_settings))
        exports = [export for vendor in VENDORS.values() for export in vendor.discover(searched)]
    except ValidationError as error:
        # A query may be a SAS, which is a secret.
        location = re.split(r"\?|%3f", source, maxsplit=1, flags=re.I)[0]
        raise SettingsError(problems_line(location, error)) from error
    if not exports:
        folders = sorted(searched.store.folder_names(searched.folder))
        raise BillError(
            f"{source} has no cost export of {' or '.join(VENDORS)}; its folders are: "
            f"{excerpts(folders, _NAMES_SHOWN) or 'none'}; name the folder that contains the "
            "folder of the export"
        )
    # Two exports of the settings may not have the same name: the second gets a number.
    by_name: dict[str, FoundExport] = {}
    for export in exports:
        name, number = export.settings.name, 1
        while flat_name(name) in by_name:
            number += 1
            name = f"{export.settings.name[:60]}-{number}"
        settings = export.settings.model_copy(update={"name": name})
        by_name[flat_name(name)] = replace(export, settings=settings)
    return list(by_name.values())


def export_row(export: FoundExport) -> Row:
    """Return an export as a row of JSON: its settings other than defaults, and `problem`.

    `months` is the number of months that were found. `note`, which says what was guessed, is left
    out if nothing was.
    """
    table = export.settings.model_dump(mode="json", exclude_defaults=True)
    notes = {"note": export.note} if export.note else {}
    return {**table, "months": len(export.months), "problem": export.problem, **notes}


def export_toml(export: FoundExport) -> str:
    """Return the export as an [[exports]] block of a settings file, with a final line end.

    Its problem and its note are in comments. The export must have at least one month.
    """
    lines = [f"[[exports]]  # found: {export.months[0]} to {export.months[-1]}"]
    lines += [f"# {shortened(text)}" for text in (export.problem, export.note) if text]
    table = export.settings.model_dump(mode="json", exclude_defaults=True)
    lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _toml(value: str | bool | list[str]) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # The name of a folder may hold any character; TOML has `\U` for those that are not printable.
    escaped = (
        character
        if character.isprintable() and character not in '"\\'
        else f"\\U{ord(character):08x}"
        for character in value
    )
    return f'"{"".join(escaped)}"'


def setting_rows(options: Options) -> list[Row]:
    """Return a row for each setting: its value, and where that comes from.

    `setting` is a name such as `database.backend` or `exports[0].name`, and `value` its value.
    `from` is "command line", the name of an environment variable, the path of the settings file or
    "default". A setting whose value is None is left out. Raises SettingsError.
    """
    settings, file = options.settings(), settings_file(options.config)
    in_file = {name for name, _ in flat_settings(tomllib.loads(file.read_text()))}
    backend = settings.database.backend
    option_names = {
        f"database.{backend}.{pair.partition('=')[0]}" for pair in options.database_config
    }
    if options.backend:
        option_names.add("database.backend")

    variables = _variables_by_setting()
    for block in ("exports", "budgets"):
        if f"FINOPS_{block.upper()}" in os.environ:  # It replaces all blocks of the file.
            in_file = {name for name in in_file if not name.startswith(f"{block}[")}

    # In the order in which they override each other, see `load_settings`.
    def origin(name: str) -> str:
        if name in option_names:
            return "command line"
        if name == "database.backend" and os.environ.get("OPEN_FINOPS_DATABASE_BACKEND"):
            return "OPEN_FINOPS_DATABASE_BACKEND"
        return variables.get(name) or (str(file) if name in in_file else "default")

    return [
        {"setting": name, "value": value, "from": origin(name)}
        for name, value in flat_settings(settings.model_dump(mode="json", by_alias=True))
        if value is not None
    ]


def _variables_by_setting() -> dict[str, str]:
    """Return the FINOPS_ variable that gives each setting; it may have a whole table as JSON."""
    variables = {}
    # A variable of a single key overrides that of its table.
    for variable in sorted(filter(re.compile("FINOPS_", re.I).match, os.environ), key=len):
        name = variable[len("FINOPS_") :].lower().replace("__", ".")
        variables[name] = variable
        with suppress(ValueError):
            table = json.loads(os.environ[variable])
            variables |= dict.fromkeys(dict(flat_settings(table, name)), variable)
    return variables


_PROBLEMS = (BillError, SettingsError, StoreError, StoreUnavailable, WarehouseUnavailable)


def check_connections(settings: Settings) -> list[Row]:
    """Check each export, folder and database that the settings name; return a row for each.

    Also the catalog, the accounts file and the budgets, if they are set. The keys are `what` (the
    name of an export or a setting), `answer` and `problem`. `answer` says what was found; if
    something cannot be used, `answer` is empty and `problem` has a line. Without exports, there is
    a row with that problem.

    Connects to the stores and the warehouse. A small file or object that is written to test a
    folder or a lake is deleted again; nothing else is changed.
    """
    storage = settings.storage
    checks: dict[str, Callable[[], str]] = {
        export.name: partial(_check_export, export, settings.exports) for export in settings.exports
    } or {"exports": partial(_fail_without_exports, settings)}
    checks |= {
        "storage.staging_dir": partial(check_writable, storage.staging_dir),
        "storage.parquet_dir": storage.open_lake().check_access,
        "DAGSTER_HOME": partial(check_writable, dagster_home()),
        "duckdb": partial(_check_duckdb, settings),
    }
    if settings.catalog is not None:
        checks["catalog"] = partial(_check_catalog, settings)
    if settings.accounts.file is not None:
        checks["accounts.file"] = partial(_check_accounts, settings.accounts.file)
    if settings.budgets:
        checks["budgets"] = partial(_check_budgets, settings)
    if settings.database.has_warehouse:
        checks["warehouse"] = partial(_check_warehouse, settings)
    rows = []
    for name, check in checks.items():
        try:
            rows.append({"what": name, "answer": check(), "problem": ""})
        except _PROBLEMS as error:
            rows.append({"what": name, "answer": "", "problem": error_line(error)})
    return rows


def _fail_without_exports(settings: Settings) -> str:
    raise no_exports_error(settings)


def _check_catalog(settings: Settings) -> str:
    assert settings.catalog is not None
    settings.catalog.require_client()
    return settings.open_catalog().check_connection()


def _check_export(export: ExportSettings, exports: Sequence[ExportSettings]) -> str:
    source = VENDORS[export.vendor].open_source(export, ObjectStores(), None)
    months = available_manifests(source, export.months()[::-1])
    answer = f"{count_text(len(months), 'month')}, {min(months)} to {max(months)}"
    if export.lacks_charges(exports):
        answer += (
            "; no FOCUS charges: they need actual and amortized costs, joined by amortized_from"
        )
    reasons = (no_charges_reason(export, month, exports) for month in sorted(months))
    reason = next(filter(None, reasons), None)
    return answer if reason is None else f"{answer}; {reason}"


def _check_duckdb(settings: Settings) -> str:
    """Open the DuckDB file if it exists. A file for each export or month is not checked."""
    path = Path(settings.database.duckdb.database_path)
    check_writable(path.parent, path)
    if not path.exists():
        return f"{path}, created by the first load"
    # A load holds the file for minutes; a check must answer at once.
    connections = replace(DuckDB.with_limits(settings.database.duckdb), lock_wait_seconds=0)
    with connections.open(path, read_only=True):
        return f"{path}, {path.stat().st_size / 1e6:,.1f} MB"


def _check_accounts(file: Path) -> str:
    accounts = read_accounts(file)
    answer = count_text(len(accounts.lines), "line")
    if shorter := accounts.lines_with_short_ids():
        numbers = excerpts([str(line.number) for line in shorter], _NAMES_SHOWN)
        answer += (
            "; ids of fewer than 12 digits, which a spreadsheet may have cut: compare line "
            f"{numbers} with the bill"
        )
    return answer


def _check_budgets(settings: Settings) -> str:
    answer = count_text(len(settings.budgets), "budget")
    with open_bill_relations(settings) as (bill, relations):
        if "focus" not in relations:
            return f"{answer}; no month has charges yet"
        if unmatched := unmatched_filter_messages(bill, settings.budgets):
            raise BillError("; ".join(unmatched))
    return answer


def _check_warehouse(settings: Settings) -> str:
    path = settings.database.duckdb.warehouse_path
    if settings.database.backend == "duckdb" and path:
        check_writable(Path(path).parent, Path(path))
    return open_warehouse(settings.database).check_connection()
