"""The BigQuery test server refuses what BigQuery is known to refuse, in BigQuery's words, so that
the warehouse suite means something. What a load and a query do, the suite itself shows."""

import io
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    GoogleAPICallError,
    MethodNotImplemented,
    NotFound,
    PreconditionFailed,
)
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField

from finops_dagster_tests.servers.bigquery import BigQueryServer

CUR = "test.billing.cur"
JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)
KEY, VALUE = SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", "STRING")
SCHEMA = [
    SchemaField("billing_month", "DATE"),
    SchemaField("account", "STRING", "REQUIRED"),
    SchemaField("cost", "BIGNUMERIC"),
    SchemaField("tags", "RECORD", "REPEATED", fields=[KEY, VALUE]),
]
LINE = {"account": "new", "cost": Decimal(1), "tags": [("user_team", "bob"), ("user_cost", None)]}
PARQUET = pa.schema(
    [
        ("billing_month", pa.date32()),
        pa.field("account", pa.string(), nullable=False),
        ("cost", pa.decimal128(38, 18)),
        ("tags", pa.map_(pa.string(), pa.string())),
    ]
)
BOTH_MONTHS = pa.Table.from_pylist(
    [{"billing_month": month, **LINE} for month in (JANUARY, FEBRUARY)], PARQUET
)
ROWS = BOTH_MONTHS[:1]


@pytest.fixture
def client() -> Iterator[bigquery.Client]:
    """A client of a server whose table of bills has one row for January."""
    with BigQueryServer() as server:
        client = server.client()
        client.create_dataset("billing")
        table = bigquery.Table(CUR, SCHEMA)
        table.time_partitioning = bigquery.TimePartitioning("MONTH", field="billing_month")
        client.create_table(table)
        load(client, ROWS, job_id="first")
        yield client


def load(client: bigquery.Client, rows: pa.Table, job_id: str | None = None, **config: Any) -> None:
    file = io.BytesIO()
    pq.write_table(rows, file)
    maps = bigquery.format_options.ParquetOptions()
    maps.map_target_type = "ARRAY_OF_STRUCT"
    usual = {
        "source_format": "PARQUET",
        "write_disposition": "WRITE_TRUNCATE",
        "create_disposition": "CREATE_NEVER",
        "decimal_target_types": ["BIGNUMERIC"],
        "parquet_options": maps,
    }
    client.load_table_from_file(
        file,
        f"{CUR}$202401",
        rewind=True,
        size=file.tell(),
        num_retries=0,
        job_id=job_id,
        job_config=bigquery.LoadJobConfig(**(usual | config)),
    ).result(retry=None)


def refused(error: type[GoogleAPICallError], says: str) -> Any:
    return pytest.raises(error, match=says)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS.drop_columns(["billing_month"]), "rows belong to different partitions"),
        (ROWS.drop_columns(["account"]), "Field account is missing in new schema"),
        (ROWS.append_column("region", [["eu"]]), "Cannot add fields .field: region"),
        (ROWS.set_column(2, "cost", pa.array(["1"])), "cost has changed type from BIGNUMERIC to S"),
        (ROWS.set_column(1, "account", pa.array(["x"])), "changed mode from REQUIRED to NULLABLE"),
        (BOTH_MONTHS, "rows belong to different partitions"),
    ],
)
def test_a_load_that_is_refused_leaves_the_month_as_it_was(
    client: bigquery.Client, rows: pa.Table, says: str
) -> None:
    with refused(BadRequest, says):
        load(client, rows)
    found = client.query_and_wait(f"SELECT account FROM `{CUR}`", retry=None, job_retry=None)
    assert [row.values() for row in found] == [("new",)]
    assert client.get_table(CUR).schema == SCHEMA


def test_a_load_that_the_product_never_asks_for_is_not_supported(client: bigquery.Client) -> None:
    with refused(MethodNotImplemented, "whose writeDisposition is WRITE_APPEND"):
        load(client, ROWS, write_disposition="WRITE_APPEND")


def test_a_job_id_works_once(client: bigquery.Client) -> None:
    with refused(Conflict, r"Already Exists: Job test:US\.first"):
        load(client, ROWS, job_id="first")
    with refused(NotFound, "Not found: Job"):
        client.get_job("first", location="europe-west1")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (SCHEMA[:3], "Field tags is missing in new schema"),
        ([*SCHEMA, SchemaField("tag", "STRING", "REQUIRED")], "Cannot add required fields"),
        ([*SCHEMA, SchemaField("COST", "STRING")], "already exists in schema"),
        *(
            ([*SCHEMA, SchemaField(name, "STRING")], "Invalid field name")
            for name in ("user:team", "x" * 301, "_table_x")
        ),
    ],
)
def test_a_schema_is_refused(client: bigquery.Client, schema: list[SchemaField], says: str) -> None:
    table = client.get_table(CUR)
    table.schema = schema
    with refused(BadRequest, says):
        client.update_table(table, ["schema"], retry=None)
    table.schema = [*SCHEMA, SchemaField("more", "STRING")]
    client.update_table(table, ["schema"], retry=None)
    with pytest.raises(PreconditionFailed):
        client.update_table(table, ["schema"], retry=None)


@pytest.mark.parametrize(
    ("sql", "error", "says"),
    [
        ("SELECT nothing FROM billing.cur", BadRequest, "nothing"),
        ("SELECT FROM WHERE", BadRequest, "Syntax error"),
        ("DELETE FROM billing.cur", BadRequest, "DELETE must have a WHERE clause"),
        ("SELECT * FROM billing.none", NotFound, "Not found: Table test:billing.none"),
        ("SELECT @missing", BadRequest, "Query parameter 'missing' not found"),
        (
            f"CREATE OR REPLACE TABLE `{CUR}` (billing_month DATE) "
            f"PARTITION BY DATE_TRUNC(billing_month, YEAR) AS SELECT billing_month FROM `{CUR}`",
            BadRequest,
            "Cannot replace a table with a different partitioning spec",
        ),
    ],
)
def test_a_bad_query_fails_in_its_job(
    client: bigquery.Client, sql: str, error: type[GoogleAPICallError], says: str
) -> None:
    with refused(error, says):
        client.query(sql, retry=None, job_retry=None).result(job_retry=None)
