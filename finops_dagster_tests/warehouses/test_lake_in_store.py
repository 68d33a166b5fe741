"""Months of a lake in a store: a warehouse reads them there, or they pass through row by row."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from io import BytesIO
from typing import Any

import duckdb
import pytest
from boto3.s3.transfer import TransferConfig

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.lake import THIS_MACHINE, footer_texts_of_version, replacing_lake_file
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.bigquery import BigQueryServer, JobFails
from finops_dagster_tests.servers.bigquery_errors import BigQueryError
from finops_dagster_tests.servers.gcs import GcsServer
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.small_mapping import small_mapping
from finops_dagster_tests.warehouses.adapters import Adapter
from finops_dagster_tests.warehouses.bigquery import BigQuery
from finops_dagster_tests.warehouses.conftest import MonthOf, refused
from finops_dagster_tests.warehouses.test_warehouses import TABLE, assert_same_rows

COLUMNS = {
    "text": "'O''Brien äß 漢字 🦆'",
    "empty": "''",
    "nothing": "NULL::VARCHAR",
    "small": "-0.000000000000000001::DECIMAL(38,18)",
    "large": "12345678901234567890.5::DECIMAL(38,18)",
    "moment": "TIMESTAMP '2024-01-03 04:05:06.123456'",
    "tags": "MAP {'user:team': 'it''s \"bob\"', 'b': NULL, '': ''}::MAP(VARCHAR, VARCHAR)",
    "discounts": "MAP {'edp': 0.000000000000000001}::MAP(VARCHAR, DECIMAL(38,18))",
    "no_keys": "MAP {}::MAP(VARCHAR, VARCHAR)",
    "no_map": "NULL::MAP(VARCHAR, VARCHAR)",
}


def another_process(project: Project) -> Project:
    """Return the project as another process has it, which keeps no copy of a file of the lake."""
    other = Project(project.folder)
    for name in ("export", "storage", "database"):
        setattr(other, name, getattr(project, name))
    return other


def load(project: Project, file: MonthFile) -> tuple[str, MonthFile]:
    """Write a file to the project's lake, and load it into its warehouse by another process.

    Returns where it was loaded from, and the file in the lake.
    """
    settings = project.settings()
    with settings.storage.open_lake().file(file.export, file.month).replacing() as new:
        shutil.copy(file.local_path(), new.path)
    stored = replace(file, lake_file=settings.storage.open_lake().file(file.export, file.month))
    return open_warehouse(settings.database).replace_month(stored).loaded_from, stored


@pytest.fixture
def bigquery(
    project: Project, gcs: GcsServer, gcs_bucket: str
) -> Iterator[tuple[BigQuery, BigQueryServer]]:
    """Make BigQuery the warehouse of a lake in a bucket, which it reads past the proxy."""
    with BigQueryServer(storage_url=gcs.server_url) as server:
        warehouse = BigQuery(server)
        project.database = {"backend": "bigquery", "bigquery": dict(warehouse.settings)}
        project.storage = {"parquet_dir": f"gs://{gcs_bucket}/lake"}
        yield warehouse, server


def downloads(gcs: GcsServer) -> list[str]:
    """Return the requests for the bytes of Parquet files that have come through the proxy."""
    return [path for _, path in gcs.requests if "alt=media" in path and ".parquet" in path]


def uploads(server: BigQueryServer) -> list[str]:
    return [path for _, path in server.requests if "/upload/" in path]


def test_bigquery_reads_a_month_from_the_bucket_and_no_row_passes_through_this_machine(
    project: Project, gcs: GcsServer, bigquery: tuple[BigQuery, BigQueryServer]
) -> None:
    warehouse, server = bigquery
    project.deliver("1.000000000000000001", "2")
    project.load(stages=["manifest", "staged_files", "billing_table", "parquet"])
    gcs.requests.clear()
    other = another_process(project)
    run = other.load(stages=["warehouse_table"])
    assert not downloads(gcs)
    assert not uploads(server)
    uri = run.metadata("warehouse_table")["loaded_from"]
    assert uri.startswith(f"{project.storage['parquet_dir']}/acme/billing_month=2024-01/acme-")
    file = other.settings().storage.open_lake().file("acme", BillingMonth.parse("2024-01"))
    assert file.verified_store_uri() == uri
    assert_same_rows(warehouse, file.local_path(), "2024-01")
    assert warehouse.ledger(TABLE) == [("2024-01", "v1", 2, "loaded", None)]
    assert other.load(stages=["warehouse_table"]).outcomes() == {"warehouse_table": "unchanged"}


def test_bigquery_reads_every_type_from_the_bucket(
    project: Project, bigquery: tuple[BigQuery, BigQueryServer], month_of: MonthOf
) -> None:
    file = month_of("v1", **COLUMNS)
    loaded_from, _ = load(project, file)
    assert loaded_from.startswith("gs://")
    assert_same_rows(bigquery[0], file.local_path(), "2024-01")


@pytest.mark.thorough
def test_a_month_is_uploaded_to_bigquery_if_the_bucket_does_not_fit(
    project: Project, bigquery: tuple[BigQuery, BigQueryServer], month_of: MonthOf
) -> None:
    warehouse, server = bigquery
    load(project, month_of("v1", changing="'soon'"))
    cast = month_of("v2", changing="TIMESTAMP '2024-01-03 04:05:06'")
    assert load(project, cast)[0] == THIS_MACHINE
    assert warehouse.rows(TABLE, ("changing",), "2024-01") == [("2024-01-03T04:05:06Z",)]
    assert len(uploads(server)) == 1
    project.database["bigquery"]["load_from_lake"] = False
    assert load(project, month_of("v3", changing="'later'"))[0] == THIS_MACHINE
    assert len(uploads(server)) == 2
    assert warehouse.rows(TABLE, ("changing",), "2024-01") == [("later",)]


@pytest.mark.thorough
def test_bigquery_that_may_not_read_the_bucket_says_what_to_do(
    project: Project, bigquery: tuple[BigQuery, BigQueryServer], month_of: MonthOf
) -> None:
    warehouse, server = bigquery
    load(project, month_of("v1"))
    denied = "Access Denied: File gs://acme-lake: Access Denied"
    error = JobFails(BigQueryError(403, "accessDenied", denied))
    server.fault = lambda request: error if b'"sourceUris"' in request.get_data() else None
    with refused(r"Access Denied.*; BigQuery was to read gs://.*load_from_lake = false"):
        load(project, month_of("v2"))
    server.fault = None
    assert warehouse.rows(TABLE, ("manifest_id",), "2024-01") == [("v1",)]
    assert [row[3] for row in warehouse.ledger(TABLE)] == ["loaded", "failed"]


@pytest.mark.thorough
def test_run_after_a_killed_one_says_what_the_job_of_the_killed_one_has_read(
    project: Project, bigquery: tuple[BigQuery, BigQueryServer], month_of: MonthOf
) -> None:
    warehouse, _ = bigquery
    loaded_from, _ = load(project, month_of("v1"))
    warehouse.query(
        f"UPDATE {warehouse.quoted_name(f'{TABLE}_loads')} SET state = 'loading' WHERE TRUE"
    )
    assert load(project, month_of("v1"))[0] == loaded_from
    assert [row[3] for row in warehouse.ledger(TABLE)] == ["loaded"]


@pytest.mark.thorough
def test_charges_with_lists_are_cast_here_and_the_bill_is_read_in_the_bucket(
    project: Project,
    bigquery: tuple[BigQuery, BigQueryServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    project.deliver("1", "2")
    run = project.load()
    assert run.metadata("warehouse_table")["loaded_from"].startswith("gs://")
    assert run.metadata("warehouse_focus")["loaded_from"] == THIS_MACHINE


@pytest.fixture
def in_store(project: Project, lake_storage: dict[str, Any]) -> Project:
    """Return the project with its lake in a store."""
    project.storage = lake_storage
    return project


def test_a_month_in_a_store_is_loaded_exactly(
    warehouse: Adapter, in_store: Project, month_of: MonthOf
) -> None:
    file = month_of("v1", **COLUMNS)
    loaded_from, stored = load(in_store, file)
    is_streamed = warehouse.backend in ("postgresql", "sql")
    expected = (
        f"{stored.lake_file.verified_store_uri()}, through this machine"
        if is_streamed
        else THIS_MACHINE
    )
    assert loaded_from == expected
    assert_same_rows(warehouse, file.local_path(), "2024-01")
    ((_, version, rows, state, _),) = warehouse.ledger(TABLE)
    assert (version, rows, state) == ("v1", 1, "loaded")


@pytest.mark.thorough
@pytest.mark.parametrize("adapter", ["postgresql"], indirect=True)
@pytest.mark.parametrize("lake_storage", ["https", "abfss", "gs"], indirect=True)
def test_a_month_passes_through_this_machine_from_every_store(
    warehouse: Adapter, in_store: Project, month_of: MonthOf
) -> None:
    file = month_of("v1", **COLUMNS)
    loaded_from, _ = load(in_store, file)
    assert loaded_from.endswith(".parquet, through this machine")
    assert_same_rows(warehouse, file.local_path(), "2024-01")


@pytest.fixture
def long_month(in_store: Project, month_of: MonthOf) -> MonthFile:
    """Write a month of three row groups to the lake, and return it as another process has it."""
    cost = "lineitem_unblendedcost"
    rows = (
        "SELECT DATE '2024-01-01' AS billing_month, 'v1' AS manifest_id, md5(CAST(range AS "
        f"VARCHAR)) AS text, CAST(range AS DECIMAL(38, 18)) AS {cost} FROM range(100_000)"
    )
    month, settings = BillingMonth.parse("2024-01"), in_store.settings()
    total = Decimal(sum(range(100_000)))
    version = LoadedVersion("v1", Totals(100_000, total, {cost: total}))
    with duckdb.connect() as connection:
        file = settings.storage.open_lake().file("acme", month)
        with replacing_lake_file(connection, Sql(rows), file, footer_texts_of_version(version)):
            pass
    file = settings.storage.open_lake().file("acme", month)
    return replace(month_of("v1"), lake_file=file, footer=version, schema=file.schema())


def answers(s3: S3Server) -> list[int]:
    """Return a list to which the size of each answer with bytes of a Parquet file is added."""
    sizes: list[int] = []

    def count(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = b"".join(s3.serve(environ, start_response))
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".parquet"):
            sizes.append(len(body))
        return [body]

    s3.fault = count
    return sizes


@pytest.mark.thorough
@pytest.mark.parametrize("adapter", ["postgresql"], indirect=True)
def test_a_month_passes_through_this_machine_by_row_groups_and_without_a_copy(
    warehouse: Adapter, in_store: Project, s3: S3Server, long_month: MonthFile
) -> None:
    sizes, copies = answers(s3), set(in_store.folder.rglob("*.parquet"))
    loaded = open_warehouse(in_store.settings().database)
    loaded.replace_month(long_month)
    assert long_month.footer.is_same_version(loaded.measured_version(long_month))
    assert sum(sizes) < 1.1 * long_month.lake_file.size()
    assert max(sizes) < long_month.lake_file.size() / 2
    assert set(in_store.folder.rglob("*.parquet")) == copies


@pytest.mark.thorough
@pytest.mark.parametrize("adapter", ["postgresql", "sql_sqlite"], indirect=True)
def test_store_that_fails_in_the_middle_of_a_month_is_transient_and_the_old_version_stays(
    warehouse: Adapter, in_store: Project, s3: S3Server, long_month: MonthFile, month_of: MonthOf
) -> None:
    loaded = open_warehouse(in_store.settings().database)
    loaded.replace_month(month_of("v0"))
    number_of_answers = itertools.count()

    def fail(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes] | None:
        path = environ["PATH_INFO"]
        is_read = environ["REQUEST_METHOD"] == "GET" and path.endswith(".parquet")
        if is_read and next(number_of_answers) > 2:
            start_response("403 Forbidden", [])
            return [b""]
        return None

    s3.fault = fail
    with refused("cannot be read: ", WarehouseUnavailable):
        loaded.replace_month(long_month)
    assert warehouse.rows(TABLE, ("manifest_id",), "2024-01") == [("v0",)]
    s3.fault = None
    loaded.replace_month(long_month)
    assert long_month.footer.is_same_version(loaded.measured_version(long_month))


@pytest.mark.thorough
@pytest.mark.parametrize("adapter", ["postgresql"], indirect=True)
def test_a_copied_or_damaged_file_is_compared_here_by_its_bytes(
    warehouse: Adapter, in_store: Project, s3: S3Server, bucket: str, month_of: MonthOf
) -> None:
    file = month_of("v1")
    _, stored = load(in_store, file)
    key = str(stored.lake_file.verified_store_uri()).removeprefix(f"s3://{bucket}/")
    content = file.local_path().read_bytes()
    # Parts have another ETag, as a copied bucket has.
    s3.client().upload_fileobj(
        BytesIO(content), bucket, key, Config=TransferConfig(multipart_threshold=1)
    )
    assert stored.lake_file.verified_store_uri() is None
    settings = in_store.settings()
    loaded = open_warehouse(settings.database)

    def again() -> MonthFile:
        lake = settings.storage.open_lake()
        return replace(file, lake_file=lake.file("acme", file.month))

    assert loaded.replace_month(again()).loaded_from == THIS_MACHINE
    s3.client().put_object(Bucket=bucket, Key=key, Body=content[:-9] + b"x" + content[-8:])
    with refused("is damaged: it does not have the checksum of its record"):
        loaded.replace_month(again())
    assert warehouse.rows(TABLE, ("manifest_id",), "2024-01") == [("v1",)]
