"""The protocol of a lake in a folder or a store: one Parquet file for each month of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

import pyarrow as pa
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake.footer import version_of_footer
from finops_dagster.object_stores import ObjectInfo

MONTH_FOLDER = "billing_month="
"""The beginning of the name of a month's folder, in every lake."""
REPLACES = "replaces"
"""Among a file's texts: the name of the file that it replaced; empty for the month's first file.

Files of earlier releases do not have it.
"""
THIS_MACHINE = "this machine"
"""Where the rows of a file on this machine are, for people."""


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
        """The path of the file below the lake's address, such as `acme/billing_month=…/….parquet`.

        In a store, it is that of the current file, which must exist.
        """
        ...

    def texts(self) -> dict[str, str] | None:
        """Return the texts of the file's footer by key; None if it is missing or damaged.

        They record the month's load. The number of rows is added as `row_count`. No rows are read.
        """
        ...

    def version(self) -> LoadedVersion | None:
        """Return the version that the file's footer records.

        None if the file is missing or damaged, or was not written by this project. Fields that
        files of earlier releases lack get their defaults.
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
        """Return the SHA-256 of the file's bytes, which a folder reads whole.

        Empty if the file in a store is gone or has other bytes than its pointer records.
        """
        ...

    def local(self) -> Path:
        """Return the path of the file on this machine, not to be changed.

        A file in a store is downloaded first, and verified: raises BillError if it is damaged. Read
        the copy soon: the downloads of later months replace it.
        """
        ...

    def keep(self) -> str:
        """Keep the file if the settings say so, and return its name; empty if there is no file.

        The file that replaces it records the name as REPLACES.
        """
        ...

    def predecessor(self) -> Self | None:
        """Return the file that this one has replaced; None if it is not kept, or not known."""
        ...

    def store_uri(self) -> str | None:
        """Return the address at which a store has the month's bytes, as they were uploaded.

        None for a file on this machine, and if only the bytes would tell whether they are the same.
        """
        ...

    def relation(
        self, connection: DuckDBPyConnection, columns: Sequence[str] | None = None
    ) -> tuple[Sql, str]:
        """Return what follows FROM in one query of some or all columns, and where the file is.

        A file in a store is read row group by row group, without a copy on this machine, unless
        there is one, or `store_uri` returns None. The second text is for people.
        """
        ...

    def permanent_url(self) -> str:
        """Return the full address of the month's bytes, which no other version ever gets."""
        ...

    def begin(self, run: str) -> None:
        """Note which version the month has when a run begins: `replacing` replaces only that one.

        `run` is the run's id. Later calls for the same run change nothing. A folder notes nothing.
        """
        ...

    def replacing(self) -> AbstractContextManager[Path]:
        """Give the block a path to write a new file to, which replaces the month's after the block.

        After an error in the block the old file stays. Readers see the whole old file or the whole
        new one. Raises ObjectChanged if another machine has replaced the file since `begin`, unless
        it has written the same version.
        """
        ...


class LakeReader(Protocol):
    """What a query needs of a lake: files, and their rows."""

    def below(self, folder: str) -> Self:
        """Return the lake in a folder of this one, which need not exist."""
        ...

    def files(self, export: str) -> Mapping[BillingMonth, LakeFile]:
        """Return the files of an export that exist by month, the oldest month first."""
        ...

    def relation(self, connection: DuckDBPyConnection, files: Sequence[LakeFile]) -> Sql:
        """Return what follows FROM to read the rows of files on this connection.

        Files may differ in their columns; a column that a file lacks is NULL. There must be at
        least one file. Only the columns and rows are read that a query needs.
        """
        ...


class Lake(LakeReader, Protocol):
    """The Parquet files of the exports, which may be read at any time."""

    @property
    def is_shared(self) -> bool:
        """Whether the lake is in a store, which many machines write.

        Such a machine may lack the billing table of a month that the lake has.
        """
        ...

    @property
    def location(self) -> str:
        """The full address of the lake, for messages."""
        ...

    def file(self, export: str, month: BillingMonth) -> LakeFile:
        """Return the file of a month, which need not exist."""
        ...

    def unfinished_files(self, export: str) -> list[Path]:
        """Return files of an export on this machine that a killed process has left unfinished."""
        ...

    def unneeded_objects(self, export: str, before: datetime) -> list[ObjectInfo]:
        """Return the files that no month uses and that need not be kept, if older than `before`.

        In a folder, replaced files of any age.
        """
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
        """Give the block a path to write another file to, such as a report of all months.

        After the block it replaces the file with this name in the lake; after an error it does not.
        """
        ...
