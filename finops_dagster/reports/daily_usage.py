"""Reads the daily costs of usage from the charges of the lake."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports.charges import CHARGES
from finops_dagster.reports.daily_costs import Array, DailyCosts, Series

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MONTHS = 13
# On the newest days, vendors have not delivered all usage yet: a day is complete if it costs at
# least this part of what the same weekday cost in the four weeks before.
_COMPLETE, _NEWEST_DAYS = 0.75, 3

# Doubles are exact enough here, and are added up several times as fast.
_USAGE = Sql("""
CREATE OR REPLACE TEMP TABLE usage AS
SELECT
    x_billing_month AS month,
    coalesce(BillingCurrency, '(none)') AS currency,
    coalesce(ProviderName, '(none)') AS provider,
    coalesce(SubAccountId, BillingAccountId, '(none)') AS account,
    coalesce(AccountName, '(none)') AS account_name,
    coalesce(ServiceName, '(none)') AS service,
    coalesce(RegionName, RegionId, '(none)') AS region,
    SkuId AS sku,
    PricingUnit AS unit,
    x_export AS export,
    greatest(CAST(ChargePeriodStart AS DATE), x_billing_month) AS first_day,
    -- A charge of a longer time costs the same on each of its days.
    greatest(1, 1 + date_diff(
        'day',
        first_day,
        least(CAST(ChargePeriodEnd - INTERVAL 1 SECOND AS DATE), last_day(x_billing_month))
    )) AS days,
    ChargeCategory = 'Credit' AS is_credit,
    sum(CAST(EffectiveCost AS DOUBLE)) AS cost,
    sum(CAST(PricingQuantity AS DOUBLE)) AS quantity,
    sum(CAST(EffectiveCost AS DOUBLE)) FILTER (CommitmentDiscountStatus = 'Used') AS committed
FROM charges
WHERE x_billing_month BETWEEN $first AND $last
    AND ((ChargeCategory = 'Usage' AND ChargeClass IS NULL) OR ChargeCategory = 'Credit')
GROUP BY ALL
""")
_SERIES = Sql("""
CREATE OR REPLACE TEMP TABLE series AS
SELECT
    currency, provider, account, service, arg_max(account_name, first_day) AS account_name,
    arg_max(export, first_day) AS export,
    row_number() OVER (ORDER BY currency, provider, account, service) - 1 AS number
FROM usage
GROUP BY currency, provider, account, service
""")
_PRICES = Sql("""
CREATE OR REPLACE TEMP TABLE prices AS
SELECT
    currency, provider, account, service, region, sku, unit,
    CAST(month + INTERVAL 1 MONTH AS DATE) AS month,
    sum(cost) / sum(quantity) AS previous_price
FROM usage
WHERE NOT is_credit AND sku IS NOT NULL
GROUP BY ALL
HAVING sum(quantity) > 0
""")
_DAYS = Sql("""
CREATE OR REPLACE TEMP TABLE usage_days AS
SELECT
    number, day, region, sum(cost) AS cost, sum(repriced) AS repriced,
    sum(committed) AS committed, sum(credit) AS credit
