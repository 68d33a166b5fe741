"""Earlier versions of months: the files that were replaced, and the lake as it was on a day."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from itertools import repeat
from typing import Self, TypeVar

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import restatements_of_footer
from finops_dagster.lake.footer import LOADED_AT
from finops_dagster.lake.lake import REPLACES, Lake, LakeFile, LakeReader
from finops_dagster.lake.many_months import map_months

File = TypeVar("File", bound=LakeFile)


class VersionNotKept(BillError):
    """The version that a month had at a time is not kept.

    `since` is when the oldest kept version was loaded, in UTC without a zone.
    """

    def __init__(self, location: str, since: datetime) -> None:
        super().__init__(
            f"the version that {location} had before {since:%Y-%m-%d %H:%M} UTC is not kept"
        )
        self.since = since


def _loaded_at(file: LakeFile) -> datetime:
    """Return when the version of a file was loaded, in UTC without a zone.

    Files of earlier releases may not record it; then it is the time at which they were written.
    """
    text = (file.footer_texts() or {}).get(LOADED_AT)
    return file.written_at() if text is None else datetime.fromisoformat(text)


def replaced_files(file: File, count: int | None = None) -> Iterator[File]:
    """Yield the kept versions that a month's file has replaced, the newest first.

    At most `count` of them; all with None. It ends at the first version that is not kept, even if
    older ones are.
    """
    for _ in range(count) if count is not None else repeat(None):
        older = file.replaced_file()
        if older is None:
            return
        yield older
        file = older


def file_as_of(file: LakeFile, end: datetime) -> LakeFile | None:
    """Return the version that a month had at the time `end`, which is in UTC without a zone.

    A version that was loaded at `end` counts. None if the month was first loaded later. Raises
    VersionNotKept, and BillError for a missing or damaged file.
    """
    while True:
        texts = file.footer_texts()
        if texts is None:
            raise BillError(
                f"{file.location} is missing or damaged; run finops state verify --deep --repair; "
                "if it is a kept version, restore it from a backup"
            )
        loaded = _loaded_at(file)
        if loaded <= end:
            return file
        # A first file with restatements was written after the lake was lost: it had other versions.
        if texts.get(REPLACES) == "" and not restatements_of_footer(texts):
            return None
        older = file.replaced_file()
        if older is None:
            raise VersionNotKept(file.location, loaded)
        file = older


@dataclass(frozen=True)
class LakeAsOf(LakeReader):
    """The lake as it was at a time: with versions loaded by `end`, in UTC without a zone."""

    lake: Lake
    end: datetime

    @classmethod
    def at_end_of_day(cls, lake: Lake, day: date) -> Self:
        """Return the lake as it was at the end of a day in UTC."""
        return cls(lake, datetime.combine(day, time.max))

    def in_folder(self, folder: str) -> Self:
        return replace(self, lake=self.lake.in_folder(folder))

    def files(self, export: str) -> Mapping[BillingMonth, LakeFile]:
        """Return the files of that time by month; months that were first loaded later are left out.

        Raises VersionNotKept or BillError for the first month for which `file_as_of` does.
        """
        files = self.lake.files(export)
        versions = map_months(self.lake, lambda file: file_as_of(file, self.end), files.values())
        return {
            month: version
            for month, version in zip(files, versions, strict=True)
            if version is not None
        }

    def relation(self, connection: DuckDBPyConnection, files: Sequence[LakeFile]) -> Sql:
        return self.lake.relation(connection, files)

    def missing_version_errors(
        self, export: str, months: Collection[BillingMonth] = ()
    ) -> Iterator[VersionNotKept]:
        """Yield an error, without raising it, for each month whose version at `end` is not kept.

        A month that was first loaded after `end`, as far as the lake records, gets an error only if
        it is in `months`: those of which the caller knows that they had a version at `end`. A month
        that the lake lacks gets none. Raises BillError for a damaged file.
        """
        for month, file in self.lake.files(export).items():
            try:
                is_absent = file_as_of(file, self.end) is None
            except VersionNotKept as error:
                yield error
                continue
            if is_absent and month in months:
                *_, first = file, *replaced_files(file)
                yield VersionNotKept(first.location, _loaded_at(first))
