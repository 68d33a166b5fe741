"""The search for Azure's exports, by the folders of their dates and the newest manifests."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonpath, commonprefix

from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectMissing
from finops_dagster.sources.azure.format import azure_formats
from finops_dagster.sources.azure.layout import (
    DateRange,
    VendorRun,
    date_folders,
    is_run_folder,
    runs_below,
)
from finops_dagster.sources.azure.manifest import parse_run
from finops_dagster.sources.azure.settings import AzureExport
from finops_dagster.sources.find_exports import FoundExport, SearchedStore

_FORMATS = {
    dataset: format_.name for format_ in azure_formats().values() for dataset in format_.datasets
}


@dataclass(frozen=True)
class _Export:
    """An export of Azure: its folder's path, its months, format and scope as in its newest run.

    `problem` says why the format is not known.
    """

    path: str
    months: Sequence[BillingMonth]
    format: str | None = None
    scope: str | None = None
    problem: str = ""


def discover(searched: SearchedStore) -> Iterator[FoundExport]:
    """Yield one export for each dataset of a scope in a store.

    Several exports of Azure may deliver it: their months are together. An export whose dataset or
    scope is not known is yielded alone, and one of another dataset than costs is left out. Reads
    listings, and the newest manifest of each of Azure's exports. Searches at most six levels and
    1,000 folders, then ends without an error. Raises the store's error.
    """
    ranges: dict[str, dict[str, DateRange]] = defaultdict(dict)
    for path, days in date_folders(searched.store, searched.folder, is_search=True):
        # The folders of AWS's CUR v1 end on the first day of the next month.
        if days.last != days.month.next.first_day:
            ranges[path.rpartition("/")[0]][path] = days
    exports = [
        export for above, folders in ranges.items() for export in _exports(searched, above, folders)
    ]
    groups: dict[object, list[_Export]] = defaultdict(list)
    for export in exports:
        is_known = export.format and export.scope
        groups[(export.format, export.scope) if is_known else export.path].append(export)
    for group in groups.values():
        yield _found_export(searched, group, [e for e in exports if e not in group])


def _exports(
    searched: SearchedStore, above: str, folders: dict[str, DateRange]
) -> Iterator[_Export]:
    """Yield the exports whose runs are in these folders of dates; other datasets are left out."""
    store, seen = searched.store, set[str]()
    months: dict[str, set[BillingMonth]] = defaultdict(set)  # by the folder below that of dates
    runs: dict[str, list[VendorRun]] = defaultdict(list)
    for folder in sorted(folders, key=lambda folder: folders[folder].first, reverse=True):
        names = {name for name in store.folder_names(folder) if not is_run_folder(name)}
        for name in {"", *names}:
            months[name].add(folders[folder].month)
        # The newest folder of dates shows the exports above it; others may be below an older one.
        unread = [f"{folder}/{name}" for name in names - seen] if seen else [folder]
        seen |= {"", *names}
        for below in unread:
            for run in runs_below(folder, store.files_below(below)):
                runs[run.export_path].append(run)
    for path, export_runs in runs.items():
        name = path.removeprefix(above).strip("/").partition("/")[0]
        run = max(export_runs, key=lambda run: run.latest_submission)
        export = _read(searched, run, sorted(months[name]))
        if export is not None:
            yield export


def _read(
    searched: SearchedStore, run: VendorRun, months: Sequence[BillingMonth]
) -> _Export | None:
    """Return the export of a run; None if its dataset has no costs, or its manifest is gone."""
    problem = f"{run.file.location} does not say its dataset; set the format"
    if not run.has_manifest:
        return _Export(run.export_path, months, problem=problem)
    try:
        stored = searched.store.read(run.file.key)
        assert stored is not None
        parsed = parse_run(stored[0], run, "", ())
    except ManifestInvalid as error:
        return _Export(run.export_path, months, problem=str(error))
    except ObjectMissing:
        return None
    if parsed.dataset is None:
        return _Export(run.export_path, months, None, parsed.scope, problem)
    format_name = _FORMATS.get(parsed.dataset)
    return (format_name and _Export(run.export_path, months, format_name, parsed.scope)) or None


def _found_export(
    searched: SearchedStore, exports: Sequence[_Export], others: Sequence[_Export]
) -> FoundExport:
    """Return the settings that find the runs of these exports, and those of no other."""
    names = sorted(export.path.rpartition("/")[2] for export in exports)
    folder = commonpath([export.path.rpartition("/")[0] for export in exports])
    if not f"{folder}/".startswith(f"{searched.folder}/") and searched.folder:
        folder = searched.folder
    months = sorted({month for export in exports for month in export.months})
    other_paths = [
        other.path
        for other in others
        if f"{other.path}/".startswith(f"{folder}/" if folder else "")
        and (exports[0].format is None or other.format in (None, exports[0].format))
    ]
    name = commonprefix(names).strip("-_") or names[0]  # noqa: RUF071 parts of names are meant
    table = searched.settings.model_dump(exclude_defaults=True) | {
        "name": re.sub("[^A-Za-z0-9_-]+", "-", name).strip("-_")[:63] or "azure",
        "vendor": "azure",
        "format": exports[0].format or "focus",
        "source": searched.source_setting(folder),
        "start_month": str(months[0]),
    }
    if other_paths and all(names):
        table["export_names"] = names
    settings = AzureExport.model_validate(table)
    problem = next((export.problem for export in exports if export.problem), "")
    if exports[0].format is None:
        fields = {name: value for name, value in settings if name != "format"}
        settings = AzureExport.model_construct(**fields)
    return FoundExport(settings, months, problem)
