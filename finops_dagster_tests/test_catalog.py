"""The Iceberg catalog: the lake's files in its tables, read back by pyiceberg, and its outages."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake, footer_texts_of_version, replacing_lake_file
from finops_dagster.lake.catalog import CatalogError
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import UNCHANGED, Project
from finops_dagster_tests.servers import clickhouse
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.servers.seaweedfs import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    WAREHOUSE,
    SeaweedServer,
    seaweed_server,
)
from finops_dagster_tests.small_mapping import small_mapping

BILL, CHARGES = "aws_billing_data", "focus"
SIGNED = {
    "rest.sigv4-enabled": "true",
    "rest.signing-name": "s3tables",
    "rest.signing-region": "us-east-1",
}
_numbers = itertools.count(1)


def use_sql(project: Project) -> None:
    project.catalog = {"type": "sql", "uri": f"sqlite:///{project.folder}/catalog.db?timeout=60"}


def use(kind: str, project: Project, request: pytest.FixtureRequest) -> None:
    """Set a catalog: in SQL with a lake in a `folder` or in `s3`, in `postgresql`, `glue`, `rest`.

    The lake of Glue is in the same account, that of the REST catalog in the same server.
    """
    use_sql(project)
    namespace = f"finops_{next(_numbers)}"
    if kind == "postgresql":
        uri = "postgresql+psycopg://postgres@/postgres?host="
        host = request.getfixturevalue("postgresql").host
        project.catalog = {"type": "sql", "uri": uri + host}
    elif kind == "rest":
        server: SeaweedServer = request.getfixturevalue("seaweed")
        use_bucket(project, server.s3_url, f"{BUCKET}/{namespace}")
        project.catalog = {**rest_catalog(server), "namespace": namespace, "properties": SIGNED}
    elif kind in ("glue", "s3"):
        s3: S3Server = request.getfixturevalue("s3")
        use_bucket(project, s3.url, request.getfixturevalue("bucket"))
        if kind == "glue":
            properties = {"glue.endpoint": s3.url}
            project.catalog = {"type": "glue", "namespace": namespace, "properties": properties}


def use_bucket(project: Project, url: str, bucket: str) -> None:
    lake = {"endpoint_url": url, "region": "us-east-1"}
    project.storage = {"parquet_dir": f"s3://{bucket}/lake", "lake": lake}


def rest_catalog(server: SeaweedServer) -> dict[str, Any]:
    return {"type": "rest", "uri": server.catalog_url, "warehouse": WAREHOUSE}


def catalog_of(project: Project) -> Catalog:
    """Return the catalog as another program sees it, which has only the settings' properties."""
    settings = project.settings()
    assert settings.catalog
    storage = settings.storage
    properties = settings.catalog.all_properties(str(storage.parquet_dir), storage.lake)
    return load_catalog("finops", **properties)


def full_name(project: Project, name: str) -> str:
    """Return the name of a table with its namespace."""
    assert project.catalog
    return f"{project.catalog.get('namespace', 'finops')}.{name}"


def table_of(project: Project, name: str) -> Table:
    return catalog_of(project).load_table(full_name(project, name))


def lake_of(project: Project) -> Lake:
    return project.settings().storage.open_lake()


def rows_of_table(table: Table, **scan: Any) -> list[tuple[Any, ...]]:
    """Return the rows of an Iceberg table, sorted, with maps as texts."""
    return sorted_rows(table.scan(**scan).to_arrow())


