"""The source of Azure's cost exports: the newest run of each month, found by listing folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

from finops_dagster.billing.errors import (
    FileInvalid,
    ManifestInvalid,
    ManifestMissing,
    count_text,
    excerpts,
)
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import (
    ObjectInfo,
    ObjectMissing,
    ObjectStores,
    StoreError,
    StoreUnavailable,
)
from finops_dagster.sources.azure.format import azure_formats
from finops_dagster.sources.azure.layout import VendorRun, date_folders, runs_below
from finops_dagster.sources.azure.manifest import ParsedRun, parse_run, run_without_manifest
from finops_dagster.sources.azure.settings import AzureExport
from finops_dagster.sources.base import AvailableFiles, ManifestOrError, Source, VersionFolder

_MAX_PARALLEL_REQUESTS = 16
_MAX_NAMES_SHOWN = 12


class AzureSource(Source):
    """One dataset of one scope, which several exports may deliver into a container.

    A vendor's run has the whole month so far: the newest is the month's version, and runs are never
    added up. Manifests are cached by the ETags in listings, so that an unchanged one costs no
    request.
    """

    # Azure restates the month in progress daily.
    max_manifest_age = timedelta(days=2)

    def __init__(self, export: AzureExport, stores: ObjectStores) -> None:
        """Open the export's store."""
        self._export, self._format = export, azure_formats()[export.format]
        self._store, self._prefix = stores.open(export)
        self._cache: dict[str, tuple[str, ParsedRun | ManifestInvalid]] = {}

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        """Return the manifest of each month's newest run, or the error that says why there is none.

        Lists the folders down to those of dates, then everything below those of the months, and
        reads new manifests that may be the newest. Raises the store's error if the folders of dates
        cannot be listed, or if the store fails for every month that has such a folder.
        """
        months = list(dict.fromkeys(months))
        found = sorted(date_folders(self._store, self._prefix))
        folders = {
            month: [folder for folder, days in found if days.month == month] for month in months
        }
        with ThreadPoolExecutor(_MAX_PARALLEL_REQUESTS) as pool:
            manifests = list(pool.map(self._newest_manifest, folders, folders.values()))
        errors = [m for m in manifests if isinstance(m, StoreError | StoreUnavailable)]
        if len(errors) == sum(manifest is not None for manifest in manifests) > 0:
            raise errors[0]
        existing = sorted({days.month for _, days in found})
        return {
            month: manifest or ManifestMissing(self._missing_message(month, existing))
            for month, manifest in zip(months, manifests, strict=True)
        }

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        """Return the run's files as its folder has them, by one LIST. Raises ObjectMissing.

        A file with another size than in the manifest is only a warning: whether Azure counts the
        bytes of a compressed file before or after compression is not known.
        """
        folder = manifest.source.key.rpartition("/")[0]
        stored = {file.key: file for file in self._store.files(folder)}
        files = []
        for listed in manifest.files:
            if listed.key not in stored:
                location = self._store.location(listed.key)
                raise ObjectMissing(f"{location} does not exist, though the manifest lists it")
            files.append(stored[listed.key])
        different = [
            f"{file.location} has {file.size:,} bytes, and the manifest says {listed.size:,}"
            for listed, file in zip(manifest.files, files, strict=True)
            if listed.size not in (None, file.size)
        ]
        others = len(different) - 1
        verb = "differs" if others == 1 else "differ"
        more = f" ({count_text(others, 'more file')} {verb})" if others > 0 else ""
        advice = "; if the files are not compressed, check that they are complete"
        return AvailableFiles(files, (different[0] + more + advice,) if different else ())

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        """Download missing and changed files, or all with `force`; return the bytes downloaded.

        Raises FileInvalid if a file is damaged or gone, as when a newer run has replaced this one,
        or if the manifest has changed meanwhile, and the store's errors.
        """
        try:
            size = folder.fetch(self._store, available.files, force=force)
        except ObjectMissing:
            # A file may have been written again while it was looked up; a run that a newer one has
            # replaced is gone for good.
            try:
                files = self.available_files(manifest).files
                size = folder.fetch(self._store, files, force=force)
            except ObjectMissing as missing:
                raise FileInvalid(
                    f"{missing}: Azure replaced this version by a newer one; run the month again"
                ) from missing
        source = manifest.source
        for file in self._store.files(source.key.rpartition("/")[0]):
            if file.key == source.key and file.etag != source.etag:
                raise FileInvalid(
                    f"{source.location} changed while its files were fetched: Azure is "
                    "writing a newer version over this one; run the month again"
                )
        return size

    def _newest_manifest(
        self, month: BillingMonth, folders: Sequence[str]
    ) -> ManifestOrError | None:
        """Return the manifest of the month's newest run, or an error; None without a run."""
        try:
            try:
                return self._choose(month, folders)
            except ObjectMissing:
                # With "overwrite", a run's folder goes away when the next run is written.
                return self._choose(month, folders)
        except (ManifestInvalid, ManifestMissing, StoreError, StoreUnavailable) as error:
            return error

    def _choose(self, month: BillingMonth, folders: Sequence[str]) -> Manifest | None:
        runs_by_export: dict[str, list[VendorRun]] = defaultdict(list)
        for folder in folders:
            for run in runs_below(folder, self._files_below(folder)):
                runs_by_export[run.export_path].append(run)
        runs = [self._newest_of(runs) for runs in runs_by_export.values()]
        newest = [run for run in runs if run.manifest is not None]
        if runs and not newest:
            raise self._other_datasets(month, runs)
        self._require_one_scope(month, newest)
        return _with_warning(max(newest, key=_submission_order), newest) if newest else None

    def _files_below(self, folder: str) -> list[ObjectInfo]:
        """Return the files below a folder of dates, of the exports that the settings name."""
        names, store = {*self._export.export_names}, self._store
        if not names or names & {*folder.split("/")}:
            return store.files_below(folder)
        # The folders of the exports may be in those of the dates.
        below = [f"{folder}/{name}" for name in sorted(names & store.folder_names(folder))]
        return [file for path in below for file in store.files_below(path)]

    def _newest_of(self, runs: Sequence[VendorRun]) -> ParsedRun:
        """Return the newest run of one export, without a manifest if it is of another dataset.

        A manifest is read only if the time of its folder, or its own, allows it to be the newest:
        in most containers one for each export.
        """
        latest, *earlier = sorted(runs, key=lambda run: run.latest_submission, reverse=True)
        newest = self._read(latest, runs)
        for run in earlier:
            if newest.manifest is None or run.latest_submission < newest.submitted:
                break
            parsed = self._read(run, runs)
            if parsed.manifest is not None:
                newest = max(newest, parsed, key=_submission_order)
        return newest

    def _read(self, run: VendorRun, runs: Sequence[VendorRun]) -> ParsedRun:
        """Return a run with its manifest. Raises ManifestInvalid, and ObjectMissing."""
        if not run.has_manifest:
            number = sum(not other.has_manifest for other in runs)
            return run_without_manifest(run, self._format.name, number)
        etag, parsed = self._cache.get(run.file.key, ("", None))
        if parsed is None or etag != run.file.etag:
            parsed = self._parse(run)
            self._cache[run.file.key] = run.file.etag, parsed
        if isinstance(parsed, ManifestInvalid):
            # The cached error would otherwise collect a traceback each time that it is raised.
            raise parsed.with_traceback(None)
        return parsed

    def _parse(self, run: VendorRun) -> ParsedRun | ManifestInvalid:
        stored = self._store.read(run.file.key)
        assert stored is not None
        body, info = stored
        try:
            return parse_run(
                body, replace(run, file=info), self._format.name, self._format.datasets
            )
        except ManifestInvalid as error:
            error.etag = info.etag
            return error

    def _require_one_scope(self, month: BillingMonth, runs: Sequence[ParsedRun]) -> None:
        """Raise ManifestInvalid if the exports are of several scopes, or may be."""
        scopes = {run.scope for run in runs}
        is_unknown = any(None in (run.scope, run.dataset) for run in runs)
        is_ambiguous = len(runs) > 1 and is_unknown and not self._export.export_names
        if len(scopes - {None}) <= 1 and not is_ambiguous:
            return
        shown = [f"{run.run.export_path} ({run.scope or 'scope unknown'})" for run in runs]
        reason = "are of several scopes" if len(scopes - {None}) > 1 else "may be of several scopes"
        error = ManifestInvalid(
            f"{self._export.name} {month}: the exports in {self._store.location(self._prefix)} "
            f"{reason}, which are never added up: {excerpts(shown, _MAX_NAMES_SHOWN)}; set "
            f"export_names of {self._export.name} to those of one scope"
        )
        error.etag = "+".join(sorted(run.run.file.etag for run in runs))
        raise error

    def _other_datasets(self, month: BillingMonth, runs: Sequence[ParsedRun]) -> ManifestMissing:
        """Return the error for a month of which all runs are of other datasets."""
        datasets = [f"{run.run.export_path} ({run.dataset})" for run in runs]
        return ManifestMissing(
            f"{self._export.name} has no run of {month} with the dataset of its format, "
            f"{self._format.name}: {self._store.location(self._prefix)} has "
            f"{excerpts(datasets, _MAX_NAMES_SHOWN)}; set the format or the source of the export"
        )

    def _missing_message(self, month: BillingMonth, existing: Sequence[BillingMonth]) -> str:
        """Return the message for a month without a run, with the months that have folders."""
        export, location = self._export, self._store.location(self._prefix)
        names = excerpts(export.export_names, _MAX_NAMES_SHOWN)
        missing = f"{export.name} has no run of {month}{names and f' of the exports {names}'}"
        if not existing:
            return (
                f"{missing}: {location} has no folder of a month, such as 20260101-20260131; check "
                "source, which is the container and the folder of the exports"
            )
        months = excerpts([str(month) for month in existing], _MAX_NAMES_SHOWN)
        check = "check export_names, or wait: " if names else ""
        return (
            f"{missing}: {location} has the months {months}; {check}Azure delivers a month's first "
            "run about a day after the month begins"
        )


def _submission_order(parsed: ParsedRun) -> tuple[datetime, datetime, str]:
    """Return the key that sorts runs by their submission."""
    return parsed.submitted, parsed.run.file.last_modified, parsed.run.file.key


def _with_warning(chosen: ParsedRun, newest: Sequence[ParsedRun]) -> Manifest:
    """Return the chosen manifest, with a warning if an older run covers more of the month."""
    assert chosen.manifest is not None
    delivery, warnings = chosen.manifest.delivery, chosen.manifest.warnings
    fuller = [
        f"{run.run.file.location} ({run.manifest.delivery.covered_days})"
        for run in newest
        if run.manifest
        and run.manifest.delivery
        and delivery
        and delivery.misses_days_of(run.manifest.delivery)
    ]
    if fuller and delivery:
        warnings += (
            f"the newest run covers {delivery.covered_days}, fewer days than "
            f"{excerpts(fuller, 3)}; to load all days, export the whole month again in Azure",
        )
    return replace(chosen.manifest, warnings=warnings)
