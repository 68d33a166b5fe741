"""Any SQL database that dlt can load and that has transactions: SQL Server, MySQL, Redshift, ...

dlt brings the month into a table of its own, and one transaction moves it from there. dlt's own
merge would not do: in dlt 1.31 its DELETE and INSERT are two transactions where the destination
does not say that it has them (DuckDB does not), a version without rows replaces nothing, and
nothing can be measured before the commit.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, Literal, Self

import dagster as dg
import dlt
import duckdb
import pyarrow as pa
from dlt.common.destination import Destination, DestinationCapabilitiesContext
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns
from dlt.common.schema.utils import new_table
from dlt.dataset.utils import get_destination_clients
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.job_client_impl import SqlJobClientBase
from filelock import FileLock
from pydantic import ConfigDict, model_validator

from finops_dagster.billing.columns import SqlType, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.money import Measured, Totals, reconcile
from finops_dagster.billing.parquet_month import Footer, relation
from finops_dagster.resources.dlt_runtime import dlt_for, explained
from finops_dagster.resources.warehouses import Loaded, MonthFile, WarehouseUnavailable
from finops_dagster.settings import Table

# dlt's clients for these begin no transaction, and their capabilities do not say so.
_WITHOUT_TRANSACTIONS = ("databricks", "dummy")
_SECRET = re.compile(r"password|passphrase|secret|token|private_key|api_?key|://[^/@]*:[^/@]+@")
_ROWS_AT_ONCE = 10_000
_INCOMING = "finops_incoming"
_DATE = "DATE"
_STATISTICS = {
    "mysql": "ANALYZE TABLE {0}",
    "postgres": "ANALYZE {0}",
    "redshift": "ANALYZE {0}",
    "sqlite": "ANALYZE {0}",
    "tsql": "UPDATE STATISTICS {0}",
}

_LEDGER: dict[str, TColumnSchema] = {
    "billing_period": {"data_type": "text"},
    "load_timestamp": {"data_type": "timestamp"},
    "row_count": {"data_type": "bigint"},
    "state": {"data_type": "text"},
    "error_message": {"data_type": "text"},
    "manifest_id": {"data_type": "text"},
    "job_id": {"data_type": "text"},
}


class Settings(Table):
    """A destination of dlt and a dataset in it: a schema, or what it has for one. Further keys are
    the destination's own, `credentials` above all; secrets come from the environment, as
    DESTINATION__<DESTINATION>__CREDENTIALS__PASSWORD."""

    model_config = ConfigDict(extra="allow", frozen=True)

    destination: str
    dataset: str = "finops"
    working_dir: Path = Path("data/dlt")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are the destination's own."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _keeps_its_secrets(self) -> Self:
        for key, value in _leaves(self.options):
            if _SECRET.search(key) or _SECRET.search(str(value)):
                name = f"DESTINATION__{self.destination}__{key.replace('.', '__')}".upper()
                raise ValueError(f"{key} holds a secret; give it in the environment, as {name}")
        return self

    @model_validator(mode="after")
    def _can_replace_a_month(self) -> Self:
        try:
            with dlt_for(self.destination, self.options, self.destination):
                _refuse_unusable(self.destination, self.options)
        except BillError as error:
            raise ValueError(str(error)) from error
        return self


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

    def held_version(self, file: MonthFile) -> Footer | None:
        """What the ledger says is loaded, if the table really holds its rows and cost."""
        with self._dlt(), self._connected() as dataset:
            needed = {"billing_month", file.cost, file.billing_period} - {None}
            if not needed <= dataset.columns(file.table).keys():
                return None
            version = dataset.columns(_ledger(file)) and dataset.loaded_version(file)
            measured = dataset.measure(file) if version else None
            if measured is None or measured.foreign_rows:
                return None
            return Footer(version, measured.totals)

    def replace_month(self, file: MonthFile) -> Loaded:
        """Bring the file into a table of its own, and move it into the month's place."""
        job_id = f"finops_{file.export}_{file.month}_{file.footer.manifest_id}_{uuid.uuid4()}"
        with self._turn(file) as folder, self._dlt():
            warnings = self._prepare(file)
            with self._connected() as dataset:
                dataset.begin(file, job_id)
            try:
                self._bring(file, job_id, folder)
                with self._connected() as dataset:
                    dataset.move(file, job_id, self.full_name(file.table))
                    warnings += dataset.renew_statistics(file)
            except Exception as error:
                reason = explained(error, self.destination, self.full_name(file.table))
                with suppress(Exception), self._connected() as dataset:
                    dataset.fail(file, job_id, str(reason))
                raise reason from error
            with self._connected() as dataset:
                dataset.drop(job_id)
        return Loaded(job_id, tuple(warnings))

    def _dlt(self) -> AbstractContextManager[None]:
        where = f"{self.destination} {self.dataset}"
        return dlt_for(self.destination, self.options, where)

    @contextmanager
    def _turn(self, file: MonthFile) -> Iterator[Path]:
        """An empty folder for dlt, which one load of the month at a time has on this machine.

        dlt finishes what it finds in its folder: what a killed load left there would be loaded
        over what has come since.
        """
        folder = Path(self.working_dir) / f"{file.table}-{file.month}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            try:
                yield folder.absolute()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _connected(self, schema: dlt.Schema | None = None) -> Iterator[_Dataset]:
        """A connection to the dataset, in which dlt knows the tables of the schema."""
        client, _ = get_destination_clients(
            schema or dlt.Schema(_INCOMING),
            Destination.from_reference(self.destination),
            destination_dataset_name=self.dataset,
        )
        assert isinstance(client, SqlJobClientBase)
        with client:
            yield _Dataset(client)

    def _prepare(self, file: MonthFile) -> list[str]:
        """Make the dataset and both tables where they are missing, and add new columns; what
        somebody should know of their names."""
        with self._connected() as dataset:
            dataset.client.initialize_storage()
            is_new = not dataset.columns(file.table)
            schema = dataset.schema_with(file, self.full_name(file.table))
            renamed = [
                f"{field.name} is {dataset.name_of(field.name)} in {self.full_name(file.table)}, "
                f"whose names have at most {dataset.longest_name} characters"
                for field in file.schema
                if dataset.name_of(field.name) != field.name
            ]
        with self._connected(schema) as dataset:
            tables = [file.table, _ledger(file), schema.version_table_name]
            dataset.client.update_stored_schema(only_tables=tables, force=True)
            if is_new:
                dataset.index(file.table)
        return renamed

    def _bring(self, file: MonthFile, job_id: str, folder: Path) -> None:
        """Let dlt load the file's rows into a table of their own."""
        if not file.footer.totals.rows:
            return
        with self._connected() as dataset:
            columns = dataset.columns_of(file)
            has_decimals = dataset.has_decimals
            can = dataset.client.capabilities
        destination = Destination.from_reference(self.destination)
        assert destination is not None
        # Without a connection dlt takes SQLAlchemy's dialects for all the same.
        destination.caps_params.update(
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
                dlt.resource(_batches(file, columns, has_decimals), name=_incoming(job_id)),
                columns=columns,
                write_disposition="replace",
                schema=dlt.Schema(_INCOMING),
                loader_file_format=_format(can),
            )
        finally:
            pipeline.deactivate()


