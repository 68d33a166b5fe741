"""The suite that every warehouse passes, through the stages of the project."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.errors import ReconciliationError
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.lake import FolderFile, FolderLake, parquet_relation
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import DigestKind, MonthDigest, month_digest
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster_tests.cur import HEADERS, csv_bytes, deliver, line_item, line_items
from finops_dagster_tests.project import ROOT, MonthRun, Project
from finops_dagster_tests.warehouses.adapters import Adapter, Row, sorted_rows
from finops_dagster_tests.warehouses.conftest import MonthOf, refused
from finops_dagster_tests.warehouses.docs_queries import docs_queries, load_exports_of_queries

TABLE = "aws_billing_data"
COST = "lineitem_unblendedcost"
VERSION_AND_COST = ("manifest_id", COST)


def load_version(project: Project, version: str, *costs: str, month: str = "2024-01") -> MonthRun:
    """Deliver a version of a month, and run all stages."""
    deliver(project.put, month, [line_items(month, *costs)], version=version)
    return project.load(month)


def load_into_lake(project: Project, version: str, *costs: str) -> None:
    """Deliver a version of January, and run the stages up to the Parquet file."""
    deliver(project.put, "2024-01", [line_items("2024-01", *costs)], version=version)
    project.load("2024-01", stages=["manifest", "staged_files", "billing_table", "parquet"])


def project_warehouse(project: Project) -> Warehouse:
    """Return the warehouse that the project's settings select."""
    return open_warehouse(project.settings().database)


def assert_same_rows(warehouse: Adapter, path: Path, month: str, table: str = TABLE) -> None:
    """Assert that the month in the warehouse equals the Parquet file, cell by cell."""
    names, rows = parquet_rows(path, warehouse.keeps_null_maps)
    assert set(names) <= set(warehouse.columns(table))
    assert warehouse.rows(table, names, month) == rows


def parquet_rows(path: Path, keeps_null_maps: bool = True) -> tuple[list[str], list[Row]]:
    """Return the columns and the rows of a file of the lake."""
    relation = duckdb.sql(f"FROM read_parquet('{path}', hive_partitioning = false)")
    nulls = [{} if "MAP" in str(kind) and not keeps_null_maps else None for kind in relation.types]
    rows = [
        [null if cell is None else cell for cell, null in zip(row, nulls, strict=True)]
        for row in relation.fetchall()
    ]
    return relation.columns, sorted_rows(rows)


def test_first_load(project: Project, warehouse: Adapter) -> None:
    outcome = load_version(project, "v1", "0.25", "2")
    assert outcome.outcomes()["warehouse_table"] == "loaded"
    assert outcome.checks()["warehouse_table.reconciles"]
    assert warehouse.rows(TABLE, ("billing_month", *VERSION_AND_COST), "2024-01") == [
        (date(2024, 1, 1), "v1", Decimal("0.25")),
        (date(2024, 1, 1), "v1", Decimal(2)),
    ]
    assert_same_rows(warehouse, project.parquet_path("2024-01"), "2024-01")
    assert set(warehouse.columns(TABLE)) == set(parquet_rows(project.parquet_path("2024-01"))[0])
    assert warehouse.ledger(TABLE) == [("2024-01", "v1", 2, "loaded", None)]
    assert warehouse.tables() == {TABLE, f"{TABLE}_loads"}
    metadata = outcome.metadata("warehouse_table")
    assert metadata["total_cost_exact"] == "2.25"
    assert TABLE in metadata["dagster/table_name"].lower()


def test_unchanged_month_is_not_loaded_again(project: Project, warehouse: Adapter) -> None:
    load_version(project, "v1", "1")
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"
    assert len(warehouse.ledger(TABLE)) == 1
    assert project.load("2024-01", force=True).outcomes()["warehouse_table"] == "loaded"
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == [("v1", Decimal(1))]
    assert [state for _, _, _, state, _ in warehouse.ledger(TABLE)] == ["loaded", "loaded"]


