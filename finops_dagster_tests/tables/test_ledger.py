"""The ledger upgrades every earlier layout, and reports damage."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import duckdb
import pytest

from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.errors import LedgerDamaged
from finops_dagster.billing.money import RoundedColumn, Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.tables import ledger

JANUARY = BillingMonth(2024, 1)
# The ledger of the first release.
FIRST_LAYOUT = """
CREATE SCHEMA finops_state;
CREATE TABLE finops_state.manifests (
    export VARCHAR NOT NULL, billing_month DATE NOT NULL, manifest_id VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL, row_count BIGINT NOT NULL, total_cost DECIMAL(38,18) NOT NULL,
    file_count BIGINT NOT NULL, byte_count BIGINT NOT NULL, loaded_at TIMESTAMP NOT NULL,
    run_id VARCHAR NOT NULL, state VARCHAR NOT NULL CHECK (state IN ('loaded', 'superseded')));
CREATE TABLE finops_state.columns (
    table_name VARCHAR NOT NULL, header VARCHAR NOT NULL, column_name VARCHAR NOT NULL,
    PRIMARY KEY (table_name, header));
INSERT INTO finops_state.manifests VALUES
    ('acme', '2024-01-01', 'v1', 'bill', 2, 3.5, 1, 100, '2024-02-03', 'run-1', 'superseded'),
    ('acme', '2024-01-01', 'v2', 'bill', 3, 4.5, 1, 110, '2024-02-04', 'run-2', 'loaded');
