"""The relations of a query: the charges of all exports, and the names of their accounts."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster.reports.relations import create_relations
from finops_dagster.sources.settings import ExportSettings

EXPORTS = [
    ExportSettings(name=name, vendor="aws", start_month="2024-01") for name in ("acme", "globex")
]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def write_charges(lake: Path, export: ExportSettings, month: str, query: str) -> None:
    """Write the rows of a query as the charges of an export's month."""
    folder = lake / "focus" / export.name / f"billing_month={month}"
    folder.mkdir(parents=True)
    duckdb.sql(query).write_parquet(str(folder / f"{export.name}-{month}.parquet"))


def charge(account: str | None, cost: str, payer: str = "'p'", day: str = "2024-01-15") -> str:
    """Return the SQL of a charge; `account` and `payer` are SQL, None for NULL."""
    return (
        f"SELECT {payer} AS BillingAccountId, CAST(NULL AS VARCHAR) AS BillingAccountName, "
        f"CAST({account or 'NULL'} AS VARCHAR) AS SubAccountId, "
        f"CAST(NULL AS VARCHAR) AS SubAccountName, TIMESTAMP '{day}' AS ChargePeriodStart, "
        f"CAST({cost} AS DECIMAL(38, 18)) AS BilledCost"
    )


def test_the_views_of_a_lake_without_months_are_the_accounts_alone(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    assert create_relations(connection, tmp_path, EXPORTS) == ["accounts"]
    assert connection.execute("FROM accounts").fetchall() == []


def test_focus_named_has_the_charges_of_focus_once_each(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    write_charges(tmp_path, EXPORTS[0], "2024-01", charge("'a'", "1.000000000000000001"))
    write_charges(tmp_path, EXPORTS[0], "2024-02", charge(None, "2"))
    # FOCUS does not require the columns of sub accounts.
    without_accounts = "SELECT CAST(3 AS DECIMAL(38, 18)) AS BilledCost, 'x' AS x_more"
    write_charges(tmp_path, EXPORTS[1], "2024-01", without_accounts)
    assert create_relations(connection, tmp_path, EXPORTS) == ["accounts", "focus", "focus_named"]
    names = "SELECT BilledCost, AccountName, AccountOwner, x_more FROM focus_named ORDER BY 1"
    assert connection.execute(names).fetchall() == [
        (Decimal("1.000000000000000001"), "a", None, None),
        (Decimal(2), "p", None, None),
        (Decimal(3), None, None, "x"),
    ]
