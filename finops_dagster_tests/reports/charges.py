"""Charges with accounts in a lake, for tests of reports."""

from pathlib import Path

import duckdb

from finops_dagster.billing.columns import literal


def write_charges(lake: Path, export: str, month: str, *charges: str) -> None:
    """Write the charges of an export's month, each the SQL of a row."""
    folder = lake / "focus" / export / f"billing_month={month}"
    folder.mkdir(parents=True, exist_ok=True)
    query = " UNION ALL ".join(charges)
    duckdb.sql(query).write_parquet(str(folder / f"{export}-{month}.parquet"))


def charge(
    account: str | None,
    cost: str,
    payer: str = "p",
    day: str = "2024-01-15",
    currency: str = "USD",
) -> str:
    """Return the SQL of a charge of a sub account, or of none."""
    return (
        f"SELECT '{payer}' AS BillingAccountId, CAST(NULL AS VARCHAR) AS BillingAccountName, "
        f"CAST({literal(account) if account else 'NULL'} AS VARCHAR) AS SubAccountId, "
        f"CAST(NULL AS VARCHAR) AS SubAccountName, TIMESTAMP '{day}' AS ChargePeriodStart, "
        f"CAST({cost} AS DECIMAL(38, 18)) AS BilledCost, '{currency}' AS BillingCurrency, "
        f"date_trunc('month', DATE '{day[:10]}') AS x_billing_month"
    )
