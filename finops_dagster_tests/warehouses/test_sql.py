"""What is dlt's own: which destinations will do, whose settings count, and what is left behind."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import Any

import dlt
import duckdb
import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import BillError, ReconciliationError
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.folder import ParquetLake
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.settings_table import SettingsError
from finops_dagster.tables.database import DuckDB
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import (
    MonthFile,
    Warehouse,
    WarehouseUnavailable,
)
from finops_dagster.warehouses.sql.columns import Widening, dlt_type, widening
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.warehouses.conftest import MonthOf
from finops_dagster_tests.warehouses.page import load_what_they_ask_for, queries

pytestmark = pytest.mark.thorough

SQLITE = {"destination": "sqlalchemy", "credentials": "sqlite:///data/acme.db"}
DUCKDB = {"destination": "duckdb", "credentials": "data/acme.duckdb"}


def opened(project: Project, **settings: Any) -> Warehouse:
    project.database = {"backend": "sql", "sql": settings}
    warehouse = open_warehouse(project.settings().database)
    assert isinstance(warehouse, Warehouse)
    return warehouse


def bring(project: Project, version: str, *costs: str) -> MonthFile:
    """Deliver a version of January and run its chain up to the Parquet file."""
    deliver(project.put, "2024-01", [items("2024-01", *costs)], version=version)
    database, project.database = project.database, {}
    project.load("2024-01")
    project.database = database
    lake = ParquetLake(root=str(project.settings().storage.parquet_dir))
    return month_file(project.the_export(), BillingMonth.parse("2024-01"), lake, DuckDB())


def in_sqlite(sql: str) -> list[Any]:
    with closing(sqlite3.connect("data/acme__finops.db")) as connection, connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    "destination", ["athena", "clickhouse", "databricks", "dremio", "filesystem", "weaviate"]
)
def test_a_destination_without_transactions_is_refused_before_it_is_asked(
    project: Project, destination: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        opened(project, destination=destination)
    assert str(refused.value) == (
        f"[database.sql]: dlt's destination {destination} has no transactions, so a month could "
        "not be replaced in one step; take one that has"
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"destination": "excel"}, "dlt has no destination 'excel'"),
        ({**DUCKDB, "databaze": "x"}, "dlt's destination duckdb has no setting databaze"),
    ],
)
def test_settings_that_cannot_be_used_are_told_in_one_line(
    project: Project, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        opened(project, **settings)
    assert str(refused.value) == f"[database.sql]: {told}"


def test_missing_credentials_are_told_in_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = opened(project, destination="postgres", credentials={"host": "db", "database": "x"})
    with pytest.raises(BillError) as refused:
        warehouse.reach()
    assert str(refused.value) == (
        "postgres finops: dlt lacks password, username; give it in [database.sql.credentials], or "
        "as DESTINATION__POSTGRES__CREDENTIALS__... in the environment, and secrets only there"
    )


def test_a_database_that_sqlalchemy_does_not_know_is_told_in_one_line(project: Project) -> None:
    warehouse = opened(project, destination="sqlalchemy", credentials="firebird://db/acme")
    with pytest.raises(BillError) as refused:
        warehouse.reach()
    assert str(refused.value) == (
        "sqlalchemy finops: Can't load plugin: sqlalchemy.dialects:firebird"
    )


def test_a_database_that_cannot_be_opened_is_told_in_one_line(project: Project) -> None:
    warehouse = opened(project, destination="duckdb", credentials="nowhere/acme.duckdb")
    with pytest.raises(BillError, match=r"^duckdb finops: IO Error: Cannot open file [^\n]*$"):
        warehouse.reach()


def test_a_locked_database_may_be_asked_again(project: Project) -> None:
    file = bring(project, "v1", "1")
    warehouse = opened(project, **SQLITE)
    warehouse.replace_month(file)
    with closing(sqlite3.connect("data/acme__finops.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(WarehouseUnavailable, match="database is locked"):
            opened(project, **SQLITE, engine_kwargs={"connect_args": {"timeout": 0}}).replace_month(
                file
            )
    assert warehouse.held_version(file) == file.footer


def test_a_destination_that_keeps_what_was_rolled_back_is_refused(
    project: Project,
) -> None:
    """Whatever its dialect, `AUTOCOMMIT` makes a database one that has no transactions."""
    file = bring(project, "v1", "1")
    without = {"engine_kwargs": {"isolation_level": "AUTOCOMMIT"}}
    with pytest.raises(BillError, match="it keeps what was rolled back"):
        opened(project, **SQLITE, **without).replace_month(file)
    ((state, reason),) = in_sqlite("SELECT state, error_message FROM aws_billing_data_loads")
    assert state == "failed"
    assert "keeps what was rolled back" in reason
    assert in_sqlite("SELECT * FROM aws_billing_data") == []


def test_amounts_that_sqlite_would_make_floats_are_text(project: Project) -> None:
    costs = ("0.000000000000000001", "99999999999999999998.5")
    file = bring(project, "v1", *costs)
    warehouse = opened(project, **SQLITE)
    warehouse.replace_month(file)
    assert in_sqlite(
        "SELECT lineitem_unblendedcost, typeof(lineitem_unblendedcost) FROM aws_billing_data"
    ) == [(cost, "text") for cost in costs]
    held = warehouse.held_version(file)
    assert held is not None
    assert held.totals.cost == Decimal("99999999999999999998.500000000000000001")


def test_a_column_that_holds_floats_is_refused(project: Project) -> None:
    file = bring(project, "v1", "1")
    with duckdb.connect("data/acme.duckdb") as connection:
        connection.execute("CREATE SCHEMA finops")
        connection.execute(
            "CREATE TABLE finops.aws_billing_data (billing_month DATE, "
            "lineitem_unblendedcost DOUBLE)"
        )
    with pytest.raises(
        BillError, match=r"column lineitem_unblendedcost of .* is double, the month's is DECIMAL"
    ):
        opened(project, **DUCKDB).replace_month(file)


A_TIME = "TIMESTAMP '2024-01-03 04:05:06'"
BOTH = pytest.mark.parametrize("settings", [DUCKDB, SQLITE], ids=["duckdb", "sqlite"])


def asked(settings: dict[str, Any], sql: str) -> list[Any]:
    if settings is SQLITE:
        return in_sqlite(sql)
    with duckdb.connect("data/acme.duckdb") as connection:
        connection.execute("USE finops")
        return connection.execute(sql).fetchall()


def stored_type(settings: dict[str, Any], column: str) -> str:
    """What dlt has stored of the table's column."""
    ((schema,),) = asked(
        settings,
        "SELECT schema FROM _dlt_version WHERE schema_name = 'finops_aws_billing_data' "
        "ORDER BY inserted_at DESC LIMIT 1",
    )
    return str(json.loads(schema)["tables"]["aws_billing_data"]["columns"][column]["data_type"])


