"""Queries of the charges of all exports, with every column that reports need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Not every vendor's FOCUS has these columns.
_CHARGES = Sql("""
FROM {relation} UNION ALL BY NAME SELECT
    CAST(NULL AS VARCHAR) AS AccountName,
    CAST(NULL AS VARCHAR) AS ProviderName, CAST(NULL AS VARCHAR) AS ServiceName,
    CAST(NULL AS VARCHAR) AS BillingCurrency, CAST(NULL AS VARCHAR) AS ChargeCategory,
    CAST(NULL AS VARCHAR) AS ChargeClass, CAST(NULL AS VARCHAR) AS RegionName,
    CAST(NULL AS VARCHAR) AS RegionId, CAST(NULL AS VARCHAR) AS SkuId,
    CAST(NULL AS VARCHAR) AS PricingUnit, CAST(NULL AS VARCHAR) AS CommitmentDiscountStatus,
    CAST(NULL AS VARCHAR) AS x_export, CAST(NULL AS TIMESTAMP) AS ChargePeriodEnd,
    CAST(NULL AS DECIMAL(38, 18)) AS PricingQuantity,
    CAST(NULL AS DECIMAL(38, 18)) AS BilledCost, CAST(NULL AS DECIMAL(38, 18)) AS EffectiveCost,
    CAST(NULL AS MAP(VARCHAR, VARCHAR)) AS Tags
WHERE false
""")
CHARGES = _CHARGES.format(relation="focus_named")
"""A query of the charges in `focus_named`; there is no such relation in a lake without charges."""
CHARGES_WITHOUT_NAMES = _CHARGES.format(relation="focus")
"""A faster query of the same charges, without the names and owners of accounts."""


def months_of_charges(connection: DuckDBPyConnection) -> list[BillingMonth]:
    """Return the months in `focus_named`, the oldest first. Needs this relation."""
    rows = connection.execute("SELECT DISTINCT x_billing_month FROM focus_named").fetchall()
    return sorted(BillingMonth.of(first_day) for (first_day,) in rows)


def newest_month(connection: DuckDBPyConnection) -> BillingMonth | None:
    """Return the newest month in `focus_named`; None if it is empty. Needs this relation."""
    row = connection.execute("SELECT max(x_billing_month) FROM focus_named").fetchone()
    return BillingMonth.of(row[0]) if row and row[0] else None
