"""Stage 2: verified local copies of the files that the manifest lists, counted from their text, and
which version of the month they are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import dagster as dg

from finops_dagster.billing.content import Content, FileContent, relative_names
from finops_dagster.billing.disk import disk_problem
from finops_dagster.billing.errors import FileInvalid, StageMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.version import LoadedVersion, version_id, with_vendor_id
from finops_dagster.lake import Lake, read_footer
from finops_dagster.object_stores import ObjectInfo, ObjectMissing, ObjectStores
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import staged_metadata, warnings
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import materialized, month_of, stage
from finops_dagster.sources.base import AvailableFiles, Source
from finops_dagster.staging.folder import StagedMonth, StagedVersion, StagingFolder, VersionRecord
from finops_dagster.tables.database import BillingDatabase, DuckDB


@dataclass(frozen=True)
class StagingResult:
    """The version that the manifest's files are, and what was done to know it."""

    version: VersionRecord
    outcome: str
    fetched: int
    warnings: Sequence[str]


def staged_files_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset of a month's files."""

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
        """Local copies of the month's files, checked to their last byte and counted."""
        month, started = month_of(context), time.monotonic()
        if manifest is None:
            raise StageMissing(
                f"no manifest of {export.name} {month} is staged; materialize "
                f"{export.name}/manifest"
            )
        in_lake = read_footer(lake.path(export.name, month))
        staged = MonthStaging(
            export, manifest, staging.month(export.name, month), in_lake, database.duckdb
        )
        done = staged.stage(export.source(stores), force=run_options.force)
        seconds = time.monotonic() - started
        metadata = {
            **staged_metadata(done.version),
            "bytes_fetched": done.fetched,
            "MB_per_second": round(done.fetched / 1e6 / seconds, 1),
            **warnings(done.warnings),
        }
        return materialized(done.version, done.outcome, metadata)

    return staged_files


@dataclass(frozen=True)
class MonthStaging:
    """The files of a month's newest manifest in the staging folder, and the lake's record of the
    month."""

    export: Export
    manifest: Manifest
    month: StagedMonth
    in_lake: LoadedVersion | None
    duckdb: DuckDB

    @cached_property
    def _files(self) -> StagedVersion:
        return self.month.version(self.manifest)

    def stage(self, source: Source, *, force: bool) -> StagingResult:
        """Bring the files here and count them, unless they are those of a known version, and record
        which version they are. Raises FileInvalid, and what the source raises."""
        known = self._known_versions()
        verified = self._verified(known)
        try:
            delivery = source.available_files(self.manifest)
        except ObjectMissing as missing:
            staged = self._kept(verified, missing, force=force)
        else:
            available = self._content(delivery.files)
            if verified is not None and not force and verified.is_unchanged(available):
                verified = replace(verified, content=verified.content or available)
                staged = StagingResult(verified, "unchanged", 0, delivery.warnings)
            else:
                staged = self._fetched(source, delivery, known, force=force)
        version, messages = staged.version, [*staged.warnings]
        if version.manifest_id != self.manifest.id:
            messages.append(
                f"other files were delivered under the id {self.manifest.id}; these are version "
                f"{version.manifest_id}"
            )
        self.month.write_record(version)
        return replace(staged, warnings=[*messages, *self._remove_older()])

    def _kept(
        self, verified: VersionRecord | None, missing: ObjectMissing, *, force: bool
    ) -> StagingResult:
        """A version that is verified stays where the vendor has deleted its files."""
        if force or verified is None or not self._is_listed(verified):
            raise FileInvalid(f"{missing}; the month was left as it was") from None
        stays = f"{missing}; {self.manifest.id} stays as it was fetched before"
        return StagingResult(verified, "unchanged", 0, [stays])

    def _fetched(
        self,
        source: Source,
        delivery: AvailableFiles,
        known: Sequence[VersionRecord],
        *,
        force: bool,
    ) -> StagingResult:
        size = source.fetch(self.manifest, delivery, self._files, force=force)
        version = self._counted(known)
        if not _is_copy(known, version):
            return StagingResult(version, "staged", size, delivery.warnings)
        same = f"the files have other ETags than before; their bytes are {version.manifest_id}'s"
        return StagingResult(version, "unchanged", size, [*delivery.warnings, same])

    def _content(self, files: Sequence[ObjectInfo]) -> Content:
        """The content of the manifest's files as far as it is known before they are read."""
        pairs = zip(self._names, files, strict=True)
        return Content.of(FileContent(name, file.size, etag=file.etag) for name, file in pairs)

    @property
    def _names(self) -> list[str]:
        return relative_names([file.key for file in self.manifest.files])

    def _is_listed(self, version: VersionRecord) -> bool:
        """Whether the manifest lists the version's files, by their number where it is older than
        their record."""
        if version.content is None:
            return version.files == len(self._names)
        return version.content.names == sorted(self._names)

    def _known_versions(self) -> list[VersionRecord]:
        """The versions under the manifest's id that were staged before, the newest first, and the
        lake's, which is known where the record was lost."""
        known, lake = with_vendor_id(self.month.records(), self.manifest.id), self.in_lake
        if lake is None or not with_vendor_id([lake], self.manifest.id):
            return known
        if lake.manifest_id in {version.manifest_id for version in known}:
            return known
        cost = self.export.formats[lake.format].cost
        in_lake = VersionRecord(
            lake.manifest_id,
            lake.totals,
            lake.format,
            lake.files,
            lake.bytes,
            lake.content,
            vendor_id=self.manifest.id,
            rounded=sum(column.cells for column in lake.rounded or () if column.name == cost),
        )
        return [*known, in_lake]

    def _verified(self, known: Sequence[VersionRecord]) -> VersionRecord | None:
        """The known version whose files lie here whole, or were cleaned away while the lake holds
        the month that was loaded from them."""
        on_disk = self._files.content()
        for version in known:
            if on_disk is not None and version.has_content(on_disk, version.totals):
                return replace(version, content=on_disk)
            lake = None if on_disk is not None or self._files.has_files else self.in_lake
            if lake is not None and lake.manifest_id == version.manifest_id:
                return version
        return None

    def _counted(self, known: Sequence[VersionRecord]) -> VersionRecord:
        """Count rows and money in all files, and name the version that they are."""
        # What parses CSV is not imported for a month that is unchanged.
        from finops_dagster.tables.count import count_month

        manifest, bill_format = self.manifest, self.export.formats[self.manifest.format]
        paths, columns = self._files.paths, manifest.columns
        round_money = self.export.rounds_money
        with self._files.lock():
            totals, rounded = count_month(
                paths, bill_format, columns, self.duckdb, round_money=round_money
            )
            content = self._files.content()
        if content is None:
            raise FileInvalid(f"{paths[0].parent}: a file was changed meanwhile; run it again")
        return VersionRecord(
            version_id(manifest.id, content, totals, known),
            totals,
            manifest.format,
            len(content.files),
            content.bytes,
            content,
            vendor_id=manifest.id,
            rounded=rounded,
        )

    def _remove_older(self) -> list[str]:
        """Delete the files of older versions once those of this one are all here."""
        try:
            if self._files.content() is not None:
                self.month.remove_other_versions(self.manifest)
        except OSError as error:
            return [f"older staged files stay: {disk_problem(error) or error}"]
        return []


def _is_copy(known: Sequence[VersionRecord], version: VersionRecord) -> bool:
    """Whether the store has the newest of the known versions under other ETags."""
    if not known or known[0].manifest_id != version.manifest_id or version.content is None:
        return False
    return not known[0].is_unchanged(version.content)
