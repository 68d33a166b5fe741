"""Which versions the vendor has, and how far what is held is behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.errors import one_line
from finops_dagster.cli.output import Row
from finops_dagster.cli.selection import Selection
from finops_dagster.cli.status import (
    Report,
    last_stage,
    month_records,
    newest_version,
    staged_month,
    table_versions,
)
from finops_dagster.object_stores import ObjectStores, StoreError, StoreUnavailable
from finops_dagster.settings import Settings
from finops_dagster.sources import VENDORS
from finops_dagster.sources.base import Source, Version
from finops_dagster.sources.settings import ExportSettings


def available_months(
    settings: Settings, selection: Selection, report: Report
) -> Iterator[tuple[ExportSettings, Source, dict[BillingMonth, Version]]]:
    """Yield by export the months in the range of which the vendor has a version. An export that
    cannot be looked at, or that has none, is reported and hides no other."""
    stores = ObjectStores()
    for export in selection.exports(settings):
        try:
            months = selection.months(export)
            if not months:
                raise BillError(
                    f"{export.name} has no month from {selection.start} to {selection.end}; its "
                    f"first is {export.start_month}"
                )
            source = VENDORS[export.vendor].source(export, stores)
            available = available_versions(source, months)
        except Exception as error:
            report(f"{export.name}  failed: {one_line(error)}")
        else:
            yield export, source, available


def available_versions(
    source: Source, months: Sequence[BillingMonth]
) -> dict[BillingMonth, Version]:
    """Return the months that have a version, be it one that cannot be read. Raises StoreError where
    one cannot be looked at, and ManifestMissing where there is none at all."""
    versions = source.versions(months)
    problems = [str(v) for v in versions.values() if isinstance(v, StoreError | StoreUnavailable)]
    if problems:
        raise StoreError("; ".join(problems))
    available = {m: v for m, v in versions.items() if not isinstance(v, ManifestMissing)}
    if not available:
        raise ManifestMissing(str(versions[months[0]]))
    return available


def _manifests(
    settings: Settings, selection: Selection, report: Report
) -> Iterator[tuple[ExportSettings, Source, BillingMonth, Manifest]]:
    """Yield the newest manifest of each month; one that cannot be read is reported."""
    for export, source, versions in available_months(settings, selection, report):
        for month, version in versions.items():
            if isinstance(version, Manifest):
                yield export, source, month, version
            else:
                report(f"{export.name} {month}  failed: {one_line(version)}")


def discover(settings: Settings, selection: Selection, report: Report) -> list[Row]:
    """Return the newest version of each month that the vendor has, and whether the table holds
    it."""
    loaded = {e.name: table_versions(settings, e) for e in selection.exports(settings)}
    rows = []
    for export, source, month, manifest in _manifests(settings, selection, report):
        try:
            size = sum(file.size for file in source.delivery(manifest).files)
        except Exception as error:
            report(f"{export.name} {month}  failed: {one_line(error)}")
            continue
        rows.append(
            {
                "export": export.name,
                "month": str(month),
                "version": manifest.id,
                "format": manifest.format,
                "files": len(manifest.files),
                "bytes": size,
                "last_modified": manifest.source.last_modified,
                "loaded": _loaded(loaded[export.name].get(str(month)), manifest.id),
            }
        )
    return rows


def _loaded(version: str | None, newest: str) -> str:
    if version is None:
        return "no"
    return "yes" if is_version_of(version, newest) else f"older: {version}"


def plan(settings: Settings, selection: Selection, report: Report) -> list[Row]:
    """Return what a run would do for each month, by the versions that are recorded, and by when the
    manifest was written that was read last: files are not looked at."""
    recorded = {
        (export.name, month): records.versions
        for export, month, records in month_records(settings, selection)
    }
    rows: list[Row] = []
    for export, _, month, manifest in _manifests(settings, selection, report):
        versions = recorded[export.name, str(month)]
        newest = newest_version({**versions, "manifest": manifest.id})
        wanted = {**dict.fromkeys(versions, newest), "manifest": manifest.id}
        would_run = ", ".join(stage for stage in versions if versions[stage] != wanted[stage])
        read = staged_month(settings, export, month).manifest()
        if read and not would_run and _is_rewritten(manifest, read):
            would_run = "manifest, staged_files; and the rest if its files are others"
        rows.append(
            {
                "export": export.name,
                "month": str(month),
                "version": newest,
                "would_run": would_run or "nothing: unchanged",
            }
        )
    return rows


def _is_rewritten(manifest: Manifest, read: Manifest) -> bool:
    """Whether the vendor has written the manifest again since it was read."""
    was, now = read.source, manifest.source
    return (was.last_modified, was.size) != (now.last_modified, now.size)


def stale(settings: Settings, rows: list[Row], report: Report) -> list[Row]:
    """Return the months that are older than the vendor's newest version."""
    newest = {
        (export.name, str(month)): manifest.id
        for export, _, month, manifest in _manifests(settings, Selection(), report)
    }
    stage = last_stage(settings)
    return [
        row
        for row in rows
        if (manifest_id := newest.get((row["export"], row["month"])))
        and row[stage] != newest_version({**row, "manifest": manifest_id})
    ]