@dataclass(frozen=True)
class _Dataset:
    """An open connection to the dataset, and dlt's knowledge of how the destination has it."""

    client: SqlJobClientBase

    @property
    def has_decimals(self) -> bool:
        """SQLite has none: a DECIMAL is a float there. Amounts are kept as text, exactly."""
        return self._dialect != "sqlite"

    @property
    def longest_name(self) -> int | None:
        return self.client.schema.naming.max_length

    @property
    def _dialect(self) -> str | None:
        return self.client.capabilities.sqlglot_dialect

    def name_of(self, column: str) -> str:
        """The column's name here: dlt gives one that is too long a hash for its middle."""
        return str(self.client.schema.naming.normalize_identifier(column))

    def columns(self, table: str) -> TTableSchemaColumns:
        """The columns that the table has, by name; none where there is no table."""
        ((_, columns),) = self.client.get_storage_tables([table])
        return {name.lower(): column for name, column in columns.items()}

    def columns_of(self, file: MonthFile) -> TTableSchemaColumns:
        """The columns that the month's file asks for."""
        columns: TTableSchemaColumns = {}
        for field in file.schema:
            name, kind = self.name_of(field.name), _kind(field.type)
            columns[name] = {
                "name": name,
                "nullable": True,
                "description": kind,
                **self._type(kind),
            }
        return columns

    def _type(self, kind: str) -> TColumnSchema:
        if kind == SqlType.MONEY and self.has_decimals:
            return {"data_type": "decimal", "precision": 38, "scale": 18}
        if kind == SqlType.TIME:
            return {"data_type": "timestamp"}
        if kind == _DATE:
            return {"data_type": "date"}
        # What loads Parquet through SQLAlchemy would take JSON text for a string, and quote it.
        has_json = self.client.capabilities.dialect_capabilities is None
        is_map = kind in (SqlType.TEXT_MAP, SqlType.MONEY_MAP)
        return {"data_type": "json" if is_map and has_json else "text"}

    def schema_with(self, file: MonthFile, full_name: str) -> dlt.Schema:
        """The table as dlt stored it, its new columns, and its ledger. Raises BillError for a
        column that is not what the month's is."""
        name = f"finops_{file.table}"[:64]
        there = self.columns(file.table)
        stored = self.client.get_stored_schema(name) if there else None
        tables = json.loads(stored.schema)["tables"] if stored else {}
        known: TTableSchemaColumns = tables.get(file.table, {}).get("columns", {})
        known = {name: column for name, column in known.items() if name.lower() in there}
        wanted = self.columns_of(file)
        for column, asked in wanted.items():
            held = there.get(column.lower())
            kind = asked["description"]
            was = known.get(column, asked).get("description", kind)
            if held is not None and (was != kind or not _holds(held, asked)):
                is_now = was if was != kind else _named(held)
                raise BillError(
                    f"column {column} of {full_name} is {is_now}, the month's is {kind}; give the "
                    "export another table or change it"
                )
        wanted["billing_month"].update(partition=True, sort=True)
        ledger = [{"name": name, "nullable": True, **rest} for name, rest in _LEDGER.items()]
        schema = dlt.Schema(name)
        schema.update_table(new_table(file.table, columns=list({**known, **wanted}.values())))
        schema.update_table(new_table(_ledger(file), columns=ledger))
        return dlt.Schema.from_dict(schema.to_dict())

    def index(self, table: str) -> None:
        """Let a month be found without reading the others, where that is what an index is for."""
        sql = self.client.sql_client
        index, month = f"{table}_billing_month", sql.escape_column_name("billing_month")
        if self._dialect == "sqlite":
            name = sql.make_qualified_table_name(index)
            self.query(f"CREATE INDEX {name} ON {sql.escape_column_name(table)} ({month})")
        elif self._dialect in ("mysql", "oracle", "postgres", "tsql"):
            name = sql.escape_column_name(index)
            self.query(f"CREATE INDEX {name} ON {self._table(table)} ({month})")

    def renew_statistics(self, file: MonthFile) -> list[str]:
        """Tell the planner what has come, where it must be told; what came of it, if it failed."""
        statement = _STATISTICS.get(self._dialect or "")
        try:
            if statement:
                self.query(statement.format(self._table(file.table)))
        except DatabaseException as error:
            return [f"the planner's statistics are the old ones: {first_line(error)}"]
        return []

    def begin(self, file: MonthFile, job_id: str) -> None:
        """Write into the ledger that the month is being loaded; end what died before its end.
        Raises BillError where the destination keeps what was rolled back."""
        ledger = self._table(_ledger(file))
        died = self.query(
            f"SELECT job_id FROM {ledger} WHERE billing_period = %s AND state = 'loading'",
            str(file.month),
        )
        for (job,) in died:
            self.fail(file, job, "another load of the month began before it ended")
        with suppress(_Undone), self.client.sql_client.begin_transaction():
            self._record(file, job_id)
            raise _Undone
        if self.query(f"SELECT job_id FROM {ledger} WHERE job_id = %s", job_id):
            reason = "it keeps what was rolled back: a month could not be replaced in one step"
            self.fail(file, job_id, reason)
            raise BillError(reason)
        self._record(file, job_id)

    def move(self, file: MonthFile, job_id: str, full_name: str) -> None:
        """Put what was brought into the month's place, measured before the commit.

        The ledger's rows of the month are written first: a load on another machine waits for them.
        """
        ledger, table = self._table(_ledger(file)), self._table(file.table)
        with self.client.sql_client.begin_transaction():
            self.query(
                f"UPDATE {ledger} SET state = 'loaded', load_timestamp = %s "
                "WHERE job_id = %s AND state = 'loading'",
                self._now(),
                job_id,
            )
            self.query(
                f"UPDATE {ledger} SET state = 'failed', error_message = 'another load was faster' "
                "WHERE billing_period = %s AND state = 'loading'",
                str(file.month),
            )
            if self._state(file, job_id) != "loaded":
                raise WarehouseUnavailable(f"{full_name}: another run is loading {file.month}")
            month = self.client.sql_client.escape_column_name("billing_month")
            self.query(f"DELETE FROM {table} WHERE {month} = %s", file.month.first_day)
            if file.footer.totals.rows:
                self._insert(file, _incoming(job_id))
            reconcile(full_name, file.footer.totals, self.measure(file))

    def _insert(self, file: MonthFile, incoming: str) -> None:
        # SQLite takes a quoted name that is no column for a text.
        absent = {name.lower() for name in self.columns_of(file)} - self.columns(incoming).keys()
        if absent:
            raise BillError(f"dlt has brought no column {', '.join(sorted(absent))}")
        names = ", ".join(map(self._column, file.schema.names))
        into, brought = self._table(file.table), self._table(incoming)
        self.query(f"INSERT INTO {into} ({names}) SELECT {names} FROM {brought}")

    def fail(self, file: MonthFile, job_id: str, reason: str) -> None:
        """Write into the ledger why the load ended, and remove what it brought."""
        self.query(
            f"UPDATE {self._table(_ledger(file))} SET state = 'failed', error_message = %s "
            "WHERE job_id = %s AND state = 'loading'",
            reason,
            job_id,
        )
        self.drop(job_id)

    def drop(self, job_id: str) -> None:
        """Remove the table that dlt loaded, and what dlt noted of it."""
        self.client.drop_tables(_incoming(job_id), delete_schema=True)

    def loaded_version(self, file: MonthFile) -> str | None:
        """The manifest that the newest loaded row of the month names."""
        rows = self.query(
            f"SELECT manifest_id FROM {self._table(_ledger(file))} "
            "WHERE billing_period = %s AND state = 'loaded' ORDER BY load_timestamp DESC",
            str(file.month),
        )
        return rows[0][0] if rows else None

    def measure(self, file: MonthFile) -> Measured:
        """Count the month in the table."""
        month = self._column("billing_month")
        of_month = f"FROM {self._table(file.table)} WHERE {month} = %s"
        first = file.month.first_day
        if file.billing_period:
            period = self._column(file.billing_period)
            foreign = f"SUM(CASE WHEN {period} < %s OR {period} >= %s THEN 1 ELSE 0 END)"
            bounds = [self._midnight(first), self._midnight(file.month.next.first_day)]
        else:
            foreign, bounds = "0", []
        ((rows, foreign_rows),) = self.query(
            f"SELECT COUNT(*), {foreign} {of_month}", *bounds, first
        )
        cost = self._sum(file.cost, of_month, first) if file.cost else None
        return Measured(Totals.of((int(rows), cost)), int(foreign_rows or 0))

    def _sum(self, column: str, of_month: str, first: date) -> Decimal | None:
        cost = self._column(column)
        if self.has_decimals:
            ((total,),) = self.query(f"SELECT SUM({cost}) {of_month}", first)
            if isinstance(total, float):
                raise BillError(f"it adds {column} as floats, and amounts are exact")
            return None if total is None else Decimal(total)
        total = Decimal(0)
        amounts = f"SELECT {cost}, COUNT(*) {of_month} AND {cost} IS NOT NULL GROUP BY {cost}"
        with (
            localcontext(prec=100),
            self.client.sql_client.execute_query(amounts, *self._bound(first)) as cursor,
        ):
            while batch := cursor.fetchmany(_ROWS_AT_ONCE):
                total += sum(Decimal(amount) * count for amount, count in batch)
        return total

    def query(self, sql: str, *values: Any) -> list[Any]:
        """The rows of a statement, whose values are bound."""
        return list(self.client.sql_client.execute_sql(sql, *self._bound(*values)) or [])

    def _record(self, file: MonthFile, job_id: str) -> None:
        self.query(
            f"INSERT INTO {self._table(_ledger(file))} "
            "(billing_period, load_timestamp, row_count, state, manifest_id, job_id) "
            "VALUES (%s, %s, %s, 'loading', %s, %s)",
            str(file.month),
            self._now(),
            file.footer.totals.rows,
            file.footer.manifest_id,
            job_id,
        )

    def _state(self, file: MonthFile, job_id: str) -> str:
        ledger = self._table(_ledger(file))
        ((state,),) = self.query(f"SELECT state FROM {ledger} WHERE job_id = %s", job_id)
        return str(state)

    def _table(self, table: str) -> str:
        return self.client.sql_client.make_qualified_table_name(table)

    def _column(self, column: str) -> str:
        return self.client.sql_client.escape_column_name(self.name_of(column))

    def _now(self) -> datetime:
        return self._as_held(datetime.now(UTC))

    def _midnight(self, day: date) -> datetime:
        return self._as_held(datetime.combine(day, time(), UTC))

    def _as_held(self, moment: datetime) -> datetime:
        has_zones = self.client.capabilities.supports_tz_aware_datetime
        return moment if has_zones else moment.replace(tzinfo=None)

    def _bound(self, *values: Any) -> list[Any]:
        """SQLite holds days and moments as text."""
        texts = self._dialect == "sqlite"
        return [str(value) if texts and isinstance(value, date) else value for value in values]