FROM (
    SELECT
        number, region, first_day - $first + unnest(range(days)) AS day,
        if(is_credit, 0, cost) / days AS cost,
        if(is_credit, 0, coalesce(quantity * previous_price, cost)) / days AS repriced,
        if(is_credit, 0, coalesce(committed, 0)) / days AS committed,
        if(is_credit, -cost, 0) / days AS credit
    FROM usage
    JOIN series USING (currency, provider, account, service)
    LEFT JOIN prices USING (currency, provider, account, service, region, sku, unit, month)
)
GROUP BY ALL
""")
_REGIONS = Sql("""
SELECT number, day, region, cost, dense_rank() OVER (ORDER BY number, region) - 1 AS place
FROM (
    FROM usage_days
    QUALIFY max(region) OVER (PARTITION BY number) <> min(region) OVER (PARTITION BY number)
)
""")
# What is charged for a longer time says nothing of how far a month has come.
_LOADED_MONTHS = Sql("""
SELECT export, month, max(first_day) FILTER (days = 1)
FROM usage WHERE NOT is_credit GROUP BY export, month ORDER BY month
""")


def read_daily_costs(
    connection: DuckDBPyConnection, last: BillingMonth | None = None
) -> DailyCosts | None:
    """Return the daily costs of thirteen months, from the relation `focus_named`.

    `last` is the last month, by default the newest. None if there is no usage in these months.
    """
    connection.execute(f"CREATE OR REPLACE TEMP VIEW charges AS {CHARGES}")
    (newest,) = connection.execute("SELECT max(x_billing_month) FROM charges").fetchone() or (None,)
    if newest is None:
        return None
    last = min(last, BillingMonth.of(newest)) if last else BillingMonth.of(newest)
    first = last
    for _ in range(_MONTHS - 1):
        first = first.previous
    months = {"first": first.first_day, "last": last.first_day}
    connection.execute(_USAGE, months)
    connection.execute(_SERIES)
    connection.execute(_PRICES)
    connection.execute(_DAYS, {"first": first.first_day})
    day_count = (last.next.first_day - first.first_day).days
    costs = _arrays(connection, first.first_day, day_count)
    _leave_out_unknown_days(connection, costs)
    return costs


def _arrays(connection: DuckDBPyConnection, first_day: date, day_count: int) -> DailyCosts:
    series = [
        Series(*row)
        for row in connection.execute(
            "SELECT currency, provider, account, account_name, service FROM series ORDER BY number"
        ).fetchall()
    ]
    shape = (len(series), day_count)
    arrays = {name: np.zeros(shape) for name in ("cost", "repriced", "committed", "credit")}
    columns = connection.execute(
        "SELECT number, day, sum(cost) AS cost, sum(repriced) AS repriced, "
        "sum(committed) AS committed, sum(credit) AS credit FROM usage_days GROUP BY number, day"
    ).fetchnumpy()
    for name, array in arrays.items():
        array[columns["number"], columns["day"]] = columns[name]
    regions, region_costs = _regions(connection, day_count)
    return DailyCosts(
        first_day,
        series,
        arrays["cost"],
        arrays["repriced"],
        arrays["committed"],
        arrays["credit"],
        regions,
        region_costs,
    )


def _regions(connection: DuckDBPyConnection, day_count: int) -> tuple[list[tuple[int, str]], Array]:
    """Return the regions of series that have several, and their costs."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE region_days AS {_REGIONS}")
    regions = connection.execute(
        "SELECT DISTINCT place, number, region FROM region_days ORDER BY place"
    ).fetchall()
    costs = np.zeros((len(regions), day_count))
    columns = connection.execute("SELECT place, day, cost FROM region_days").fetchnumpy()
    costs[columns["place"], columns["day"]] = columns["cost"]
    return [(number, region) for _, number, region in regions], costs


def _leave_out_unknown_days(connection: DuckDBPyConnection, costs: DailyCosts) -> None:
    """Set the costs of days to NaN that the series' export has not loaded, or not complete."""
    exports = connection.execute("SELECT export FROM series ORDER BY number").fetchall()
    loaded: dict[str | None, dict[BillingMonth, date | None]] = {}
    for export, month, last_day in connection.execute(_LOADED_MONTHS).fetchall():
        loaded.setdefault(export, {})[BillingMonth.of(month)] = last_day
    months = [BillingMonth.of(costs.day(number)) for number in range(costs.day_count)]
    for export in {export for (export,) in exports}:
        rows = np.array([other == export for (other,) in exports])
        last_days = loaded.get(export, {})
        known = np.array([month in last_days for month in months])
        if last_days:
            total = costs.cost[rows].sum(axis=0)
            newest = max(last_days)
            known[_complete_days(costs, total, newest, last_days[newest]) :] = False
        costs.cost[np.ix_(rows, ~known)] = np.nan


def _complete_days(
    costs: DailyCosts, total: Array, newest: BillingMonth, last_day: date | None
) -> int:
    """Return the number of days until the last complete one of the newest month."""
    end = (newest.next.first_day - costs.first_day).days
    if last_day is not None and last_day < newest.next.first_day - timedelta(days=1):
        end = (last_day - costs.first_day).days
    for _ in range(_NEWEST_DAYS):
        weeks_before = total[[end - 1 - 7 * weeks for weeks in range(1, 5) if end > 7 * weeks]]
        if not len(weeks_before) or total[end - 1] >= _COMPLETE * np.median(weeks_before):
            break
        end -= 1
    return end
