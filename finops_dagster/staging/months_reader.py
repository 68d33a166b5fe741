"""The months of the rows in each file of an export; each file is read once and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import duckdb
from pydantic import TypeAdapter, ValidationError

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.errors import BillError, FileInvalid, count_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import Lake
from finops_dagster.object_stores import ObjectInfo, ObjectStore
from finops_dagster.progress import run_logger
from finops_dagster.sources.base import Format, SharedFiles
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.staging.folder import StagingFolder, VersionRecord, replace_file
from finops_dagster.staging.staged_files import MAX_DOWNLOADS
from finops_dagster.tables import ledger
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import BillingDatabase
from finops_dagster.tables.files import billing_period_header, read_headers, translated_error

_INDEX = TypeAdapter(list[FileContent])
# After so many files the index is written: a first reading may take hours, and be stopped.
_FILES_PER_WRITE = 100

_Key = tuple[str, int, str]
"""The identity of a file: its path below the export's folder, its size and its ETag."""


class MonthsReader:
    """Finds the months of the rows in an export's files.

    Files are remembered in the records of their months, in the staging folder, the lake and the
    ledger, and in the index `shared/months.json` of the staging folder, which also has the files of
    months that are not loaded. The copies that were read stay in `shared` until their months have
    staged them.
    """

    def __init__(
        self, export: ExportSettings, staging: StagingFolder, lake: Lake, database: BillingDatabase
    ) -> None:
        self._export, self._staging = export, staging
        self._lake, self._database = lake, database
        self._files = staging.shared_copies(export.name)
        self._index_file = self._files.path("months.json")
        # So that a sensor does not read a damaged file again in each tick.
        self._problems: dict[_Key, BillError] = {}

    def read(
        self, store: ObjectStore, folder: str, files: Sequence[ObjectInfo], bill_format: Format
    ) -> SharedFiles:
        """Return the months of the rows in each of `files`; only new files are read.

        `files` must be all files of the export, and `folder` is the key of their folder, to which
        the names in the result are relative. A file is new if no record has its name, size and
        ETag: then it is downloaded under the lock of the shared files, and the index is written. A
        file that cannot be read is in the result's `problems`, and this reader does not read it
        again until it changes. Copies that all their months have staged are deleted. Raises the
        store's errors.
        """
        keys = {
            file: (file.key.removeprefix(folder).lstrip("/"), file.size, file.etag)
            for file in files
        }
        loaded = self._loaded_files()
        known_files = {_key(file): file for content in loaded.values() for file in content.files}
        known_files |= self._read_index()
        if self._unknown(keys, known_files):
            with self._files.lock():
                known_files |= self._read_index()  # another run may have read them meanwhile
                unknown = self._unknown(keys, known_files)
                for begin in range(0, len(unknown), _FILES_PER_WRITE):
                    batch = dict(list(unknown.items())[begin : begin + _FILES_PER_WRITE])
                    known_files |= self._read_files(store, batch, bill_format)
                    self._write_index(known_files)
        self._delete_staged_copies(keys, known_files)
        return SharedFiles(
            {file.key: known_files[key] for file, key in keys.items() if key in known_files},
            {file.key: self._problems[key] for file, key in keys.items() if key in self._problems},
            loaded,
        )

    def _unknown(
        self, keys: Mapping[ObjectInfo, _Key], known_files: Collection[_Key]
    ) -> dict[ObjectInfo, _Key]:
        return {
            file: key
            for file, key in keys.items()
            if key not in known_files and key not in self._problems
        }

    def _loaded_files(self) -> dict[BillingMonth, Content]:
        """Return the files of each month's loaded or staged version that months share."""
        files: dict[BillingMonth, dict[str, FileContent]] = {}
        unrecorded = []
        for month in self._export.months():
            in_lake = self._lake.file(self._export.name, month).version()
            records = [*([in_lake] if in_lake else []), *self._staged(month)]
            files[month] = {
                file.name: file
                for record in reversed(records)
                for file in (record.content.files if record.content else ())
            }
            if not records:
                unrecorded.append(month)
        for month, content in self._ledger_files(unrecorded).items():
            files[month] = {file.name: file for file in content.files}
        return {
            month: Content.of(file for file in by_name.values() if file.months is not None)
            for month, by_name in files.items()
        }

    def _staged(self, month: BillingMonth) -> Sequence[VersionRecord]:
        return self._staging.staged_month(self._export.name, month).version_records()[:1]

    def _ledger_files(self, months: Sequence[BillingMonth]) -> dict[BillingMonth, Content]:
        """Return the files of the months' loads in the ledger, for months that the lake has not.

        A ledger that another process has open is left out: the load compares its files again.
        """
        paths = {self._database.path(self._export.name, month) for month in months}
        connections = replace(self._database.duckdb, lock_wait_seconds=0)
        files: dict[BillingMonth, Content] = {}
        for path in filter(Path.exists, paths):
            with (
                suppress(BillError, duckdb.Error),
                connections.open(path, read_only=True) as connection,
            ):
                files |= ledger.loaded_content(connection, self._export.name)
        return {month: files[month] for month in months if month in files}

    def _read_index(self) -> dict[_Key, FileContent]:
        with suppress(FileNotFoundError, ValidationError):
            return {
                _key(file): file for file in _INDEX.validate_json(self._index_file.read_bytes())
            }
        return {}

    def _write_index(self, known_files: Mapping[_Key, FileContent]) -> None:
        replace_file(self._index_file, _INDEX.dump_json(list(known_files.values())))

    def _read_files(
        self, store: ObjectStore, files: Mapping[ObjectInfo, _Key], bill_format: Format
    ) -> dict[_Key, FileContent]:
        """Download the files and read their months; `_problems` gets those that cannot be read."""
        run_logger().info(f"reading the months of {count_text(len(files), 'new file')}")
        staged = self._files.intact_files()

        def download(file: ObjectInfo) -> None:
            name = _local_name(file)
            if name not in staged or not staged[name].is_copy_of(file):
                try:
                    # The limit of a month's size is for each file here: they are of many months.
                    self._staging.shared_copies(self._export.name).download(store, file, name)
                except FileInvalid as error:
                    self._problems[files[file]] = error

        with ThreadPoolExecutor(MAX_DOWNLOADS) as pool:
            list(pool.map(download, files))
        staged, contents = self._files.intact_files(), {}
        with self._database.duckdb.open_in_memory() as connection:
            prepare_casts(connection)
            for file, key in files.items():
                if key in self._problems:
                    continue
                path = self._files.path(_local_name(file))
                try:
                    months = _months(connection, path, bill_format)
                except BillError as error:
                    text = str(error).replace(str(path), file.location)
                    self._problems[key] = FileInvalid(text)
                else:
                    sha256 = staged[path.name].sha256
                    contents[key] = FileContent(*key[:2], sha256, file.etag, months)
        return contents

    def _delete_staged_copies(
        self, keys: Mapping[ObjectInfo, _Key], known_files: Mapping[_Key, FileContent]
    ) -> None:
        """Delete the copies to which every month that needs them has a hard link.

        Only months of the export's settings count.
        """
        months = set(map(str, self._export.months()))
        on_disk = {path.name: path for path in self._files.existing_paths()}
        for file, key in keys.items() if on_disk else ():
            path = on_disk.get(_local_name(file))
            if path is not None and key in known_files:
                needed = len(months & {*(known_files[key].months or ())})
                with suppress(FileNotFoundError):
                    if path.stat().st_nlink > needed:
                        path.unlink()


