"""BigQuery: one load job of a Parquet file replaces the month's partition, free and atomically."""

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
from finops_dagster.lake import THIS_MACHINE
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
from finops_dagster.warehouses.measure import measured_totals
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.schema_change import SchemaChange

# BigQuery's limit counts the fields that have values, so that a map is two.
_MAX_COLUMNS = 10_000
# After these errors, BigQuery may have executed the request or not; a retry is safe.
_TRANSIENT = (
    google.ServerError,
    google.TooManyRequests,
    google.RetryError,
    TransportError,
    requests.ConnectionError,
    requests.Timeout,
)


class BigQueryDialect(Dialect):
    """One dataset; a load job replaces the month's partition before the rows can be measured."""

    column_types: ClassVar[Mapping[str, ColumnType]] = {
        SqlType.TEXT: ColumnType.of("STRING"),
        SqlType.MONEY: ColumnType.of("BIGNUMERIC", from_text="SAFE_CAST({0} AS BIGNUMERIC)"),
        SqlType.TIME: ColumnType.of(
            "TIMESTAMP",
            "CONCAT(RTRIM(RTRIM(FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6S', {0}), '0'), '.'), 'Z')",
            from_text="SAFE_CAST({0} AS TIMESTAMP)",
        ),
        # BigQuery stores a NULL map as an empty array, and so does a month without the column.
        # So the text of an empty array is NULL.
        SqlType.TEXT_MAP: ColumnType.of(
            "ARRAY<STRUCT<key STRING, value STRING>>",
            "(SELECT CONCAT('{{', STRING_AGG(CONCAT(TO_JSON_STRING(key), ':', "
            "COALESCE(TO_JSON_STRING(value), 'null')), ',' ORDER BY key), '}}') FROM UNNEST({0}))",
        ),
        SqlType.MONEY_MAP: ColumnType.of("ARRAY<STRUCT<key STRING, value BIGNUMERIC>>"),
        DATE: ColumnType.of("DATE", from_text="SAFE_CAST({0} AS DATE)"),
        COUNT: ColumnType.of("INT64"),
    }
    max_name_bytes = 300
    mismatch_effect = "the month's rows in the table are already replaced"
    _settings: BigQuerySettings
    _client: bigquery.Client
    _load_job: LoadJob | None = None
    _loaded_table: str = ""

    @property
    def location(self) -> str:
        return f"BigQuery {self._settings.project_id}.{self._settings.dataset}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        """Open a client until the block ends; an `api_endpoint` gets no credentials."""
        project, location = self._settings.project_id, self._settings.location
        if self._settings.api_endpoint:
            client: AbstractContextManager[bigquery.Client] = bigquery.Client(
                project=project,
                location=location,
                client_options=ClientOptions(api_endpoint=self._settings.api_endpoint),
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            )
        else:
            from dagster_gcp import BigQueryResource

            client = BigQueryResource(project=project, location=location).get_client()
        with client as self._client:
            yield

    def translate_error(self, error: Exception) -> Exception | None:
        # The ledger's row stays `loading` after such an error, and the next run finds the load job
        # by it.
        location, advice = self.location, ""
        if self._loaded_table:
            location = f"{self._loaded_table} has the month, but its ledger does not record it yet"
            advice = "; run the month again to record it"
        if isinstance(error, DefaultCredentialsError):
            return BillError(
                f"{location}: no Google credentials were found; set "
                "GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
                f"{advice}"
            )
        if isinstance(error, _TRANSIENT):
            return WarehouseUnavailable(f"{location}: {first_line(error)}{advice}")
        if self.loaded_from != THIS_MACHINE and not advice:
            advice = (
                f"; BigQuery was to read {self.loaded_from}, for which docs/warehouses.md lists "
                "rights and regions; load_from_lake = false in [database.bigquery] uploads it"
            )
        if not isinstance(error, google.GoogleAPIError):
            return None
        advice = advice or "; check [database.bigquery], and the rights in docs/warehouses.md"
        return BillError(f"{location}: {first_line(error)}{advice}")

    def load_has_ended(self, error: Exception) -> bool:
        # Once the month is in the table, only totals that differ end the load: after any other
        # error the next run finds the job and records it.
        if self._loaded_table:
            return isinstance(error, ReconciliationError)
        return not isinstance(error, WarehouseUnavailable)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a query job and return its rows; `values` are texts, integers or None."""
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

    def table_sql(self, table: str) -> Sql:
        return in_backticks(self.full_name(table))

    def placeholder(self, number: int) -> Sql:
        return Sql(f"@p{int(number)}")

    def read_columns(self, table: str) -> dict[str, str]:
        try:
            schema = self._client.get_table(self.full_name(table)).schema
        except google.NotFound:
            return {}
        return {field.name: type_sql(field) for field in schema}

    def schema_change(self, file: MonthFile) -> SchemaChange:
        """Return what must change in the table's columns; see `schema_change.required_change`.

        Also raises BillError if the table would have more columns than BigQuery allows.
        """
        change, existing = super().schema_change(file), self.stored_columns(file.table)
        native_types = [*existing.values(), *map(self.native_type, change.new_columns.values())]
        map_count = sum(native.startswith("ARRAY") for native in native_types)
        column_count = len(native_types) + map_count
        if column_count > _MAX_COLUMNS:
            raise BillError(
                f"{self.full_name(file.table)} would have {column_count:,} columns with "
                f"{file.month}; BigQuery allows {_MAX_COLUMNS:,}, and counts a map as two; give "
                "the export another name and table, or activate fewer tags at the vendor"
            )
        return change

    # The steps of a load

    def prepare_tables(self, file: MonthFile, change: SchemaChange) -> None:
        """Create dataset, ledger and table if they are missing, and apply the schema change."""
        if self.stored_columns(file.table):
            self.alter_table(file.table, change.new_columns, change.cast_to_text)
        else:
            try:
                self._client.get_dataset(self._settings.dataset)
            except google.NotFound:
                dataset = bigquery.Dataset(f"{self._settings.project_id}.{self._settings.dataset}")
                dataset.location = self._settings.location
                self._client.create_dataset(dataset, exists_ok=True)
            table = bigquery.Table(self.full_name(file.table), _fields(change.new_columns))
            table.time_partitioning = bigquery.TimePartitioning("MONTH", field=file.month_column)
            table.clustering_fields = list(file.cluster_by) or None
            self._client.create_table(table, exists_ok=True)
            self.apply_schema_change(file, change)
        ledger = bigquery.Table(
            self.full_name(ledger_name(file.table)), _fields(LEDGER_COLUMNS, "REQUIRED")
        )
        self._client.create_table(ledger, exists_ok=True)

    def begin_load(self, file: MonthFile) -> None:
        """Find the load job that a killed run has started, or record a new one as `loading`.

        The dialect's `job_id` becomes its id. `load_incoming` starts the new one, or waits for the
        one that was found. A job that ended without loading the month is recorded as `failed`,
        and a new one follows.
        """
        states = dict(
            self.query(
                f"SELECT job_id, state FROM {self.table_sql(ledger_name(file.table))} "
                "WHERE billing_period = @p1 AND manifest_id = @p2",
                *(str(file.month), file.footer.manifest_id),
            )
        )
        # Every run of a version makes the same ids, so that it finds the jobs of earlier runs. A
        # job that the ledger lacks is that of a deleted table, and is skipped.
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
                self.record_load(
                    file, self.job_id, "failed", "the run died before any row was loaded"
                )
            attempt += 1

    def _get_job(self) -> LoadJob:
        return cast(LoadJob, self._client.get_job(self.job_id, location=self._settings.location))

    def _has_loaded(self, file: MonthFile, job: LoadJob) -> bool:
        expected = MeasuredTotals(file.footer.totals, 0)
        return job.error_result is None and measured_totals(self, file, file.table) == expected

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Replace the month's partition by one load job; return the table as a FROM item.

        A job of a killed run that `begin_load` found is waited for instead. Readers see the old
        rows until the job is done. BigQuery reads a file in Google's storage itself, unless it has
        lists, columns must be cast or `load_from_lake` is false; any other file is uploaded.
        """
        if self._load_job is None:
            with file.converted_copy(change.target_types) as converted:
                self._load_job = self._start_load_job(converted)
        elif self._load_job.source_uris:
            (self.loaded_from,) = self._load_job.source_uris
        self._load_job.result()
        self._loaded_table = self.full_name(file.table)
        return self.table_sql(file.table)

    def _start_load_job(self, file: MonthFile) -> LoadJob:
        options = ParquetOptions()  # type: ignore[no-untyped-call]
        # The REST reference says that a map then becomes a REPEATED RECORD of key and value.
        # Assumed, but not yet seen in BigQuery: the decimals in a map follow
        # `decimal_target_types`; a NULL map is read as an empty array; and such a column, with its
        # REQUIRED keys, may be added to a table, because it is not REQUIRED itself.
        options.map_target_type = "ARRAY_OF_STRUCT"
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            decimal_target_types=[bigquery.DecimalTargetType.BIGNUMERIC],
            parquet_options=options,
            # A map's keys are REQUIRED in the file and in the table. BigQuery's documentation does
            # not say how it reads them; if it reads NULLABLE, the load relaxes the table's keys.
            schema_update_options=[bigquery.SchemaUpdateOption.ALLOW_FIELD_RELAXATION],
            labels={"application": "finops_dagster"},
        )
        partition = f"{self.full_name(file.table)}${file.month.first_day:%Y%m}"
        uri = file.lake_file.verified_store_uri() if self._settings.load_from_lake else None
        try:
            if uri and uri.startswith("gs://"):
                self.loaded_from = uri
                return self._client.load_table_from_uri(
                    uri, partition, job_id=self.job_id, job_config=config
                )
            size = file.local_path().stat().st_size
            with file.local_path().open("rb") as parquet:
                return self._client.load_table_from_file(
                    parquet, partition, size=size, job_id=self.job_id, job_config=config
                )
        except google.Conflict:
            # The job exists: another run of this version was faster, or BigQuery's answer was lost.
            return self._get_job()

    @contextmanager
    def transaction(self, file: MonthFile) -> Iterator[None]:
        """Run the block; nothing is rolled back, since the load job has replaced the month."""
        yield

    def replace_month_rows(
        self, file: MonthFile, incoming: Sql, change: SchemaChange
    ) -> tuple[str, ...]:
        """Return the warnings about columns; the load job has replaced the month."""
        return change.warnings

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        table_object = self._client.get_table(self.full_name(table))
        table_object.schema = [*table_object.schema, *_fields(columns)]
        self._client.update_table(table_object, ["schema"])

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        """Rebuild the table with the columns as text, which reads and writes all of its rows.

        Raises BillError if any column of the table has policy tags, which it would lose.
        """
        cells = {
            n: Sql(self.column_types[data_type].to_text.format(in_backticks(n)))
            for n, data_type in columns.items()
        }
        self.query(rebuild_statement(self._client.get_table(self.full_name(table)), cells))


def _fields(columns: Mapping[str, str], mode: str = "NULLABLE") -> list[SchemaField]:
    """Return the columns as a table's fields; a map is an array of entries."""
    fields = []
    for name, data_type in columns.items():
        if data_type in MAPS:
            value = "BIGNUMERIC" if data_type == SqlType.MONEY_MAP else "STRING"
            entry = (SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", value))
            fields.append(SchemaField(name, "RECORD", "REPEATED", fields=entry))
        else:
            field_mode = "NULLABLE" if name == "error_message" else mode
            native = BigQueryDialect.column_types[data_type].native
            fields.append(SchemaField(name, native, field_mode))
    return fields
