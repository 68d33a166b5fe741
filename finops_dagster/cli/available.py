"""The newest versions that the vendors have, and how they differ from the stored ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import BillError, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.errors import error_line
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import OnProblem, Row
from finops_dagster.cli.stored_months import (
    StoredMonth,
    StoredMonths,
    newest_read_version,
)
from finops_dagster.object_stores import ObjectStores, StoreError, StoreUnavailable
from finops_dagster.pipeline import last_bill_stage
from finops_dagster.settings import Settings
from finops_dagster.sources.base import ManifestOrError, Source
from finops_dagster.sources.settings import ExportSettings


def available_months(
    settings: Settings, selection: Selection, on_problem: OnProblem
) -> Iterator[tuple[ExportSettings, Source, dict[BillingMonth, ManifestOrError]]]:
    """Yield each selected export with its source and its newest manifests by month.

    A month without a manifest is left out; one whose manifest cannot be used has the error instead.
    An export is left out, and `on_problem` gets a line about it, if its store fails for any of the
    months, or if it has no selected month or no manifest. Raises BillError if no export is
    selected. Sends requests to the vendors' stores.
    """
    stores, stored = ObjectStores(), StoredMonths(settings)
    for export in selection.exports(settings):
        try:
            months = selection.months(export)
            if not months:
                raise BillError(
                    f"{export.name} has no month in the selected range; choose from "
                    f"{export.months_text}"
                )
            source = stored.source(export, stores)
            manifests = available_manifests(source, months)
        except Exception as error:
            on_problem(f"{export.name}  failed: {error_line(error)}")
        else:
            yield export, source, manifests


def available_manifests(
    source: Source, months: Sequence[BillingMonth]
) -> dict[BillingMonth, ManifestOrError]:
    """Return the newest manifest of each month that has one; its error if it cannot be read.

    Months without a manifest are left out. `months` must not be empty. Raises StoreError if the
    store fails for any of the months, even by a transient error. If the store fails for all of
    them, it may raise StoreUnavailable instead. Raises ManifestMissing if none has a manifest.
    """
    manifests = source.newest_manifests(months)
    problems = [
        error_line(manifest_or_error)
        for manifest_or_error in manifests.values()
        if isinstance(manifest_or_error, StoreError | StoreUnavailable)
    ]
    if problems:
        raise StoreError("; ".join(problems))
    available = {
        month: manifest_or_error
        for month, manifest_or_error in manifests.items()
        if not isinstance(manifest_or_error, ManifestMissing)
    }
    if not available:
        raise ManifestMissing(str(manifests[months[0]]))
    return available


def _manifests(
    settings: Settings, selection: Selection, on_problem: OnProblem
) -> Iterator[tuple[StoredMonth, Source, Manifest]]:
    """Yield the newest manifest of each month; `on_problem` gets a line for an unreadable one."""
    stored = StoredMonths(settings)
    for export, source, manifests in available_months(settings, selection, on_problem):
        for month, manifest_or_error in manifests.items():
            if isinstance(manifest_or_error, Manifest):
                yield StoredMonth(export, month, stored), source, manifest_or_error
            else:
                on_problem(f"{export.name} {month}  failed: {error_line(manifest_or_error)}")


def discovery_rows(
    settings: Settings, selection: Selection, on_problem: OnProblem
) -> Iterator[Row]:
    """Yield a row for each month: the vendor's newest version, and whether DuckDB has it.

    Its keys are `export`, `month`, `version`, `format`, `files` (their number), `bytes` (of all
    files), `last_modified` (of the manifest) and `loaded`, and the fields of `Delivery` if the
    vendor's manifests have one.

    `loaded` is "yes", "no", or names another version that DuckDB has: "older: v1"; "newer: v3" if
    the vendor's run of that version is newer, but was deleted. A month whose manifest or files
    cannot be read is left out, and so is an export as by `available_months`; `on_problem` gets a
    line about each. Raises BillError if no export is selected.
    """
    for month, source, manifest in _manifests(settings, selection, on_problem):
        export, name = month.key
        try:
            size = sum(file.size for file in source.available_files(manifest).files)
        except Exception as error:
            on_problem(f"{export} {name}  failed: {error_line(error)}")
            continue
        yield {
            "export": export,
            "month": name,
            "version": manifest.id,
            "format": manifest.format,
            "files": len(manifest.files),
            "bytes": size,
            "last_modified": manifest.source.last_modified,
            **_delivery(manifest.delivery),
            "loaded": _loaded(month, manifest),
        }


def _delivery(delivery: Delivery | None) -> Row:
    """Return the delivery's fields; none for a vendor that does not deliver months in runs."""
    if delivery is None:
        return {}
    return vars(delivery)


def _loaded(month: StoredMonth, manifest: Manifest) -> str:
    loaded, lake = month.table_version, month.lake_load
    if not loaded:
        return "no"
    if is_version_of(loaded, manifest.id):
        return "yes"
    # A newer run's folder may have been deleted: the loaded version then stays.
    is_newer = lake and manifest.delivery and manifest.delivery.is_older_than(lake.delivery)
    return f"{'newer' if is_newer else 'older'}: {loaded}"


def plan_rows(
    settings: Settings, selection: Selection, on_problem: OnProblem, *, force: bool
) -> Iterator[Row]:
    """Yield a row for each month that says which stages would have work to do; run nothing.

    The keys are `export`, `month`, `version` and `would_run`: a text that names stages, or
    `nothing: unchanged`. It is found from the versions, and from the manifest's time and size; the
    vendor's files are not listed or compared. With `force`, all stages have work to do. A month
    whose manifest cannot be read is left out, and so is an export as by `available_months`;
    `on_problem` gets a line about each. Raises BillError if no export is selected.
    """
    for month, _, manifest in _manifests(settings, selection, on_problem):
        export, name = month.key
        newest = newest_read_version({**month.stage_versions, "manifest": manifest.id})
        would_run = ", ".join(
            stage
            for stage, version in month.stage_versions.items()
            if force or version != (manifest.id if stage == "manifest" else newest)
        )
        stored_manifest = month.staged_month.manifest()
        if stored_manifest and not would_run and _is_rewritten(manifest, stored_manifest):
            would_run = "manifest, staged_files; the other stages if the files changed"
        yield {
            "export": export,
            "month": name,
            "version": newest,
            "would_run": would_run or "nothing: unchanged",
        }


def _is_rewritten(manifest: Manifest, stored: Manifest) -> bool:
    # A vendor may write other files under the same version id, and the manifest with them.
    before, after = stored.source, manifest.source
    return (before.last_modified, before.size) != (after.last_modified, after.size)


def stale_rows(settings: Settings, rows: list[Row], on_problem: OnProblem) -> list[Row]:
    """Return the rows of `month_rows` whose months are stale.

    A month is stale if the last stage of its bill (the warehouse, or else the lake) does not have
    the vendor's newest version; if the warehouse does not answer, every month is. The newest
    manifests of all exports are read from the vendors. What `plan_rows` leaves out is left out here
    too, with the same lines for `on_problem`. Raises BillError if the settings have no export.
    """
    manifests = _manifests(settings, Selection(), on_problem)
    newest = {month.key: manifest.id for month, _, manifest in manifests}
    stage = last_bill_stage(has_warehouse=settings.database.has_warehouse)
    return [
        row
        for row in rows
        if (manifest_id := newest.get((row["export"], row["month"])))
        and row[stage] != newest_read_version({**row, "manifest": manifest_id})
    ]
