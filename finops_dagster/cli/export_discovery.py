"""`finops config discover`: the exports that lie in a bucket or a folder, as settings to paste."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finops_dagster.billing.columns import flat_name
from finops_dagster.billing.errors import BillError, for_people, listed
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.settings_table import SettingsError, problems
from finops_dagster.sources import VENDORS
from finops_dagster.sources.discovery import FoundExport, SearchedStore

_NAMES_SHOWN = 12


def discovered(source: str, **of_the_store: Any) -> list[FoundExport]:
    """Return the exports of every vendor that lie at an address or in a folder, each under a name
    of its own. Raises BillError where there is none, SettingsError, and what the store raises."""
    if "://" not in source or source.startswith("file://"):
        source = f"file://{Path(source.removeprefix('file://')).resolve()}"
    try:
        searched = SearchedStore(StoreSettings(source=source, **of_the_store))
        found = [export for vendor in VENDORS.values() for export in vendor.discover(searched)]
    except ValidationError as error:
        raise SettingsError(problems(source, error)) from error
    if not found:
        there = sorted(searched.store.folders(searched.folder))
        raise BillError(
            f"{source} has no cost export of {' or '.join(VENDORS)}; its folders are: "
            f"{listed(there, _NAMES_SHOWN) or 'none'}; name the folder that holds the export's own"
        )
    return _named_apart(found)


def _named_apart(found: list[FoundExport]) -> list[FoundExport]:
    """Give exports of one name a number, as no two in the settings may have one."""
    apart: dict[str, FoundExport] = {}
    for export in found:
        name, number = export.settings.name, 1
        while flat_name(name) in apart:
            number += 1
            name = f"{export.settings.name[:60]}-{number}"
        settings = export.settings.model_copy(update={"name": name})
        apart[flat_name(name)] = replace(export, settings=settings)
    return list(apart.values())


def as_row(export: FoundExport) -> dict[str, Any]:
    """Return for a program what `as_toml` has."""
    return {**_table(export), "months": len(export.months), "problem": export.problem}


def as_toml(export: FoundExport) -> str:
    """Return the export as a block of a settings file."""
    first, last = export.months[0], export.months[-1]
    lines = [f"[[exports]]  # found: {first} to {last}"]
    if export.problem:
        lines.append(f"# {for_people(export.problem)}")
    lines += [f"{key} = {_toml(value)}" for key, value in _table(export).items()]
    return "\n".join(lines) + "\n"


def _table(export: FoundExport) -> dict[str, Any]:
    """The keys that are not their defaults."""
    return export.settings.model_dump(mode="json", exclude_defaults=True)


def _toml(value: str | bool) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    return f'"{"".join(map(_in_quotes, value))}"'


def _in_quotes(one: str) -> str:
    return one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08x}"
