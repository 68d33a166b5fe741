"""Any SQL database that dlt can load and that has transactions: SQL Server, MySQL, Redshift, ...

dlt brings the month into a table of its own, and one transaction moves it from there. dlt's own
merge would not do: in dlt 1.31 its DELETE and INSERT are two transactions where the destination
does not say that it has them (DuckDB does not), a version without rows replaces nothing, and
nothing can be measured before the commit.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pyarrow as pa
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.schema.typing import TTableSchemaColumns
from dlt.dataset.utils import get_destination_clients
from dlt.destinations.job_client_impl import SqlJobClientBase

from finops_dagster.billing.columns import SqlType, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.lake.footer import Footer
from finops_dagster.lake.month import relation
from finops_dagster.locks import waiting_lock
from finops_dagster.settings_table import SettingsError
from finops_dagster.tables.digest import MonthDigest, column_type
from finops_dagster.warehouses.base import (
    Loaded,
    LoadedMonth,
    MonthFile,
    WarehouseUnavailable,
    newest_loads,
)
from finops_dagster.warehouses.sql import Settings
from finops_dagster.warehouses.sql.columns import Widening
from finops_dagster.warehouses.sql.dataset import (
    INCOMING,
    Dataset,
    another_run,
    incoming_table,
    ledger_of,
)
from finops_dagster.warehouses.sql.dlt_runtime import dlt_for, explained

# dlt's clients for these begin no transaction, and their capabilities do not say so.
_WITHOUT_TRANSACTIONS = ("databricks", "dummy")
_ROWS_AT_ONCE = 10_000


class SqlWarehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One dataset of one destination of dlt.

    `{table}_loads` beside each table says of every load what month and version it brought, and
    whether that is loading, loaded or failed; it is written in the transaction that it tells of.
    """

    destination: str
    dataset: str
    working_dir: str
    options: dict[str, Any]

    def reach(self) -> str:
        """Connect, and look whether the dataset is there."""
        with self._dlt(), self._connected() as dataset:
            dataset.client.is_storage_initialized()
        return f"{self.destination} {self.dataset}"

    def full_name(self, table: str) -> str:
        """`dataset.table`."""
        return f"{self.dataset}.{table}"

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return what the table's ledger says is loaded."""
        with self._dlt(), self._connected() as dataset:
            return newest_loads(dataset.loads(f"{table}_loads"))

    def held_version(self, file: MonthFile) -> Footer | None:
        """What the ledger says is loaded, if the table really holds its rows and cost."""
        with self._dlt(), self._connected() as dataset:
            needed = {"billing_month", file.cost, file.billing_period} - {None}
            held = dataset.columns(file.table).keys()
            if not (needed <= held and dataset.columns(ledger_of(file))):
                return None
            version = dataset.loaded_version(file)
            measured = dataset.measure(file)
            if version is None or measured.foreign_rows:
                return None
            return Footer(version, measured.totals)

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return how many amounts each column of money has, and their sum."""
        with self._dlt(), self._connected() as dataset:
            return dataset.sums(file)

    def replace_month(self, file: MonthFile) -> Loaded:
        """Bring the file into a table of its own, and move it into the month's place."""
        job_id = f"finops_{file.export}_{file.month}_{file.footer.manifest_id}_{uuid.uuid4()}"
        with self._turn(file) as folder, self._dlt():
            asked, warnings = self._prepare(file)
            with self._connected() as dataset:
                dataset.begin(file, job_id)
            try:
                with file.with_text(asked.brought_as_text) as brought:
                    self._bring(brought, job_id, folder)
                with self._connected() as dataset:
                    dataset.move(file, job_id, self.full_name(file.table), asked.becoming_text)
            except Exception as error:
                where = self.full_name(file.table)
                reason = explained(error, self.destination, where)
                with suppress(Exception), self._connected() as dataset:
                    if dataset.state(file, job_id) == "failed":
                        reason = WarehouseUnavailable(f"{where}: {another_run(file)}")
                    dataset.fail(file, job_id, str(reason))
                raise reason from error
            try:
                warnings += self._tidy_up(file, job_id, asked)
            except Exception as error:
                warnings.append(f"what the load needed on its way stays: {first_line(error)}")
        return Loaded(job_id, tuple(warnings))

    def _tidy_up(self, file: MonthFile, job_id: str, asked: Widening) -> list[str]:
        """Do what the month in the table does not depend on; the warnings of what failed."""
        warnings: list[str] = []

        @contextmanager
        def or_warn(what: str) -> Iterator[None]:
            try:
                yield
            except Exception as error:
                reason = explained(error, self.destination, self.full_name(file.table))
                warnings.append(f"{what}: {reason}")

        with self._connected() as dataset:
            with or_warn("the planner's statistics are the old ones"):
                dataset.renew_statistics(file)
            if asked.becoming_text:
                with or_warn("dlt does not know the columns' new types"):
                    self._tell_dlt(dataset, file, asked)
            with or_warn(f"{incoming_table(job_id)} stays, and can be dropped"):
                dataset.drop(job_id)
        return warnings

    def _dlt(self) -> AbstractContextManager[None]:
        where = f"{self.destination} {self.dataset}"
        return dlt_for(self.destination, self.options, where)

    def _destination(self) -> Destination[Any, Any]:
        destination = Destination.from_reference(self.destination)
        assert destination is not None
        return destination

    @contextmanager
    def _turn(self, file: MonthFile) -> Iterator[Path]:
        """An empty folder for dlt, which one load of the month at a time has on this machine.

        dlt finishes what it finds in its folder: what a killed load left there would be loaded
        over what has come since.
        """
        folder = Path(self.working_dir) / f"{file.table}-{file.month}"
        where = self.full_name(file.table)
        with waiting_lock(Path(f"{folder}.lock"), f"loading {file.month} into {where}"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            try:
                yield folder.absolute()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _connected(self, schema: dlt.Schema | None = None) -> Iterator[Dataset]:
        """A connection to the dataset, in which dlt knows the tables of the schema."""
        client, _ = get_destination_clients(
            schema or dlt.Schema(INCOMING), self._destination(), self.dataset
        )
        assert isinstance(client, SqlJobClientBase)
        with client:
            yield Dataset(client)

    def _prepare(self, file: MonthFile) -> tuple[Widening, list[str]]:
        """Make the dataset and both tables where they are missing, and add new columns; what is
        still to be done of the columns' types, and what somebody should know."""
        where = self.full_name(file.table)
        with self._connected() as dataset:
            dataset.client.initialize_storage()
            is_new = not dataset.columns(file.table)
            asked = dataset.widening(file, where)
            schema = dataset.schema_with(file, asked.held)
            renamed = [
                f"{field.name} is {dataset.name_of(field.name)} in {where}, "
                f"whose names have at most {dataset.longest_name} characters"
                for field in file.schema
                if dataset.name_of(field.name) != field.name
            ]
        with self._connected(schema) as dataset:
            dataset.store(file)
            if is_new:
                dataset.index(file.table)
        return asked, [*renamed, *asked.warnings]

    def _tell_dlt(self, dataset: Dataset, file: MonthFile, asked: Widening) -> None:
        schema = dataset.schema_with(file, asked.kept)
        with self._connected(schema) as knowing:
            knowing.store(file)

    def _bring(self, file: MonthFile, job_id: str, folder: Path) -> None:
        """Let dlt load the file's rows into a table of their own."""
        if not file.footer.totals.rows:
            return
        with self._connected() as dataset:
            columns = dataset.columns_of(dataset.kinds_of(file))
            has_decimals = dataset.has_decimals
            can = dataset.client.capabilities
        destination = self._destination()
        formats = [each for each in can.supported_loader_file_formats if each != "csv"]
        destination.caps_params.update(
            # dlt's CSV makes NULL of empty text.
            supported_loader_file_formats=formats,
            # Before it is connected, dlt takes all of SQLAlchemy's dialects for the same.
            max_identifier_length=can.max_identifier_length,
            max_column_identifier_length=can.max_column_identifier_length,
        )
        pipeline = dlt.pipeline(
            "finops",
            destination=destination,
            dataset_name=self.dataset,
            pipelines_dir=str(folder),
        )
        try:
            pipeline.run(
                dlt.resource(_batches(file, columns, has_decimals), name=incoming_table(job_id)),
                columns=columns,
                write_disposition="replace",
                schema=dlt.Schema(INCOMING),
            )
        finally:
            pipeline.deactivate()
        with self._connected() as dataset, file.duckdb.scratch() as connection:
            dataset.hold_against(file, connection, job_id)


def open_warehouse(settings: Settings) -> SqlWarehouse:
    """The dataset that the settings name. Raises SettingsError where the destination cannot replace
    a month."""
    try:
        with dlt_for(settings.destination, settings.options, settings.destination):
            _refuse_unusable(settings.destination, settings.options)
    except BillError as error:
        raise SettingsError(f"[database.sql]: {error}") from error
    return SqlWarehouse(
        destination=settings.destination,
        dataset=settings.dataset,
        working_dir=str(settings.working_dir),
        options=settings.options,
    )


def _refuse_unusable(name: str, options: Mapping[str, Any]) -> None:
    """Raise BillError for a destination that cannot replace a month, before anything is asked."""
    try:
        destination = Destination.from_reference(name)
    except UnknownDestinationModule as error:
        raise BillError(f"dlt has no destination {name!r}") from error
    assert destination is not None
    unknown = options.keys() - destination.spec.get_resolvable_fields().keys()
    if unknown:
        raise BillError(f"dlt's destination {name} has no setting {', '.join(sorted(unknown))}")
    can = destination.capabilities()
    deletes_and_inserts = "delete-insert" in (can.supported_merge_strategies or ())
    has_transactions = can.supports_transactions is not False and name not in _WITHOUT_TRANSACTIONS
    if not (deletes_and_inserts and has_transactions):
        raise BillError(
            f"dlt's destination {name} has no transactions, so a month could not be replaced in "
            "one step; take one that has"
        )


def _batches(
    file: MonthFile, columns: TTableSchemaColumns, has_decimals: bool
) -> Iterator[pa.Table]:
    """The file's rows as the destination takes them: times with their zone, maps as JSON whose
    amounts are text, for a JSON number becomes a float somewhere."""
    cells: dict[str, str] = {
        SqlType.TIME: "CAST({0} AS TIMESTAMPTZ)",
        SqlType.TEXT_MAP: "CAST(to_json({0}) AS VARCHAR)",
        SqlType.MONEY_MAP: "CAST(to_json(CAST({0} AS MAP(VARCHAR, VARCHAR))) AS VARCHAR)",
    }
    if not has_decimals:
        cells[SqlType.MONEY] = "rtrim(rtrim(CAST({0} AS VARCHAR), '0'), '.')"
    selected = ", ".join(
        cells.get(column_type(field.type), "{0}").format(quoted(field.name)) + f" AS {quoted(name)}"
        for field, name in zip(file.schema, columns, strict=True)
    )
    with file.duckdb.scratch(threads=1) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.sql(f"SELECT {selected} FROM {relation(file.path)}")
        with closing(rows.to_arrow_reader(_ROWS_AT_ONCE)) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