def sorted_rows(rows: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        if isinstance(rows, pa.Table):
            connection.register("rows", rows)
            rows = "rows"
        names = sorted(name for name, *_ in connection.execute(f"DESCRIBE FROM {rows}").fetchall())
        columns = ", ".join(f'"{name}"' for name in names)
        return connection.execute(f"SELECT {columns} FROM {rows} ORDER BY ALL").fetchall()


def rows_of_lake(lake: Lake) -> list[tuple[Any, ...]]:
    """Return the rows of all months in the lake, of the columns of any."""
    files = ", ".join(f"'{file.local_path()}'" for file in lake.files("acme").values())
    return sorted_rows(f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)")


def write(
    lake: Lake, rows: str, version: str = "v1", month: str = "2024-01", export: str = "acme"
) -> None:
    """Write a version of a month to the lake, without a pipeline."""
    with duckdb.connect() as connection:
        footer = footer_texts_of_version(LoadedVersion(version, Totals.from_result_row((1, 1))))
        file = lake.file(export, BillingMonth.parse(month))
        with replacing_lake_file(connection, Sql(rows), file, footer):
            pass


def register(project: Project, lake: Lake | None = None, table: str = "bill") -> Any:
    catalog = project.settings().open_catalog()
    return catalog.register(lake or lake_of(project), "acme", table)


@pytest.fixture(scope="session")
def seaweed_process() -> Iterator[SeaweedServer]:
    with seaweed_server() as server:
        yield server


@pytest.fixture
def seaweed(seaweed_process: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> SeaweedServer:
    """Return the server of all tests, with its keys in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    return seaweed_process


@pytest.fixture(
    params=[
        "folder",
        *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("s3", "glue", "rest")),
    ]
)
def lake_project(request: pytest.FixtureRequest, project: Project) -> Project:
    """Return a project with a catalog, and its lake."""
    use(request.param, project, request)
    return project


def test_a_table_has_the_rows_of_the_lake_to_the_last_digit(
    lake_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    project = lake_project
    project.deliver("1.000000000000000001", "-987654321.123456789012345678")
    run = project.load()
    assert run.checks()["parquet.in_catalog"]
    assert run.checks()["focus.in_catalog"]
    project.deliver("4", month="2024-02")
    project.load("2024-02")
    lake = lake_of(project)
    for name, each in {BILL: lake, CHARGES: focus_lake(lake)}.items():
        table = table_of(project, name)
        assert rows_of_table(table) == rows_of_lake(each)
        assert len(table.snapshots()) == 2
    bill = table_of(project, BILL)
    assert len(rows_of_table(bill)) == 3
    files = [task.file.file_path for task in bill.scan().plan_files()]
    assert sorted(files) == sorted(
        file.create_permanent_url() for file in lake.files("acme").values()
    )


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["folder", "s3", "rest"])
def test_clickhouse_reads_the_tables_as_finops_query_does(
    kind: str, project: Project, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    use(kind, project, request)
    for version, cost in {"v1": "1", "v2": "-987654321.123456789012345678"}.items():
        project.deliver("1.000000000000000001", cost, version=version)
        project.load()
    tag = "resourceTags/user:team"
    rows = [line_item("2024-02", lineItem__UnblendedCost="0.3") | {tag: "café"}]
    project.deliver(rows, month="2024-02", headers=(*HEADERS, tag))
    project.load("2024-02")
    lake = "".join(f"{key} = '{text}'\n" for key, text in project.storage.get("lake", {}).items())
    folder = f"[storage]\nparquet_dir = '{project.settings().storage.parquet_dir}'\n"
    finops = Finops(project, f"{folder}[storage.lake]\n{lake}")
    for query, name in {
        """SELECT billing_month, count(*) AS lines, sum(lineitem_unblendedcost) AS cost,
            hour(max(lineitem_usagestartdate)) AS hour, max(resourcetags_user_team) AS team
            FROM {} GROUP BY billing_month ORDER BY billing_month""": BILL,
        """SELECT x_billing_month, count(*) AS charges, sum(BilledCost) AS cost,
            max(Tags['service']) AS service
            FROM {} GROUP BY x_billing_month ORDER BY x_billing_month""": CHARGES,
    }.items():
        expected = finops.json("query", query.format(name))
        assert clickhouse.rows_of(*clickhouse_query(project, query, name)) == expected


def clickhouse_query(project: Project, query: str, name: str) -> list[str]:
    """Return statements with which ClickHouse finds a table, and then runs a query of it."""
    assert project.catalog
    location = table_of(project, name).location()
    if location.startswith("file://"):
        return [query.format(f"icebergLocal('{location.removeprefix('file://')}')")]
    endpoint = project.storage["lake"]["endpoint_url"]
    if project.catalog["type"] == "rest":
        return [
            "SET allow_database_iceberg = 1",
            f"""CREATE DATABASE catalog
            ENGINE = DataLakeCatalog('{project.catalog["uri"]}/v1', '{ACCESS_KEY}', '{SECRET_KEY}')
            SETTINGS catalog_type = 'rest', warehouse = '{WAREHOUSE}',
            storage_endpoint = '{endpoint}/{WAREHOUSE}',
            catalog_credential = '{ACCESS_KEY}:{SECRET_KEY}', auth_scope = 'catalog',
            oauth_server_uri = '{project.catalog["uri"]}/v1/oauth/tokens'""",
            query.format(f"catalog.`{full_name(project, name)}`"),
        ]
    url = f"{endpoint}/{location.removeprefix('s3://')}/"
    return [query.format(f"icebergS3('{url}', 'test', 'test')")]


@pytest.mark.thorough
def test_a_new_version_replaces_the_old_one_in_one_snapshot(lake_project: Project) -> None:
    project = lake_project
    project.deliver("1", "2")
    project.load()
    project.deliver("1", "2", "4", version="v2")
    run = project.load()
    changes = f"{full_name(project, BILL)}: 1 file added, 1 file removed."
    assert run.check_descriptions()["in_catalog"] == changes
    assert project.load().outcomes() == UNCHANGED
    table = table_of(project, BILL)
    first, second = table.snapshots()
    assert len(rows_of_table(table)) == 3
    assert second.parent_snapshot_id == first.snapshot_id
    # The version before is still that of the first snapshot.
    assert len(rows_of_table(table, snapshot_id=first.snapshot_id)) == 2


def test_columns_and_types_of_a_bill_are_registered(lake_project: Project) -> None:
    lake = lake_of(lake_project)
    january = """SELECT CAST('0.123456789012345678' AS DECIMAL(38, 18)) AS cost,
        MAP {'a': 'b', 'none': NULL} AS tags, DATE '2024-01-01' AS billing_month,
        'k'::ENUM('k', 'l') AS kind, TIMESTAMP '2024-01-01 00:00:01' AS at,
        TIMESTAMPTZ '2024-01-01 00:00:01+00' AS at_utc, {'a': 1, 'b': [1, 2]} AS nested,
        true AS flag, 1.5::DOUBLE AS number, 7::BIGINT AS id, NULL::VARCHAR AS empty"""
    february = """SELECT 'new' AS added, DATE '2024-02-01' AS billing_month,
        CAST(2 AS DECIMAL(38, 18)) AS cost"""
    write(lake, january)
    register(lake_project)
    write(lake, february, month="2024-02")
    write(lake, f"FROM ({february}) WHERE false", month="2024-03")
    done = register(lake_project)
    assert (len(done.added), len(done.removed)) == (2, 0)
    assert register(lake_project).added == ()
    table = table_of(lake_project, "bill")
    assert rows_of_table(table) == rows_of_lake(lake)
    month = EqualTo("billing_month", "2024-02-01")
    assert rows_of_table(table, row_filter=month, selected_fields=("cost",)) == [(2,)]
    assert str(table.schema().find_type("cost")) == "decimal(38, 18)"
    # A column whose type is another one is refused, and nothing changes.
    write(lake, "SELECT 'text' AS cost", month="2024-04")
    with pytest.raises(CatalogError, match="cost"):
        register(lake_project)
    table.refresh()
    assert len(table.scan().to_arrow()) == 2


@pytest.fixture
def postgresql() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as server:
        yield server


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["folder", "postgresql", "rest"])
def test_two_writers_of_one_table_register_every_month_once(
    kind: str, project: Project, request: pytest.FixtureRequest
) -> None:
    use(kind, project, request)
    lake = lake_of(project)
    write(lake, "SELECT 1 AS cost", month="2023-12")
    register(project)
    months = [f"2024-0{number}" for number in range(1, 5)]

    def load(month: str) -> None:
        write(lake_of(project), "SELECT 1 AS cost", month=month)
        register(project)
        write(lake_of(project), "SELECT 2 AS cost", "v2", month)
        register(project)

    with ThreadPoolExecutor(len(months)) as threads:
        list(threads.map(load, months))
    table = table_of(project, "bill")
    assert rows_of_table(table) == [(1,), (2,), (2,), (2,), (2,)]


def test_exports_share_the_table_of_charges(lake_project: Project) -> None:
    project = lake_project
    lake = focus_lake(lake_of(project))
    write(lake, "SELECT 1 AS BilledCost")
    write(lake, "SELECT 2 AS BilledCost, 'x' AS x_of_other", export="other")
    catalog = project.settings().open_catalog()
    catalog.register(lake, "acme", "focus")
    catalog.register(lake, "other", "focus")
    write(lake, "SELECT 4 AS BilledCost", "v2")
    catalog.register(lake, "acme", "focus")
    rows = rows_of_table(table_of(project, CHARGES), selected_fields=("BilledCost",))
    assert rows == [(2,), (4,)]


@pytest.mark.thorough
def test_a_catalog_that_cannot_be_reached_keeps_no_month_from_the_lake(project: Project) -> None:
    use_sql(project)
    database = project.folder / "catalog.db"
    database.mkdir()
    with pytest.raises(CatalogError, match="unable to open database file"):
        project.settings().open_catalog().check_connection()
    project.deliver("1", "2")
    run = project.load()
    assert not run.checks()["parquet.in_catalog"]
    description = run.check_descriptions()["in_catalog"]
    assert description.startswith(f"the catalog's table finops.{BILL}: OperationalError: ")
    assert "the next run of any month of the export registers it" in description
    assert project.parquet_totals() == (2, 3)
    database.rmdir()
    project.deliver("4", month="2024-02")
    run = project.load("2024-02")
    assert (
        run.check_descriptions()["in_catalog"] == f"finops.{BILL}: 2 files added, 0 files removed."
    )
    assert project.settings().open_catalog().check_connection() == "sql, 1 table in finops"


def test_a_lake_that_is_not_there_drops_nothing(project: Project) -> None:
    use_sql(project)
    lake = lake_of(project)
    write(lake, "SELECT 1 AS cost")
    register(project)
    Path(lake.location, "acme").rename("elsewhere")
    assert register(project).removed == ()


def test_a_table_that_another_lake_or_program_wrote_counts_no_month_twice(project: Project) -> None:
    use_sql(project)
    old_lake = Path(lake_of(project).location)
    write(lake_of(project), "SELECT 1 AS cost")
    register(project)
    project.storage = {"parquet_dir": "new"}
    shutil.copytree(old_lake / "acme", project.folder / "new/acme")
    project.catalog = {**(project.catalog or {}), "warehouse": f"file://{old_lake}/iceberg"}
    with pytest.raises(CatalogError, match="counted twice; drop the table"):
        register(project)
    catalog_of(project).drop_table("finops.bill")
    register(project)
    table = table_of(project, "bill")
    assert rows_of_table(table) == [(1,)]
    table.overwrite(table.scan().to_arrow())  # as a compaction does
    write(lake_of(project), "SELECT 2 AS cost", "v2")
    with pytest.raises(CatalogError, match="switch off what rewrites it"):
        register(project)
    table.refresh()
    assert rows_of_table(table) == [(1,)]


def test_cleanup_keeps_the_files_that_the_catalog_has(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = finops.project
    use_sql(project)
    assert project.catalog
    for key, value in project.catalog.items():
        monkeypatch.setenv(f"FINOPS_CATALOG__{key.upper()}", value)
    lake = lake_of(project)
    catalog = project.settings().open_catalog()
    write(lake, "SELECT 1 AS cost")
    catalog.register(lake, "acme", "aws_billing_data")
    write(lake, "SELECT 2 AS cost", "v2")
    # The catalog was not reached: its table still has the file of the version before.
    assert finops.json("state", "cleanup") == []
    assert rows_of_table(table_of(project, BILL)) == [(1,)]
    catalog.register(lake, "acme", "aws_billing_data")
    assert [row["what"] for row in finops.json("state", "cleanup")] == ["replaced file"]
    assert rows_of_table(table_of(project, BILL)) == [(2,)]


def test_settings_of_a_catalog_need_a_lake_that_it_can_read(project: Project) -> None:
    project.catalog = {"type": "sql", "uri": "postgresql://finops:x@host/db"}
    with pytest.raises(ValueError, match="uri holds a secret"):
        project.settings()
    for name in ("credential", "token", "s3.secret-access-key"):
        project.catalog = {"type": "rest", "properties": {name: "x"}}
        with pytest.raises(ValueError, match=f"{name} (is|holds) a secret"):
            project.settings()
    use_sql(project)
    project.storage = {"parquet_dir": "gs://bucket/lake"}
    with pytest.raises(ValueError, match="works with a lake in a folder or in S3 only"):
        project.settings()


@pytest.mark.thorough
def test_the_credential_of_a_rest_catalog_is_read_from_the_environment(
    project: Project, seaweed: SeaweedServer
) -> None:
    project.deliver("1")
    settings = [f"{key} = '{value}'" for key, value in rest_catalog(seaweed).items()]
    finops = Finops(project, "\n".join(["[catalog]", *settings]))
    variable = "PYICEBERG_CATALOG__FINOPS__"

    def check(secret: dict[str, str], code: int = 0) -> str:
        return finops.run_process("config", "check", code=code, **secret)

    credential = {f"{variable}CREDENTIAL": f"{ACCESS_KEY}:{SECRET_KEY}"}
    assert "rest, 0 tables in finops" in check(credential)
    assert "rest, 0 tables in finops" in check({f"{variable}TOKEN": seaweed.token()})
    refused = check({f"{variable}CREDENTIAL": f"{ACCESS_KEY}:hunter2"}, code=1)
    assert "Invalid client credentials" in refused
    assert "hunter2" not in refused
    assert "NotAuthorizedException" in check({}, code=1)


@pytest.mark.thorough
def test_a_month_that_is_verified_without_a_run_is_registered_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    use_sql(project)
    project.deliver("1", "2")
    assert project.catalog
    uri = project.catalog["uri"]
    finops = Finops(project, f"[catalog]\ntype = 'sql'\nuri = '{uri}'\n")
    (first,) = map(json.loads, finops.run("aws", "run-pipeline", "--json").stdout.splitlines())
    catalog_of(project).drop_table(full_name(project, BILL))
    (second,) = map(json.loads, finops.run("aws", "run-pipeline", "--json").stdout.splitlines())
    assert (second["outcome"], second["run"]) == ("unchanged", first["run"])
    assert rows_of_table(table_of(project, BILL)) == rows_of_lake(lake_of(project))