@BOTH
def test_a_column_becomes_text_with_its_month_or_not_at_all(
    project: Project, month_of: MonthOf, settings: dict[str, Any]
) -> None:
    warehouse = opened(project, **settings)
    january = month_of("v1", started=A_TIME)
    warehouse.replace_month(january)
    found = "SELECT typeof(started), CAST(started AS TEXT) FROM aws_billing_data"
    before = asked(settings, found)
    february = month_of("v1", "2024-02", started="'soon'")
    footer = dataclasses.replace(february.footer, totals=Totals(1, Decimal(2)))
    with pytest.raises(ReconciliationError):
        warehouse.replace_month(dataclasses.replace(february, footer=footer))
    assert asked(settings, found) == before
    assert stored_type(settings, "started") == "timestamp"
    warehouse.replace_month(february)
    texts = asked(settings, "SELECT started FROM aws_billing_data ORDER BY billing_month")
    assert texts == [("2024-01-03T04:05:06Z",), ("soon",)]
    assert stored_type(settings, "started") == "text"


@BOTH
def test_a_load_that_was_killed_before_dlt_knew_of_the_text(
    project: Project, month_of: MonthOf, settings: dict[str, Any]
) -> None:
    warehouse = opened(project, **settings)
    warehouse.replace_month(month_of("v1", started=A_TIME))
    warehouse.replace_month(month_of("v1", "2024-02", started="'soon'"))
    newest = "SELECT max(inserted_at) FROM _dlt_version"
    asked(settings, f"DELETE FROM _dlt_version WHERE inserted_at = ({newest})")
    assert stored_type(settings, "started") == "timestamp"
    march = month_of("v1", "2024-03", started=A_TIME)
    assert warehouse.replace_month(march).warnings == (
        "started stays VARCHAR, 2024-03 gives TIMESTAMP",
    )
    assert stored_type(settings, "started") == "text"
    texts = asked(settings, "SELECT started FROM aws_billing_data ORDER BY billing_month")
    assert texts == [("2024-01-03T04:05:06Z",), ("soon",), ("2024-01-03T04:05:06Z",)]


def test_a_destination_that_cannot_make_text_within_a_transaction_refuses_it(
    month_of: MonthOf,
) -> None:
    def in_mysql(**was: str) -> Widening:
        known = {name: {"name": name, "description": kind} for name, kind in was.items()}
        there = {name: {**known[name], **dlt_type(kind, "mysql")} for name, kind in was.items()}
        file = month_of("v1", **dict.fromkeys(was, "'soon'"))
        return widening(file, "finops.aws_billing_data", "mysql", str, there, known)

    assert in_mysql(tags=SqlType.TEXT_MAP).becoming_text == {"tags": SqlType.TEXT_MAP}
    with pytest.raises(BillError) as refused:
        in_mysql(started=SqlType.TIME)
    assert str(refused.value) == (
        "column started of finops.aws_billing_data is TIMESTAMP, the month's is VARCHAR; give the "
        "export another table or change it"
    )


