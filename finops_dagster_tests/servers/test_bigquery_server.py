"""The BigQuery test server refuses what BigQuery is known to refuse, in BigQuery's words, and does
what a load job and a query are documented to do. The warehouse suite shows the rest."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
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
COST = Decimal("0.000000000000000001")
TAGS = [("user_team", "bob"), ("user_cost", None)]
PARQUET = pa.schema(
    [
        ("billing_month", pa.date32()),
        pa.field("account", pa.string(), nullable=False),
        ("cost", pa.decimal128(38, 18)),
        ("tags", pa.map_(pa.string(), pa.string())),
    ]
)


@pytest.fixture
def client() -> Iterator[bigquery.Client]:
    """A client of a server whose table of bills has one row for January and one for February."""
    with BigQueryServer() as server:
        client = server.client()
        client.create_dataset("billing")
        table = bigquery.Table(CUR, SCHEMA)
        table.time_partitioning = bigquery.TimePartitioning("MONTH", field="billing_month")
        client.create_table(table)
        load(client, bill(JANUARY, "one"), job_id="first")
        load(client, bill(FEBRUARY, "two"), partition="202402")
        yield client


def bill(month: date, account: str | None = "new", **columns: Any) -> pa.Table:
    """A bill of one line, with further columns if wanted."""
    line = {"billing_month": month, "account": account, "cost": COST, "tags": TAGS}
    rows = pa.Table.from_pylist([line], PARQUET)
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows


def load(
    client: bigquery.Client,
    rows: pa.Table,
    *options: str,
    partition: str = "202401",
    resumable: bool = False,
    job_id: str | None = None,
    **config: Any,
) -> bigquery.LoadJob:
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
        "schema_update_options": options,
    }
    job = client.load_table_from_file(
        file,
        f"{CUR}${partition}",
        rewind=True,
        size=None if resumable else file.tell(),
        num_retries=0,
        job_id=job_id,
        job_config=bigquery.LoadJobConfig(**(usual | config)),
    )
    return job.result(retry=None)


def query(client: bigquery.Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in client.query_and_wait(sql, retry=None, job_retry=None)]


def accounts(client: bigquery.Client) -> list[tuple[Any, ...]]:
    return query(client, f"SELECT billing_month, account FROM `{CUR}` ORDER BY 1, 2")


@contextmanager
def refused(error: type[GoogleAPICallError], message: str) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    assert message in caught.value.message


@pytest.mark.parametrize("resumable", [False, True])
def test_a_load_replaces_one_month_and_leaves_the_other(
    client: bigquery.Client, resumable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google.cloud.bigquery.client._DEFAULT_CHUNKSIZE", 256 * 1024)
    noise = "".join(f"{number * 7919 % 1_000_003}" for number in range(120_000))
    job = load(client, bill(JANUARY, noise), resumable=resumable)
    assert (job.state, job.output_rows) == ("DONE", 1)
    assert accounts(client) == [(JANUARY, noise), (FEBRUARY, "two")]


REQUIRED = pa.field("region", pa.string(), nullable=False)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (pa.concat_tables([bill(JANUARY), bill(FEBRUARY)]), (), "rows belong to different partit"),
        (bill(JANUARY).drop_columns(["billing_month"]), (), "rows belong to different partitions"),
        (bill(JANUARY).drop_columns(["account"]), (), "Field account is missing in new schema"),
        (bill(JANUARY, region=[["eu"]]), (), "billing.cur. Cannot add fields (field: region)"),
        (
            bill(JANUARY).append_column(REQUIRED, [["eu"]]),
            ("ALLOW_FIELD_ADDITION",),
            "Cannot add required fields to an existing schema. (field: region)",
        ),
        (
            bill(JANUARY).set_column(2, "cost", pa.array(["1"])),
            (),
            "Field cost has changed type from BIGNUMERIC to STRING",
        ),
        (
            bill(JANUARY).set_column(1, "account", pa.array(["x"])),
            (),
            "Field account has changed mode from REQUIRED to NULLABLE",
        ),
    ],
)
def test_a_load_that_is_refused_leaves_the_month_as_it_was(
    client: bigquery.Client, rows: pa.Table, options: tuple[str, ...], message: str
) -> None:
    with refused(BadRequest, message):
        load(client, rows, *options)
    assert accounts(client) == [(JANUARY, "one"), (FEBRUARY, "two")]
    assert client.get_table(CUR).schema == SCHEMA


def test_a_load_may_add_fields_and_relax_them(client: bigquery.Client) -> None:
    rows = bill(JANUARY, region=[["eu"]]).set_column(1, "account", pa.array([None], pa.string()))
    load(client, rows, "ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION")
    modes = {field.name: field.mode for field in client.get_table(CUR).schema}
    assert (modes["account"], modes["region"]) == ("NULLABLE", "NULLABLE")
    found = query(client, f"SELECT account, region FROM `{CUR}` ORDER BY billing_month")
    assert found == [(None, "eu"), ("two", None)]


def test_a_map_is_an_array_of_keys_and_values(client: bigquery.Client) -> None:
    tags = [dict(zip(("key", "value"), tag, strict=True)) for tag in TAGS]
    without = bill(JANUARY).set_column(3, PARQUET.field(3), [pa.nulls(1, PARQUET.field(3).type)])
    load(client, without)
    assert query(client, f"SELECT tags FROM `{CUR}` ORDER BY billing_month") == [([],), (tags,)]
    team = "(SELECT value FROM UNNEST(tags) WHERE key = 'user_team')"
    assert query(client, f"SELECT {team} FROM `{CUR}` ORDER BY 1") == [(None,), ("bob",)]
    sql = f"SELECT tag.key, SUM(cost) FROM `{CUR}`, UNNEST(tags) AS tag GROUP BY 1 ORDER BY 1"
    assert query(client, sql) == [("user_cost", COST), ("user_team", COST)]


def test_a_job_id_works_once_and_finds_its_job_again(client: bigquery.Client) -> None:
    with refused(Conflict, "Already Exists: Job test:US.first"):
        load(client, bill(JANUARY), job_id="first")
    job = client.get_job("first", location="US")
    assert (job.state, job.error_result, job.output_rows) == ("DONE", None, 1)
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
def test_a_schema_is_refused(
    client: bigquery.Client, schema: list[SchemaField], message: str
) -> None:
    table = client.get_table(CUR)
    table.schema = schema
    with refused(BadRequest, message):
        client.update_table(table, ["schema"], retry=None)
    table.schema = [*SCHEMA, SchemaField("more", "STRING")]
    assert client.update_table(table, ["schema"], retry=None).schema == table.schema
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
        ("CREATE TABLE billing.more (id INT64)", MethodNotImplemented, "does not support DDL"),
        (
            f"CREATE OR REPLACE TABLE `{CUR}` (billing_month DATE) "
            f"PARTITION BY DATE_TRUNC(billing_month, YEAR) AS SELECT billing_month FROM `{CUR}`",
            BadRequest,
            "Cannot replace a table with a different partitioning spec",
        ),
    ],
)
def test_a_bad_query_fails_in_its_job_and_in_query_and_wait(
    client: bigquery.Client, sql: str, error: type[GoogleAPICallError], message: str
) -> None:
    with refused(error, message):
        query(client, sql)
    with refused(error, message):
        client.query(sql, retry=None, job_retry=None).result(job_retry=None)


def test_other_load_jobs_are_not_supported(client: bigquery.Client) -> None:
    with refused(MethodNotImplemented, "whose writeDisposition is WRITE_APPEND"):
        load(client, bill(JANUARY), write_disposition="WRITE_APPEND")
    with refused(MethodNotImplemented, "the Parquet column lists of type list"):
        load(client, bill(JANUARY, lists=[[["a"]]]))
