"""Registers the lake's files in an Iceberg catalog, without rewriting or moving them.

In a lake in a folder, a registered file gets a hard link, which stays when the month is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.io.pyarrow import parquet_files_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, TableProperties, Transaction
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from finops_dagster.billing.errors import BillError, count_text, first_line
from finops_dagster.lake.addresses import LakeSettings
from finops_dagster.lake.catalog_settings import CatalogSettings, lake_url
from finops_dagster.lake.lake import Lake, LakeFile

_NAME = "finops"
_ATTEMPTS = 12
_LONGEST_WAIT_SECONDS = 5
_PROPERTIES = {
    # pyiceberg would repeat a commit with what it read before, so that two first files of a month
    # could both be registered. `register` reads lake and table again instead.
    TableProperties.COMMIT_NUM_RETRIES: "0",
    "write.metadata.delete-after-commit.enabled": "true",
}


class CatalogError(BillError):
    """The catalog cannot be reached, or refuses a file; the message is one line."""


@dataclass(frozen=True)
class Registration:
    """What changed in a table: the addresses of the files that were added and removed.

    `table` has the namespace before its name.
    """

    table: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class IcebergCatalog:
    """A catalog whose tables consist of files of the lake; connects when it is first used.

    `location` is the address of the lake, and `access` has its settings of S3.
    """

    settings: CatalogSettings
    location: str
    access: LakeSettings

    def register(self, lake: Lake, export: str, table: str) -> Registration:
        """Add an export's files to a table, remove those that the lake lacks; return what changed.

        That is one snapshot, or none if nothing differs. Columns that the table lacks are added. If
        the lake has no file of the export, nothing is created or removed; else a missing table is
        created. Files of other exports stay. `table` is without the namespace. Tries twelve times
        in all if other writers commit first. Raises CatalogError, also if the table has the
        export's months from another place, or files that no lake has written.
        """
        name = f"{self.settings.namespace}.{table}"
        with _translated_errors(name):
            for attempt in Retrying(
                retry=retry_if_exception_type((CommitFailedException, ValidationException)),
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_random_exponential(max=_LONGEST_WAIT_SECONDS),
                reraise=True,
            ):
                with attempt:
                    return self._register(lake, export, name)
        raise AssertionError  # The last attempt has raised.

    def check_connection(self) -> str:
        """Return a line for people, such as `sql, 2 tables in finops`. Raises CatalogError.

        The tables of the namespace are counted: 0 if the catalog lacks it.
        """
        namespace = self.settings.namespace
        with _translated_errors(f"{namespace}.*"):
            exists = self._catalog.namespace_exists(namespace)
            tables = self._catalog.list_tables(namespace) if exists else []
        return f"{self.settings.type}, {count_text(len(tables), 'table')} in {namespace}"

    def registered_urls(self, lake: Lake, export: str, table: str) -> set[str]:
        """Return the URLs of an export's files that a table has; empty without the table.

        They are those of `create_permanent_url`, also of files that the lake lacks by now. Raises
        CatalogError.
        """
        name = f"{self.settings.namespace}.{table}"
        with _translated_errors(name):
            if not self._catalog.table_exists(name):
                return set()
            files = _files_of(self._catalog.load_table(name))
            return {url for url in files if url.startswith(_folder_url(lake, export))}

    @cached_property
    def _catalog(self) -> Catalog:
        return load_catalog(_NAME, **self.settings.all_properties(self.location, self.access))

    def _register(self, lake: Lake, export: str, name: str) -> Registration:
        table = self._table(name, lake.files(export).values())
        if table is None:
            return Registration(name)
        # The table is read before the lake: a month that is registered later makes the commit fail.
        files, folder = _files_of(table), _folder_url(lake, export)
        _refuse_second_copies(name, files, folder, export)
        old = {url: file for url, file in files.items() if url.startswith(folder)}
        new = {file.create_permanent_url(): file for file in lake.files(export).values()}
        added = {url: file for url, file in new.items() if url not in old}
        # A lake without files was probably moved or is not mounted: its registered files stay.
        removed = [file for url, file in old.items() if url not in new] if new else []
        if not added and not removed:
            return Registration(name)
        with table.transaction() as transaction:
            _add_columns(transaction, added.values())
            properties = {"finops.export": export}
            with transaction.update_snapshot(properties).overwrite() as overwrite:
                for data_file in removed:
                    overwrite.delete_data_file(data_file)
                for data_file in parquet_files_to_data_files(
                    table.io, transaction.table_metadata, iter(added)
                ):
                    overwrite.append_data_file(data_file)
        return Registration(name, tuple(added), tuple(file.file_path for file in removed))

    def _table(self, name: str, files: Iterable[LakeFile]) -> Table | None:
        """Return the table, which is created from the first file; None if there is no file."""
        if self._catalog.table_exists(name):
            return self._catalog.load_table(name)
        file = next(iter(files), None)
        if file is None:
            return None
        self._catalog.create_namespace_if_not_exists(self.settings.namespace)
        columns = _optional_columns(file)
        return self._catalog.create_table_if_not_exists(name, columns, properties=_PROPERTIES)


def _folder_url(lake: Lake, export: str) -> str:
    return f"{lake_url(lake.location)}/{export}/"


def _refuse_second_copies(name: str, files: Iterable[str], folder: str, export: str) -> None:
    """Raise CatalogError if rows of an export may be in other files than those of its folder.

    So it is if the lake was moved, or if another program has rewritten files of the lake, as a
    catalog's compaction does. Files of other exports may be those of another lake.
    """
    for url in files:
        is_copy = f"/{export}/billing_month=" in url and not url.startswith(folder)
        if is_copy or "/billing_month=" not in url:
            raise CatalogError(
                f"the catalog's table {name} has {url}, which is no file of this lake: months "
                "would be counted twice; drop the table, but keep its files, and the next run "
                "registers all months; switch off what rewrites it, such as a compaction"
            )


def _files_of(table: Table) -> dict[str, DataFile]:
    """Return the files of a table, by their address."""
    snapshot = table.current_snapshot()
    # A scan would leave out files without rows.
    entries = (
        entry
        for manifest in (snapshot.manifests(table.io) if snapshot else ())
        for entry in manifest.fetch_manifest_entry(table.io)
    )
    return {entry.data_file.file_path: entry.data_file for entry in entries}


def _add_columns(transaction: Transaction, files: Iterable[LakeFile]) -> None:
    """Add the columns of files that the table lacks, at the names that the files have."""
    if transaction.table_metadata.name_mapping() is None:
        # The lake's files have no ids of columns: readers find them by their names.
        mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
        transaction.set_properties({TableProperties.DEFAULT_NAME_MAPPING: mapping})
    with transaction.update_schema() as update:
        for schema in {_optional_columns(file) for file in files}:
            update.union_by_name(schema)


def _optional_columns(file: LakeFile) -> pa.Schema:
    """Return the columns of a file, none of them required: other months may lack them."""
    return pa.schema([field.with_nullable(True) for field in file.schema()])


@contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    try:
        yield
    except CatalogError:
        raise
    # Errors of pyiceberg have no common class, and those of databases and HTTP come through.
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CatalogError(f"the catalog's table {name}: {reason}; check [catalog]") from error
