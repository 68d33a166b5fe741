"""BigQuery: partitions, load jobs that outlive their runs, and maps as arrays."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from google.cloud import bigquery
from google.cloud.bigquery import PolicyTagList, SchemaField
from werkzeug import Request

from finops_dagster.billing.columns import Sql
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.bigquery.dialect import BigQueryDialect
from finops_dagster.warehouses.bigquery.rebuild_table import rebuild_statement
from finops_dagster.warehouses.bigquery.settings import BigQuerySettings
from finops_dagster_tests.cur import deliver, line_items
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.servers.bigquery_errors import BigQueryError
from finops_dagster_tests.warehouses.conftest import MonthOf, refused

TABLE = "acme.finops.aws_billing_data"


@pytest.fixture(scope="module")
def running_server() -> Iterator[BigQueryServer]:
    with BigQueryServer() as server:
        yield server


@pytest.fixture
def server(running_server: BigQueryServer, project: Project) -> BigQueryServer:
    """Provide a server without the project's dataset."""
    client = running_server.client("acme")
    for dataset in client.list_datasets():
        for table in client.list_tables(dataset.dataset_id):
            client.delete_table(table)
    project.database = {
        "backend": "bigquery",
        "bigquery": {"project_id": "acme", "api_endpoint": running_server.url},
    }
    running_server.requests.clear()
    return running_server


def query(server: BigQueryServer, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in server.client("acme").query_and_wait(sql)]


def month_totals(server: BigQueryServer) -> list[tuple[Any, ...]]:
    return query(
        server,
        "SELECT FORMAT_DATE('%Y-%m', billing_month), COUNT(*), SUM(lineitem_unblendedcost), "
        f"MAX(manifest_id) FROM `{TABLE}` GROUP BY 1 ORDER BY 1",
    )


def ledger(server: BigQueryServer) -> list[tuple[Any, ...]]:
    return query(
        server,
        "SELECT billing_period, manifest_id, row_count, state, job_id "
        f"FROM `{TABLE}_loads` ORDER BY load_timestamp",
    )


def upload_count(server: BigQueryServer) -> int:
    """Return the number of load jobs that were uploaded."""
    return sum("/upload/" in path for method, path in server.requests if method == "POST")


def test_table_is_partitioned_by_month_and_the_job_id_names_the_month(
    project: Project, server: BigQueryServer
) -> None:
    deliver(project.put, "2024-01", [line_items("2024-01", "1")])
    outcome = project.load("2024-01")
    table = server.client("acme").get_table(TABLE)
    assert table.time_partitioning.type_ == "MONTH"
    assert table.time_partitioning.field == "billing_month"
    assert table.clustering_fields == ["lineitem_usagestartdate", "lineitem_productcode"]
    types = {field.name: field.field_type for field in table.schema}
    assert types["lineitem_unblendedcost"] == "BIGNUMERIC"
    assert types["lineitem_usagestartdate"] == "TIMESTAMP"
    assert types["billing_month"] == "DATE"
    assert types["bill_payeraccountid"] == "STRING"
    ((*_, job),) = ledger(server)
    assert outcome.metadata("warehouse_table")["job_id"] == job
    assert job.startswith("finops_acme_2024-01_20240301T000000Z_")


def test_run_after_a_killed_one_finds_the_finished_job(
    project: Project, server: BigQueryServer
) -> None:
    """The killed run died after BigQuery ran the job and before the ledger was written."""
    deliver(project.put, "2024-01", [line_items("2024-01", "1")])
    project.materialize("2024-01")
    query(server, f"UPDATE `{TABLE}_loads` SET state = 'loading' WHERE TRUE")
    server.requests.clear()
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert upload_count(server) == 0
    ((_, _, _, state, job),) = ledger(server)
    assert (state, job) == ("loaded", outcome.metadata("warehouse_table")["job_id"])
    assert month_totals(server)[0][1:3] == (1, 1)


@pytest.mark.parametrize("query_number", [1, 2], ids=["counting", "ledger"])
def test_failure_after_the_load_is_reported_and_repaired_by_the_next_run(
    project: Project, server: BigQueryServer, query_number: int
) -> None:
    deliver(project.put, "2024-01", [line_items("2024-01", "1")], version="v1")
    project.load("2024-01")
    deliver(project.put, "2024-01", [line_items("2024-01", "2")], version="v2")
    posts: list[str] = []

    def deny(request: Request) -> BigQueryError | None:
        if request.method == "POST" and (posts or "/upload/" in request.path):
            posts.append(request.path)
        is_denied = request.method == "POST" and len(posts) == query_number + 1
        return BigQueryError(403, "accessDenied", "no query today") if is_denied else None

    server.fault = deny
    try:
        outcome = project.materialize("2024-01")
    finally:
        server.fault = None
    assert f"{TABLE} has the month, but its ledger does not record it yet: " in outcome.error
    assert "no query today" in outcome.error
    assert "; run the month again to record it" in outcome.error
    assert month_totals(server)[0][2:] == (2, "v2")
    assert [(row[1], row[3]) for row in ledger(server)] == [("v1", "loaded"), ("v2", "loading")]
    server.requests.clear()
    project.load("2024-01")
    assert upload_count(server) == 0
    assert [(row[1], row[3]) for row in ledger(server)] == [("v1", "loaded"), ("v2", "loaded")]


