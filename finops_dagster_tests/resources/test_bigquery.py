"""The chain into BigQuery: a month is replaced in one load job, and the ledger tells the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.footer import read_footer
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.parquet_month import export_month
from finops_dagster.billing.table import prepare
from finops_dagster.billing.vendors.aws_cur1 import AwsCur1
from finops_dagster.resources.warehouses import MonthFile
from finops_dagster.resources.warehouses.bigquery import BigQueryWarehouse
from finops_dagster_tests.cur import HEADERS, deliver, items, line_item
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.bigquery import BigQueryServer

TABLE = "acme.finops.aws_billing_data"


@pytest.fixture(scope="module")
def running_server() -> Iterator[BigQueryServer]:
    with BigQueryServer() as server:
        yield server


@pytest.fixture
def server(running_server: BigQueryServer, project: Project) -> BigQueryServer:
    """A BigQuery in which the project's dataset is not there yet."""
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


def totals(server: BigQueryServer) -> list[tuple[Any, ...]]:
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


def loads(server: BigQueryServer) -> int:
    """How many load jobs were uploaded."""
    return sum("/upload/" in path for method, path in server.requests if method == "POST")


def test_a_month_arrives_exactly_in_a_partitioned_table(
    project: Project, server: BigQueryServer
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "0.000000000000000001", "12345678.25")])
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    expected = Decimal("12345678.250000000000000001")
    assert totals(server) == [("2024-01", 2, expected, "20240301T000000Z")]
    table = server.client("acme").get_table(TABLE)
    assert table.time_partitioning.type_ == "MONTH"
    assert table.time_partitioning.field == "billing_month"
    assert table.clustering_fields == ["lineitem_usagestartdate", "lineitem_productcode"]
    types = {field.name: field.field_type for field in table.schema}
    assert types["lineitem_unblendedcost"] == "BIGNUMERIC"
    assert types["lineitem_usagestartdate"] == "TIMESTAMP"
    assert types["billing_month"] == "DATE"
    assert types["bill_payeraccountid"] == "STRING"
    ((period, version, rows, state, job),) = ledger(server)
    assert (period, version, rows, state) == ("2024-01", "20240301T000000Z", 2, "loaded")
    assert outcome.metadata("warehouse_table")["job_id"] == job
    assert job.startswith("finops_acme_2024-01_20240301T000000Z_")
    assert outcome.checks()["warehouse_table.reconciles"]


def test_a_restated_month_replaces_its_partition_alone(
    project: Project, server: BigQueryServer
) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1", "2")], version="v1")
        assert project.materialize(month).success
    deliver(project.put, "2024-01", [items("2024-01", "8")], version="v2")
    assert project.materialize("2024-01").success
    assert totals(server) == [("2024-01", 1, 8, "v2"), ("2024-02", 2, 3, "v1")]


def test_an_unchanged_month_is_counted_not_loaded(project: Project, server: BigQueryServer) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    server.requests.clear()
    assert project.materialize("2024-01").outcomes()["warehouse_table"] == "unchanged"
    assert loads(server) == 0
    assert project.materialize("2024-01", force=True).outcomes()["warehouse_table"] == "loaded"
    assert loads(server) == 1
    assert totals(server)[0][1:3] == (1, 1)


