"""The BigQuery test server refuses what BigQuery is known to refuse, with the same messages.

Without that, the suite of the warehouses would prove little. What loads and queries do is tested
by that suite.
"""

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
    """Return a client of a server whose table has one row of January."""
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
    defaults = {
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
        job_config=bigquery.LoadJobConfig(**(defaults | config)),
    ).result(retry=None)


def refused(error: type[GoogleAPICallError], message: str) -> Any:
    return pytest.raises(error, match=message)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS.drop_columns(["billing_month"]), "rows belong to different partitions"),
        (ROWS.drop_columns(["account"]), "Field account is missing in new schema"),
        (ROWS.append_column("region", [["eu"]]), "Cannot add fields .field: region"),
        (ROWS.set_column(2, "cost", pa.array(["1"])), "cost has changed type from BIGNUMERIC to S"),
        (ROWS.set_column(1, "account", pa.array(["x"])), "changed mode from REQUIRED to NULLABLE"),
        (BOTH_MONTHS, "rows belong to different partitions"),
    ],
)
def test_a_refused_load_leaves_the_month_as_it_was(
    client: bigquery.Client, rows: pa.Table, message: str
) -> None:
    with refused(BadRequest, message):
        load(client, rows)
    result = client.query_and_wait(f"SELECT account FROM `{CUR}`", retry=None, job_retry=None)
    assert [row.values() for row in result] == [("new",)]
    assert client.get_table(CUR).schema == SCHEMA


def test_a_load_that_the_project_never_requests_is_not_supported(client: bigquery.Client) -> None:
    with refused(MethodNotImplemented, "whose writeDisposition is WRITE_APPEND"):
        load(client, ROWS, write_disposition="WRITE_APPEND")


def test_a_job_id_can_be_used_once(client: bigquery.Client) -> None:
    with refused(Conflict, r"Already Exists: Job test:US\.first"):
        load(client, ROWS, job_id="first")
    with refused(NotFound, "Not found: Job"):
        client.get_job("first", location="europe-west1")


@pytest.mark.parametrize(
    ("schema", "message"),
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
def test_a_schema_that_bigquery_refuses_is_refused(
    client: bigquery.Client, schema: list[SchemaField], message: str
) -> None:
    table = client.get_table(CUR)
    table.schema = schema
    with refused(BadRequest, message):
        client.update_table(table, ["schema"], retry=None)
    table.schema = [*SCHEMA, SchemaField("more", "STRING")]
    client.update_table(table, ["schema"], retry=None)
    with pytest.raises(PreconditionFailed):
        client.update_table(table, ["schema"], retry=None)


@pytest.mark.parametrize(
    ("sql", "error", "message"),
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
    client: bigquery.Client, sql: str, error: type[GoogleAPICallError], message: str
) -> None:
    with refused(error, message):
        client.query(sql, retry=None, job_retry=None).result(job_retry=None)
