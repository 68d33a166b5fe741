"""A BigQuery test server of a test's own, and one with a table of bills."""

from collections.abc import Iterator

import pytest
from google.cloud import bigquery

from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.servers.bigquery_bills import CUR, FEBRUARY, JANUARY, SCHEMA, bill, load


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