def open_warehouse(settings: Settings) -> SqlWarehouse:
    """The dataset that the settings name."""
    return SqlWarehouse(
        destination=settings.destination,
        dataset=settings.dataset,
        working_dir=str(settings.working_dir),
        options=settings.options,
    )


class _Undone(Exception):
    """Ends a transaction that was begun to see whether it can be undone."""


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


def _format(can: DestinationCapabilitiesContext) -> Literal["parquet"] | None:
    """Parquet as it is where the destination takes it; or else what dlt makes of it."""
    return "parquet" if "parquet" in can.supported_loader_file_formats else None


def _leaves(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _ledger(file: MonthFile) -> str:
    return f"{file.table}_loads"


def _incoming(job_id: str) -> str:
    return f"{_INCOMING}_{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"


def _kind(arrow: pa.DataType) -> str:
    """The type of a bill's column, as DuckDB has it."""
    if pa.types.is_map(arrow):
        is_money = pa.types.is_decimal(arrow.item_type)
        return SqlType.MONEY_MAP if is_money else SqlType.TEXT_MAP
    if pa.types.is_decimal(arrow):
        return SqlType.MONEY
    if pa.types.is_timestamp(arrow):
        return SqlType.TIME
    return _DATE if pa.types.is_date(arrow) else SqlType.TEXT


def _holds(held: TColumnSchema, asked: TColumnSchema) -> bool:
    """Whether the column that is there keeps what is asked for, to the last digit."""
    if asked["data_type"] == "decimal":
        scale = held.get("scale")
        return held["data_type"] == "decimal" and (scale is None or scale >= 18)
    # Some destinations have no JSON, and dlt takes text instead.
    return held["data_type"] in (asked["data_type"], "text" if asked["data_type"] == "json" else "")


def _named(held: TColumnSchema) -> str:
    digits = [str(held[key]) for key in ("precision", "scale") if held.get(key) is not None]
    return f"{held['data_type']}({','.join(digits)})" if digits else str(held["data_type"])


def _batches(
    file: MonthFile, columns: TTableSchemaColumns, has_decimals: bool
) -> Iterator[pa.Table]:
    """The file's rows as the destination takes them: times with their zone, maps as JSON whose
    amounts are text, for a JSON number becomes a float somewhere."""
    cells = {
        SqlType.TIME: "CAST({0} AS TIMESTAMPTZ)",
        SqlType.TEXT_MAP: "CAST(to_json({0}) AS VARCHAR)",
        SqlType.MONEY_MAP: "CAST(to_json(CAST({0} AS MAP(VARCHAR, VARCHAR))) AS VARCHAR)",
    }
    if not has_decimals:
        cells[SqlType.MONEY] = "rtrim(rtrim(CAST({0} AS VARCHAR), '0'), '.')"
    selected = ", ".join(
        cells.get(_kind(field.type), "{0}").format(quoted(field.name)) + f" AS {quoted(name)}"
        for field, name in zip(file.schema, columns, strict=True)
    )
    with closing(duckdb.connect(config={"threads": 1})) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.sql(f"SELECT {selected} FROM {relation(file.path)}")
        with closing(rows.to_arrow_reader(_ROWS_AT_ONCE)) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
