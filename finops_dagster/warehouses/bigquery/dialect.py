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
from finops_dagster.warehouses.bigquery.rebuild_table import (
    in_backticks,
    rebuild_statement,
    type_sql,
)
from finops_dagster.warehouses.bigquery.settings import BigQuerySettings
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.loads_table import LEDGER_COLUMNS, ledger_name
from finops_dagster.warehouses.measure import measure
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.schema_change import SchemaChange

# BigQuery counts the fields that hold values, so that a map is two.
_MAX_COLUMNS = 10_000
# Faults of the way to BigQuery: what was asked may have been done, and may be asked again.
_TRANSIENT = (
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
        SqlType.TEXT: ColumnType.of("STRING"),
        SqlType.MONEY: ColumnType.of("BIGNUMERIC", from_text="SAFE_CAST({0} AS BIGNUMERIC)"),
        SqlType.TIME: ColumnType.of(
            "TIMESTAMP",
            "CONCAT(RTRIM(RTRIM(FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6S', {0}), '0'), '.'), 'Z')",
            from_text="SAFE_CAST({0} AS TIMESTAMP)",
        ),
        # An array without elements may be a map that was NULL, or a month that did not have the
        # column, so its text is NULL.
        SqlType.TEXT_MAP: ColumnType.of(
            "ARRAY<STRUCT<key STRING, value STRING>>",
            "(SELECT CONCAT('{{', STRING_AGG(CONCAT(TO_JSON_STRING(key), ':', "
            "COALESCE(TO_JSON_STRING(value), 'null')), ',' ORDER BY key), '}}') FROM UNNEST({0}))",
        ),
        SqlType.MONEY_MAP: ColumnType.of("ARRAY<STRUCT<key STRING, value BIGNUMERIC>>"),
        DATE: ColumnType.of("DATE", from_text="SAFE_CAST({0} AS DATE)"),
        COUNT: ColumnType.of("INT64"),
    }
    max_name_length = 300
    advice = "run the month again to load it anew"
    _settings: BigQuerySettings
    _client: bigquery.Client
    _load_job: LoadJob | None = None
    _loaded_table: str = ""

    @property
    def location(self) -> str:
        return f"BigQuery {self._settings.project_id}.{self._settings.dataset}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
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

    def translate_error(self, error: Exception) -> Exception | None:
        """What fails once the month is in the table leaves the ledger's row at `loading`, by which
        the next run finds the job, and takes its month for what it is."""
        where = self.location
        if self._loaded_table:
            where = f"{self._loaded_table} has the month, but not its ledger"
        if isinstance(error, DefaultCredentialsError):
            return BillError(
                f"{where}: no Google credentials were found; set GOOGLE_APPLICATION_CREDENTIALS, "
                "or run gcloud auth application-default login"
            )
        if isinstance(error, _TRANSIENT):
            return WarehouseUnavailable(f"{where}: {error}")
        is_google_error = isinstance(error, google.GoogleAPIError)
        return BillError(f"{where}: {first_line(error)}") if is_google_error else None

    def has_ended(self, error: Exception) -> bool:
        if self._loaded_table:
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
        return in_backticks(self.stored_name(name))

    def qualified(self, table: str) -> Sql:
        return in_backticks(self.full_name(table))

    def placeholder(self, number: int) -> Sql:
        return Sql(f"@p{int(number)}")

    def columns(self, table: str) -> dict[str, str]:
        try:
            schema = self._client.get_table(self.full_name(table)).schema
        except google.NotFound:
            return {}
        return {field.name: type_sql(field) for field in schema}

    def schema_change(self, file: MonthFile) -> SchemaChange:
        """Refuse more columns than BigQuery takes before anything is done, too."""
        change, held = super().schema_change(file), self.native_types(file.table)
        kinds = [*held.values(), *map(self.native_type, change.new_columns.values())]
        columns = len(kinds) + sum(kind.startswith("ARRAY") for kind in kinds)
        if columns > _MAX_COLUMNS:
            raise BillError(
                f"{self.full_name(file.table)} would have {columns:,} columns with {file.month}, "
                f"and BigQuery takes {_MAX_COLUMNS:,}, of which a map is two; give the export "
                "another name and table, or activate fewer tags at the vendor"
            )
        return change

    # A load.

    def prepare_tables(self, file: MonthFile, change: SchemaChange) -> None:
        """Make the dataset and both tables where they are missing, and change the columns."""
        if self.native_types(file.table):
            self.alter_table(file.table, change.new_columns, change.cast_to_text)
        else:
            try:
                self._client.get_dataset(self._settings.dataset)
            except google.NotFound:
                dataset = bigquery.Dataset(f"{self._settings.project_id}.{self._settings.dataset}")
                dataset.location = self._settings.location
                self._client.create_dataset(dataset, exists_ok=True)
            table = bigquery.Table(self.full_name(file.table), _fields(change.new_columns))
            table.time_partitioning = bigquery.TimePartitioning("MONTH", field="billing_month")
            table.clustering_fields = list(file.cluster_by) or None
            self._client.create_table(table, exists_ok=True)
            self.apply_schema_change(file, change)
        ledger = bigquery.Table(
            self.full_name(ledger_name(file.table)), _fields(LEDGER_COLUMNS, "REQUIRED")
        )
        self._client.create_table(ledger, exists_ok=True)

    def begin_load(self, file: MonthFile) -> None:
        """Find the load job that a run that died may have started, or write a new one into the
        ledger as `loading`.

        A job's id is made of export, month, version, table, and the number of the attempt: first
        the number of loads that the ledger saw end, then the next that is free; jobs that the
        ledger does not know are those of a table that was deleted since.
        """
        states = dict(
            self.query(
                f"SELECT job_id, state FROM {self.qualified(ledger_name(file.table))} "
                "WHERE billing_period = @p1 AND manifest_id = @p2",
                *(str(file.month), file.footer.manifest_id),
            )
        )
        table = hashlib.sha256(self.full_name(file.table).encode()).hexdigest()[:8]
        name = f"finops_{file.export}_{file.month}_{file.footer.manifest_id}_{table}"
        attempt = sum(state != "loading" for state in states.values())
        while True:
            self.job_id = re.sub(r"[^A-Za-z0-9_-]", "-", f"{name}_{attempt}")
            try:
                job = self._get_job()
            except google.NotFound:
                if self.job_id not in states:
                    self.record_load(file, self.job_id, "loading")
                return
            if states.get(self.job_id) == "loading":
                if job.state != "DONE" or self._has_loaded(file, job):
                    self._load_job = job
                    return
                self.record_load(file, self.job_id, "failed", "its run died, and it left no rows")
            attempt += 1

    def _get_job(self) -> LoadJob:
        return cast(LoadJob, self._client.get_job(self.job_id, location=self._settings.location))

    def _has_loaded(self, file: MonthFile, job: LoadJob) -> bool:
        whole = MeasuredTotals(file.footer.totals, 0)
        return job.error_result is None and measure(self, file, file.table) == whole

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Load the file into the month's partition, for BigQuery has no beside."""
        if self._load_job is None:
            with file.converted(change.target_types) as written:
                self._load_job = self._start_load_job(written)
        self._load_job.result()
        self._loaded_table = self.full_name(file.table)
        return self.qualified(file.table)

    def _start_load_job(self, file: MonthFile) -> LoadJob:
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
                    parquet, partition, size=size, job_id=self.job_id, job_config=config
                )
        except google.Conflict:
            # Another run of the same version was faster, or BigQuery's answer to us was lost.
            return self._get_job()

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        yield

    def exchange_month(
        self, file: MonthFile, incoming: Sql, change: SchemaChange
    ) -> tuple[str, ...]:
        return change.warnings

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        existing = self._client.get_table(self.full_name(table))
        existing.schema = [*existing.schema, *_fields(columns)]
        self._client.update_table(existing, ["schema"])

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        cells = {n: Sql(self.types[k].to_text.format(in_backticks(n))) for n, k in columns.items()}
        self.query(rebuild_statement(self._client.get_table(self.full_name(table)), cells))


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
            fields.append(SchemaField(name, BigQueryDialect.types[kind].native, own_mode))
    return fields