def test_only_the_environment_and_the_settings_are_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dlt by itself reads `.dlt` here and at home, and sends what it does to its makers."""
    home = project.folder / "home"
    for folder in (project.folder / ".dlt", home / ".dlt"):
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text("[destination.duckdb]\ncredentials = 'wrong.duckdb'\n")
        (folder / "secrets.toml").write_text("[destination.duckdb]\ncredentials = 'wrong.duckdb'\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "data/right.duckdb")
    file = bring(project, "v1", "1")
    opened(project, destination="duckdb").replace_month(file)
    assert (project.folder / "data/right.duckdb").exists()
    assert not list(project.folder.rglob("wrong.duckdb"))
    written = {path.name for path in (home / ".dlt").iterdir()}
    assert written == {"config.toml", "secrets.toml"}


def test_nothing_is_left_in_the_working_folder(project: Project) -> None:
    file = bring(project, "v1", "1")
    before = {path.name for path in project.folder.iterdir()}
    opened(project, **DUCKDB).replace_month(file)
    assert {path.name for path in project.folder.iterdir()} == before
    left = [path.name for path in (project.folder / "data/dlt").iterdir()]
    assert left == ["aws_billing_data-2024-01.lock"]


def test_what_a_killed_load_left_to_dlt_is_not_loaded_later(project: Project) -> None:
    """dlt finishes first what lies in its folder, whatever it is asked to load."""
    file = bring(project, "v1", "1")
    left = project.folder / "data/dlt/aws_billing_data-2024-01/finops/load/normalized/1"
    left.mkdir(parents=True)
    (left / "schema.json").write_text("{}")
    warehouse = opened(project, **DUCKDB)
    warehouse.replace_month(file)
    assert warehouse.held_version(file) == file.footer
    assert not left.exists()


@pytest.mark.parametrize("drops", [False, True], ids=["ledger alone", "what dlt brought too"])
def test_a_load_that_another_machine_took_over_may_be_asked_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, drops: bool
) -> None:
    """Between machines no lock holds: the other begins, and ends this one, while dlt loads."""
    file = bring(project, "v1", "1")
    warehouse = opened(project, **SQLITE)
    warehouse.replace_month(file)
    runs = dlt.Pipeline.run

    def run(*args: Any, **kwargs: Any) -> Any:
        in_sqlite("UPDATE aws_billing_data_loads SET state = 'failed' WHERE state = 'loading'")
        done = runs(*args, **kwargs)
        incoming = in_sqlite("SELECT name FROM sqlite_master WHERE name LIKE 'finops_incoming_%'")
        assert len(incoming) == 1
        if drops:
            in_sqlite(f"DROP TABLE {incoming[0][0]}")
        return done

    monkeypatch.setattr(dlt.Pipeline, "run", run)
    with pytest.raises(WarehouseUnavailable, match="another run is loading 2024-01"):
        warehouse.replace_month(file)
    states = in_sqlite("SELECT state FROM aws_billing_data_loads ORDER BY load_timestamp")
    assert states == [("loaded",), ("failed",)]
    assert warehouse.held_version(file) == file.footer


def test_a_month_is_found_by_an_index(project: Project) -> None:
    opened(project, **SQLITE).replace_month(bring(project, "v1", "1"))
    ((_, index, *_),) = in_sqlite("PRAGMA index_list(aws_billing_data)")
    ((*_, column),) = in_sqlite(f"PRAGMA index_info({index})")
    assert column == "billing_month"
    assert ("aws_billing_data", index) in in_sqlite("SELECT tbl, idx FROM sqlite_stat1")


def test_the_queries_of_its_page(project: Project) -> None:
    project.database = {"backend": "sql", "sql": DUCKDB}
    load_what_they_ask_for(project)
    with duckdb.connect("data/acme.duckdb", read_only=True) as connection:
        services, teams, versions = (
            connection.execute(query).fetchall() for query in queries("Any SQL database")
        )
    assert sum(cost for _, cost in services) == sum(cost for _, _, cost in teams)
    assert len({team for _, team, _ in teams}) > 1
    assert [row[:3] for row in versions] == [("2026-01", "v1", 200)]


def test_the_command_takes_a_destination(project: Project, finops: Finops) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    settings = [f"--database-config={key}={value}" for key, value in DUCKDB.items()]
    where = ("--backend=sql", *settings)
    assert "acme 2024-01  loaded  v1  1 rows  1.00" in finops(*where, "aws", "load-billing-remote")
    assert "duckdb finops" in finops(*where, "config", "check")
    assert finops.json(*where, "state", "verify") == []
    deep = finops.here(*where, "state", "verify", "acme", "2024-01", "--deep")
    assert deep.stdout == "all agree\n"
    assert "columns of sql but those of money, of which the sums are compared" in deep.stderr


def test_a_version_after_one_from_a_wrong_clock_is_the_newest(project: Project) -> None:
    warehouse = opened(project, **SQLITE)
    warehouse.replace_month(bring(project, "v1", "1"))
    in_sqlite(
        "UPDATE aws_billing_data_loads SET load_timestamp = datetime(load_timestamp, '+1 year')"
    )
    second = bring(project, "v2", "2")
    warehouse.replace_month(second)
    assert warehouse.held_version(second) == second.footer
