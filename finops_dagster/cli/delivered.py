"""What the vendor has delivered, and how far what is held is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.errors import BillError, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.asked import Asked
from finops_dagster.cli.errors import one_line
from finops_dagster.cli.event_log import EventLog, Materialization
from finops_dagster.cli.held import last_stage, newest_version
from finops_dagster.object_stores import ObjectStores, StoreError, StoreUnavailable
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.export import Export
from finops_dagster.settings import Settings
from finops_dagster.sources.base import Source, Version

Report = Callable[[str], None]


def delivered(
    settings: Settings, asked: Asked, report: Report
) -> Iterator[tuple[Export, list[BillingMonth]]]:
    """The months in the range that the vendor has delivered, by export. An export that cannot be
    looked at, or that has none, is reported and hides no other."""
    for export, _, versions in _versions(settings, asked, report):
        yield export, list(versions)


def _versions(
    settings: Settings, asked: Asked, report: Report
) -> Iterator[tuple[Export, Source, dict[BillingMonth, Version]]]:
    stores = ObjectStores()
    for chosen in asked.exports(settings):
        export = Export(chosen)
        try:
            source = export.source(stores)
            versions = available_versions(source, _months(export, asked))
        except Exception as error:
            report(f"{export.name}  failed: {one_line(error)}")
        else:
            yield export, source, versions


def _months(export: Export, asked: Asked) -> list[BillingMonth]:
    months = asked.months(export.settings)
    if not months:
        raise BillError(
            f"{export.name} has no month from {asked.start} to {asked.end}; its first is "
            f"{export.settings.start_month}"
        )
    return months


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
    settings: Settings, asked: Asked, report: Report
) -> Iterator[tuple[Export, Source, BillingMonth, Manifest]]:
    """The newest manifest of each month."""
    for export, source, versions in _versions(settings, asked, report):
        for month, version in versions.items():
            if isinstance(version, Manifest):
                yield export, source, month, version
            else:
                report(f"{export.name} {month}  failed: {one_line(version)}")


def discover(settings: Settings, asked: Asked, report: Report) -> list[dict[str, Any]]:
    """The newest version of each month: what the vendor has, and whether the table holds it."""
    log = EventLog()
    rows = []
    for export, source, month, manifest in _manifests(settings, asked, report):
        try:
            size = source.content(manifest).bytes
        except Exception as error:
            report(f"{export.name} {month}  failed: {one_line(error)}")
            continue
        held = log.versions(export.name)["billing_table"].get(str(month))
        rows.append(
            {
                "export": export.name,
                "month": str(month),
                "version": manifest.id,
                "format": manifest.format,
                "files": len(manifest.files),
                "bytes": size,
                "last_modified": manifest.source.last_modified,
                "loaded": _loaded(held, manifest.id),
            }
        )
    return rows


def _loaded(held: str | None, newest: str) -> str:
    if held is None:
        return "no"
    return "yes" if is_version_of(held, newest) else f"older: {held}"


def plan(settings: Settings, asked: Asked, report: Report) -> list[dict[str, Any]]:
    """What a run would do for each month, by the versions that the event log has, and by when the
    manifest was written that was read last: files are not looked at."""
    log = EventLog()
    read = log.materializations()
    stages = STAGES[: STAGES.index(last_stage(settings)) + 1]
    rows: list[dict[str, Any]] = []
    for export, _, month, manifest in _manifests(settings, asked, report):
        held = {stage: log.versions(export.name)[stage].get(str(month)) for stage in stages}
        newest = newest_version({**held, "manifest": manifest.id})
        is_at = {**dict.fromkeys(stages, newest), "manifest": manifest.id}
        would_run = ", ".join(stage for stage in stages if held[stage] != is_at[stage])
        if not would_run and _is_rewritten(manifest, read[export.name]["manifest"][str(month)]):
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


def _is_rewritten(manifest: Manifest, read: Materialization) -> bool:
    """Whether the vendor has written the manifest again since it was read."""
    written = read.metadata.get("last_modified"), read.metadata.get("bytes")
    return written != (manifest.source.last_modified.timestamp(), manifest.source.size)


def stale(settings: Settings, rows: list[dict[str, Any]], report: Report) -> list[dict[str, Any]]:
    """Return the months that are older than the vendor's newest version."""
    newest = {
        (export.name, str(month)): manifest.id
        for export, _, month, manifest in _manifests(settings, Asked(), report)
    }
    stage = last_stage(settings)
    return [
        row
        for row in rows
        if (manifest_id := newest.get((row["export"], row["month"])))
        and row[stage] != newest_version({**row, "manifest": manifest_id})
    ]
