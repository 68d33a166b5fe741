"""The BigQuery test server, driven as the project drives BigQuery: by Google's own client."""

from datetime import UTC, datetime
from decimal import Decimal

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
from finops_dagster_tests.servers.bigquery_bills import (
    COST,
    CUR,
    JANUARY,
    SCHEMA,
    accounts,
    bill,
    load,
    query,
    refused,
)


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


def test_a_table_is_made_anew_with_the_partitions_that_it_has(client: bigquery.Client) -> None:
    remade = (
        f"CREATE OR REPLACE TABLE `{CUR}` "
        "(billing_month DATE, account STRING NOT NULL, cost STRING) "
        "PARTITION BY DATE_TRUNC(billing_month, {}) CLUSTER BY account OPTIONS(description='anew') "
        f"AS SELECT * REPLACE (CAST(cost AS STRING) AS cost) FROM `{CUR}`"
    )
    with refused(BadRequest, "Cannot replace a table with a different partitioning spec"):
        client.query_and_wait(remade.format("YEAR"), retry=None, job_retry=None)
    assert client.get_table(CUR).schema == SCHEMA
    client.query_and_wait(remade.format("MONTH"))
    table = client.get_table(CUR)
    assert (table.num_rows, table.description, table.clustering_fields) == (2, "anew", ["account"])
    assert [(field.field_type, field.mode) for field in table.schema] == [
        ("DATE", "NULLABLE"),
        ("STRING", "REQUIRED"),
        ("STRING", "NULLABLE"),
    ]


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
