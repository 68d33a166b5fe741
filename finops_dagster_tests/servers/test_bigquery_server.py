"""The BigQuery test server, driven as the project drives BigQuery: by Google's own client."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    Forbidden,
    GoogleAPICallError,
    MethodNotImplemented,
    NotFound,
    PreconditionFailed,
    ServiceUnavailable,
)
from google.cloud import bigquery

from finops_dagster_tests.servers.bigquery import BigQueryServer

CUR = "test.billing.cur"
COST = Decimal("0.000000000000000001")
SCHEMA = [
    bigquery.SchemaField("billing_month", "DATE"),
    bigquery.SchemaField("account", "STRING"),
    bigquery.SchemaField("cost", "BIGNUMERIC"),
]
ARROW_SCHEMA = pa.schema(
    [("billing_month", pa.date32()), ("account", pa.string()), ("cost", pa.decimal128(38, 18))]
)
JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)


@pytest.fixture
def server() -> Iterator[BigQueryServer]:
    with BigQueryServer() as server:
        yield server


@pytest.fixture
def client(server: BigQueryServer) -> bigquery.Client:
    """A client of a server whose table of bills has one row for January and one for February."""
    client = server.client()
    client.create_dataset("billing")
    table = bigquery.Table(CUR, SCHEMA)
    table.time_partitioning = bigquery.TimePartitioning("MONTH", field="billing_month")
    table.clustering_fields = ["account"]
    client.create_table(table)
    load(client, f"{CUR}$202401", bill(JANUARY, account="one"))
    load(client, f"{CUR}$202402", bill(FEBRUARY, account="two"))
    return client


def bill(month: date, account: str = "one", cost: Decimal = COST, **columns: Any) -> pa.Table:
    """A bill of one line, with further columns if wanted."""
    rows = pa.table({"billing_month": [month], "account": [account], "cost": [cost]}, ARROW_SCHEMA)
    for name, value in columns.items():
        rows = rows.append_column(name, pa.array([value]))
    return rows


def load(
    client: bigquery.Client,
    destination: str,
    rows: pa.Table,
    resumable: bool = False,
    job_id: str | None = None,
    **config: Any,
) -> bigquery.LoadJob:
    """Uploads the rows as Parquet and waits for the job."""
    file = io.BytesIO()
    pq.write_table(rows, file)
    size = None if resumable else file.tell()
    config = {
        "source_format": "PARQUET",
        "write_disposition": "WRITE_TRUNCATE",
        "decimal_target_types": ["NUMERIC", "BIGNUMERIC"],
        **config,
    }
    job = client.load_table_from_file(
        file,
        destination,
        rewind=True,
        size=size,
        num_retries=0,
        job_id=job_id,
        job_config=bigquery.LoadJobConfig(**config),
    )
    return job.result(retry=None)


def query(client: bigquery.Client, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    config = bigquery.QueryJobConfig(query_parameters=parameters)
    rows = client.query(sql, job_config=config, retry=None, job_retry=None).result(job_retry=None)
    return [tuple(row.values()) for row in rows]


@contextmanager
def refused(error: type[GoogleAPICallError], message: str) -> Iterator[None]:
    """Expects an error of BigQuery whose message has these words."""
    with pytest.raises(error) as caught:
        yield
    assert message in caught.value.message


def accounts(client: bigquery.Client) -> list[tuple[Any, ...]]:
    return query(client, f"SELECT billing_month, account FROM `{CUR}` ORDER BY 1, 2")


@pytest.mark.parametrize("resumable", [False, True])
def test_a_load_replaces_one_month_and_leaves_the_other(
    server: BigQueryServer, client: bigquery.Client, resumable: bool
) -> None:
    job = load(client, f"{CUR}$202401", bill(JANUARY, account="new"), resumable)

    assert accounts(client) == [(JANUARY, "new"), (FEBRUARY, "two")]
    assert (job.state, job.output_rows, job.input_files) == ("DONE", 1, 1)
    assert job.input_file_bytes > 0
    uploads = [method for method, path in server.requests if path.startswith("/upload/")]
    assert uploads[2:] == (["POST", "PUT"] if resumable else ["POST"])


def test_a_resumable_upload_arrives_in_chunks(
    server: BigQueryServer, client: bigquery.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("google.cloud.bigquery.client._DEFAULT_CHUNKSIZE", 256 * 1024)
    noise = "".join(f"{number * 7919 % 1_000_003}" for number in range(120_000))

    job = load(client, f"{CUR}$202401", bill(JANUARY, account=noise), resumable=True)

    assert [method for method, _ in server.requests].count("PUT") > 1
    assert job.output_rows == 1
    assert (JANUARY, noise) in accounts(client)


def test_rows_outside_the_month_are_refused_and_the_month_keeps_its_rows(
    client: bigquery.Client,
) -> None:
    elsewhere = "Some rows belong to different partitions rather than destination partition 202401"
    with refused(BadRequest, elsewhere):
        load(client, f"{CUR}$202401", pa.concat_tables([bill(JANUARY), bill(FEBRUARY)]))
    with refused(BadRequest, elsewhere):
        load(client, f"{CUR}$202401", bill(JANUARY).drop_columns(["billing_month"]))

    assert accounts(client) == [(JANUARY, "one"), (FEBRUARY, "two")]


def test_a_load_that_fails_halfway_leaves_the_month_as_it_was(client: bigquery.Client) -> None:
    month, ids = bigquery.SchemaField("month", "DATE"), "test.billing.ids"
    required = [month, bigquery.SchemaField("id", "INTEGER", "REQUIRED")]
    table = bigquery.Table(ids, required)
    table.time_partitioning = bigquery.TimePartitioning("MONTH", field="month")
    client.create_table(table)
    one_row = pa.table({"month": [JANUARY], "id": [7]})
    load(client, f"{ids}$202401", one_row, schema=required)

    with refused(BadRequest, "Error while reading data"):
        rows = pa.table({"month": [JANUARY, JANUARY], "id": [8, None]})
        load(client, f"{ids}$202401", rows, schema=required)
    with refused(BadRequest, "Field id has changed mode from REQUIRED to NULLABLE"):
        load(client, f"{ids}$202401", one_row)

    assert query(client, f"SELECT id FROM `{ids}`") == [(7,)]


def test_a_column_the_table_lacks_is_refused_unless_fields_may_be_added(
    client: bigquery.Client,
) -> None:
    restated = bill(JANUARY, Region="eu-west-1")
    mismatch = "Provided Schema does not match Table test:billing.cur."
    with refused(BadRequest, f"{mismatch} Cannot add fields (field: Region)"):
        load(client, f"{CUR}$202401", restated)

    load(client, f"{CUR}$202401", restated, schema_update_options=["ALLOW_FIELD_ADDITION"])

    assert [field.name for field in client.get_table(CUR).schema][3:] == ["Region"]
    rows = query(client, f"SELECT region FROM `{CUR}` ORDER BY billing_month")
    assert rows == [("eu-west-1",), (None,)]


def test_a_parquet_column_that_may_not_be_null_is_not_one_that_may(
    client: bigquery.Client,
) -> None:
    never_null = [field.with_nullable(False) for field in ARROW_SCHEMA]
    required = bill(JANUARY).cast(pa.schema(never_null))

    with refused(BadRequest, "Field billing_month has changed mode from NULLABLE to REQUIRED"):
        load(client, f"{CUR}$202401", required)
    with refused(BadRequest, "'billing_month' is specified as NULLABLE in provided schema"):
        load(client, f"{CUR}$202401", required, schema=SCHEMA)

    region = pa.field("region", pa.string(), nullable=False)
    restated = bill(JANUARY).append_column(region, pa.array(["eu-west-1"]))
    with refused(BadRequest, "Cannot add required fields to an existing schema. (field: region)"):
        load(client, CUR + "$202401", restated, schema_update_options=["ALLOW_FIELD_ADDITION"])


def test_a_column_the_file_lacks_is_null(client: bigquery.Client) -> None:
    load(client, f"{CUR}$202401", bill(JANUARY).drop_columns(["account"]))

    assert accounts(client) == [(JANUARY, None), (FEBRUARY, "two")]


def test_a_column_of_another_type_is_refused(client: bigquery.Client) -> None:
    wrong = bill(JANUARY).set_column(1, "account", pa.array([1]))

    with refused(BadRequest, "account has changed type from STRING to INTEGER"):
        load(client, f"{CUR}$202401", wrong)
    with refused(BadRequest, "cost has changed type from BIGNUMERIC to NUMERIC"):
        load(client, f"{CUR}$202401", bill(JANUARY), decimal_target_types=["NUMERIC"])


def test_write_dispositions_append_and_refuse_a_full_month(client: bigquery.Client) -> None:
    load(client, CUR, bill(FEBRUARY, account="more"), write_disposition="WRITE_APPEND")
    with refused(Conflict, "Already Exists: Table test:billing.cur"):
        load(client, f"{CUR}$202401", bill(JANUARY), write_disposition="WRITE_EMPTY")
    load(client, f"{CUR}$202403", bill(date(2024, 3, 1)), write_disposition="WRITE_EMPTY")

    with refused(MethodNotImplemented, "does not support WRITE_TRUNCATE_DATA"):
        load(client, f"{CUR}$202401", bill(JANUARY), write_disposition="WRITE_TRUNCATE_DATA")

    months = [month for month, _ in accounts(client)]
    assert months == [JANUARY, FEBRUARY, FEBRUARY, date(2024, 3, 1)]


def test_a_load_makes_a_table_from_the_file_unless_told_never_to(client: bigquery.Client) -> None:
    with refused(NotFound, "Not found: Table test:billing.new"):
        load(client, "test.billing.new", bill(JANUARY), create_disposition="CREATE_NEVER")
    with refused(NotFound, "Not found: Dataset test:nowhere"):
        load(client, "test.nowhere.new", bill(JANUARY))

    monthly = bigquery.TimePartitioning("MONTH", field="billing_month")
    load(client, "test.billing.new", bill(JANUARY), time_partitioning=monthly)

    table = client.get_table("test.billing.new")
    assert [field.field_type for field in table.schema] == ["DATE", "STRING", "BIGNUMERIC"]
    assert (table.time_partitioning.type_, table.num_rows) == ("MONTH", 1)


def test_decimals_stay_exact_or_are_refused(client: bigquery.Client) -> None:
    load(client, CUR, bill(JANUARY, cost=Decimal("0.1")), write_disposition="WRITE_APPEND")
    assert query(client, f"SELECT sum(cost) FROM `{CUR}`") == [(Decimal("0.1") + 2 * COST,)]

    coarse = bill(JANUARY, cost=Decimal("0.25"))
    load(client, "test.billing.coarse", coarse, decimal_target_types=["NUMERIC"])
    assert client.get_table("test.billing.coarse").schema[2].field_type == "NUMERIC"
    with refused(BadRequest, "Invalid NUMERIC value: 0.000000000000000001"):
        load(client, "test.billing.coarse", bill(JANUARY), decimal_target_types=["NUMERIC"])


def test_parquet_timestamps_are_timestamps_unless_the_schema_says_datetime(
    client: bigquery.Client,
) -> None:
    noon = datetime(2024, 1, 1, 12)
    file = pa.table(
        {
            "local": pa.array([noon], pa.timestamp("us")),
            "utc": pa.array([noon], pa.timestamp("us", "UTC")),
        }
    )

    load(client, "test.billing.inferred", file)
    schema = [bigquery.SchemaField(name, "DATETIME") for name in file.column_names]
    load(client, "test.billing.explicit", file, schema=schema)

    in_utc = noon.replace(tzinfo=UTC)
    assert query(client, "SELECT * FROM billing.inferred") == [(in_utc, in_utc)]
    assert query(client, "SELECT * FROM billing.explicit") == [(noon, noon)]
    with refused(BadRequest, "local has changed type from DATETIME to TIMESTAMP"):
        load(client, "test.billing.explicit", file, write_disposition="WRITE_APPEND")


def test_a_job_id_works_once_and_finds_its_job_again(client: bigquery.Client) -> None:
    load(client, f"{CUR}$202401", bill(JANUARY, account="new"), job_id="january-1")

    with refused(Conflict, "Already Exists: Job test:US.january-1"):
        load(client, f"{CUR}$202401", bill(JANUARY, account="again"), job_id="january-1")

    job = client.get_job("january-1", location="US")
    assert (job.state, job.error_result, job.output_rows) == ("DONE", None, 1)
    assert accounts(client)[0] == (JANUARY, "new")
    with refused(NotFound, "Not found: Job"):
        client.get_job("january-1", location="europe-west1")


def test_jobs_run_where_the_dataset_is(server: BigQueryServer) -> None:
    client = server.client()
    dataset = bigquery.Dataset("test.europe")
    dataset.location = "europe-west1"
    client.create_dataset(dataset)

    job = load(client, "test.europe.cur", bill(JANUARY))

    assert job.location == "europe-west1"
    assert client.query("SELECT 1 FROM europe.cur", job_retry=None).location == "europe-west1"
    with pytest.raises(NotFound):
        client.get_job(job.job_id)
    with refused(NotFound, "test:europe was not found in location US"):
        client.query_and_wait("SELECT * FROM europe.cur", location="US", job_retry=None)


def test_tables_keep_their_metadata_and_gain_columns(client: bigquery.Client) -> None:
    table = client.get_table(CUR)
    assert (table.num_rows, table.clustering_fields) == (2, ["account"])
    assert table.time_partitioning.field == "billing_month"
    assert [item.table_id for item in client.list_tables("billing")] == ["cur"]

    table.description, table.labels = "AWS bills", {"team": "finops"}
    table.schema = [*table.schema, bigquery.SchemaField("Tag", "STRING")]
    updated = client.update_table(table, ["schema", "description", "labels"], retry=None)
    assert (updated.schema[3].name, updated.description) == ("Tag", "AWS bills")
    with pytest.raises(PreconditionFailed):
        client.update_table(table, ["description"], retry=None)
    assert client.get_table(CUR).labels == {"team": "finops"}

    client.delete_table(CUR)
    with refused(NotFound, "Not found: Table test:billing.cur"):
        client.get_table(CUR, retry=None)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (SCHEMA[:2], "Field cost is missing in new schema"),
        (
            [*SCHEMA[:2], bigquery.SchemaField("cost", "FLOAT64")],
            "Field cost has changed type from BIGNUMERIC to FLOAT",
        ),
        (
            [*SCHEMA, bigquery.SchemaField("tag", "STRING", "REQUIRED")],
            "Cannot add required fields to an existing schema",
        ),
        ([*SCHEMA, bigquery.SchemaField("COST", "STRING")], "already exists in schema"),
        ([*SCHEMA, bigquery.SchemaField("user:team", "STRING")], "Invalid field name"),
        ([*SCHEMA, bigquery.SchemaField("x" * 301, "STRING")], "at most 300 characters"),
        ([*SCHEMA, bigquery.SchemaField("_table_x", "STRING")], "not allowed to start with"),
    ],
)
def test_a_schema_is_refused_in_the_words_of_bigquery(
    client: bigquery.Client, schema: list[bigquery.SchemaField], message: str
) -> None:
    table = client.get_table(CUR)
    table.schema = schema

    with refused(BadRequest, message):
        client.update_table(table, ["schema"], retry=None)
    assert client.get_table(CUR).schema == SCHEMA


def test_names_that_are_taken_or_missing(client: bigquery.Client) -> None:
    with refused(Conflict, "Already Exists: Dataset test:billing"):
        client.create_dataset("billing", retry=None)
    with refused(Conflict, "Already Exists: Table test:billing.cur"):
        client.create_table(bigquery.Table(CUR, SCHEMA), retry=None)
    with refused(NotFound, "Not found: Dataset test:nowhere"):
        client.get_dataset("nowhere", retry=None)

    assert [item.dataset_id for item in client.list_datasets()] == ["billing"]
    assert client.get_dataset("billing").location == "US"


def test_parameters_of_every_type_come_back_as_they_went(client: bigquery.Client) -> None:
    values = {
        "STRING": "it's ? @x",
        "INT64": 2**62,
        "FLOAT64": 0.1,
        "BOOL": True,
        "DATE": JANUARY,
        "TIMESTAMP": datetime(2024, 1, 31, 23, 59, 59, 999_999, UTC),
        "NUMERIC": Decimal("0.000000001"),
        "BIGNUMERIC": COST,
    }
    named = [bigquery.ScalarQueryParameter(f"p_{kind}", kind, values[kind]) for kind in values]
    positional = [bigquery.ScalarQueryParameter(None, kind, values[kind]) for kind in values]
    nulls = [bigquery.ScalarQueryParameter(None, kind, None) for kind in values]
    marks = ", ".join("?" for _ in values)

    assert query(client, f"SELECT {', '.join(f'@p_{kind}' for kind in values)}", *named) == [
        tuple(values.values())
    ]
    assert query(client, f"SELECT {marks} /* ? */", *positional) == [tuple(values.values())]
    assert query(client, f"SELECT {marks}", *nulls) == [(None,) * len(values)]


def test_a_select_has_bigquery_types_and_names(client: bigquery.Client) -> None:
    sql = """
        SELECT account, count(*), sum(cost) AS cost, CAST('0.000000001' AS NUMERIC) AS n,
            CURRENT_TIMESTAMP() AS now, date_trunc(max(billing_month), MONTH) AS month
        FROM `test`.billing.cur WHERE billing_month = @month GROUP BY account
    """
    month = bigquery.ScalarQueryParameter("month", "DATE", JANUARY)
    config = bigquery.QueryJobConfig(query_parameters=[month])

    rows = client.query_and_wait(sql, job_config=config, job_retry=None, retry=None)

    types = {field.name: field.field_type for field in rows.schema}
    assert types == {
        "account": "STRING",
        "f0_": "INTEGER",
        "cost": "BIGNUMERIC",
        "n": "NUMERIC",
        "now": "TIMESTAMP",
        "month": "DATE",
    }
    (row,) = rows
    assert (row.account, row.f0_, row.cost, row.n) == ("one", 1, COST, Decimal("0.000000001"))


def test_rows_come_in_pages(client: bigquery.Client) -> None:
    account = [bigquery.SchemaField("account", "STRING")]
    rows = client.list_rows(CUR, selected_fields=account, page_size=1)
    assert [[row.account for row in page] for page in rows.pages] == [["one"], ["two"]]
    assert len(list(client.list_rows(CUR, max_results=1))) == 1

    select = f"SELECT account FROM `{CUR}` ORDER BY 1"
    assert len(list(client.query_and_wait(select, max_results=1, job_retry=None))) == 1
    job = client.query(select, job_retry=None)
    pages = job.result(page_size=1, job_retry=None).pages
    assert [[row.account for row in page] for page in pages] == [["one"], ["two"]]


def test_dml_counts_the_rows_that_it_changes(client: bigquery.Client) -> None:
    account = bigquery.ScalarQueryParameter("account", "STRING", "three")
    merge = f"""
        MERGE `{CUR}` AS bill USING (SELECT 'two' AS account, NUMERIC '2.5' AS cost) AS fix
        ON bill.account = fix.account
        WHEN MATCHED THEN UPDATE SET cost = fix.cost
        WHEN NOT MATCHED BY SOURCE THEN DELETE
    """
    statements = [
        (f"INSERT `{CUR}` (billing_month, account) VALUES (DATE '2024-03-01', @account)", 1),
        ("UPDATE billing.cur SET cost = BIGNUMERIC '0.000000000000000002' WHERE true", 3),
        ("DELETE billing.cur WHERE account = @account", 1),
        (merge, 2),
    ]
    for sql, changed in statements:
        config = bigquery.QueryJobConfig(query_parameters=[account])
        job = client.query(sql, job_config=config, job_retry=None)
        job.result(job_retry=None)
        assert (job.num_dml_affected_rows, job.state) == (changed, "DONE")

    assert query(client, "SELECT account, cost FROM billing.cur") == [("two", Decimal("2.5"))]
    assert query(client, "SELECT BIGNUMERIC '0.000000000000000001'") == [(COST,)]
    rows = client.query_and_wait("DELETE FROM billing.cur WHERE true", job_retry=None)
    assert rows.num_dml_affected_rows == 1


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        ("SELECT nothing FROM billing.cur", BadRequest, "nothing"),
        ("SELECT FROM WHERE", BadRequest, "Syntax error"),
        ("DELETE FROM billing.cur", BadRequest, "DELETE must have a WHERE clause"),
        ("SELECT * FROM billing.none", NotFound, "Not found: Table test:billing.none"),
        ("SELECT * FROM none", BadRequest, 'Table "none" must be qualified with a dataset'),
        ("SELECT @missing", BadRequest, "Query parameter 'missing' not found"),
    ],
)
def test_a_bad_query_fails_in_its_job_and_in_query_and_wait(
    client: bigquery.Client, sql: str, error: type[GoogleAPICallError], message: str
) -> None:
    with refused(error, message):
        query(client, sql)
    with refused(error, message):
        client.query_and_wait(sql, retry=None, job_retry=None)


def test_what_the_server_cannot_do_is_said_at_once(client: bigquery.Client) -> None:
    array = bigquery.ArrayQueryParameter("accounts", "STRING", ["one"])
    config = bigquery.QueryJobConfig(query_parameters=[array])
    with refused(MethodNotImplemented, "does not support query parameters of type ARRAY"):
        client.query_and_wait("SELECT @accounts", job_config=config)
    with refused(MethodNotImplemented, "does not support scripts, DDL"):
        client.query_and_wait("CREATE TABLE billing.more (id INT64)")
    with refused(MethodNotImplemented, "does not support DELETE"):
        client.delete_dataset("billing")
    nowhere = [bigquery.SchemaField("nowhere", "STRING")]
    with refused(MethodNotImplemented, "does not support this request"):
        list(client.list_rows(CUR, selected_fields=nowhere))


def test_faults_are_answered_as_often_as_the_test_asks(
    server: BigQueryServer, client: bigquery.Client
) -> None:
    server.fail_next("/upload/", 503, "backendError")
    server.fail_next("/tables/cur", 403, "quotaExceeded", times=2)

    with refused(ServiceUnavailable, "backendError"):
        load(client, f"{CUR}$202401", bill(JANUARY, account="new"))
    for _ in range(2):
        with pytest.raises(Forbidden) as caught:
            client.get_table(CUR, retry=None)
        assert caught.value.errors[0]["reason"] == "quotaExceeded"

    assert client.get_table(CUR, retry=None).num_rows == 2
    load(client, f"{CUR}$202401", bill(JANUARY, account="new"))
    assert accounts(client)[0] == (JANUARY, "new")
