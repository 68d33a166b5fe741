"""Databases by SQLAlchemy: usable destinations, addresses, dlt's tables, and PostgreSQL."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from decimal import Decimal
from typing import Any

import pytest

from finops_dagster.billing.errors import ReconciliationError
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import FolderLake
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.settings_table import SettingsError
from finops_dagster.tables.database import DuckDB
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.sql.address import database_url
from finops_dagster.warehouses.sql.databases import dialect_factory
from finops_dagster.warehouses.sql.settings import SqlSettings
from finops_dagster_tests.cur import deliver, line_items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.warehouses.conftest import MonthOf, refused
from finops_dagster_tests.warehouses.docs_queries import docs_queries, load_exports_of_queries
from finops_dagster_tests.warehouses.test_postgresql import in_background

SQLITE = {"destination": "sqlalchemy", "credentials": "sqlite:///data/acme.db"}
A_TIME = "TIMESTAMP '2024-01-03 04:05:06'"


def project_warehouse(project: Project, **settings: Any) -> Warehouse:
    project.database = {"backend": "sql", "sql": settings}
    (project.folder / "data").mkdir(exist_ok=True)
    return open_warehouse(project.settings().database)


def lake_file(project: Project, version: str, *costs: str) -> MonthFile:
    """Deliver a version of January, run the stages up to Parquet, and return the file."""
    deliver(project.put, "2024-01", [line_items("2024-01", *costs)], version=version)
    database, project.database = project.database, {}
    project.load("2024-01")
    project.database = database
    lake = FolderLake(project.settings().storage.parquet_dir)
    return month_file(project.first_export(), BillingMonth.parse("2024-01"), lake, DuckDB())


def query_sqlite(sql: str) -> list[Any]:
    with closing(sqlite3.connect("data/acme__finops.db")) as connection, connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"destination": "athena"},
            "destination athena has no transactions, so that no month can be replaced in one step; "
            "choose one with transactions",
        ),
        ({"destination": "clickhouse"}, "clickhouse has no transactions"),
        ({"destination": "databricks"}, "databricks has no transactions"),
        ({"destination": "duckdb"}, 'has a backend of its own: set backend = "duckdb"'),
        ({"destination": "snowflake"}, 'has a backend of its own: set backend = "snowflake"'),
        ({"destination": "motherduck"}, "is not supported by SQLAlchemy"),
        ({"destination": "excel"}, "there is no destination 'excel'"),
        ({**SQLITE, "databaze": "x"}, "destination sqlalchemy has no setting databaze"),
    ],
)
def test_unusable_settings_are_reported_in_one_line(
    project: Project, settings: dict[str, Any], message: str
) -> None:
    with refused(rf"^\[database\.sql\]: .*{message}", SettingsError):
        project_warehouse(project, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"destination": "postgres"}, "credentials do not say where the database is"),
        (
            {"destination": "postgres", "credentials": {"host": "db", "port": "5432a"}},
            "the port in credentials is '5432a'; set a number",
        ),
        (
            {"destination": "sqlalchemy", "credentials": "firebird://db/acme"},
            "sqlalchemy finops: Can't load plugin: sqlalchemy.dialects:firebird",
        ),
        ({"destination": "sqlalchemy", "credentials": "no url"}, "Could not parse SQLAlchemy URL"),
        (
            {"destination": "sqlalchemy", "credentials": "sqlite:///nowhere/acme.db"},
            "sqlalchemy finops: unable to open database file",
        ),
        (
            {"destination": "mssql", "credentials": {"host": "db", "database": "acme"}},
            "mssql finops: the client pyodbc is not installed; install it by pip",
        ),
    ],
)
def test_connection_error_is_one_line(
    project: Project, settings: dict[str, Any], message: str
) -> None:
    with refused(message):
        project_warehouse(project, **settings).check_connection()


def test_environment_overrides_the_address_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credentials = {"host": "db", "database": "acme", "username": "finops", "driver": "ODBC 18"}
    settings = SqlSettings(destination="mssql", credentials=credentials)
    monkeypatch.setenv("DESTINATION__MSSQL__CREDENTIALS__PASSWORD", "hunter2")
    monkeypatch.setenv("DESTINATION__MSSQL__CREDENTIALS__PORT", "1434")
    url = database_url(settings).render_as_string(hide_password=False)
    assert url == "mssql+pyodbc://finops:hunter2@db:1434/acme?driver=ODBC+18"
    monkeypatch.setenv("DESTINATION__MSSQL__CREDENTIALS", "mssql+pymssql://db2/other")
    url = database_url(settings).render_as_string(hide_password=False)
    assert url == "mssql+pymssql://db2:1434/other"


def test_locked_database_is_transient(project: Project, month_of: MonthOf) -> None:
    file = month_of("v1")
    warehouse = project_warehouse(project, **SQLITE)
    warehouse.replace_month(file)
    with closing(sqlite3.connect("data/acme__finops.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        no_wait = {"connect_args": {"timeout": 0}}
        with refused("database is locked", WarehouseUnavailable):
            project_warehouse(project, **SQLITE, engine_kwargs=no_wait).replace_month(file)
    assert file.footer.is_same_version(warehouse.measured_version(file))


def test_database_that_does_not_roll_back_is_refused(project: Project, month_of: MonthOf) -> None:
    """With `AUTOCOMMIT` no database has transactions."""
    no_transactions = {"engine_kwargs": {"isolation_level": "AUTOCOMMIT"}}
    with refused("does not roll back"):
        project_warehouse(project, **SQLITE, **no_transactions).replace_month(month_of("v1"))
    ((state, reason),) = query_sqlite("SELECT state, error_message FROM aws_billing_data_loads")
    assert state == "failed"
    assert "does not roll back" in reason
    assert query_sqlite("SELECT * FROM aws_billing_data") == []


def test_sqlite_stores_amounts_as_text(project: Project) -> None:
    costs = ("0.000000000000000001", "99999999999999999998.5")
    file = lake_file(project, "v1", *costs)
    warehouse = project_warehouse(project, **SQLITE)
    warehouse.replace_month(file)
    assert query_sqlite(
        "SELECT lineitem_unblendedcost, typeof(lineitem_unblendedcost) FROM aws_billing_data"
    ) == [(cost, "text") for cost in costs]
    version = warehouse.measured_version(file)
    assert version is not None
    assert version.totals.cost == Decimal("99999999999999999998.500000000000000001")


def test_tables_of_dlt_are_used_further(project: Project, month_of: MonthOf) -> None:
    """Earlier releases loaded by dlt, which declared amounts and maps as TEXT."""
    project_warehouse(project, **SQLITE)
    query_sqlite("CREATE TABLE _dlt_version (version BIGINT)")
    query_sqlite(
        "CREATE TABLE aws_billing_data (billing_month DATE, manifest_id TEXT, "
        "lineitem_unblendedcost TEXT, tags TEXT, started TIMESTAMP)"
    )
    query_sqlite(
        "CREATE TABLE aws_billing_data_loads (billing_period TEXT, load_timestamp TIMESTAMP, "
        "row_count BIGINT, state TEXT, error_message TEXT, manifest_id TEXT, job_id TEXT)"
    )
    query_sqlite(
        "INSERT INTO aws_billing_data VALUES ('2024-01-01', 'v1', '1', '{\"a\":\"b\"}', "
        "'2024-01-03 04:05:06.000000')"
    )
    query_sqlite(
        "INSERT INTO aws_billing_data_loads VALUES "
        "('2024-01', '2026-01-01 00:00:00.000000', 1, 'loaded', NULL, 'v1', 'job')"
    )
    tags = "MAP {'a': 'b'}::MAP(VARCHAR, VARCHAR)"
    first = month_of("v1", tags=tags, started=A_TIME)
    warehouse = project_warehouse(project, **SQLITE)
    assert first.footer.is_same_version(warehouse.measured_version(first))
    assert warehouse.replace_month(month_of("v2", tags=tags, started=A_TIME)).warnings == ()
    select = "SELECT manifest_id, lineitem_unblendedcost, tags, started FROM aws_billing_data"
    assert query_sqlite(select) == [("v2", "1", '{"a":"b"}', "2024-01-03 04:05:06.000000")]


def test_a_column_becomes_text_with_its_month_or_not_at_all(
    project: Project, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project, **SQLITE)
    warehouse.replace_month(month_of("v1", started=A_TIME))
    before = query_sqlite("SELECT started FROM aws_billing_data")
    february = month_of("v1", "2024-02", started="'soon'")
    footer = dataclasses.replace(february.footer, totals=Totals(1, Decimal(2)))
    with pytest.raises(ReconciliationError):
        warehouse.replace_month(dataclasses.replace(february, footer=footer))
    assert query_sqlite("SELECT started FROM aws_billing_data") == before
    warehouse.replace_month(february)
    texts = query_sqlite("SELECT started FROM aws_billing_data ORDER BY billing_month")
    assert texts == [("2024-01-03T04:05:06Z",), ("soon",)]


def test_only_the_lock_file_is_left(project: Project, month_of: MonthOf) -> None:
    project_warehouse(project, **SQLITE).replace_month(month_of("v1"))
    files = [path.name for path in (project.folder / "data/dlt").iterdir()]
    assert files == ["aws_billing_data-2024-01.lock"]
    tables = query_sqlite("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    assert [name for (name,) in tables if not name.startswith("sqlite_")] == [
        "aws_billing_data",
        "aws_billing_data_loads",
    ]


def test_load_that_another_machine_ended_is_transient(project: Project, month_of: MonthOf) -> None:
    """Two machines share no lock: the later load ends the earlier one in the ledger."""
    file = month_of("v1")
    warehouse = project_warehouse(project, **SQLITE)
    warehouse.replace_month(file)
    query_sqlite(
        "CREATE TRIGGER another_machine BEFORE DELETE ON aws_billing_data BEGIN "
        "UPDATE aws_billing_data_loads SET state = 'failed' WHERE state = 'loading'; END"
    )
    with refused("another run is loading 2024-01", WarehouseUnavailable):
        warehouse.replace_month(file)
    states = query_sqlite("SELECT state FROM aws_billing_data_loads ORDER BY load_timestamp")
    assert states == [("loaded",), ("failed",)]
    assert file.footer.is_same_version(warehouse.measured_version(file))


def test_table_has_an_index_of_months(project: Project, month_of: MonthOf) -> None:
    project_warehouse(project, **SQLITE).replace_month(month_of("v1"))
    ((_, index, *_),) = query_sqlite("PRAGMA index_list(aws_billing_data)")
    ((*_, column),) = query_sqlite(f"PRAGMA index_info({index})")
    assert column == "billing_month"
    assert ("aws_billing_data", index) in query_sqlite("SELECT tbl, idx FROM sqlite_stat1")


def test_load_after_one_from_a_wrong_clock_is_the_newest(
    project: Project, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project, **SQLITE)
    warehouse.replace_month(month_of("v1"))
    query_sqlite(
        "UPDATE aws_billing_data_loads SET load_timestamp = datetime(load_timestamp, '+1 year')"
    )
    second = month_of("v2")
    warehouse.replace_month(second)
    assert second.footer.is_same_version(warehouse.measured_version(second))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as server, server.connect() as connection:
        connection.execute("CREATE DATABASE acme")
        yield server


def test_postgresql_server_keeps_decimals_and_zones(
    project: Project, server: PostgreSQLServer, month_of: MonthOf
) -> None:
    credentials = f"postgresql://postgres@/acme?host={server.host}"
    warehouse = project_warehouse(project, destination="postgres", credentials=credentials)
    tags = "MAP {'a:b': 'c', 'd': NULL}::MAP(VARCHAR, VARCHAR)"
    columns = {
        "started": A_TIME,
        "tags": tags,
        "Odd:Name %s": "'a:b'",
        "fee": "12345678901234567890.000000000000000001::DECIMAL(38,18)",
    }
    january = month_of("v1", **columns)
    for file in (january, month_of("v2", **columns), january):
        assert warehouse.replace_month(file).warnings == ()
        assert file.footer.is_same_version(warehouse.measured_version(file))
    february = month_of("v1", "2024-02", **{**columns, "started": "'soon'"})
    (warning,) = warehouse.replace_month(february).warnings
    because = "because 2024-02 has VARCHAR; cast it in queries"
    assert warning == f"started changed from TIMESTAMP to text, {because}"
    with refused(r"column fee of .* is DECIMAL"):
        warehouse.replace_month(month_of("v1", "2024-03", fee="'much'"))
    with server.connect("acme") as reader:
        rows = reader.execute(
            'SELECT manifest_id, started, tags, "Odd:Name %s", fee FROM finops.aws_billing_data '
            "ORDER BY billing_month",
        ).fetchall()
        tables = reader.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'finops' ORDER BY 1"
        ).fetchall()
    fee = Decimal("12345678901234567890.000000000000000001")
    assert rows == [
        ("v1", "2024-01-03T04:05:06Z", '{"a:b":"c","d":null}', "a:b", fee),
        ("v1", "soon", '{"a:b":"c","d":null}', "a:b", fee),
    ]
    assert tables == [("aws_billing_data",), ("aws_billing_data_loads",)]
    assert [month.month for month in warehouse.loaded_months("aws_billing_data")] == [
        "2024-02",
        "2024-01",
    ]


def wait_for_lock(server: PostgreSQLServer, statement: str) -> None:
    """Wait until a statement that begins with this word waits for a lock."""
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND starts_with(query, %s)"
    )
    with server.connect("acme") as connection:
        while not connection.execute(waiting, (statement,)).fetchall():
            pass


def test_load_stays_loaded_if_another_machine_waited_to_end_it(
    project: Project, server: PostgreSQLServer, month_of: MonthOf
) -> None:
    """A load that began later reads `loading`, and waits for the row until it is `loaded`."""
    settings = {
        "destination": "postgres",
        "credentials": f"postgresql://postgres@/acme?host={server.host}",
        "dataset": "machines",
    }
    other_machine = project_warehouse(project, **settings, working_dir="data/other")
    warehouse = project_warehouse(project, **settings)
    warehouse.replace_month(month_of("v1"))
    second, third = month_of("v2"), month_of("v3")
    wrong_footer = dataclasses.replace(third.footer, totals=Totals(1, Decimal(2)))
    wrong = dataclasses.replace(third, footer=wrong_footer)
    with server.connect("acme", autocommit=False) as reader:
        reader.execute("LOCK TABLE machines.aws_billing_data IN SHARE MODE")
        first_thread, outcome = in_background(lambda: warehouse.replace_month(second))
        wait_for_lock(server, "DELETE")
        other_thread, other_outcome = in_background(lambda: other_machine.replace_month(wrong))
        wait_for_lock(server, "UPDATE")
    first_thread.join()
    other_thread.join()
    assert [getattr(result, "warnings", result) for result in outcome] == [()]
    assert isinstance(other_outcome[0], ReconciliationError), other_outcome
    assert second.footer.is_same_version(warehouse.measured_version(second))
    with server.connect("acme") as connection:
        states = connection.execute(
            "SELECT manifest_id, state, error_message IS NULL FROM machines.aws_billing_data_loads "
            "ORDER BY manifest_id"
        ).fetchall()
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'machines' ORDER BY 1"
        ).fetchall()
    assert states == [("v1", "loaded", True), ("v2", "loaded", True), ("v3", "failed", False)]
    assert tables == [("aws_billing_data",), ("aws_billing_data_loads",)]


@pytest.mark.parametrize("waits_for", ["the month", "its own row"])
def test_load_that_another_machine_ends_while_it_waits_fails(
    server: PostgreSQLServer, month_of: MonthOf, waits_for: str
) -> None:
    credentials = f"postgresql://postgres@/acme?host={server.host}"
    settings = SqlSettings(destination="postgres", credentials=credentials, dataset="ended")
    file, dialect = month_of("v1"), dialect_factory(settings)()
    dialect.job_id = waits_for

    def record_loaded() -> None:
        with dialect.transaction(file) if waits_for == "the month" else nullcontext():
            dialect.record_load(file, dialect.job_id, "loaded")

    with dialect.connected(write=True):
        dialect.prepare_tables(file, dialect.schema_change(file))
        dialect.begin_load(file)
        with server.connect("acme", autocommit=False) as other:
            other.execute("UPDATE ended.aws_billing_data_loads SET state = 'failed'")
            thread, outcome = in_background(record_loaded)
            wait_for_lock(server, "UPDATE")
        thread.join()
    assert isinstance(outcome[0], WarehouseUnavailable), outcome
    assert "another run is loading 2024-01" in str(outcome[0])
    with server.connect("acme") as connection:
        states = connection.execute("SELECT DISTINCT state FROM ended.aws_billing_data_loads")
        assert states.fetchall() == [("failed",)]


@pytest.mark.thorough
def test_queries_of_the_docs_run(project: Project, server: PostgreSQLServer) -> None:
    credentials = f"postgresql://postgres@/acme?host={server.host}"
    project.database = {
        "backend": "sql",
        "sql": {"destination": "postgres", "credentials": credentials, "dataset": "page"},
    }
    load_exports_of_queries(project)
    with server.connect("acme", options="-c search_path=page") as connection:
        services, teams, versions = (
            connection.execute(query.replace("finops.", "page.")).fetchall()
            for query in docs_queries("Any SQL database")
        )
    assert sum(cost for _, cost in services) == sum(cost for _, _, cost in teams)
    assert len({team for _, team, _ in teams}) > 1
    assert [row[:3] for row in versions] == [("2026-01", "v1", 200)]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("settings", "answers"),
    [
        (("--database-config=warehouse_path=data/warehouse.duckdb",), "DuckDB data/warehouse"),
        (
            ("--backend=sql", *(f"--database-config={k}={v}" for k, v in SQLITE.items())),
            "sqlalchemy finops",
        ),
    ],
)
def test_command_loads_into_the_warehouse(
    project: Project, finops: Finops, settings: tuple[str, ...], answers: str
) -> None:
    deliver(project.put, "2024-01", [line_items("2024-01", "1")], version="v1")
    (project.folder / "data").mkdir(exist_ok=True)
    assert "acme 2024-01  loaded  v1  1 row  1.00" in finops(*settings, "aws", "run-pipeline")
    assert finops.json(*settings, "aws", "show-state")[0]["warehouse_table"] == "v1"
    assert answers in finops(*settings, "config", "check")
    assert finops.json(*settings, "state", "verify") == []
    if answers == "sqlalchemy finops":
        deep = finops.run(*settings, "state", "verify", "acme", "2024-01", "--deep")
        assert deep.stdout == "all agree\n"
        assert "columns of sql, except the sums of its money columns" in deep.stderr
