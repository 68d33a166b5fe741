"""Parquet maps in the BigQuery test server, which BigQuery knows only as records."""

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from google.api_core.exceptions import BadRequest, MethodNotImplemented
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField

from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.servers.bigquery_bills import (
    COST,
    CUR,
    JANUARY,
    bill,
    load,
    query,
    refused,
)

TAGS = pa.map_(pa.string(), pa.string())
DISCOUNTS = pa.map_(pa.string(), pa.decimal128(38, 18))
KEY, VALUE = SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", "STRING")
TAGS_FIELD = SchemaField("tags", "RECORD", "REPEATED", fields=[KEY, VALUE])
ADD = {"schema_update_options": ["ALLOW_FIELD_ADDITION"]}
RELAX = {"schema_update_options": ["ALLOW_FIELD_RELAXATION"]}
BOB = [("user_team", "bob"), ("user_cost", None)]


def load_maps(
    client: bigquery.Client,
    rows: pa.Table,
    destination: str = f"{CUR}$202401",
    target_type: str | None = "ARRAY_OF_STRUCT",
    **config: Any,
) -> bigquery.LoadJob:
    """Loads the rows, their maps as arrays of structs unless it is told otherwise."""
    options = bigquery.format_options.ParquetOptions()
    options.map_target_type = target_type
    return load(client, destination, rows, parquet_options=options, **config)


def tagged(*tags: list[tuple[str, str | None]] | None, **columns: Any) -> pa.Table:
    """A January of one line for each of the tags."""
    rows = pa.concat_tables([bill(JANUARY, account=str(n)) for n, _ in enumerate(tags)])
    for name, value in {"tags": pa.array(tags, TAGS), **columns}.items():
        rows = rows.append_column(name, value)
    return rows


def test_a_map_becomes_an_array_of_keys_and_values(client: bigquery.Client) -> None:
    discounts = pa.array([[("edp", COST)], [], None], DISCOUNTS)

    load_maps(client, tagged(BOB, [], None, discounts=discounts), **ADD)

    fields = client.get_table(CUR).schema[3:]
    big = SchemaField("value", "BIGNUMERIC")
    discounts_field = SchemaField("discounts", "RECORD", "REPEATED", fields=[KEY, big])
    assert fields == [TAGS_FIELD, discounts_field]
    read = [(row.account, row.tags, row.discounts) for row in client.list_rows(CUR)]
    dicts = [{"key": "user_team", "value": "bob"}, {"key": "user_cost", "value": None}]
    assert sorted(read) == [
        ("0", dicts, [{"key": "edp", "value": COST}]),
        ("1", [], []),
        ("2", [], []),
        ("two", [], []),
    ]
    assert query(client, f"SELECT account, tags, discounts FROM `{CUR}` ORDER BY 1") == sorted(read)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT account, (SELECT value FROM UNNEST(tags) WHERE key = 'user_team') AS team "
            "FROM billing.cur ORDER BY 1",
            [("0", "bob"), ("1", None), ("two", None)],
        ),
        (
            "SELECT account, tag.key, tag.value FROM billing.cur, UNNEST(tags) AS tag ORDER BY 2",
            [("0", "user_cost", None), ("0", "user_team", "bob")],
        ),
        (
            "SELECT tag.value FROM billing.cur AS b, b.tags AS tag WHERE tag.key = 'user_team'",
            [("bob",)],
        ),
        (
            "SELECT account, tag.value FROM billing.cur "
            "LEFT JOIN UNNEST(tags) AS tag ON tag.key = 'user_team' ORDER BY 1",
            [("0", "bob"), ("1", None), ("two", None)],
        ),
        (
            "SELECT account FROM billing.cur "
            "WHERE EXISTS (SELECT 1 FROM UNNEST(tags) WHERE key = 'user_cost')",
            [("0",)],
        ),
        (
            "SELECT key, SUM(value) FROM billing.cur, UNNEST(discounts) GROUP BY key",
            [("edp", Decimal("1.5"))],
        ),
        ("SELECT ARRAY_LENGTH(tags) FROM billing.cur ORDER BY 1", [(0,), (0,), (2,)]),
        ("SELECT tag FROM billing.cur, UNNEST(tags) AS tag WHERE tag.key = 'absent'", []),
        ("SELECT number FROM UNNEST([1, 2]) AS number ORDER BY 1", [(1,), (2,)]),
    ],
)
def test_sql_reads_keys_and_values(
    client: bigquery.Client, sql: str, expected: list[tuple[Any, ...]]
) -> None:
    discounts = pa.array([[("edp", Decimal("0.5"))], [("edp", Decimal(1))]], DISCOUNTS)
    load_maps(client, tagged(BOB, [], discounts=discounts), **ADD)

    assert query(client, sql) == expected


def test_an_unnested_array_gives_its_elements(client: bigquery.Client) -> None:
    load_maps(client, tagged(BOB), **ADD)

    sql = "SELECT tag FROM billing.cur, UNNEST(tags) AS tag WHERE tag.value IS NOT NULL"
    assert query(client, sql) == [({"key": "user_team", "value": "bob"},)]


def test_without_a_target_type_a_map_is_a_record_around_its_entries(
    client: bigquery.Client,
) -> None:
    load_maps(client, tagged(BOB[:1], [], None), target_type=None, **ADD)

    entries = SchemaField("key_value", "RECORD", "REPEATED", fields=[KEY, VALUE])
    assert client.get_table(CUR).schema[3] == SchemaField("tags", "RECORD", fields=[entries])
    assert query(client, f"SELECT tags FROM `{CUR}` ORDER BY account") == [
        ({"key_value": [{"key": "user_team", "value": "bob"}]},),
        ({"key_value": []},),
        (None,),
        (None,),
    ]
    sql = "SELECT key FROM billing.cur AS bill, UNNEST(bill.tags.key_value)"
    assert query(client, sql) == [("user_team",)]


