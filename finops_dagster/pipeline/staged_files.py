"""Stage 2: verified local copies of the manifest's files, their totals, and their version id."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import dagster as dg

from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import FileInvalid, StageMissing, count_text
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion, version_id, versions_with_vendor_id
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectInfo, ObjectMissing, ObjectStores
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import staged_metadata, warnings_metadata
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import billing_month, month_command, stage, stage_result
from finops_dagster.sources.base import AvailableFiles, Source
from finops_dagster.staging.folder import StagedMonth, StagedVersion, StagingFolder, VersionRecord
from finops_dagster.tables.database import BillingDatabase, DuckDB


@dataclass(frozen=True)
class StagingResult:
    """The version that is staged, how it came to be, and the bytes that this run downloaded.

    `outcome` is `staged`, or `unchanged` if the same version was staged before.
    """

    version: VersionRecord
    outcome: str
    bytes_fetched: int
    warnings: Sequence[str]


def staged_files_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset that downloads, verifies and counts a month's files."""

    @stage(export, "staged_files", kinds={"file"}, manifest="manifest")
    def staged_files(
        context: dg.AssetExecutionContext,
        manifest: Manifest | None,
        stores: dg.ResourceParam[ObjectStores],
        staging: dg.ResourceParam[StagingFolder],
        database: dg.ResourceParam[BillingDatabase],
        lake: dg.ResourceParam[Lake],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[VersionRecord]:
        """Download the month's files, verify them, and count their rows and costs.

        Files that are staged and unchanged in the store are not downloaded again.
        """
        month, started = billing_month(context), time.monotonic()
        if manifest is None:
            command = month_command("extract-manifests", export, month)
            raise StageMissing(f"no manifest of {export.name} {month} is recorded; run {command}")
        month_staging = MonthStaging.of(export, manifest, staging, lake, database)
        source = export.source(stores, staging, lake, database)
        staged = month_staging.download_and_count(source, force=run_options.force)
        size, seconds = staged.bytes_fetched, time.monotonic() - started
        rate = round(size / 1e6 / seconds, 1)
        context.add_asset_metadata({"bytes_fetched": size, "MB_per_second": rate})
        return staged_result(staged)

    return staged_files


def staged_result(staged: StagingResult) -> dg.MaterializeResult[VersionRecord]:
    """Return the stage's result, without metadata of the download, which only a run has."""
    metadata = {**staged_metadata(staged.version), **warnings_metadata(staged.warnings)}
    return stage_result(staged.version, staged.outcome, metadata)


@dataclass(frozen=True)
class MonthStaging:
    """The staging of a month's newest manifest.

    `lake_version` is the version in the month's Parquet file, `duckdb` has the limits for counting.
    """

    export: Export
    manifest: Manifest
    staged_month: StagedMonth
    lake_version: LoadedVersion | None
    duckdb: DuckDB

    @classmethod
    def of(
        cls,
        export: Export,
        manifest: Manifest,
        staging: StagingFolder,
        lake: Lake,
        database: BillingDatabase,
    ) -> Self:
        """Return the staging of a manifest's files; reads the month's footer in the lake."""
        month = BillingMonth.parse(manifest.month)
        lake_version = lake.file(export.name, month).version()
        staged_month = staging.staged_month(export.name, month)
        return cls(export, manifest, staged_month, lake_version, database.duckdb)

    @cached_property
    def _files(self) -> StagedVersion:
        return self.staged_month.staged_version(self.manifest)

    def download_and_count(self, source: Source, *, force: bool) -> StagingResult:
        """Download and count the files unless they are unchanged, and record their version.

        With `force`, unchanged files are downloaded and counted again. Without it, a verified copy
        of files that the vendor has deleted is used, with a warning. Deletes the staged files of
        older versions. Raises FileInvalid, CellInvalid for a cost that is not exact, BillError if
        another run has read a newer manifest meanwhile, and what the source raises.
        """
        known_versions = self._known_versions()
        verified = self._verified_version(known_versions)
        try:
            available = source.available_files(self.manifest)
        except ObjectMissing as missing:
            result = self._without_files(verified, missing, force=force)
        else:
            unchanged = None if force else self._unchanged(verified, available)
            result = unchanged or self._fetch(source, available, known_versions, force=force)
        return self._record(result)

    def record_unchanged(self, source: Source) -> StagingResult | None:
        """Return the result if the staged files are verified and unchanged in the store; else None.

        Nothing is downloaded, but as in `download_and_count`, the version is recorded and the
        staged files of older versions are deleted. Files that a cleanup deleted count as staged if
        the lake has the version. Raises what the source raises, ObjectMissing too, and BillError if
        another run has read a newer manifest meanwhile.
        """
        verified = self._verified_version(self._known_versions())
        result = self._unchanged(verified, source.available_files(self.manifest))
        return result and self._record(result)

    def _unchanged(
        self, verified: VersionRecord | None, available: AvailableFiles
    ) -> StagingResult | None:
        content = self._available_content(available.files)
        if verified is None or not verified.is_unchanged(content):
            return None
        verified = replace(verified, content=verified.content or content)
        return StagingResult(verified, "unchanged", 0, available.warnings)

    def _record(self, result: StagingResult) -> StagingResult:
        """Record the version, and delete the files of older ones; return it with all warnings."""
        version, messages = result.version, [*result.warnings]
        if version.manifest_id != self.manifest.id:
            messages.append(
                f"the vendor delivered other files with the id {self.manifest.id} before; these "
                f"are version {version.manifest_id}, and nothing needs to be done"
            )
        self.staged_month.write_record(version)
        return replace(result, warnings=[*messages, *self._remove_older()])

    def _without_files(
        self, verified: VersionRecord | None, missing: ObjectMissing, *, force: bool
    ) -> StagingResult:
        """Return the verified version, whose files the vendor has deleted.

        Raises FileInvalid if there is none, if the manifest lists other files, or with `force`.
        """
        if force or verified is None or not self._is_listed(verified):
            raise FileInvalid(
                f"{missing}; wait for the vendor's next manifest, or restore the file and run "
                f"finops state reprocess {self.export.name} {self.manifest.month}"
            ) from None
        warning = (
            f"{missing}; the verified copy of version {verified.manifest_id} is used, and nothing "
            "needs to be done"
        )
        return StagingResult(verified, "unchanged", 0, [warning])

    def _fetch(
        self,
        source: Source,
        available: AvailableFiles,
        known_versions: Sequence[VersionRecord],
        *,
        force: bool,
    ) -> StagingResult:
        size = source.fetch(self.manifest, available, self._files, force=force)
        version = self._count(known_versions)
        if not _is_copy(known_versions, version):
            return StagingResult(version, "staged", size, available.warnings)
        warning = (
            "the files have other ETags than before, but the same bytes: they are still version "
            f"{version.manifest_id}, and nothing needs to be done"
        )
        return StagingResult(version, "unchanged", size, [*available.warnings, warning])

    def _available_content(self, files: Sequence[ObjectInfo]) -> Content:
        """Return the content of the vendor's files without checksums: names, sizes and ETags."""
        pairs = zip(self.manifest.file_names, files, strict=True)
        return Content.of(FileContent(name, file.size, etag=file.etag) for name, file in pairs)

    def _is_listed(self, version: VersionRecord) -> bool:
        """Return whether the manifest lists the files of the version."""
        # Earlier releases recorded the number of files alone.
        if version.content is None:
            return version.file_count == len(self.manifest.files)
        return version.content.names == sorted(self.manifest.file_names)

    def _known_versions(self) -> list[VersionRecord]:
        """Return the versions with the manifest's id that were staged before, the newest first.

        If their record was lost, the lake still has the version that was loaded last.
        """
        known_versions = versions_with_vendor_id(
            self.staged_month.version_records(), self.manifest.id
        )
        lake = self.lake_version
        if lake is None or not versions_with_vendor_id([lake], self.manifest.id):
            return known_versions
        if lake.manifest_id in {version.manifest_id for version in known_versions}:
            return known_versions
        cost = self.export.formats[lake.format].cost
        from_lake = VersionRecord(
            lake.manifest_id,
            lake.totals,
            lake.format,
            lake.file_count,
            lake.byte_count,
            lake.content,
            delivery=lake.delivery,
            vendor_id=self.manifest.id,
            rounded=sum(column.cells for column in lake.rounded or () if column.name == cost),
        )
        return [*known_versions, from_lake]

    def _verified_version(self, known_versions: Sequence[VersionRecord]) -> VersionRecord | None:
        """Return the known version whose files are all staged; None if there is none.

        Files that were cleaned away count as staged if the lake has the version.
        """
        on_disk = self._files.content()
        for version in known_versions:
            if on_disk is not None and version.matches_content(on_disk, version.totals):
                return replace(version, content=on_disk)
            lake = (
                None if on_disk is not None or self._files.has_download_log else self.lake_version
            )
            if lake is not None and lake.manifest_id == version.manifest_id:
                return version
        return None

    def _count(self, known_versions: Sequence[VersionRecord]) -> VersionRecord:
        """Count rows and money in the files, and return them as a version."""
        # An unchanged month does not pay for the import of the CSV parser.
        from finops_dagster.tables.count import count_month
        from finops_dagster.tables.files import read_headers

        manifest, bill_format = self.manifest, self.export.formats[self.manifest.format]
        paths, columns = self._files.paths, manifest.columns
        round_money = self.export.rounds_money
        with self._files.lock():
            files = read_headers(paths, bill_format, self._files.month_by_shared_file)
            totals, rounded = count_month(
                files, bill_format, columns, self.duckdb, round_money=round_money
            )
            content = self._files.content()
        if content is None:
            raise FileInvalid(
                f"{paths[0].parent}: a file changed while it was counted; run the month again"
            )
        if manifest.row_count not in (None, totals.rows):
            raise FileInvalid(
                f"{manifest.source.location} says that its files have "
                f"{count_text(manifest.row_count, 'row')}, but they have {totals.rows:,}; wait for "
                "the vendor's next manifest"
            )
        return VersionRecord(
            version_id(manifest.id, content, totals, known_versions),
            totals,
            manifest.format,
            len(content.files),
            content.byte_count,
            content,
            delivery=manifest.delivery,
            vendor_id=manifest.id,
            rounded=rounded,
        )

    def _remove_older(self) -> list[str]:
        """Delete the files of older versions if this one's are all staged; return warnings."""
        try:
            if self._files.content() is not None:
                self.staged_month.remove_other_versions(self.manifest)
        except OSError as error:
            reason = (
                memory_or_disk_problem(error) or f"{error}; delete them by finops state cleanup"
            )
            return [f"staged files of older versions cannot be deleted: {reason}"]
        return []


def _is_copy(known_versions: Sequence[VersionRecord], version: VersionRecord) -> bool:
    """Return whether the version is the newest known one, with other ETags in the store."""
    newest = next(iter(known_versions), None)
    if newest is None or newest.manifest_id != version.manifest_id or version.content is None:
        return False
    return not newest.is_unchanged(version.content)