def test_missing_credentials_are_reported_in_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(project.folder))
    project.database = {"backend": "bigquery", "bigquery": {"project_id": "acme"}}
    deliver(project.put, "2024-01", [line_items("2024-01", "1")])
    assert "no Google credentials were found" in project.materialize("2024-01").error


def bigquery_warehouse(server: BigQueryServer) -> Warehouse:
    settings = BigQuerySettings(project_id="acme", api_endpoint=server.url)
    return Warehouse(partial(BigQueryDialect, settings))


TAGS = "MAP {'user_team': 'bob', 'user_note': NULL}::MAP(VARCHAR, VARCHAR)"
DISCOUNTS = "MAP {'edp': 0.000000000000000001}::MAP(VARCHAR, DECIMAL(38,18))"


@pytest.mark.parametrize("key_mode", ["REQUIRED", "NULLABLE"])
def test_maps_become_arrays_of_keys_and_values(month_of: MonthOf, key_mode: str) -> None:
    """BigQuery's documentation does not say whether a map's keys are REQUIRED or NULLABLE."""
    with BigQueryServer(map_key_mode=key_mode) as server:
        warehouse = bigquery_warehouse(server)
        for version in ("v1", "v2"):
            file = month_of(version, resource_tags=TAGS, discount=DISCOUNTS)
            assert not file.footer.is_same_version(warehouse.measured_version(file))
            warehouse.replace_month(file)
            assert file.footer.is_same_version(warehouse.measured_version(file))
        key = SchemaField("key", "STRING", key_mode)
        expected = [
            SchemaField(name, "RECORD", "REPEATED", fields=[key, SchemaField("value", value)])
            for name, value in {"resource_tags": "STRING", "discount": "BIGNUMERIC"}.items()
        ]
        assert server.client("acme").get_table(TABLE).schema[3:] == expected
        assert query(server, f"SELECT resource_tags, discount FROM `{TABLE}`") == [
            (
                [{"key": "user_team", "value": "bob"}, {"key": "user_note", "value": None}],
                [{"key": "edp", "value": Decimal("0.000000000000000001")}],
            )
        ]
        team = "SELECT value FROM UNNEST(resource_tags) WHERE key = 'user_team'"
        assert query(server, f"SELECT ({team}) AS team FROM `{TABLE}`") == [("bob",)]


def test_large_file_is_uploaded_in_parts(server: BigQueryServer, month_of: MonthOf) -> None:
    """Google's client uploads in parts from 5 MB on."""
    noise = "(SELECT string_agg(md5(CAST(number AS VARCHAR)), '') FROM range(400_000) r(number))"
    file = month_of("v1", noise=noise)
    assert file.local_path().stat().st_size > 5 * 2**20
    bigquery_warehouse(server).replace_month(file)
    assert upload_count(server) == 1
    assert query(server, f"SELECT LENGTH(noise) FROM `{TABLE}`") == [(32 * 400_000,)]


def test_map_column_is_added_to_an_existing_table(
    server: BigQueryServer, month_of: MonthOf
) -> None:
    warehouse = bigquery_warehouse(server)
    warehouse.replace_month(month_of("v1", region="'eu'"))
    warehouse.replace_month(month_of("v2", resource_tags=TAGS))
    names = [field.name for field in server.client("acme").get_table(TABLE).schema]
    assert names[3:] == ["region", "resource_tags"]
    warehouse.replace_month(month_of("v3", region="'eu'"))
    assert query(server, f"SELECT region, resource_tags FROM `{TABLE}`") == [("eu", [])]