def test_a_map_is_refused_where_the_table_has_another_shape_of_it(client: bigquery.Client) -> None:
    load_maps(client, tagged(BOB), **ADD)

    with refused(BadRequest, "Field tags has changed mode from REPEATED to NULLABLE"):
        load_maps(client, tagged(BOB), target_type=None)
    with refused(BadRequest, "Field tags has changed type from RECORD to STRING"):
        load_maps(client, bill(JANUARY, tags="bob"))
    numbers = tagged(BOB).set_column(3, "tags", pa.array([[("a", COST)]], DISCOUNTS))
    with refused(BadRequest, "Field tags.value has changed type from STRING to BIGNUMERIC"):
        load_maps(client, numbers)

    assert query(client, "SELECT account FROM billing.cur ORDER BY 1") == [("0",), ("two",)]


def test_decimals_in_a_map_stay_exact_or_are_refused(client: bigquery.Client) -> None:
    def discounts(discount: Decimal) -> pa.Table:
        return pa.table({"discounts": pa.array([[("edp", discount)]], DISCOUNTS)})

    narrow = {"destination": "test.billing.narrow", "decimal_target_types": ["NUMERIC"]}
    load_maps(client, discounts(Decimal("0.25")), **narrow)

    (field,) = client.get_table("test.billing.narrow").schema
    assert [inside.field_type for inside in field.fields] == ["STRING", "NUMERIC"]
    with refused(BadRequest, "Invalid NUMERIC value: 0.000000000000000001 Field: discounts"):
        load_maps(client, discounts(COST), **narrow)


def test_the_schema_of_a_job_has_the_modes_of_the_file(client: bigquery.Client) -> None:
    rows = tagged(BOB).select(["tags"])
    for key_mode, mode, message in (
        ("NULLABLE", "REPEATED", "Field 'tags.key' is specified as NULLABLE in provided schema"),
        ("REQUIRED", "NULLABLE", "Field 'tags' is specified as NULLABLE in provided schema"),
    ):
        key = SchemaField("key", "STRING", key_mode)
        schema = [SchemaField("tags", "RECORD", mode, fields=[key, VALUE])]
        with refused(BadRequest, message):
            load_maps(client, rows, "test.billing.new", schema=schema)


def test_required_fields_are_relaxed_where_the_load_may(server: BigQueryServer) -> None:
    client = server.client()
    client.create_dataset("billing")
    required = [SchemaField("id", "INTEGER", "REQUIRED"), SchemaField("month", "DATE")]
    client.create_table(bigquery.Table("test.billing.ids", required))
    rows = pa.table({"id": pa.array([None], pa.int64()), "month": [date(2024, 1, 1)]})

    load(client, "test.billing.ids", rows, write_disposition="WRITE_APPEND", **RELAX)

    assert client.get_table("test.billing.ids").schema[0].mode == "NULLABLE"
    assert query(client, "SELECT id FROM billing.ids") == [(None,)]


def test_a_server_may_take_keys_for_nullable() -> None:
    with BigQueryServer(map_key_mode="NULLABLE") as server:
        client = server.client()
        client.create_dataset("billing")
        monthly = bigquery.TimePartitioning("MONTH", field="billing_month")
        table = bigquery.Table(CUR, [SchemaField("billing_month", "DATE"), TAGS_FIELD])
        table.time_partitioning = monthly
        client.create_table(table)
        rows = tagged(BOB).select(["billing_month", "tags"])

        with refused(BadRequest, "Field tags.key has changed mode from REQUIRED to NULLABLE"):
            load_maps(client, rows)
        load_maps(client, rows, **RELAX)

        key = client.get_table(CUR).schema[1].fields[0]
        assert (key.name, key.mode) == ("key", "NULLABLE")


def test_a_record_column_is_added_with_its_required_keys_and_then_kept(
    client: bigquery.Client,
) -> None:
    table = client.get_table(CUR)
    table.schema = [*table.schema, TAGS_FIELD]
    client.update_table(table, ["schema"], retry=None)
    assert query(client, "SELECT tags FROM billing.cur") == [([],), ([],)]
    load_maps(client, tagged(BOB))
    query(client, "INSERT billing.cur (billing_month, account) VALUES ('2024-02-01', 'three')")

    assert query(client, "SELECT tags FROM billing.cur WHERE account = 'three'") == [([],)]
    table = client.get_table(CUR)
    more = [*TAGS_FIELD.fields, SchemaField("more", "STRING")]
    for fields, error, message in (
        ([], BadRequest, "Field tags is type RECORD but has no schema"),
        (more, MethodNotImplemented, "adding or leaving out fields of tags"),
        ([KEY], MethodNotImplemented, "adding or leaving out fields of tags"),
    ):
        record = SchemaField("tags", "RECORD", "REPEATED", fields=fields)
        table.schema = [*table.schema[:3], record]
        with refused(error, message):
            client.update_table(table, ["schema"], retry=None)


def test_what_is_not_supported_of_arrays(client: bigquery.Client) -> None:
    lists = tagged(BOB).append_column("list", pa.array([["a"]]))
    with refused(MethodNotImplemented, "the nested Parquet column list"):
        load_maps(client, lists)
    load_maps(client, tagged(BOB), **ADD)
    with refused(MethodNotImplemented, "UNNEST with OFFSET"):
        query(client, "SELECT n FROM billing.cur, UNNEST(tags) AS tag WITH OFFSET AS n")
