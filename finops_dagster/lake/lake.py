"""What a lake is, wherever it lies: one Parquet file for each month of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake.footer import version_of_footer
from finops_dagster.object_stores import ObjectInfo

MONTH_FOLDER = "billing_month="
"""The beginning of the name of a month's folder, in every lake."""


class LakeFile(Protocol):
    """The file of one month, which need not exist.

    Methods that read it need it to exist, unless they say what they return for a missing file.
    """

    @property
    def location(self) -> str:
        """The full address of the month's file, for messages."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other machines write the file, too."""
        ...

    @property
    def name_in_lake(self) -> str:
        """The address of the file below that of the lake."""
        ...

    def texts(self) -> dict[str, str] | None:
        """Return the texts that record the month's load; None if it is missing or damaged.

        The number of rows is among them, as `row_count`. No rows are read.
        """
        ...

    def version(self) -> LoadedVersion | None:
        """Return the version that the texts record; None if there are none, or not ours.

        Fields that old files lack get their defaults.
        """
        texts = self.texts()
        return None if texts is None else version_of_footer(texts)

    def exists(self) -> bool:
        """Return whether the lake has the month, though its file may be damaged."""
        ...

    def written_at(self) -> datetime:
        """Return when the file was written, in UTC without a zone."""
        ...

    def schema(self) -> pa.Schema:
        """Return the columns of the file; no rows are read."""
        ...

    def size(self) -> int:
        """Return the size of the file in bytes."""
        ...

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes; empty if a store has lost those bytes."""
        ...

    def local(self) -> Path:
        """Return the path of a file on this machine with the month's bytes."""
        ...

    def begin(self, run: str) -> None:
        """Note the version that the run begins with: it is the one that the run may replace."""
        ...

    def replacing(self) -> AbstractContextManager[Path]:
        """Give the block a path to write a new file to, which replaces the month's after the block.

        After an error in the block the old file stays. Readers see the whole old file or the whole
        new one. Raises ObjectChanged if another machine has replaced the file since the run began,
        unless it has written the same version.
        """
        ...


class Lake(Protocol):
    """The Parquet files of the exports, which may be read at any time."""

    @property
    def is_shared(self) -> bool:
        """Whether many machines have the lake, which then need not have the table of a month."""
        ...

    @property
    def location(self) -> str:
        """The full address of the lake, for messages."""
        ...

    def below(self, folder: str) -> Lake:
        """Return the lake that lies in a folder of this one."""
        ...

    def file(self, export: str, month: BillingMonth) -> LakeFile:
        """Return the file of a month, which need not exist."""
        ...

    def files(self, export: str) -> Mapping[BillingMonth, LakeFile]:
        """Return the files that exist, the oldest month first."""
        ...

    def relation(self, connection: DuckDBPyConnection, files: Sequence[LakeFile]) -> Sql:
        """Return what follows FROM to read the rows of files, which may differ in their columns.

        There must be at least one file. Only the columns and rows are read that a query needs.
        """
        ...

    def unfinished_files(self, export: str) -> list[Path]:
        """Return the files of an export on this machine that were not written to their end."""
        ...

    def unneeded_objects(self, export: str, before: datetime) -> list[ObjectInfo]:
        """Return the files of before that time that no month has any more."""
        ...

    def delete(self, info: ObjectInfo) -> None:
        """Delete one of `unneeded_objects`."""
        ...

    def check(self) -> str:
        """Check that the lake can be read and written, and return what to show about it.

        Raises BillError or StoreError, in one line, or StoreUnavailable.
        """
        ...

    def publishing(self, name: str) -> AbstractContextManager[Path]:
        """Give the block a path to write a file to, which is put into the lake after the block.

        It is no month, and replaces the file with this name.
        """
        ...