INSERT INTO finops_state.columns VALUES ('bill', 'user:Team', 'team'), ('bill', 'a/b', 'a_b');
"""


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    """Return a connection to a database with a ledger."""
    connection = duckdb.connect()
    ledger.create_tables(connection)
    return connection


def load(manifest_id: str, rows: int = 1) -> Load:
    totals = Totals(rows, Decimal("0.000000000000000001"))
    return Load(
        *(manifest_id, totals, "cur2", 2, 300, None, "a-run"),
        export="acme",
        month=JANUARY,
        table="bill",
    )


def test_a_ledger_of_the_first_release_is_upgraded_with_all_its_rows() -> None:
    connection = duckdb.connect()
    connection.execute(FIRST_LAYOUT)
    ledger.create_tables(connection)
    newest = ledger.newest_load(connection, "acme", JANUARY)
    assert newest is not None
    assert (newest.manifest_id, newest.totals, newest.format) == (
        "v2",
        Totals(3, Decimal("4.5")),
        "cur1",
    )
    assert (newest.rounded, newest.totals.sums, newest.totals.costs) == (None, None, None)
    assert [version.manifest_id for version in ledger.loads(connection, "acme")] == ["v2", "v1"]
    assert ledger.names_by_header(connection, "bill") == {"user:Team": "team", "a/b": "a_b"}
    assert connection.sql("SELECT export, vendor, format FROM finops_state.exports").fetchall() == [
        ("acme", "aws", "cur1")
    ]
    ledger.create_tables(connection)
    ledger.record_load(connection, load("v3"), 1.5)
    assert [version.state for version in ledger.loads(connection, "acme")] == [
        "loaded",
        "superseded",
        "superseded",
    ]


def test_files_recorded_before_they_could_be_shared_by_months_are_kept(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    files = Content.of([FileContent("a.csv.gz", 7, "00ff", "etag"), FileContent("b.csv.gz", 8)])
    ledger.record_load(connection, replace(load("v1"), content=files), 1)
    ledger.record_load(connection, load("v2"), 1)
    connection.execute(
        """ALTER TABLE finops_state.manifests ALTER files TYPE
        STRUCT("name" VARCHAR, size BIGINT, sha256 VARCHAR, etag VARCHAR)[]
        USING list_transform(files, lambda file: {'name': file.name, 'size': file.size,
        'sha256': file.sha256, 'etag': file.etag})"""
    )
    ledger.create_tables(connection)
    contents = [version.content for version in ledger.loads(connection, "acme")]
    assert contents == [None, files]
    shared = Content.of([FileContent("c.csv.gz", 9, "ff", months=("2024-01", "2024-02"))])
    ledger.record_load(connection, replace(load("v3"), content=shared), 1)
    assert ledger.loaded_content(connection, "acme") == {JANUARY: shared}


@pytest.mark.parametrize("table", ["manifests", "exports", "runs"])
def test_a_missing_table_is_created(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    connection.execute(f"DROP TABLE finops_state.{table}")
    ledger.create_tables(connection)
    assert connection.sql(f"FROM finops_state.{table}").fetchall() == []


@pytest.mark.parametrize(
    ("alteration", "message"),
    [
        ("DROP COLUMN manifest_id", "manifests is damaged: it has no column manifest_id"),
        ("ALTER row_count TYPE VARCHAR", "column row_count has the type VARCHAR instead of BIGINT"),
    ],
)
def test_a_damaged_table_is_reported_and_can_be_set_aside(
    connection: duckdb.DuckDBPyConnection, alteration: str, message: str
) -> None:
    ledger.record_load(connection, load("v1"), 1.5)
    connection.execute(f"ALTER TABLE finops_state.manifests {alteration}")
    with pytest.raises(LedgerDamaged, match=message):
        ledger.create_tables(connection)
    (aside,) = ledger.rename_damaged_tables(connection)
    ledger.create_tables(connection)
    assert ledger.loads(connection, "acme") == []
    assert connection.sql(f"SELECT export FROM {aside}").fetchall() == [("acme",)]


def test_a_version_loaded_twice_has_one_row_and_two_runs(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    ledger.record_load(connection, load("v1"), 1.5)
    ledger.record_load(connection, load("v2", rows=5), 2.5)
    ledger.record_load(connection, load("v2", rows=5), 3.5)
    versions = [
        (version.manifest_id, version.state) for version in ledger.loads(connection, "acme")
    ]
    assert versions == [("v2", "loaded"), ("v1", "superseded")]
    runs = "SELECT run_id, manifest_id, seconds, row_count, byte_count FROM finops_state.runs"
    assert connection.sql(runs).fetchall() == [
        ("a-run", "v1", 1.5, 1, 300),
        ("a-run", "v2", 2.5, 5, 300),
        ("a-run", "v2", 3.5, 5, 300),
    ]


@pytest.mark.parametrize(
    ("rounded", "sums", "costs"),
    [
        (None, None, None),
        ((), {}, {}),
        (
            (RoundedColumn("cost", 2, Decimal("-1e-60")), RoundedColumn("usage", 10**12)),
            {"cost": Decimal("99999999999999999999.000000000000000001"), "fee": Decimal(0)},
            {"USD": Decimal("1e-18"), "usd": Decimal(-1), "": Decimal(2)},
        ),
    ],
)
def test_roundings_sums_and_currencies_keep_every_digit(
    connection: duckdb.DuckDBPyConnection,
    rounded: tuple[RoundedColumn, ...] | None,
    sums: dict[str, Decimal] | None,
    costs: dict[str, Decimal] | None,
) -> None:
    totals = Totals(1, Decimal("1e-18"), sums, costs)
    ledger.record_load(connection, replace(load("v1"), rounded=rounded, totals=totals), 1.5)
    newest = ledger.newest_load(connection, "acme", JANUARY)
    assert newest is not None
    assert newest.totals == totals
    assert (newest.rounded, newest.totals.sums, newest.totals.costs) == (rounded, sums, costs)


def test_only_superseded_versions_are_forgotten(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    ledger.record_load(connection, load("v1"), 1.5)
    ledger.record_load(connection, load("v2"), 1.5)
    assert ledger.delete_superseded_loads(connection, "acme", datetime(2000, 1, 1)) == []
    deleted = ledger.delete_superseded_loads(connection, "acme", datetime(2100, 1, 1))
    assert deleted == [(JANUARY, "v1")]
    assert [version.manifest_id for version in ledger.loads(connection, "acme")] == ["v2"]
    assert connection.sql("SELECT manifest_id FROM finops_state.runs").fetchall() == [("v2",)]
