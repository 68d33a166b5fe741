"""Load jobs of the BigQuery test server, as the project asks for them."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from google.api_core.exceptions import BadRequest, Conflict, MethodNotImplemented, NotFound
from google.cloud import bigquery

from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.servers.bigquery_bills import (
    ARROW_SCHEMA,
    COST,
    CUR,
    FEBRUARY,
    JANUARY,
    SCHEMA,
    accounts,
    bill,
    load,
    query,
    refused,
)


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