def _key(file: FileContent) -> _Key:
    return file.name, file.size, file.etag


def _local_name(file: ObjectInfo) -> str:
    """Return the name of a file's copy: one for each key and ETag, whatever they are."""
    return hashlib.sha256(f"{file.key}\0{file.etag}".encode()).hexdigest()[:32]


def _months(
    connection: duckdb.DuckDBPyConnection, path: Path, bill_format: Format
) -> tuple[str, ...]:
    """Return the months of a file's rows, sorted; empty for a file without rows.

    Raises FileInvalid and CellInvalid, also for a row without a billing period: it would be of no
    month.
    """
    for file in read_headers([path], bill_format):
        header = billing_period_header(file, bill_format)
        period = file.column_sql(header, SqlType.TIME)
        try:
            rows = connection.execute(
                f"SELECT DISTINCT strftime({period}, '%Y-%m') FROM {file.rows_sql()}"
            ).fetchall()
        except duckdb.Error as error:
            name, time = bill_format.billing_period, SqlType.TIME
            mapping = ColumnMapping(header, name, time, time, name, is_money=False)
            raise translated_error(connection, error, [file], [mapping]) from error
        if (None,) in rows:
            raise _row_without_period(connection, file, header)
        return tuple(sorted(month for (month,) in rows))
    return ()


def _row_without_period(
    connection: duckdb.DuckDBPyConnection, file: BillFiles, header: str
) -> FileInvalid:
    cell = file.column_sql(header, SqlType.TEXT)
    connection.execute("SET preserve_insertion_order = true")
    ((record,),) = connection.execute(
        f"SELECT row_number() OVER () AS record FROM {file.all_rows_sql()} "
        f"QUALIFY {cell} IS NULL LIMIT 1"
    ).fetchall()
    return FileInvalid(
        f"{file.paths[0]}, {file.row_location(record)}: the row has no {header}, and so is of no "
        "month; the provider must deliver the file again"
    )