def test_rebuilt_table_keeps_its_properties(server: BigQueryServer, month_of: MonthOf) -> None:
    warehouse, client = bigquery_warehouse(server), server.client("acme")
    others = {"resource_tags": TAGS, "discount": DISCOUNTS, "region": "'eu'"}
    started = "TIMESTAMP '2024-01-03 04:05:06'"
    january = dataclasses.replace(
        month_of("v1", **others, started=started), cluster_by=("started",)
    )
    warehouse.replace_month(january)
    before = client.get_table(TABLE)
    before.description, before.labels = 'Ours, "exact"\n', {"team": "finops"}
    before.expires = datetime(2040, 1, 1, tzinfo=UTC)
    described = {"region": "where it ran", "started": "when it began"}
    before.schema = [
        SchemaField.from_api_repr({**field.to_api_repr(), "description": described[field.name]})
        if field.name in described
        else field
        for field in before.schema
    ]
    before = client.update_table(before, ["description", "labels", "expires", "schema"])
    loaded = warehouse.replace_month(month_of("v1", "2024-02", **others, started="'soon'"))
    warning = (
        "started changed from TIMESTAMP to text, because 2024-02 has STRING; cast it in queries"
    )
    assert loaded.warnings == (warning,)
    after = client.get_table(TABLE)
    for attribute in ("description", "labels", "expires", "time_partitioning", "clustering_fields"):
        assert getattr(after, attribute) == getattr(before, attribute)
    assert before.description
    text_field = SchemaField("started", "STRING", description="when it began")
    assert after.schema == [
        text_field if field.name == "started" else field for field in before.schema
    ]
    assert query(server, f"SELECT started FROM `{TABLE}` ORDER BY 1") == [
        ("2024-01-03T04:05:06Z",),
        ("soon",),
    ]
    assert query(server, f"SELECT discount FROM `{TABLE}` LIMIT 1") == [
        ([{"key": "edp", "value": Decimal("0.000000000000000001")}],)
    ]
    assert january.footer.is_same_version(warehouse.measured_version(january))


def test_map_without_keys_becomes_null_text(server: BigQueryServer, month_of: MonthOf) -> None:
    """BigQuery stores NULL, and a month without the column, as a map without keys."""
    warehouse = bigquery_warehouse(server)
    warehouse.replace_month(month_of("v1", resource_tags="MAP {}::MAP(VARCHAR, VARCHAR)"))
    warehouse.replace_month(month_of("v1", "2024-02", resource_tags="'none'"))
    rows = query(server, f"SELECT resource_tags FROM `{TABLE}` ORDER BY billing_month")
    assert rows == [(None,), ("none",)]


def test_table_with_policy_tags_is_not_rebuilt(month_of: MonthOf) -> None:
    tagged = SchemaField("region", "STRING", policy_tags=PolicyTagList(["projects/acme/pii"]))
    when = SchemaField("started", "TIMESTAMP")
    message = (
        f"column started of {TABLE} must become text; that rebuilds the table, and column region "
        "would lose its policy tags; remove them, run the month again, and add them again"
    )
    with refused(re.escape(message)):
        rebuild_statement(bigquery.Table(TABLE, [tagged, when]), {"started": Sql("started")})


def test_too_many_columns_are_refused_before_the_upload(
    server: BigQueryServer, month_of: MonthOf
) -> None:
    """BigQuery counts fields that have values, so that a map is two."""
    warehouse = bigquery_warehouse(server)
    file = month_of("v1", resource_tags=TAGS)
    tags = [pa.field(f"resourcetags_user_{number}", pa.string()) for number in range(9_995)]
    warehouse.replace_month(file)
    schema = pa.schema([*file.schema, *tags, pa.field("one_more", pa.string())])
    server.requests.clear()
    message = (
        f"{TABLE} would have 10,001 columns with 2024-01; BigQuery allows 10,000, and counts a map "
        "as two; give the export another name and table, or activate fewer tags at the vendor"
    )
    with refused(re.escape(message)):
        warehouse.replace_month(dataclasses.replace(file, schema=schema))
    assert {method for method, _ in server.requests} == {"GET"}


def test_map_of_text_does_not_become_a_map_of_amounts(
    server: BigQueryServer, month_of: MonthOf
) -> None:
    warehouse = bigquery_warehouse(server)
    warehouse.replace_month(month_of("v1", resource_tags=TAGS))
    message = (
        f"column resource_tags of {TABLE} is ARRAY<STRUCT<key STRING, value STRING>>, but 2024-01 "
        "has ARRAY<STRUCT<key STRING, value BIGNUMERIC>>; change the type of the table's column, "
        "or give the export another table"
    )
    with refused(re.escape(message)):
        warehouse.replace_month(month_of("v2", resource_tags=DISCOUNTS))
    assert upload_count(server) == 1


def test_table_with_another_shape_of_map_is_refused(
    server: BigQueryServer, month_of: MonthOf
) -> None:
    """A load without mapTargetType creates this shape."""
    entry = [SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", "STRING")]
    entries = [SchemaField("key_value", "RECORD", "REPEATED", fields=entry)]
    client = server.client("acme")
    client.create_dataset("finops", exists_ok=True)
    tags = SchemaField("resource_tags", "RECORD", fields=entries)
    client.create_table(bigquery.Table(TABLE, [tags]))
    shape = "STRUCT<key_value ARRAY<STRUCT<key STRING, value STRING>>>"
    with refused(f"column resource_tags of {TABLE} is {shape}, but 2024-01 has"):
        bigquery_warehouse(server).replace_month(month_of("v1", resource_tags=TAGS))
    assert upload_count(server) == 0
