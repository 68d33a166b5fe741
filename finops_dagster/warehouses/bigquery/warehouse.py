"""Google BigQuery: one Parquet load job replaces one month's partition, free and in one step."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import google.api_core.exceptions as google
import requests
from dagster_gcp import BigQueryResource
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, TransportError
from google.cloud import bigquery
from google.cloud.bigquery import ParquetOptions, ScalarQueryParameter, SchemaField

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError, ReconciliationError, first_line
from finops_dagster.billing.money import Measured, Totals, reconcile
from finops_dagster.lake.footer import Footer
from finops_dagster.tables.digest import DigestKind, MonthDigest, compared, digests_of_row
from finops_dagster.warehouses.base import (
    Loaded,
    LoadedMonth,
    MonthFile,
    WarehouseUnavailable,
    newest_loads,
)
from finops_dagster.warehouses.bigquery import Settings
from finops_dagster.warehouses.bigquery.columns import (
    Widening,
    in_backticks,
    rewriting,
    widening,
)

# Faults of the way to BigQuery: what was asked may have been done, and may be asked again.
_PASSING = (
    google.ServerError,
    google.TooManyRequests,
    google.RetryError,
    TransportError,
    requests.ConnectionError,
    requests.Timeout,
)

_LEDGER = [
    SchemaField("billing_period", "STRING", "REQUIRED"),
    SchemaField("load_timestamp", "TIMESTAMP", "REQUIRED"),
    SchemaField("row_count", "INT64", "REQUIRED"),
    SchemaField("state", "STRING", "REQUIRED"),
    SchemaField("error_message", "STRING"),
    SchemaField("manifest_id", "STRING", "REQUIRED"),
    SchemaField("job_id", "STRING", "REQUIRED"),
]


class BigQueryWarehouse(BigQueryResource):
    """One dataset. With `api_endpoint` it is an emulator's, asked without credentials.

    `{table}_loads` beside each table says of every load job what month and version it brought, and
    whether that is loading, loaded or failed.
    """

    dataset: str
    api_endpoint: str | None = None

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        """A client of the project, or of the emulator; says in one line what Google says."""
        emulator: dict[str, Any] = {}
        if self.api_endpoint:
            emulator["client_options"] = ClientOptions(api_endpoint=self.api_endpoint)
            emulator["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]
        with _explained(f"BigQuery {self.project}.{self.dataset}"):
            client = bigquery.Client(project=self.project, location=self.location, **emulator)
            with client:
                yield client

    def reach(self) -> str:
        """Run a query that reads nothing, which takes the right to run queries."""
        with self.get_client() as client:
            self._query(client, "SELECT 1")
        return f"BigQuery {self.project}.{self.dataset}"

    def full_name(self, table: str) -> str:
        """`project.dataset.table`."""
        return f"{self.project}.{self.dataset}.{table}"

    def loaded_months(self, table: str) -> list[LoadedMonth]:
        """Return what the table's ledger says is loaded."""
        ledger = in_backticks(f"{self.full_name(table)}_loads")
        with self.get_client() as client, suppress(google.NotFound):
            loads = self._query(
                client,
                "SELECT billing_period, manifest_id, row_count, load_timestamp "
                f"FROM {ledger} WHERE state = 'loaded'",
            )
            return newest_loads(loads)
        return []

    def held_version(self, file: MonthFile) -> Footer | None:
        """What the ledger says is loaded, if the partition really holds its rows and cost."""
        with self.get_client() as client:
            try:
                return self._held_version(client, file)
            except google.NotFound:
                return None

    def digest(self, file: MonthFile) -> MonthDigest:
        """Return how many amounts each column of money has, and their sum."""
        names = list(compared(file.types, DigestKind.SUMS))
        amounts = [Sql(f"SAFE_CAST({in_backticks(name)} AS BIGNUMERIC)") for name in names]
        asked = ", ".join(f"COUNT({amount}), SUM({amount})" for amount in amounts)
        if not names:
            return MonthDigest(DigestKind.SUMS, {})
        with self.get_client() as client:
            (row,) = self._query(
                client,
                f"SELECT {asked} FROM {in_backticks(self.full_name(file.table))} "
                "WHERE billing_month = @month",
                month=file.month.first_day,
            )
        return MonthDigest(DigestKind.SUMS, digests_of_row(names, row))

    def replace_month(self, file: MonthFile) -> Loaded:
        """Load the file into the month's partition."""
        with self.get_client() as client:
            asked = self._prepare(client, file)
            job_id, job = self._attempt(client, file)
            try:
                if job is None:
                    with file.with_text(asked.brought_as_text) as brought:
                        job = self._started(client, brought, job_id)
                job.result()
            except Exception as error:
                if not isinstance(error, _PASSING):
                    with suppress(google.GoogleAPIError):
                        self._record_end(client, file, job_id, first_line(error))
                raise
            # The month is in the table now. What fails leaves the ledger's row at `loading`, by
            # which the next run finds the job, and takes its month for what it is.
            with _explained(f"{self.full_name(file.table)} has the month, but not its ledger"):
                self._finish(client, file, job_id)
            return Loaded(job_id, tuple(asked.warnings))

    def _finish(self, client: bigquery.Client, file: MonthFile, job_id: str) -> None:
        """Count the month in the table, and write into the ledger that it is loaded."""
        try:
            reconcile(
                self.full_name(file.table),
                file.footer.totals,
                self._measure(client, file),
                what_now="run the month again to load it anew",
            )
        except ReconciliationError as error:
            self._record_end(client, file, job_id, str(error))
            raise
        self._record_end(client, file, job_id, None)

    def _held_version(self, client: bigquery.Client, file: MonthFile) -> Footer | None:
        loaded = self._query(
            client,
            f"SELECT manifest_id FROM {in_backticks(self._ledger(file))} "
            "WHERE billing_period = @month AND state = 'loaded' "
            "ORDER BY load_timestamp DESC LIMIT 1",
            month=str(file.month),
        )
        if not loaded:
            return None
        measured = self._measure(client, file)
        return Footer(loaded[0][0], measured.totals) if not measured.foreign_rows else None

    def _measure(self, client: bigquery.Client, file: MonthFile) -> Measured:
        cost = f"SUM({in_backticks(file.cost)})" if file.cost else "NULL"
        period = "billing_month"
        if file.billing_period:
            period = f"DATE({in_backticks(file.billing_period)})"
        ((rows, total, foreign_rows),) = self._query(
            client,
            f"SELECT COUNT(*), {cost}, COUNTIF(DATE_TRUNC({period}, MONTH) <> billing_month) "
            f"FROM {in_backticks(self.full_name(file.table))} WHERE billing_month = @month",
            month=file.month.first_day,
        )
        return Measured(Totals.of((rows, total)), foreign_rows)

    def _prepare(self, client: bigquery.Client, file: MonthFile) -> Widening:
        """Make the dataset and both tables where they are missing, the columns that are new, and
        text of those that can no longer be what they were."""
        name = self.full_name(file.table)
        try:
            table = client.get_table(name)
        except google.NotFound:
            table = None
        asked = widening(file, name, table.schema if table else [])
        table = table or self._made(client, file, asked.new)
        client.create_table(bigquery.Table(self._ledger(file), _LEDGER), exists_ok=True)
        if asked.becoming_text:
            self._query(client, rewriting(table, asked.becoming_text))
            table = client.get_table(name)
        there = {field.name.lower() for field in table.schema}
        new = [field for field in asked.new if field.name.lower() not in there]
        if new:
            table.schema = [*table.schema, *new]
            client.update_table(table, ["schema"])
        return asked

    def _made(
        self, client: bigquery.Client, file: MonthFile, columns: list[SchemaField]
    ) -> bigquery.Table:
        try:
            client.get_dataset(self.dataset)
        except google.NotFound:
            dataset = bigquery.Dataset(f"{self.project}.{self.dataset}")
            dataset.location = self.location
            client.create_dataset(dataset, exists_ok=True)
        table = bigquery.Table(self.full_name(file.table), columns)
        table.time_partitioning = bigquery.TimePartitioning("MONTH", field="billing_month")
        table.clustering_fields = list(file.cluster_by) or None
        return client.create_table(table, exists_ok=True)

    def _attempt(
        self, client: bigquery.Client, file: MonthFile
    ) -> tuple[str, bigquery.LoadJob | None]:
        """The id of the load job, in the ledger as `loading`; and the job, where a run that died
        has started it already.

        The id is made of export, month, version, table, and the number of the attempt: first the
        number of loads that the ledger saw end, then the next that is free; jobs that the ledger
        does not know are those of a table that was deleted since.
        """
        states = dict(
            self._query(
                client,
                f"SELECT job_id, state FROM {in_backticks(self._ledger(file))} "
                "WHERE billing_period = @month AND manifest_id = @manifest_id",
                month=str(file.month),
                manifest_id=file.footer.manifest_id,
            )
        )
        table = hashlib.sha256(self.full_name(file.table).encode()).hexdigest()[:8]
        name = f"finops_{file.export}_{file.month}_{file.footer.manifest_id}_{table}"
        attempt = sum(state != "loading" for state in states.values())
        while True:
            job_id = re.sub(r"[^A-Za-z0-9_-]", "-", f"{name}_{attempt}")
            job = self._found(client, job_id)
            if job is None and job_id not in states:
                self._record_start(client, file, job_id)
            if job is None:
                return job_id, None
            if states.get(job_id) == "loading":
                if job.state != "DONE" or self._brought(client, file, job):
                    return job_id, job
                self._record_end(client, file, job_id, "its run died, and it left no rows")
            attempt += 1

    def _found(self, client: bigquery.Client, job_id: str) -> bigquery.LoadJob | None:
        try:
            return cast(bigquery.LoadJob, client.get_job(job_id, location=self.location))
        except google.NotFound:
            return None

    def _brought(self, client: bigquery.Client, file: MonthFile, job: bigquery.LoadJob) -> bool:
        held = Measured(file.footer.totals, 0)
        return job.error_result is None and self._measure(client, file) == held

    def _started(self, client: bigquery.Client, file: MonthFile, job_id: str) -> bigquery.LoadJob:
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            decimal_target_types=[bigquery.DecimalTargetType.BIGNUMERIC],
            parquet_options=_maps_as_arrays(),
            # A map's keys are REQUIRED in the file and in the table. Should BigQuery take them for
            # NULLABLE, of which its documentation says nothing, the load makes the table's so too.
            schema_update_options=[bigquery.SchemaUpdateOption.ALLOW_FIELD_RELAXATION],
            labels={"application": "finops_dagster"},
        )
        partition = f"{self.full_name(file.table)}${file.month.first_day:%Y%m}"
        size = file.path.stat().st_size
        try:
            with file.path.open("rb") as parquet:
                return client.load_table_from_file(
                    parquet, partition, size=size, job_id=job_id, job_config=config
                )
        except google.Conflict:
            # Another run of the same version was faster, or BigQuery's answer to us was lost.
            return cast(bigquery.LoadJob, client.get_job(job_id, location=self.location))

    def _record_start(self, client: bigquery.Client, file: MonthFile, job_id: str) -> None:
        self._query(
            client,
            f"INSERT INTO {in_backticks(self._ledger(file))} "
            "(billing_period, load_timestamp, row_count, state, manifest_id, job_id) "
            "VALUES (@month, CURRENT_TIMESTAMP(), @rows, 'loading', @manifest_id, @job_id)",
            month=str(file.month),
            rows=file.footer.totals.rows,
            manifest_id=file.footer.manifest_id,
            job_id=job_id,
        )

    def _record_end(
        self, client: bigquery.Client, file: MonthFile, job_id: str, error: str | None
    ) -> None:
        self._query(
            client,
            f"UPDATE {in_backticks(self._ledger(file))} SET state = @state, "
            "error_message = @error, load_timestamp = CURRENT_TIMESTAMP() WHERE job_id = @job_id",
            state="loaded" if error is None else "failed",
            error=error,
            job_id=job_id,
        )

    def _ledger(self, file: MonthFile) -> str:
        return f"{self.full_name(file.table)}_loads"

    def _query(self, client: bigquery.Client, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        types = {int: "INT64", str: "STRING", type(None): "STRING"}
        config = bigquery.QueryJobConfig(
            query_parameters=[
                ScalarQueryParameter(name, types.get(type(value), "DATE"), value)
                for name, value in parameters.items()
            ]
        )
        return [tuple(row.values()) for row in client.query(sql, job_config=config).result()]


def open_warehouse(settings: Settings) -> BigQueryWarehouse:
    """The dataset that the settings name."""
    return BigQueryWarehouse(
        project=settings.project_id,
        dataset=settings.dataset,
        location=settings.location,
        api_endpoint=settings.api_endpoint,
    )


def _maps_as_arrays() -> ParquetOptions:
    """BigQuery has no maps: a load makes of one a RECORD around a REPEATED `key_value` of key and
    value, or, for ARRAY_OF_STRUCT, the REPEATED RECORD of key and value itself.

    The REST reference says so under `ParquetOptions.mapTargetType`. Taken to be so, but not yet
    seen in BigQuery: the decimals in a map follow `decimal_target_types`; a map that is NULL reads
    as an array without elements, as a NULL array does in any result; and such a column, with its
    REQUIRED keys, may be added to a table, because it is not itself REQUIRED.
    """
    options = ParquetOptions()  # type: ignore[no-untyped-call]
    options.map_target_type = "ARRAY_OF_STRUCT"
    return options


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Say what Google says in one line, and whether asking again may help."""
    try:
        yield
    except DefaultCredentialsError as error:
        raise BillError(
            f"{where}: no Google credentials were found; set GOOGLE_APPLICATION_CREDENTIALS, or "
            "run gcloud auth application-default login"
        ) from error
    except _PASSING as error:
        raise WarehouseUnavailable(f"{where}: {error}") from error
    except google.GoogleAPIError as error:
        raise BillError(f"{where}: {first_line(error)}") from error
