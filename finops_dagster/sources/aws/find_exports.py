"""The search for AWS's exports, by the names of their months' folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.aws.source import AwsSource
from finops_dagster.sources.find_exports import FoundExport, SearchedStore

# The prefix of an export seldom has more parts, and a bucket may have any number of other folders.
_MAX_LEVELS = 5
_MAX_FOLDERS = 500
_YEAR, _MONTH = "([1-9][0-9]{3})", "(0[1-9]|1[0-2])"
_CUR1_MONTH = re.compile(f"{_YEAR}{_MONTH}01-[0-9]{{8}}")
_ATHENA_MONTH = re.compile(f"year={_YEAR}/month=(0?[1-9]|1[0-2])")
_DATA_EXPORTS_MONTH = re.compile(f"billing_period={_YEAR}-{_MONTH}", re.I)


def discover(searched: SearchedStore) -> Iterator[FoundExport]:
    """Yield the exports in a store, found by their layout, the nearest first.

    Searches at most five levels and 500 folders, then ends without an error; folders in an export
    are not searched. Reads the manifest of each month that an export has. A folder of months
    without any manifest is left out. An export whose newest manifest cannot be read has a `problem`
    and no format. Raises the store's error.
    """
    level, searched_folders = [searched.folder], 0
    for _ in range(_MAX_LEVELS):
        next_level: list[str] = []
        for folder in level[: _MAX_FOLDERS - searched_folders]:
            exports = [*_exports_in(searched, folder)]
            yield from exports
            searched_folders += 1
            if not exports:
                names = sorted(searched.store.folder_names(folder))
                next_level += [f"{folder}/{name}".lstrip("/") for name in names if "=" not in name]
        level = next_level


def _exports_in(searched: SearchedStore, folder: str) -> Iterator[FoundExport]:
    """Yield the exports with months in this folder: two if CUR and Data Exports share a name."""
    folders, name = searched.store.folder_names, folder.rpartition("/")[2]
    names = folders(folder)
    cur1_months = _matching_months(_CUR1_MONTH, names)
    if name and name in names:  # CUR v1 for Athena: `<report>/<report>/year=2024/month=1/`
        years = [year for year in folders(f"{folder}/{name}") if year.startswith("year=")]
        months_by_year = {year: folders(f"{folder}/{name}/{year}") for year in years}
        cur1_months |= _matching_months(
            _ATHENA_MONTH, (f"{year}/{m}" for year in years for m in months_by_year[year])
        )
    metadata_folders = folders(f"{folder}/metadata") if "metadata" in names else set()
    data_export_months = _matching_months(_DATA_EXPORTS_MONTH, metadata_folders)
    for formats, months in ((["cur1"], cur1_months), (["cur2", "focus"], data_export_months)):
        if months and (export := _found_export(searched, folder, formats, months)):
            yield export


def _matching_months(pattern: re.Pattern[str], names: Iterable[str]) -> set[BillingMonth]:
    return {BillingMonth(int(m[1]), int(m[2])) for m in map(pattern.fullmatch, names) if m}


def _found_export(
    searched: SearchedStore, folder: str, formats: Sequence[str], months: set[BillingMonth]
) -> FoundExport | None:
    """Return the export of these months; None if no month has a manifest."""
    parent, _, name = folder.rpartition("/")
    table = searched.settings.model_dump(exclude_defaults=True) | {
        "name": re.sub("[^A-Za-z0-9_-]+", "-", name).strip("-_")[:63] or "export",
        "vendor": "aws",
        "source": searched.source_setting(parent),
        "export_name": name,
        "start_month": str(min(months)),
    }
    export = AwsExport.model_validate(table)
    manifests = AwsSource(export, searched, formats).newest_manifests(months)
    available_months = sorted(
        month for month, manifest in manifests.items() if not isinstance(manifest, ManifestMissing)
    )
    if not available_months:
        return None
    newest = manifests[available_months[-1]]
    fields = {"start_month": str(available_months[0])}
    if isinstance(newest, Manifest):
        fields["format"] = newest.format
        return FoundExport(export.model_copy(update=fields), available_months)
    return FoundExport(export.model_copy(update=fields), available_months, str(newest))
