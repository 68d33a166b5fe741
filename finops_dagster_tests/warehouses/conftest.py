"""Fixtures: a warehouse of each kind as the project's last stage, and files of single months."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from finops_dagster.billing.columns import quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.lake import FolderFile, writing_month_to_lake
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import measure_month
from finops_dagster.warehouses.month_file import MonthFile
from finops_dagster_tests.project import Project
from finops_dagster_tests.warehouses.adapters import ADAPTERS, Adapter, install, running_adapter

MonthOf = Callable[..., MonthFile]
# Snowflake's server is slow. A second DuckDB file is replaced as PostgreSQL's tables are. The test
# warehouse of the seam, "sqlite", shows nothing that a user has: only `make faults` runs all of it.
_SLOW = ("duckdb", "snowflake", "sql_sqlite", "sqlite")
_ALWAYS = "test_warehouses.py::test_first_load["
# What BigQuery does its own way; PostgreSQL shows the rest in `make test`.
_BIGQUERY = (
    "test_first_load",
    "test_restatement_replaces_its_month_alone",
    "test_amounts_are_exact_to_the_last_digit",
    "test_maps_keep_keys_and_values",
    "test_failed_load_keeps_the_loaded_version",
    "test_month_that_does_not_reconcile_fails",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most tests of the other warehouses as thorough, since together they take minutes."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            adapter = item.callspec.params.get("adapter")
            is_slow = adapter in _SLOW and _ALWAYS not in item.nodeid
            if is_slow and adapter == "sqlite":
                item.add_marker("faults")
            elif is_slow or (adapter == "bigquery" and item.originalname not in _BIGQUERY):
                item.add_marker("thorough")


@contextmanager
def refused(message: str, *error_types: type[Exception]) -> Iterator[None]:
    """Assert that the block raises one of `error_types`, or BillError without any.

    The message matches the pattern, is one line, and has no password of the environment.
    """
    with pytest.raises(error_types or BillError, match=message) as error:
        yield
    secrets = [value for name, value in os.environ.items() if "PASSWORD" in name]
    assert not any(secret in str(error.value) for secret in ("\n", "\0", *secrets))


@pytest.fixture(scope="session", params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    """Provide each warehouse; its server runs from its first test to its last."""
    with running_adapter(request.param) as adapter:
        yield adapter


@pytest.fixture
def warehouse(adapter: Adapter, project: Project, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    """Provide an empty warehouse that is the project's last stage."""
    install(adapter, project, monkeypatch)
    return adapter


@pytest.fixture
def month_of(tmp_path: Path) -> MonthOf:
    """Provide a function that writes the Parquet file of a month with one row that costs 1.

    Its keyword arguments are more columns, with their values in SQL.
    """

    def write(version: str, month: str = "2024-01", **columns: str) -> MonthFile:
        billing_month, vendor = BillingMonth.parse(month), AwsCur1()
        file = FolderFile(tmp_path / f"{month}-{version}.parquet")
        values = {
            "billing_month": f"DATE '{month}-01'",
            "manifest_id": f"'{version}'",
            vendor.cost: "CAST(1 AS DECIMAL(38,18))",
            **columns,
        }
        line = ", ".join(f"{value} AS {quoted(name)}" for name, value in values.items())
        table = "aws_billing_data"
        with duckdb.connect() as connection:
            ledger.create_tables(connection)
            connection.execute(f"CREATE TABLE {table} AS SELECT {line}")
            totals = measure_month(connection, table, billing_month, vendor, [vendor.cost]).totals
            load = Load(
                version, totals, vendor.name, export="acme", month=billing_month, table=table
            )
            with writing_month_to_lake(connection, load, file, vendor):
                pass
        footer = file.version()
        assert footer
        return MonthFile(
            "acme",
            table,
            billing_month,
            file,
            footer,
            file.schema(),
            cost_column=vendor.cost,
            billing_period_column=None,
            cluster_by=(),
        )

    return write