@pytest.mark.parametrize("costs", [("8",), ("8", "9", "10")], ids=["fewer rows", "more rows"])
@pytest.mark.quick("fewer rows")
def test_restatement_replaces_its_month_alone(
    project: Project, warehouse: Adapter, costs: tuple[str, ...]
) -> None:
    for month in ("2024-01", "2024-02"):
        load_version(project, "v1", "1", "2", month=month)
    load_version(project, "v2", *costs)
    january = [("v2", Decimal(cost)) for cost in costs]
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == january
    february = [("v1", Decimal(1)), ("v1", Decimal(2))]
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-02") == february
    assert warehouse.ledger(TABLE) == [
        ("2024-01", "v1", 2, "loaded", None),
        ("2024-02", "v1", 2, "loaded", None),
        ("2024-01", "v2", len(costs), "loaded", None),
    ]


def test_slow_load_does_not_replace_the_newer_version_of_another_run(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    loaded, slow, newer = project_warehouse(project), month_of("v1"), month_of("v2")
    loaded.replace_month(newer)
    shutil.copy(
        newer.local_path(), slow.local_path()
    )  # as the other run did, after the slow one began
    with refused("while version v1 of 2024-01 was being loaded, the lake got version v2"):
        loaded.replace_month(slow)
    assert [month.manifest_id for month in loaded.loaded_months(TABLE)] == ["v2"]
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == [("v2", Decimal(1))]


def test_month_that_became_empty(project: Project, warehouse: Adapter) -> None:
    load_version(project, "v1", "1")
    load_version(project, "v2")
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == []
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_loaded_months_are_listed(project: Project, warehouse: Adapter) -> None:
    assert project_warehouse(project).loaded_months(TABLE) == []
    for month in ("2024-01", "2024-02"):
        load_version(project, "v1", "1", "2", month=month)
    load_version(project, "v2", "3", month="2024-01")
    loaded = project_warehouse(project).loaded_months(TABLE)
    assert [(month.month, month.manifest_id, month.rows) for month in loaded] == [
        ("2024-02", "v1", 2),
        ("2024-01", "v2", 1),
    ]
    assert all(abs(datetime.now(UTC) - month.loaded_at) < timedelta(minutes=10) for month in loaded)


def test_rows_that_were_deleted_by_hand_are_loaded_again(
    project: Project, warehouse: Adapter
) -> None:
    load_version(project, "v1", "1", "2")
    warehouse.delete_rows(TABLE, "2024-01")
    assert project.load("2024-01").outcomes()["warehouse_table"] == "loaded"
    assert len(warehouse.rows(TABLE, VERSION_AND_COST, "2024-01")) == 2


def test_deleted_tables_are_created_again(project: Project, warehouse: Adapter) -> None:
    load_version(project, "v1", "1")
    warehouse.reset()
    assert project.load("2024-01").outcomes()["warehouse_table"] == "loaded"
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == [("v1", Decimal(1))]


def test_columns_that_a_month_lacks_are_null(project: Project, warehouse: Adapter) -> None:
    # Each month has a DuckDB file, so that its file in the lake has only its own columns.
    project.database["duckdb"]["database_path"] = "data/{month}.duckdb"
    for month, column in {"2024-01": "old", "2024-02": "new"}.items():
        row = line_item(month, **{f"product__{column}": "x"})
        deliver(project.put, month, [[row]], headers=(*HEADERS, f"product/{column}"))
        project.load(month)
    both = ("product_old", "product_new")
    assert warehouse.rows(TABLE, both, "2024-01") == [("x", None)]
    assert warehouse.rows(TABLE, both, "2024-02") == [(None, "x")]
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_tags_that_differ_only_in_case_are_different_columns(
    project: Project, warehouse: Adapter
) -> None:
    tags = ("resourceTags/user:team", "resourceTags/user:Team", "resourceTags/user_team")
    row = {**line_item("2024-01"), **dict(zip(tags, "abc", strict=True))}
    deliver(project.put, "2024-01", [[row]], headers=(*HEADERS, *tags))
    project.load("2024-01")
    names = [name for name in warehouse.columns(TABLE) if name.startswith("resourcetags")]
    assert sorted(warehouse.rows(TABLE, names, "2024-01")[0]) == ["a", "b", "c"]
    assert_same_rows(warehouse, project.parquet_path("2024-01"), "2024-01")


def test_long_names_that_differ_at_their_end_stay_different(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    """A tag key has up to 128 characters, and PostgreSQL gives a column's name 63 bytes."""
    names = ("n" * 63, "n" * 64, *("n" * 150 + end for end in "ab"))
    columns = {name: f"'{number}'" for number, name in enumerate(names)}
    for version in ("v1", "v2"):
        file = month_of(version, **columns)
        project_warehouse(project).replace_month(file)
        assert file.footer.is_same_version(project_warehouse(project).measured_version(file))
    stored = [name for name in warehouse.columns(TABLE) if name.startswith("nnn")]
    assert sorted(warehouse.rows(TABLE, stored, "2024-01")[0]) == ["0", "1", "2", "3"]


def test_amounts_are_exact_to_the_last_digit(project: Project, warehouse: Adapter) -> None:
    costs = [
        "-0.000000000000000001",
        "0.1",
        "99999999999999999999.899999999999999999",
    ]
    outcome = load_version(project, "v1", *costs)
    stored = warehouse.rows(TABLE, (COST,), "2024-01")
    assert stored == [(Decimal(cost),) for cost in costs]
    assert {type(cost) for (cost,) in stored} == {Decimal}
    exact = outcome.metadata("warehouse_table")["total_cost_exact"]
    assert exact == "99999999999999999999.999999999999999998"
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_null_and_empty_text_stay_different(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    file = month_of("v1", empty="''", nothing="NULL::VARCHAR", word="'NULL'", space="' '")
    project_warehouse(project).replace_month(file)
    columns = ("empty", "nothing", "word", "space")
    assert warehouse.rows(TABLE, columns, "2024-01") == [("", None, "NULL", " ")]


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the process a local time that is not UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_times_are_in_utc(project: Project, warehouse: Adapter) -> None:
    cells = ("2024-01-31T23:59:59Z", "2024-01-31T23:00:00+02:00", "2024-03-31T02:30:00Z", "")
    rows = [line_item("2024-01", lineItem__UsageStartDate=cell) for cell in cells]
    deliver(project.put, "2024-01", [rows])
    project.load("2024-01")
    assert warehouse.rows(TABLE, ("lineitem_usagestartdate",), "2024-01") == [
        (None,),
        (datetime(2024, 1, 31, 21, 0, 0),),
        (datetime(2024, 1, 31, 23, 59, 59),),
        (datetime(2024, 3, 31, 2, 30, 0),),
    ]


AWKWARD = 'O\'Brien "said" \\N \\\\ a,b;c\td\r\ne `f` $$ %s {x} :y ? -- äß 漢字 🦆 \u200b.'


def test_unicode_and_quotes_are_kept_in_text_columns(project: Project, warehouse: Adapter) -> None:
    texts = ["identity/LineItemId", "bill/PayerAccountId", "lineItem/ProductCode"]
    texts += ["lineItem/LineItemDescription", 'resourceTags/user:it\'s "ä" 漢']
    rows = [{**line_item("2024-01"), **dict.fromkeys(texts, AWKWARD)}]
    body = gzip.compress(csv_bytes(rows, (*HEADERS, texts[-1])))
    deliver(project.put, "2024-01", [body], headers=(*HEADERS, texts[-1]))
    project.load("2024-01")
    columns = [name for name in warehouse.columns(TABLE) if name.startswith("resourcetags")]
    columns += ["identity_lineitemid", "bill_payeraccountid", "lineitem_productcode"]
    columns += ["lineitem_lineitemdescription"]
    assert warehouse.rows(TABLE, columns, "2024-01") == [(AWKWARD,) * 5]


TAGS = "MAP {'user:team': 'it''s \"bob\"', 'user:note': NULL, '': ''}::MAP(VARCHAR, VARCHAR)"
DISCOUNTS = (
    "MAP {'edp': 0.000000000000000001, 'all': -12345678901234567890.5}"
    "::MAP(VARCHAR, DECIMAL(38,18))"
)


def test_maps_keep_keys_and_values(project: Project, warehouse: Adapter, month_of: MonthOf) -> None:
    no_keys, null = "MAP {}::MAP(VARCHAR, VARCHAR)", "NULL::MAP(VARCHAR, VARCHAR)"
    columns = ("resource_tags", "discount", "product", "cost_category")
    values = (TAGS, DISCOUNTS, no_keys, null)
    file = month_of("v1", **dict(zip(columns, values, strict=True)))
    project_warehouse(project).replace_month(file)
    ((tags, discount, product, category),) = warehouse.rows(TABLE, columns, "2024-01")
    assert tags == {"user:team": 'it\'s "bob"', "user:note": None, "": ""}
    assert discount == {
        "edp": Decimal("0.000000000000000001"),
        "all": Decimal("-12345678901234567890.5"),
    }
    assert product == {}
    assert category == (None if warehouse.keeps_null_maps else {})
    assert file.footer.is_same_version(project_warehouse(project).measured_version(file))


DIGESTED = {
    "text": "'O''Brien äß 漢字 🦆'",
    "empty": "''",
    "nothing": "NULL::VARCHAR",
    "long": "repeat('漢字 ', 20000)",
    "small": "-0.000000000000000001::DECIMAL(38,18)",
    "large": "12345678901234567890.5::DECIMAL(38,18)",
    "nought": "0::DECIMAL(38,18)",
    "moment": "TIMESTAMP '2024-01-03 04:05:06.123456'",
    "old": "TIMESTAMP '1899-12-31 23:59:59'",
    "tags": "MAP {'user:team': 'it''s \"bob\"', 'b': 'ä'}::MAP(VARCHAR, VARCHAR)",
    "discounts": "MAP {'edp': 0.000000000000000001}::MAP(VARCHAR, DECIMAL(38,18))",
    "no_keys": "MAP {}::MAP(VARCHAR, VARCHAR)",
    "no_map": "NULL::MAP(VARCHAR, VARCHAR)",
}
CHANGED = {
    "text": "'O''Brien äß 漢字 🐧'",
    "empty": "NULL::VARCHAR",
    "small": "0.000000000000000001::DECIMAL(38,18)",
    "moment": "TIMESTAMP '2024-01-03 04:05:06.123457'",
    "tags": "MAP {'user:team': 'bob', 'b': 'ä'}::MAP(VARCHAR, VARCHAR)",
    "discounts": "MAP {'edp': 0.000000000000000002}::MAP(VARCHAR, DECIMAL(38,18))",
    "no_map": "MAP {}::MAP(VARCHAR, VARCHAR)",
}


def lake_digest(file: MonthFile, kind: DigestKind) -> MonthDigest:
    """Return the digest of the file itself, by DuckDB."""
    with duckdb.connect() as connection:
        prepare_casts(connection)
        return month_digest(connection, parquet_relation(file.local_path()), file.data_types, kind)


def test_each_column_has_the_digest_of_the_file(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    columns = dict(DIGESTED)
    if warehouse.backend != "snowflake":  # fakesnow's FLATTEN takes neither
        columns |= {"odd_tags": TAGS, "exact_discounts": DISCOUNTS}
    file = month_of("v1", **columns)
    for month in (file, month_of("v1", "2024-02", text="'another month'")):
        project_warehouse(project).replace_month(month)
    digest = project_warehouse(project).digest(file)
    assert digest.differing_columns(lake_digest(file, digest.kind)) == []
    another = month_of("v1-changed", **(columns | CHANGED))
    difference = digest.differing_columns(lake_digest(another, digest.kind))
    sums_alone = digest.kind == DigestKind.SUMS
    assert set(difference) == ({"small"} if sums_alone else {*CHANGED, "manifest_id"})


@pytest.mark.parametrize(
    "layout",
    [*(pytest.param(name, marks=pytest.mark.thorough) for name in ("cur1", "cur2")), "focus-1.2"],
)
def test_every_column_of_a_whole_bill_is_loaded_exactly(
    project: Project, warehouse: Adapter, layout: str
) -> None:
    project.export["format"] = None
    lake = FolderLake(project.settings().storage.parquet_dir)
    for month, files in enumerate(("gzip", "parquet"), 1):
        bill = BillVersion(date(2024, month, 1), "v1", rows=24)
        delivered = Layout(layout, files, overwrite=files == "parquet")
        write_version(project.source, "", "acme-cur", bill, layout=delivered)
        outcome = project.load(f"2024-0{month}")
        assert outcome.checks()["warehouse_table.reconciles"]
        file = month_file(project.first_export(), BillingMonth(2024, month), lake, DuckDB())
        digest = project_warehouse(project).digest(file)
        assert digest.differing_columns(lake_digest(file, digest.kind)) == []
        assert_same_rows(warehouse, project.parquet_path(f"2024-0{month}"), f"2024-0{month}")
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_bill_without_optional_columns_is_loaded(project: Project, warehouse: Adapter) -> None:
    """The bill has no columns of the usage start, the service and the billing period."""
    headers = ("identity/LineItemId", "lineItem/UnblendedCost")
    deliver(project.put, "2024-01", [line_items("2024-01", "1")], headers=headers)
    project.load("2024-01")
    assert_same_rows(warehouse, project.parquet_path("2024-01"), "2024-01")


def test_two_exports_share_a_database(project: Project, warehouse: Adapter) -> None:
    """The second export's table has a reserved word of SQL as its name, with a capital letter."""
    other = {**project.export, "name": "be-ta", "table": "Order", "export_name": "beta"}
    project.more_exports.append(other)
    deliver(project.put, "2024-01", [line_items("2024-01", "1")], version="v1")
    deliver(
        project.put, "2024-01", [line_items("2024-01", "2", "3")], version="w1", export_name="beta"
    )
    for export in ("acme", "be-ta"):
        project.load("2024-01", export=export)
    assert warehouse.tables() == {TABLE, f"{TABLE}_loads", "Order", "Order_loads"}
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == [("v1", Decimal(1))]
    expected = [("w1", Decimal(2)), ("w1", Decimal(3))]
    assert warehouse.rows("Order", VERSION_AND_COST, "2024-01") == expected
    assert warehouse.ledger(TABLE) == [("2024-01", "v1", 1, "loaded", None)]
    assert warehouse.ledger("Order") == [("2024-01", "w1", 2, "loaded", None)]
    for export in ("acme", "be-ta"):
        outcome = project.load("2024-01", export=export)
        assert outcome.outcomes()["warehouse_table"] == "unchanged"


AN_AMOUNT = "1.50::DECIMAL(38,18)"
A_TIME, SOME_TIME = "TIMESTAMP '2024-01-03 04:05:06'", "2024-01-03T04:05:06Z"
A_MAP, SOME_MAP = "MAP {'a': 'b', 'c': NULL}::MAP(VARCHAR, VARCHAR)", {"a": "b", "c": None}
TYPE_CHANGES = {
    "a time becomes text": (A_TIME, "'soon'", (SOME_TIME, "soon")),
    "a time of milliseconds becomes text": (
        "TIMESTAMP '2024-01-03 04:05:10.250'",
        "'soon'",
        ("2024-01-03T04:05:10.25Z", "soon"),
    ),
    "a map becomes text": (A_MAP, "'none'", (SOME_MAP, "none")),
    "a time becomes a map": (A_TIME, A_MAP, (SOME_TIME, SOME_MAP)),
    "text takes a time": ("'soon'", A_TIME, ("soon", SOME_TIME)),
    "text takes a map": ("'none'", A_MAP, ("none", SOME_MAP)),
    "text takes an amount": ("'none'", AN_AMOUNT, ("none", Decimal("1.5"))),
}


@pytest.mark.parametrize(("before", "after", "stored"), TYPE_CHANGES.values(), ids=TYPE_CHANGES)
def test_column_of_another_type_becomes_or_stays_text(
    project: Project,
    warehouse: Adapter,
    month_of: MonthOf,
    before: str,
    after: str,
    stored: tuple[object, object],
) -> None:
    loaded = project_warehouse(project)
    january, february = month_of("v1", changing=before), month_of("v1", "2024-02", changing=after)
    loaded.replace_month(january)
    (warning,) = loaded.replace_month(february).warnings
    assert warning.startswith("changing ")
    for month, value in zip(("2024-01", "2024-02"), stored, strict=True):
        ((text,),) = warehouse.rows(TABLE, ("changing",), month)
        assert isinstance(text, str)
        as_given = {dict: json.loads, Decimal: Decimal}.get(type(value), str)
        assert as_given(text) == value
    for file in (january, february):
        assert file.footer.is_same_version(loaded.measured_version(file))
        digest = loaded.digest(file)
        assert digest.differing_columns(lake_digest(file, digest.kind)) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1.5::DECIMAL(38,18)", "'much'"),
        (A_TIME, "1.5::DECIMAL(38,18)"),
        (A_MAP, "1::DECIMAL(38,18)"),
    ],
    ids=["an amount becomes text", "a time becomes an amount", "a map becomes an amount"],
)
def test_amounts_never_become_text(
    project: Project, warehouse: Adapter, month_of: MonthOf, before: str, after: str
) -> None:
    loaded = project_warehouse(project)
    loaded.replace_month(month_of("v1", changing=before))
    rows = warehouse.rows(TABLE, ("changing",), "2024-01")
    types = warehouse.columns(TABLE)
    with refused("changing"):
        loaded.replace_month(month_of("v2", changing=after))
    assert warehouse.rows(TABLE, ("changing",), "2024-01") == rows
    assert warehouse.columns(TABLE) == types


def test_stored_column_of_an_unusable_type_is_refused(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    text = "STRING" if warehouse.backend == "bigquery" else "TEXT"
    warehouse.create_table(TABLE, {"billing_month": "DATE", "manifest_id": text, COST: "FLOAT"})
    with refused(f"column {COST} of .* is (FLOAT|DOUBLE|double precision)"):
        project_warehouse(project).replace_month(month_of("v1"))
    assert warehouse.rows(TABLE, ("manifest_id",), "2024-01") == []


def test_failed_load_keeps_the_loaded_version(project: Project, warehouse: Adapter) -> None:
    """The file's footer can be read, but its rows cannot."""
    load_version(project, "v1", "1")
    deliver(project.put, "2024-01", [line_items("2024-01", "2", "3")], version="v2")
    assert project.materialize(
        "2024-01", stages=["manifest", "staged_files", "billing_table", "parquet"]
    ).success
    file = project.parquet_path("2024-01")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"\x28\xb5\x2f\xfd", b"\0\0\0\0"))  # begins what zstd packs
    assert FolderFile(file).version()
    error = project.materialize("2024-01", stages=["warehouse_table"]).error
    assert "\n" not in error
    assert not any(secret in error for secret in warehouse.environment.values())
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == [("v1", Decimal(1))]
    first, failed = warehouse.ledger(TABLE)
    assert first == ("2024-01", "v1", 1, "loaded", None)
    assert failed[:2] + failed[3:4] == ("2024-01", "v2", "failed")
    assert failed[4]
    assert "\n" not in failed[4]
    file.write_bytes(whole)
    project.load("2024-01")
    assert len(warehouse.rows(TABLE, VERSION_AND_COST, "2024-01")) == 2
    assert warehouse.ledger(TABLE)[-1] == ("2024-01", "v2", 2, "loaded", None)
    assert warehouse.tables() == {TABLE, f"{TABLE}_loads"}


def test_month_that_does_not_reconcile_fails(project: Project, warehouse: Adapter) -> None:
    load_version(project, "v1", "1")
    load_version(project, "v2", "2", "3", month="2024-02")
    file = project.parquet_path("2024-01")
    rows = pq.read_table(project.parquet_path("2024-01"))
    metadata = {**rows.schema.metadata, b"total_cost": b"1.000000000000000001"}
    pq.write_table(rows.replace_schema_metadata(metadata), file)
    outcome = project.materialize("2024-01", stages=["warehouse_table"])
    assert not outcome.checks()["warehouse_table.reconciles"]
    message = "has 1 row, 1, but the vendor's files have 1 row, 1.000000000000000001"
    assert message in outcome.error
    if warehouse.reconciles_before_commit:
        assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == [("v1", Decimal(1))]
    *_, failed = warehouse.ledger(TABLE)
    assert failed[:2] + failed[3:4] == ("2024-01", "v1", "failed")
    assert message in str(failed[4])
    assert project.load("2024-01").success
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_every_column_of_money_and_every_currency_is_measured(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    one, three = Decimal(1), Decimal(3)
    file = replace(month_of("v1", fee="3::DECIMAL(38,18)", unit="'EUR'"), currency_column="unit")

    def counted(fee: Decimal = three, currency: str = "EUR") -> MonthFile:
        totals = Totals(1, one, sums={COST: one, "fee": fee}, costs={currency: one})
        return replace(file, footer=replace(file.footer, totals=totals))

    loaded = project_warehouse(project)
    loaded.replace_month(counted())
    version = loaded.measured_version(counted())
    assert version is not None
    assert (version.totals.sums, version.totals.costs) == ({COST: one, "fee": three}, {"EUR": one})
    for other, message in ((counted(fee=one), "fee"), (counted(currency="USD"), "EUR")):
        assert loaded.measured_version(other) is None
        with pytest.raises(ReconciliationError, match=message):
            loaded.replace_month(other)


def test_table_without_the_column_of_currencies_gets_it_by_the_next_load(
    project: Project, warehouse: Adapter, month_of: MonthOf
) -> None:
    loaded, one = project_warehouse(project), Decimal(1)
    loaded.replace_month(month_of("v1"))
    newer = replace(month_of("v2", unit="'EUR'"), currency_column="unit")
    totals = Totals(1, one, sums={COST: one}, costs={"EUR": one})
    newer = replace(newer, footer=replace(newer.footer, totals=totals))
    assert loaded.measured_version(newer) is None
    loaded.replace_month(newer)
    assert newer.footer.is_same_version(loaded.measured_version(newer))


def start_load(project: Project, month: str, end: str) -> subprocess.Popen[str]:
    """Start a process that loads the month once it reads a line."""
    command = [sys.executable, "-m", "finops_dagster_tests.warehouses.load_process"]
    return subprocess.Popen(
        [*command, project.settings().model_dump_json(by_alias=True), month, end],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_to_success(processes: list[subprocess.Popen[str]]) -> None:
    """Let processes that are ready load their months at once, and assert that they succeed."""
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr


@pytest.mark.thorough
def test_killed_load_is_finished_by_the_next(project: Project, warehouse: Adapter) -> None:
    load_version(project, "v1", "1", "2")
    load_into_lake(project, "v2", "8")
    process = start_load(project, "2024-01", "killed")
    _, stderr = process.communicate("go\n")
    assert process.returncode == -signal.SIGKILL, stderr
    visible = warehouse.rows(TABLE, VERSION_AND_COST, "2024-01")
    old, new = [("v1", Decimal(1)), ("v1", Decimal(2))], [("v2", Decimal(8))]
    assert visible == (old if warehouse.reconciles_before_commit else new)
    project.load("2024-01")
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == new
    ledger = warehouse.ledger(TABLE)
    assert ledger[-1] == ("2024-01", "v2", 1, "loaded", None)
    assert "loading" not in [state for _, _, _, state, _ in ledger]
    assert warehouse.tables() == {TABLE, f"{TABLE}_loads"}


@pytest.mark.parametrize("has_table", [False, True], ids=["into no table", "into a table"])
@pytest.mark.thorough
def test_two_loads_at_once_leave_one_month(
    project: Project, warehouse: Adapter, has_table: bool
) -> None:
    load_version(project, "v1", "1")
    load_version(project, "v2", "2", "3")
    if not has_table:
        warehouse.reset()
    processes = [start_load(project, "2024-01", "alive") for _ in range(2)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    run_to_success(processes)
    rows = [("v2", Decimal(2)), ("v2", Decimal(3))]
    assert warehouse.rows(TABLE, VERSION_AND_COST, "2024-01") == rows
    assert warehouse.ledger(TABLE)[-1] == ("2024-01", "v2", 2, "loaded", None)
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def test_location_has_no_secret(project: Project, warehouse: Adapter) -> None:
    answer = project_warehouse(project).check_connection()
    assert answer
    assert "\n" not in answer
    assert not any(secret in answer for secret in warehouse.environment.values())


@pytest.mark.thorough
def test_queries_of_the_docs_run(project: Project, warehouse: Adapter) -> None:
    if not warehouse.docs_section:
        pytest.skip("the page has queries of PostgreSQL for any SQL database")
    load_exports_of_queries(project)
    services, teams, versions = map(warehouse.query, docs_queries(warehouse.docs_section))
    same = pytest.approx if warehouse.backend == "snowflake" else Decimal  # fakesnow adds doubles
    assert sum(cost for _, cost in services) == same(sum(cost for _, _, cost in teams))
    assert len({team for _, team, _ in teams}) > 1
    assert [row[:3] for row in versions] == [("2026-01", "v1", 200)]
