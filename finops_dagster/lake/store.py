"""The lake in a store: each version is a new file, and the month's pointer names its newest one.

`<parquet_dir>/<export>/billing_month=2024-01/<export>-2024-01.json` is the pointer, and
`<export>-2024-01-<12 hex digits>.parquet` beside it a file. A month is replaced by one conditional
write of its pointer, so that readers see one whole version, and of two writers one succeeds.
The pointers to replaced files that are kept are `<export>-2024-01-<12 hex digits>.json`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import version_of_footer
from finops_dagster.lake.history import replaced_files
from finops_dagster.lake.lake import (
    MONTH_FOLDER,
    REPLACES,
    THIS_MACHINE,
    Lake,
    LakeFile,
    NewFile,
    unique_file_name,
)
from finops_dagster.lake.many_months import map_months
from finops_dagster.lake.pointer import Pointer
from finops_dagster.lake.relations import parquet_relation
from finops_dagster.lake.store_client import StoreClient
from finops_dagster.object_stores import ObjectChanged, ObjectInfo, StoreError


@dataclass(frozen=True)
class StoreFile(LakeFile):
    """The file of a month in a store; `stem` is the key of its pointer without `.json`.

    `known` is the pointer of a snapshot and its ETag; with None, each method reads the pointer.
    """

    client: StoreClient
    stem: str
    known: tuple[Pointer | None, str | None] | None = field(default=None, compare=False)

    is_in_store = True

    @property
    def location(self) -> str:
        return self.client.store.location(self._pointer_key)

    @property
    def _pointer_key(self) -> str:
        return f"{self.stem}.json"

    @property
    def name_in_lake(self) -> str:
        return "/".join(self.current_key_and_pointer()[0].split("/")[-3:])

    def current_key_and_pointer(self) -> tuple[str, Pointer]:
        """Return the key of the month's file, and its pointer.

        Raises BillError if there is none, or it is damaged.
        """
        pointer, _ = self._read_pointer()
        if pointer is None:
            raise BillError(f"{self.location} is missing or damaged; run the month again")
        return self._key(pointer.name), pointer

    def object_keys(self) -> tuple[str, str]:
        """Return the keys of the pointer and of the file. Raises as `current_key_and_pointer`."""
        return self._pointer_key, self.current_key_and_pointer()[0]

    def _key(self, name: str) -> str:
        return f"{self.stem.rpartition('/')[0]}/{name}"

    def _read_pointer(self) -> tuple[Pointer | None, str | None]:
        """Return the pointer and its ETag, as `StoreClient.read_pointer` does."""
        return self.known or self.client.read_pointer(self._pointer_key)

    def snapshot(self) -> Self:
        return replace(self, known=self.client.read_pointer(self._pointer_key))

    def footer_texts(self) -> dict[str, str] | None:
        pointer, _ = self._read_pointer()
        return None if pointer is None else {**pointer.texts}

    def exists(self) -> bool:
        return self._read_pointer()[1] is not None

    def written_at(self) -> datetime:
        return self.current_key_and_pointer()[1].written_at

    def schema(self) -> pa.Schema:
        return self.current_key_and_pointer()[1].schema

    def size(self) -> int:
        return self.current_key_and_pointer()[1].size

    def sha256(self) -> str:
        key, pointer = self.current_key_and_pointer()
        return pointer.sha256 if self.client.is_intact(key, pointer) else ""

    def local_path(self) -> Path:
        return self.client.local_copy(*self.current_key_and_pointer())

    def keep_version(self) -> str:
        pointer, etag = self._read_pointer()
        if pointer is None:
            return "" if etag is None else self._pointer_key.rpartition("/")[2]
        if self.client.keep_versions:
            kept = self._replaced(pointer.name)
            # It may exist: a run writes it before the month's pointer, and may have failed between.
            with suppress(ObjectChanged):
                self.client.store.replace_if_unchanged(
                    kept._pointer_key, pointer.to_json(), etag=None
                )
        return pointer.name

    def create_permanent_url(self) -> str:
        return self.client.store.location(self.current_key_and_pointer()[0])

    def replaced_file(self) -> Self | None:
        name = (self.footer_texts() or {}).get(REPLACES)
        file = self._replaced(name) if name else None
        return file if file is not None and file.exists() else None

    def _replaced(self, name: str) -> Self:
        """Return the month as its file of that name is or was."""
        return replace(self, stem=self._key(name).removesuffix(".parquet"), known=None)

    def verified_store_uri(self) -> str | None:
        key, pointer = self.current_key_and_pointer()
        return self.client.store.location(key) if self.client.matches_upload(key, pointer) else None

    def relation_and_location(
        self, connection: DuckDBPyConnection, columns: Sequence[str] | None = None
    ) -> tuple[Sql, str]:
        key, pointer = self.current_key_and_pointer()
        if self.client.has_copy(key) or not self.client.matches_upload(key, pointer):
            return parquet_relation(self.client.local_copy(key, pointer)), THIS_MACHINE
        filesystem, root = self.client.store.filesystem()
        name = f"lake_{uuid4().hex}"
        file = filesystem.open_input_file(f"{root}/{key}")
        connection.register(name, _row_group_reader(file, columns))
        return quoted(name), f"{self.client.store.location(key)}, through this machine"

    def record_version_at_start(self, run: str) -> None:
        if self.client.etags_at_start.get(self._pointer_key, ("", None))[0] != run:
            etag = self.client.read_pointer(self._pointer_key)[1]
            self.client.etags_at_start[self._pointer_key] = run, etag

    @contextmanager
    def replacing(self) -> Iterator[NewFile]:
        run, etag = self.client.etags_at_start.get(self._pointer_key, ("", None))
        if not run:
            etag = self._read_pointer()[1]
        name = unique_file_name(self.stem.rpartition("/")[2])
        key = self._key(name)
        with self.client.temporary_file(key) as part:
            new = NewFile(part)
            yield new
            pointer = Pointer.of_upload(new, name, self.client.store.upload(part, key))
            etag = self._point_to(pointer, etag)
            if run:
                self.client.etags_at_start[self._pointer_key] = run, etag
            self.client.cache_copy(key, part)

    def _point_to(self, pointer: Pointer, etag: str | None) -> str | None:
        """Write the pointer if it still has this ETag, and return its new one.

        If another run has written it meanwhile, with the same version, that file stays. Raises
        ObjectChanged if it wrote another version.
        """
        try:
            return self.client.store.replace_if_unchanged(
                self._pointer_key, pointer.to_json(), etag=etag
            )
        except ObjectChanged as error:
            written, etag = self.client.read_pointer(self._pointer_key)
            version = version_of_footer(pointer.texts)
            written_version = version_of_footer(written.texts) if written else None
            if version is not None and version.is_same_version(written_version):
                return etag
            name = f" as version {written_version.manifest_id}" if written_version else ""
            raise ObjectChanged(
                f"{self.location} was written by another run meanwhile{name}, which stays; run "
                "the month again, if the vendor has a newer version"
            ) from error


@dataclass(frozen=True)
class StoreLake(Lake):
    """The lake in a store, in a folder below the address of the settings."""

    client: StoreClient
    folder: str = ""

    is_in_store = True

    @property
    def location(self) -> str:
        return "/".join(filter(None, (self.client.location, self.folder)))

    def in_folder(self, folder: str) -> Self:
        return replace(self, folder="/".join(filter(None, (self.folder, folder))))

    def _key(self, *names: str) -> str:
        return "/".join(filter(None, (self.client.prefix, self.folder, *names)))

    def file(self, export: str, month: BillingMonth) -> StoreFile:
        stem = self._key(export, f"{MONTH_FOLDER}{month}", f"{export}-{month}")
        return StoreFile(self.client, stem)

    def files(self, export: str) -> Mapping[BillingMonth, StoreFile]:
        keys = {info.key for info in self.client.store.files_below(self._key(export))}
        folder = self._key(export, MONTH_FOLDER)
        names = {
            key.removeprefix(folder).partition("/")[0] for key in keys if key.startswith(folder)
        }
        files = {}
        for name in sorted(names):
            with suppress(ValueError):  # Another folder that somebody put there.
                month = BillingMonth.parse(name)
                files[month] = self.file(export, month)
        return {month: file for month, file in files.items() if f"{file.stem}.json" in keys}

    def relation(self, connection: DuckDBPyConnection, files: Sequence[LakeFile]) -> Sql:
        filesystem, root = self.client.store.filesystem()
        parquet, fragments = ds.ParquetFileFormat(), dict[pa.Schema, list[ds.Fragment]]()
        for key, pointer in map_months(self, _current, files):
            path = f"{root}/{key}"
            fragment = parquet.make_fragment(path, filesystem, file_size=pointer.size)
            fragments.setdefault(pointer.schema, []).append(fragment)
        # Months may differ in their columns and types, which DuckDB unites as in a folder.
        names = []
        for schema, of_schema in fragments.items():
            names.append(f"lake_{uuid4().hex}")
            dataset = ds.FileSystemDataset(of_schema, schema, parquet, filesystem)
            connection.register(names[-1], dataset)
        union = Sql(" UNION ALL BY NAME ").join(Sql(f"FROM {quoted(name)}") for name in names)
        return Sql(f"({union})")

    def unfinished_files(self, export: str) -> list[Path]:
        return self.client.abandoned_copies(f"{export}-")

    @contextmanager
    def writing_file(self, name: str) -> Iterator[Path]:
        with self.client.temporary_file(name) as part:
            yield part
            self.client.store.upload(part, self._key(name))

    def unneeded_objects(self, export: str, before: datetime) -> list[ObjectInfo]:
        # The pointers are read after the list: an old file of the list is named by its pointer by
        # then, or never will be.
        listed = self.client.store.files_below(self._key(export))
        needed = set[str]()
        for file in self.files(export).values():
            # A damaged pointer does not say which file it names: its month stays as it is.
            if file.footer_texts() is not None:
                kept = [file, *replaced_files(file, self.client.keep_versions)]
                needed.update(*(version.object_keys() for version in kept))
        folders = {_folder(key) for key in needed}
        files = defaultdict[str, list[ObjectInfo]](list)
        for info in listed:
            if info.key.endswith((".parquet", ".json")):
                files[_folder(info.key)].append(info)
        return [
            info
            for folder in sorted(folders)
            for info in files[folder]
            if info.key not in needed and _replaced_at(info, files[folder]) < before
        ]

    def delete_object(self, info: ObjectInfo) -> None:
        self.client.store.delete(info.key)

    def check_access(self) -> str:
        key, store = self._key(f"check-{uuid4().hex}.json"), self.client.store
        self.files("check")
        etag = store.replace_if_unchanged(key, b"1", etag=None)
        try:
            store.replace_if_unchanged(key, b"2", etag=etag)
            with suppress(ObjectChanged):
                store.replace_if_unchanged(key, b"3", etag=etag)
            stored = store.read(key)
        finally:
            store.delete(key)
        if stored and stored[0] == b"2":
            return self.location
        raise StoreError(
            f"{self.location} ignores the condition of a write (If-Match), so that two runs could "
            "overwrite each other's month; use another store"
        )


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _replaced_at(file: ObjectInfo, folder: Sequence[ObjectInfo]) -> datetime:
    """Return when the next file was uploaded to the folder; for the last one, its own time."""
    times = (other.last_modified for other in folder if other.key.endswith(".parquet"))
    return min((time for time in times if time > file.last_modified), default=file.last_modified)


def _current(file: LakeFile) -> tuple[str, Pointer]:
    assert isinstance(file, StoreFile)
    return file.current_key_and_pointer()


def _row_group_reader(file: pa.NativeFile, columns: Sequence[str] | None) -> pa.RecordBatchReader:
    """Return a reader of some columns of a Parquet file, with one row group at a time in memory.

    None reads all columns. Only one query can read it.
    """
    parquet = pq.ParquetFile(file, pre_buffer=True)
    names = parquet.schema_arrow.names if columns is None else columns

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(parquet.num_row_groups):
            yield from parquet.read_row_group(number, names).to_batches()

    schema = pa.schema([parquet.schema_arrow.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, batches())
