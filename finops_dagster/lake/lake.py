"""The protocol of a lake in a folder or a store: one Parquet file for each month of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self
from uuid import uuid4

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake.footer import file_sha256, version_of_footer
from finops_dagster.object_stores import ObjectInfo

if TYPE_CHECKING:
    import pyarrow as pa

MONTH_FOLDER = "billing_month="
"""The beginning of the name of a month's folder, in every lake."""
REPLACES = "replaces"
"""Among a file's texts: the name of the file that it replaced; empty for the month's first file.

Files of earlier releases do not have it.
"""
THIS_MACHINE = "this machine"
"""Where the rows of a file on this machine are, for people."""


def unique_file_name(stem: str) -> str:
    """Return a unique name for a new file: `<stem>-<12 random hex digits>.parquet`."""
    return f"{stem}-{uuid4().hex[:12]}.parquet"


@dataclass(frozen=True)
class NewFile:
    """A file that is written to `path`, and then replaces a month's."""

    path: Path

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the written file's bytes, in hexadecimal; they are read once."""
        return file_sha256(self.path)


class LakeFile(Protocol):
    """The file of one month, which need not exist.

    Methods that cannot read it raise, unless they say what they return for a missing or damaged
    file: in a folder OSError or pyarrow's errors, in a store BillError. In a store, all methods
    that send requests also raise StoreError and StoreUnavailable. There, most methods read only the
    pointer, and do not notice that the file itself is missing or damaged; `sha256`, `local_path`,
    `verified_store_uri` and `relation_and_location` do.
    """

    @property
    def location(self) -> str:
        """The path of the month's file, or in a store the address of its pointer, for messages."""
        ...

    @property
    def is_in_store(self) -> bool:
        """Whether the file is in a store, so that other machines may replace it too."""
        ...

    @property
    def name_in_lake(self) -> str:
        """The path from the export's folder on, such as `acme/billing_month=…/….parquet`.

        Folders of `LakeReader.in_folder`, such as `focus`, are not in it. In a store, it is the
        path of the current file, which must exist, and not that of the pointer. For a kept version
        in a folder it is wrong: the export's folder is missing.
        """
        ...

    def snapshot(self) -> Self:
        """Return the month's file as it is now, whose record is not read again.

        In a store, the pointer is read now, by one request, and not by the methods of the snapshot:
        all are about this version. If another run writes a later one, only a new snapshot has it.
        In a folder, it is the file itself.
        """
        ...

    def footer_texts(self) -> dict[str, str] | None:
        """Return the texts of the file's footer by key; None if it is missing or damaged.

        They record the month's load. The number of rows is added as `row_count`. No rows are read.
        """
        ...

    def version(self) -> LoadedVersion | None:
        """Return the version that the file's footer records.

        None if the file is missing or damaged, or was not written by this project. Fields that
        files of earlier releases lack get their defaults.
        """
        texts = self.footer_texts()
        return None if texts is None else version_of_footer(texts)

    def exists(self) -> bool:
        """Return whether the lake has the month; its file may be damaged, or in a store missing."""
        ...

    def written_at(self) -> datetime:
        """Return when the file was written, in UTC without a zone."""
        ...

    def schema(self) -> pa.Schema:
        """Return the names and types of the file's columns; no rows are read."""
        ...

    def size(self) -> int:
        """Return the size of the file in bytes."""
        ...

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, in hexadecimal.

        A folder reads all bytes. A store returns the checksum of the pointer, and reads the bytes
        only if the object's ETag differs; empty if the object is gone or has other bytes.
        """
        ...

    def local_path(self) -> Path:
        """Return the path of the file on this machine, not to be changed.

        In a folder, that is the file itself, which need not exist. A file in a store is downloaded
        and verified, unless there is a copy: raises BillError if it is damaged, and ObjectMissing
        if it is gone. Read the copy soon: only the four that were used last are kept.
        """
        ...

    def keep_version(self) -> str:
        """Keep the current version for later, and return the name for REPLACES in the next footer.

        Call it before the month is replaced. Without `keep_versions`, and for a damaged file,
        nothing is kept, but a name is returned. Empty if the month has no file.
        """
        ...

    def replaced_file(self) -> Self | None:
        """Return the file that this one has replaced; None if it is not kept, or there is none.

        Also None if this file is missing or damaged, or if an earlier release wrote it.
        """
        ...

    def verified_store_uri(self) -> str | None:
        """Return the address of the file in a store, if it has the size and the ETag of its upload.

        None for a lake in a folder, and if the object is gone or was replaced, or is in a copied
        bucket, where the ETag differs: then `local_path` verifies the bytes.
        """
        ...

    def relation_and_location(
        self, connection: DuckDBPyConnection, columns: Sequence[str] | None = None
    ) -> tuple[Sql, str]:
        """Return what follows FROM to read the file in one query, and a text of where it is read.

        Use the relation in one query only, on this connection. The text is for people: "this
        machine", or the file's address in a store and "through this machine".

        A file in a store is read row group by row group, and only its `columns`; None reads all. It
        is downloaded only if `verified_store_uri` returns None. A local copy or a file of a folder
        ignores `columns`, so the query must name its columns too.
        """
        ...

    def create_permanent_url(self) -> str:
        """Return the full address of this version's file, which no other version ever gets.

        In a folder, it is a `file://` URL of a hard link in the folder `versions`, which is created
        if it is missing; on a file system without hard links, of a copy.
        """
        ...

    def record_version_at_start(self, run: str) -> None:
        """Record the version that the month has when a run begins; `replacing` replaces only that.

        It is recorded in memory: call `replacing` on a file of the same lake object. `run` is the
        run's id. Later calls for the same run change nothing. In a folder, it does nothing.
        """
        ...

    def replacing(self) -> AbstractContextManager[NewFile]:
        """Give the block a new file to write, which replaces the month's after the block.

        After an error in the block the old file stays. Readers see the old file or the new one,
        never a part. In a folder, it waits while another process replaces the file, so read what
        the new one depends on in the block. In a store, raises ObjectChanged if another run has
        replaced the file since `record_version_at_start`; without that, since the `snapshot`, or
        else since the block began. If that run wrote the same version, its file stays, and nothing
        is raised.
        """
        ...


class LakeReader(Protocol):
    """The part of a lake that queries use: its files and their rows."""

    def in_folder(self, folder: str) -> Self:
        """Return the lake in a folder of this one, which need not exist."""
        ...

    def files(self, export: str) -> Mapping[BillingMonth, LakeFile]:
        """Return the existing files of an export by month, the oldest month first.

        Damaged files are among them. Empty if there is no file.
        """
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
    def is_in_store(self) -> bool:
        """Whether the lake is in a store, which many machines write.

        Such a machine may lack the billing table of a month that the lake has.
        """
        ...

    @property
    def location(self) -> str:
        """The path of the lake, or its address in a store, for messages."""
        ...

    def file(self, export: str, month: BillingMonth) -> LakeFile:
        """Return the file of a month, which need not exist."""
        ...

    def unfinished_files(self, export: str) -> list[Path]:
        """Return an export's unfinished files on this machine, as a killed process leaves them.

        In a folder, also those that a running load is writing: delete none while one runs. For a
        store, only those that are older than a day, and also those of exports with a similar name.
        """
        ...

    def unneeded_objects(self, export: str, before: datetime) -> list[ObjectInfo]:
        """Return an export's files that no month uses and that `keep_versions` does not keep.

        In a store, also their pointers and files of failed runs, but only those that were replaced
        before `before`, by the upload of the next file, and the last file only if it was written
        before then. `before` must have a zone; a folder ignores it. Months whose file is missing or
        damaged are left out. A catalog may still use the files.
        """
        ...

    def delete_object(self, info: ObjectInfo) -> None:
        """Delete one of `unneeded_objects`. In a folder, raises FileNotFoundError if it is gone."""
        ...

    def check_access(self) -> str:
        """Check that the lake can be written, and return a line with its address for people.

        A file is written and deleted; in a store, it is also read. A folder that does not exist is
        not created: its nearest existing parent is checked, and the line says so. Raises BillError
        or StoreError, in one line, or StoreUnavailable.
        """
        ...

    def writing_file(self, name: str) -> AbstractContextManager[Path]:
        """Give the block a path to write another file to, such as a report of all months.

        After the block it becomes the lake's file `name`, a path below the lake's address, and
        replaces an old one. After an error in the block it does not.
        """
        ...