def test_rows_taken_out_of_the_partition_are_noticed_and_loaded_again(
    project: Project, server: BigQueryServer
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", "2")])
    project.materialize("2024-01")
    query(server, f"DELETE FROM `{TABLE}` WHERE lineitem_unblendedcost = 2")
    assert project.materialize("2024-01").outcomes()["warehouse_table"] == "loaded"
    assert totals(server)[0][1:3] == (2, 3)


def test_new_columns_are_added_and_absent_ones_are_null(
    project: Project, server: BigQueryServer
) -> None:
    for month, column in {"2024-01": "old", "2024-02": "new"}.items():
        row = line_item(month, **{f"product__{column}": "x"})
        deliver(project.put, month, [[row]], headers=(*HEADERS, f"product/{column}"))
        assert project.materialize(month).success
    rows = query(server, f"SELECT product_old, product_new FROM `{TABLE}` ORDER BY billing_month")
    assert rows == [("x", None), (None, "x")]


def test_an_empty_month_empties_its_partition(project: Project, server: BigQueryServer) -> None:
    for version, rows in {"v1": items("2024-01", "1"), "v2": []}.items():
        deliver(project.put, "2024-01", [rows], version=version)
        assert project.materialize("2024-01").success
    assert totals(server) == []
    assert project.materialize("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_a_column_of_another_type_is_refused_before_anything_is_loaded(
    project: Project, server: BigQueryServer
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    client = server.client("acme")
    client.create_dataset("finops", exists_ok=True)
    table = bigquery.Table(TABLE, [bigquery.SchemaField("lineitem_unblendedcost", "FLOAT64")])
    client.create_table(table)
    error = project.materialize("2024-01").error
    assert "column lineitem_unblendedcost of acme.finops.aws_billing_data is FLOAT" in error
    assert loads(server) == 0


def test_a_failed_load_is_told_by_the_ledger_and_the_old_month_stays(
    project: Project, server: BigQueryServer
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.materialize("2024-01")
    deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2")
    server.fail_next("/upload/", 403, "quotaExceeded")
    outcome = project.materialize("2024-01")
    assert not outcome.success
    assert "quotaExceeded" in outcome.error or "Quota" in outcome.error
    assert totals(server)[0][2:] == (1, "v1")
    assert [(row[1], row[3]) for row in ledger(server)] == [("v1", "loaded"), ("v2", "failed")]
    assert project.materialize("2024-01").success
    assert totals(server)[0][2:] == (2, "v2")


def test_a_run_that_takes_over_finds_the_finished_job(
    project: Project, server: BigQueryServer
) -> None:
    """The run before died after BigQuery had taken the job and before it wrote the ledger."""
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    query(server, f"UPDATE `{TABLE}_loads` SET state = 'loading' WHERE TRUE")
    server.requests.clear()
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert loads(server) == 0
    ((_, _, _, state, job),) = ledger(server)
    assert (state, job) == ("loaded", outcome.metadata("warehouse_table")["job_id"])
    assert totals(server)[0][1:3] == (1, 1)


def test_a_deleted_table_is_made_and_loaded_again(project: Project, server: BigQueryServer) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    for table in (TABLE, f"{TABLE}_loads"):
        server.client("acme").delete_table(table)
    assert project.materialize("2024-01").outcomes()["warehouse_table"] == "loaded"
    assert totals(server)[0][1:3] == (1, 1)


def test_missing_credentials_are_told_in_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(project.folder))
    project.database = {"backend": "bigquery", "bigquery": {"project_id": "acme"}}
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    assert "no Google credentials were found" in project.materialize("2024-01").error


def test_a_bill_of_few_columns_arrives_too(project: Project, server: BigQueryServer) -> None:
    headers = ("identity/LineItemId", "lineItem/UnblendedCost")
    deliver(project.put, "2024-01", [items("2024-01", "1")], headers=headers)
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert totals(server) == [("2024-01", 1, 1, "20240301T000000Z")]


def test_other_tables_of_the_dataset_are_left_alone(
    project: Project, server: BigQueryServer
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    tables = server.client("acme").list_tables("finops")
    assert {table.table_id for table in tables} == {"aws_billing_data", "aws_billing_data_loads"}
    written = {path for method, path in server.requests if method in {"DELETE", "PUT", "PATCH"}}
    assert written == set()


MonthOf = Callable[..., MonthFile]


@pytest.fixture
def month_of(tmp_path: Path) -> MonthOf:
    """Writes a month of one line that costs 1, with further columns as SQL, as the lake has it."""
    month = BillingMonth(2024, 1)

    def write(manifest_id: str, **columns: str) -> MonthFile:
        path = tmp_path / f"{manifest_id}.parquet"
        values = {
            "billing_month": "DATE '2024-01-01'",
            "lineitem_unblendedcost": "CAST(1 AS DECIMAL(38,18))",
            **columns,
        }
        line = ", ".join(f"{value} AS {name}" for name, value in values.items())
        totals = Totals(1, Decimal(1))
        with duckdb.connect() as connection:
            prepare(connection)
            connection.execute(f"CREATE TABLE aws_billing_data AS SELECT {line}")
            load = Load("acme", month, manifest_id, "aws_billing_data", totals, 1, 1, "run", "cur1")
            export_month(connection, load, path, AwsCur1())
        footer, schema = read_footer(path), pq.read_schema(path)
        assert footer
        cost = "lineitem_unblendedcost"
        return MonthFile("acme", load.table, month, path, footer, schema, cost, None, ())

    return write


def warehouse_of(server: BigQueryServer) -> BigQueryWarehouse:
    return BigQueryWarehouse(project="acme", dataset="finops", api_endpoint=server.url)


TAGS = "MAP {'user_team': 'bob', 'user_note': NULL}::MAP(VARCHAR, VARCHAR)"
DISCOUNTS = "MAP {'edp': 0.000000000000000001}::MAP(VARCHAR, DECIMAL(38,18))"
NO_TAGS = {"NULL": "NULL::MAP(VARCHAR, VARCHAR)", "empty": "MAP {}::MAP(VARCHAR, VARCHAR)"}


@pytest.mark.parametrize("key_mode", ["REQUIRED", "NULLABLE"])
def test_maps_arrive_as_arrays_of_keys_and_values(month_of: MonthOf, key_mode: str) -> None:
    """Whether BigQuery takes a map's keys for REQUIRED or for NULLABLE is not documented."""
    with BigQueryServer(map_key_mode=key_mode) as server:
        warehouse = warehouse_of(server)
        for version in ("v1", "v2"):
            file = month_of(version, resource_tags=TAGS, discount=DISCOUNTS)
            assert warehouse.held_version(file) != file.footer
            warehouse.replace_month(file)
            assert warehouse.held_version(file) == file.footer
        key = SchemaField("key", "STRING", key_mode)
        expected = [
            SchemaField(name, "RECORD", "REPEATED", fields=[key, SchemaField("value", value)])
            for name, value in {"resource_tags": "STRING", "discount": "BIGNUMERIC"}.items()
        ]
        assert server.client("acme").get_table(TABLE).schema[2:] == expected
        assert query(server, f"SELECT resource_tags, discount FROM `{TABLE}`") == [
            (
                [{"key": "user_team", "value": "bob"}, {"key": "user_note", "value": None}],
                [{"key": "edp", "value": Decimal("0.000000000000000001")}],
            )
        ]
        team = "SELECT value FROM UNNEST(resource_tags) WHERE key = 'user_team'"
        assert query(server, f"SELECT ({team}) AS team FROM `{TABLE}`") == [("bob",)]


@pytest.mark.parametrize("no_tags", NO_TAGS.values(), ids=NO_TAGS)
def test_a_map_without_keys_is_an_empty_array(
    server: BigQueryServer, month_of: MonthOf, no_tags: str
) -> None:
    warehouse_of(server).replace_month(month_of("v1", resource_tags=no_tags))
    assert query(server, f"SELECT resource_tags FROM `{TABLE}`") == [([],)]


def test_a_map_column_is_added_to_a_table_that_has_none(
    server: BigQueryServer, month_of: MonthOf
) -> None:
    warehouse = warehouse_of(server)
    warehouse.replace_month(month_of("v1", region="'eu'"))
    warehouse.replace_month(month_of("v2", resource_tags=TAGS))
    names = [field.name for field in server.client("acme").get_table(TABLE).schema]
    assert names[2:] == ["region", "resource_tags"]
    warehouse.replace_month(month_of("v3", region="'eu'"))
    assert query(server, f"SELECT region, resource_tags FROM `{TABLE}`") == [("eu", [])]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("'bob'", TAGS, "is STRING, the month's is ARRAY<STRUCT<key STRING, value STRING>>"),
        (TAGS, "'bob'", "is ARRAY<STRUCT<key STRING, value STRING>>, the month's is STRING"),
        (
            TAGS,
            DISCOUNTS,
            "is ARRAY<STRUCT<key STRING, value STRING>>, "
            "the month's is ARRAY<STRUCT<key STRING, value BIGNUMERIC>>",
        ),
    ],
    ids=["a text becomes a map", "a map becomes a text", "a map becomes one of numbers"],
)
def test_a_map_column_keeps_its_type(
    server: BigQueryServer, month_of: MonthOf, before: str, after: str, message: str
) -> None:
    warehouse = warehouse_of(server)
    warehouse.replace_month(month_of("v1", resource_tags=before))
    with pytest.raises(BillError) as refused:
        warehouse.replace_month(month_of("v2", resource_tags=after))
    assert str(refused.value) == (
        f"column resource_tags of {TABLE} {message}; give the export another table or change it"
    )
    assert loads(server) == 1


def test_a_table_with_the_other_shape_of_a_map_is_refused(
    server: BigQueryServer, month_of: MonthOf
) -> None:
    """A load without mapTargetType would have made it so."""
    entry = [SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", "STRING")]
    entries = [SchemaField("key_value", "RECORD", "REPEATED", fields=entry)]
    client = server.client("acme")
    client.create_dataset("finops", exists_ok=True)
    tags = SchemaField("resource_tags", "RECORD", fields=entries)
    client.create_table(bigquery.Table(TABLE, [tags]))
    shape = "STRUCT<key_value ARRAY<STRUCT<key STRING, value STRING>>>"
    with pytest.raises(BillError, match=f"column resource_tags of {TABLE} is {shape}, the month's"):
        warehouse_of(server).replace_month(month_of("v1", resource_tags=TAGS))
    assert loads(server) == 0
