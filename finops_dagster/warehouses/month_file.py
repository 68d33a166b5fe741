"""The Parquet file of a month, from which a warehouse loads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.errors import BillError, first_line, reprocess_advice
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import FolderFile, LakeFile, parquet_relation, write_parquet
from finops_dagster.tables.bill_files import AS_TEXT
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import lake_type

TEXT_TO_NUMBER: Mapping[str, Sql] = {
    SqlType.MONEY: Sql("exact_decimal({0})"),
    SqlType.MONEY_MAP: Sql("exact_map(text_map({0}))"),
}
"""By target type: DuckDB's SQL that turns the file's text into numbers; `{0}` is the cell."""


class WarehouseUnavailable(Exception):
    """A transient error of the warehouse or of the network: a retry may help."""


@dataclass(frozen=True)
class MonthFile:
    """The Parquet file of one month of one export, its footer, and its columns.

    A field with names of columns is None or empty if the bill has no such column.
    """

    export: str
    table: str
    month: BillingMonth
    lake_file: LakeFile
    footer: LoadedVersion
    schema: pa.Schema
    cost_column: str | None
    """The column of the headline cost."""
    billing_period_column: str | None
    """The column of the vendor's billing period; a row of another month is misdated."""
    cluster_by: tuple[str, ...]
    """The columns of usage start and service, for warehouses that cluster."""
    user_defined_columns: tuple[str, ...] = ()
    """Tags and cost categories; a warehouse may store some as keys of one map."""
    currency_column: str | None = None
    """The column of the headline cost's currency."""
    duckdb: DuckDB = field(default_factory=DuckDB)
    """The limits and folders of the DuckDB that reads the file."""
    month_column: str = "billing_month"
    """The column of the month's first day."""
    version_column: str = "manifest_id"
    """The column of the bill's version id."""
    version_id_in_rows: str | None = None
    """The version id in the rows; None if it is that of `footer`.

    For charges the rows have the bill's; `footer` has one that the mapping's version is part of.
    """
    folder_in_lake: str = ""
    """The folder of the lake that has the export's folder, with a slash at its end."""

    @property
    def bill_version_id(self) -> str:
        """The version id in the rows, which is the bill's, also in a file of charges."""
        return self.version_id_in_rows or self.footer.manifest_id

    @property
    def location(self) -> str:
        """The address of the file, for messages."""
        return self.lake_file.location

    def local_path(self) -> Path:
        """Return the path of the file on this machine; a file in a store is downloaded first.

        See `LakeFile.local_path`, also for the errors.
        """
        return self.lake_file.local_path()

    @property
    def path_in_lake(self) -> str:
        """The path of the file below the address of the bills' lake, such as `focus/acme/...`.

        Raises BillError if the lake is in a store that does not have the file.
        """
        return self.folder_in_lake + self.lake_file.name_in_lake

    @property
    def list_columns(self) -> list[str]:
        """The columns of lists, which warehouses store as JSON text."""
        return [column.name for column in self.schema if pa.types.is_list(column.type)]

    @property
    def data_types(self) -> dict[str, str]:
        """The data type of each column: one of SqlType, or DATE; lists are TEXT."""
        return {column.name: lake_type(column.type) for column in self.schema}

    @property
    def money_columns(self) -> list[str]:
        """The money columns to measure: the headline cost, then those with a sum in the footer.

        Columns that the file lacks are left out.
        """
        names = dict.fromkeys(
            [*([self.cost_column] if self.cost_column else []), *(self.footer.totals.sums or {})]
        )
        return [name for name in names if name in self.schema.names]

    def select_sql(self, target_types: Mapping[str, str], relation: Sql | None = None) -> Sql:
        """Return a DuckDB SELECT of the file, each column cast to its target type, if it has one.

        Every type can be cast to text, and text to numbers, but nothing else. Lists become JSON
        texts. `relation` has the rows; by default it is the file at `local_path`. The connection
        needs the macros of `prepare_casts`. A text that is no exact number fails the query; call
        `refuse_inexact_text` before, whose error names it.
        """
        lists = set(self.list_columns)

        def cell(name: str, file_type: str) -> Sql:
            if name in lists:
                return Sql(f"CAST(to_json({quoted(name)}) AS VARCHAR)")
            target = target_types.get(name, file_type)
            if target == file_type:
                return quoted(name)
            to_varchar = Sql("CAST({0} AS VARCHAR)")
            if target == SqlType.TEXT:
                expression = AS_TEXT.get(file_type, to_varchar)
            else:
                expression = TEXT_TO_NUMBER.get(target, to_varchar)
            return Sql(expression.format(quoted(name)))

        cells = ", ".join(
            f"{cell(name, file_type)} AS {quoted(name)}"
            for name, file_type in self.data_types.items()
        )
        return Sql(f"SELECT {cells} FROM {relation or parquet_relation(self.local_path())}")

    @contextmanager
    def translating_read_errors(self) -> Iterator[None]:
        """Raise BillError or WarehouseUnavailable for an error in the block, which reads the file.

        Only for errors of DuckDB, pyarrow and the system (OSError); the message is one line. For a
        file in a store it is WarehouseUnavailable: its bytes were verified, so a retry may help.
        DuckDB's OutOfMemoryException is raised unchanged.
        """
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            message = f"{self.location} cannot be read: {first_line(error)}"
            if self.lake_file.is_in_store:
                raise WarehouseUnavailable(message) from error
            advice = reprocess_advice(self.export, self.month)
            raise BillError(f"{message}; {advice}") from error

    @contextmanager
    def converted_copy(self, target_types: Mapping[str, str]) -> Iterator[MonthFile]:
        """Give the block a copy of the file with its columns cast to `target_types`, by name.

        Lists become JSON texts. The copy is deleted after the block. The block gets `self` if the
        file has no lists and no column needs a cast. Raises BillError if the file cannot be read,
        duckdb.Error if the copy cannot be written, and the errors of `LakeFile.local_path`.
        """
        if not self.list_columns and all(
            target_types.get(name, file_type) == file_type
            for name, file_type in self.data_types.items()
        ):
            yield self
            return
        with TemporaryDirectory(prefix="finops-") as folder:
            path = Path(folder) / f"{self.export}-{self.month}.parquet"
            with self.duckdb.open_in_memory(threads=1) as connection:
                prepare_casts(connection)
                write_parquet(connection, self.select_sql(target_types), path, self.location)
            yield replace(self, lake_file=FolderFile(path), schema=pq.read_schema(path))


def as_utc(value: Any) -> datetime:
    """Return a time in UTC; `value` is a datetime, or a text in ISO 8601.

    A time without a zone is taken as UTC.
    """
    timestamp = datetime.fromisoformat(str(value))
    return timestamp.astimezone(UTC) if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
