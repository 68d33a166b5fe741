"""Google BigQuery: one Parquet load job replaces one month's partition, free and in one step."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, cast

import google.api_core.exceptions as google
import requests
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, TransportError
from google.cloud import bigquery
from google.cloud.bigquery import LoadJob, ParquetOptions, ScalarQueryParameter, SchemaField

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.billing.errors import BillError, ReconciliationError, first_line
from finops_dagster.billing.money import MeasuredTotals
from finops_dagster.tables.digest import DATE, MAPS
from finops_dagster.warehouses.bigquery.columns_to_text import in_backticks, rewriting, type_named
from finops_dagster.warehouses.bigquery.settings import BigQuerySettings
from finops_dagster.warehouses.column_types import COUNT, ColumnType, typed
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.loads_table import LEDGER, ledger_of
from finops_dagster.warehouses.measure import measure
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.schema_change import Change

# BigQuery counts the fields that hold values, so that a map is two.
_MOST_COLUMNS = 10_000
# Faults of the way to BigQuery: what was asked may have been done, and may be asked again.
_PASSING = (
    google.ServerError,
    google.TooManyRequests,
    google.RetryError,
    TransportError,
    requests.ConnectionError,
    requests.Timeout,
)


class BigQueryDialect(Dialect):
    """One dataset. With `api_endpoint` it is an emulator's, asked without credentials."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        SqlType.TEXT: typed("STRING"),
        SqlType.MONEY: typed("BIGNUMERIC", read_as="SAFE_CAST({0} AS BIGNUMERIC)"),
        SqlType.TIME: typed(
            "TIMESTAMP",
            "CONCAT(RTRIM(RTRIM(FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6S', {0}), '0'), '.'), 'Z')",
            read_as="SAFE_CAST({0} AS TIMESTAMP)",
        ),
        # An array without elements may be a map that was NULL, or a month that did not have the
        # column, so its text is NULL.
        SqlType.TEXT_MAP: typed(
            "ARRAY<STRUCT<key STRING, value STRING>>",
            "(SELECT CONCAT('{{', STRING_AGG(CONCAT(TO_JSON_STRING(key), ':', "
            "COALESCE(TO_JSON_STRING(value), 'null')), ',' ORDER BY key), '}}') FROM UNNEST({0}))",
        ),
        SqlType.MONEY_MAP: typed("ARRAY<STRUCT<key STRING, value BIGNUMERIC>>"),
        DATE: typed("DATE", read_as="SAFE_CAST({0} AS DATE)"),
        COUNT: typed("INT64"),
    }
    longest_name = 300
    advice = "run the month again to load it anew"
    _settings: BigQuerySettings
    _client: bigquery.Client
    _running: LoadJob | None = None
    _month_is_in: str = ""

    @property
    def where(self) -> str:
        return f"BigQuery {self._settings.project_id}.{self._settings.dataset}"

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        project, location = self._settings.project_id, self._settings.location
        if self._settings.api_endpoint:
            opened: AbstractContextManager[bigquery.Client] = bigquery.Client(
                project=project,
                location=location,
                client_options=ClientOptions(api_endpoint=self._settings.api_endpoint),
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            )
        else:
            from dagster_gcp import BigQueryResource

            opened = BigQueryResource(project=project, location=location).get_client()
        with opened as self._client:
            yield

    def explanation(self, error: Exception) -> Exception | None:
        """What fails once the month is in the table leaves the ledger's row at `loading`, by which
        the next run finds the job, and takes its month for what it is."""
        where = self.where
        if self._month_is_in:
            where = f"{self._month_is_in} has the month, but not its ledger"
        if isinstance(error, DefaultCredentialsError):
            return BillError(
                f"{where}: no Google credentials were found; set GOOGLE_APPLICATION_CREDENTIALS, "
                "or run gcloud auth application-default login"
            )
        if isinstance(error, _PASSING):
            return WarehouseUnavailable(f"{where}: {error}")
        is_googles = isinstance(error, google.GoogleAPIError)
        return BillError(f"{where}: {first_line(error)}") if is_googles else None

    def has_lost_connection(self, error: Exception) -> bool:
        if self._month_is_in:
            return isinstance(error, ReconciliationError)
        return not isinstance(error, WarehouseUnavailable)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query; one that reads nothing takes the right to run queries."""
        parameters = [
            ScalarQueryParameter(f"p{number}", "INT64" if type(value) is int else "STRING", value)
            for number, value in enumerate(values, 1)
        ]
        config = bigquery.QueryJobConfig(query_parameters=parameters)
        return [tuple(row.values()) for row in self._client.query(sql, job_config=config).result()]

    def full_name(self, table: str) -> str:
        """Return `project.dataset.table`."""
        return f"{self._settings.project_id}.{self._settings.dataset}.{table}"

    def quoted(self, name: str) -> Sql:
        return in_backticks(self.name(name))

    def qualified(self, table: str) -> Sql:
        return in_backticks(self.full_name(table))

    def parameter(self, number: int) -> Sql:
        return Sql(f"@p{int(number)}")

    def columns(self, table: str) -> dict[str, str]:
        try:
            schema = self._client.get_table(self.full_name(table)).schema
        except google.NotFound:
            return {}
        return {field.name: type_named(field) for field in schema}

    def change(self, file: MonthFile) -> Change:
        """Refuse more columns than BigQuery takes before anything is done, too."""
        change, held = super().change(file), self.held(file.table)
        kinds = [*held.values(), *map(self.sql_type, change.new.values())]
        columns = len(kinds) + sum(kind.startswith("ARRAY") for kind in kinds)
        if columns > _MOST_COLUMNS:
            raise BillError(
                f"{self.full_name(file.table)} would have {columns:,} columns with {file.month}, "
                f"and BigQuery takes {_MOST_COLUMNS:,}, of which a map is two; give the export "
                "another name and table, or activate fewer tags at the vendor"
            )
        return change

    # A load.

    def prepare(self, file: MonthFile, change: Change) -> None:
        """Make the dataset and both tables where they are missing, and change the columns."""
        if self.held(file.table):
            self.alter(file.table, change.new, change.becoming_text)
        else:
            try:
                self._client.get_dataset(self._settings.dataset)
            except google.NotFound:
                dataset = bigquery.Dataset(f"{self._settings.project_id}.{self._settings.dataset}")
                dataset.location = self._settings.location
                self._client.create_dataset(dataset, exists_ok=True)
            table = bigquery.Table(self.full_name(file.table), _fields(change.new))
            table.time_partitioning = bigquery.TimePartitioning("MONTH", field="billing_month")
            table.clustering_fields = list(file.cluster_by) or None
            self._client.create_table(table, exists_ok=True)
            self.widen(file, change)
        ledger = bigquery.Table(self.full_name(ledger_of(file.table)), _fields(LEDGER, "REQUIRED"))
        self._client.create_table(ledger, exists_ok=True)

    def begin(self, file: MonthFile) -> None:
        """Find the load job that a run that died may have started, or write a new one into the
        ledger as `loading`.

        A job's id is made of export, month, version, table, and the number of the attempt: first
        the number of loads that the ledger saw end, then the next that is free; jobs that the
        ledger does not know are those of a table that was deleted since.
        """
        states = dict(
            self.query(
                f"SELECT job_id, state FROM {self.qualified(ledger_of(file.table))} "
                "WHERE billing_period = @p1 AND manifest_id = @p2",
                *(str(file.month), file.footer.manifest_id),
            )
        )
        table = hashlib.sha256(self.full_name(file.table).encode()).hexdigest()[:8]
        name = f"finops_{file.export}_{file.month}_{file.footer.manifest_id}_{table}"
        attempt = sum(state != "loading" for state in states.values())
        while True:
            self.job = re.sub(r"[^A-Za-z0-9_-]", "-", f"{name}_{attempt}")
            try:
                job = self._job()
            except google.NotFound:
                if self.job not in states:
                    self.record(file, self.job, "loading")
                return
            if states.get(self.job) == "loading":
                if job.state != "DONE" or self._loaded(file, job):
                    self._running = job
                    return
                self.record(file, self.job, "failed", "its run died, and it left no rows")
            attempt += 1

    def _job(self) -> LoadJob:
        return cast(LoadJob, self._client.get_job(self.job, location=self._settings.location))

    def _loaded(self, file: MonthFile, job: LoadJob) -> bool:
        whole = MeasuredTotals(file.footer.totals, 0)
        return job.error_result is None and measure(self, file, file.table) == whole

    def load_beside(self, file: MonthFile, change: Change) -> Sql:
        """Load the file into the month's partition, for BigQuery has no beside."""
        if self._running is None:
            with file.converted(change.kept) as written:
                self._running = self._started(written)
        self._running.result()
        self._month_is_in = self.full_name(file.table)
        return self.qualified(file.table)

    def _started(self, file: MonthFile) -> LoadJob:
        options = ParquetOptions()  # type: ignore[no-untyped-call]
        # A map becomes the REPEATED RECORD of key and value itself: the REST reference says so.
        # Taken to be so, but not yet seen in BigQuery: the decimals in a map follow
        # `decimal_target_types`; a map that is NULL reads as an array without elements; and such a
        # column, with its REQUIRED keys, may be added to a table, because it is not REQUIRED.
        options.map_target_type = "ARRAY_OF_STRUCT"
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            decimal_target_types=[bigquery.DecimalTargetType.BIGNUMERIC],
            parquet_options=options,
            # A map's keys are REQUIRED in the file and in the table. Should BigQuery take them for
            # NULLABLE, of which its documentation says nothing, the load makes the table's so too.
            schema_update_options=[bigquery.SchemaUpdateOption.ALLOW_FIELD_RELAXATION],
            labels={"application": "finops_dagster"},
        )
        partition = f"{self.full_name(file.table)}${file.month.first_day:%Y%m}"
        size = file.path.stat().st_size
        try:
            with file.path.open("rb") as parquet:
                return self._client.load_table_from_file(
                    parquet, partition, size=size, job_id=self.job, job_config=config
                )
        except google.Conflict:
            # Another run of the same version was faster, or BigQuery's answer to us was lost.
            return self._job()

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        yield

    def exchange(self, file: MonthFile, incoming: Sql, change: Change) -> tuple[str, ...]:
        return change.warnings

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        existing = self._client.get_table(self.full_name(table))
        existing.schema = [*existing.schema, *_fields(columns)]
        self._client.update_table(existing, ["schema"])

    def make_text(self, table: str, columns: Mapping[str, str]) -> None:
        cells = {n: Sql(self.types[k].as_text.format(in_backticks(n))) for n, k in columns.items()}
        self.query(rewriting(self._client.get_table(self.full_name(table)), cells))


def _fields(columns: Mapping[str, str], mode: str = "NULLABLE") -> list[SchemaField]:
    """Return the columns that a load makes of the file's; a map is an array of its keys and
    values."""
    fields = []
    for name, kind in columns.items():
        if kind in MAPS:
            value = "BIGNUMERIC" if kind == SqlType.MONEY_MAP else "STRING"
            inside = (SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", value))
            fields.append(SchemaField(name, "RECORD", "REPEATED", fields=inside))
        else:
            own_mode = "NULLABLE" if name == "error_message" else mode
            fields.append(SchemaField(name, BigQueryDialect.types[kind].name_there, own_mode))
    return fields
