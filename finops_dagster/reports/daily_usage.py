"""Reads the daily costs of usage from the charges of the lake."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports.charges import CHARGES, CHARGES_WITHOUT_NAMES, newest_month
from finops_dagster.reports.daily_costs import Array, DailyCosts, Series
from finops_dagster.reports.findings import LEAST_SHARE_OF_A_DAY

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DAILY_MONTHS = 13
# On the newest days, vendors have not delivered all usage yet: a day is complete if it costs at
# least this part of what the same weekday cost in the four weeks before.
_COMPLETE, _NEWEST_DAYS = 0.75, 3

_USAGE = Sql("""
SELECT
    x_billing_month AS month, x_export AS export,
    CAST(ChargePeriodStart AS DATE) AS start_day,
    coalesce(CAST(ChargePeriodEnd - INTERVAL 1 SECOND AS DATE), start_day) AS final_day,
    coalesce(nullif(BillingCurrency, ''), '(none)') AS currency,
    coalesce(nullif(ProviderName, ''), '(none)') AS provider,
    coalesce(nullif(SubAccountId, ''), nullif(BillingAccountId, ''), '(none)') AS account,
    coalesce(nullif(ServiceName, ''), '(none)') AS service,
    AccountName, RegionName, RegionId, SkuId, PricingUnit,
    ChargeCategory = 'Credit' AS is_credit, EffectiveCost AS cost, PricingQuantity AS quantity,
    CommitmentDiscountStatus IS NOT DISTINCT FROM 'Used' AS is_committed
FROM ({charges})
WHERE x_billing_month BETWEEN $first AND $last
    AND ((ChargeCategory = 'Usage' AND ChargeClass IS NULL) OR ChargeCategory = 'Credit')
""")
_SERVICE_USAGE = Sql(f"""
SELECT month, export, currency, provider, account, service, sum(cost) AS usage
FROM ({_USAGE.format(charges=CHARGES_WITHOUT_NAMES)}) WHERE NOT is_credit GROUP BY ALL
""")
# A series that costs less in its dearest month than what matters on a day is left out.
_SERIES = Sql(f"""
CREATE OR REPLACE TEMP TABLE series AS
WITH months AS (
    SELECT currency, provider, account, service, month, max(export) AS export,
        coalesce(CAST(sum(usage) AS DOUBLE), 0) AS cost
    FROM ({{usage}}) WHERE month BETWEEN $first AND $last
    GROUP BY currency, provider, account, service, month
), currencies AS (
    SELECT currency, min(cost) / 31 AS day_cost
    FROM (SELECT currency, month, sum(cost) AS cost FROM months GROUP BY ALL)
    WHERE cost > 0 GROUP BY currency
), large AS (
    SELECT currency, provider, account, service, max(month) AS month,
        arg_max(export, month) AS export
    FROM months JOIN currencies USING (currency)
    GROUP BY currency, provider, account, service, day_cost
    HAVING max(cost) >= day_cost * {LEAST_SHARE_OF_A_DAY}
), names AS (
    SELECT currency, provider, account, service, arg_max(AccountName, start_day) AS account_name
    FROM ({_USAGE.format(charges=CHARGES)})
    SEMI JOIN large USING (currency, provider, account, service, month)
    GROUP BY currency, provider, account, service
)
SELECT
    currency, provider, account, service, coalesce(account_name, '(none)') AS account_name,
    export, hash(currency, provider, account, service) AS key,
    row_number() OVER (ORDER BY currency, provider, account, service) - 1 AS number
FROM large LEFT JOIN names USING (currency, provider, account, service)
""")
_SERIES_USAGE = Sql(f"""
CREATE OR REPLACE TEMP TABLE series_usage AS
WITH usage AS (
    -- To join by four texts takes twice as long.
    SELECT *, hash(currency, provider, account, service) AS key
    FROM ({_USAGE.format(charges=CHARGES_WITHOUT_NAMES)})
), days AS (
    SELECT
        number, month, usage.export, coalesce(RegionName, RegionId, '(none)') AS region,
        if(quantity > 0, hash(SkuId, PricingUnit), NULL) AS sku,
        start_day, final_day, is_credit, sum(cost) AS cost,
        sum(quantity) AS quantity, sum(cost) FILTER (is_committed) AS committed
    FROM usage JOIN series USING (key)
    GROUP BY ALL
)
SELECT
    number, month, export, region, sku, is_credit,
    least(greatest(start_day, month), last_day(month)) AS first_day,
    -- A charge of a longer time costs the same on each of its days.
    greatest(1, 1 + date_diff('day', first_day, least(final_day, last_day(month)))) AS days,
    CAST(cost AS DOUBLE) AS cost, CAST(quantity AS DOUBLE) AS quantity,
    CAST(committed AS DOUBLE) AS committed
FROM days
""")
_PRICES = Sql("""
CREATE OR REPLACE TEMP TABLE prices AS
SELECT
    number, region, sku, CAST(month + INTERVAL 1 MONTH AS DATE) AS month,
    sum(cost) / sum(quantity) AS previous_price
FROM series_usage
WHERE NOT is_credit AND sku IS NOT NULL
GROUP BY number, region, sku, month
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
    FROM series_usage LEFT JOIN prices USING (number, region, sku, month)
)
GROUP BY number, day, region
""")
# Of series that have several.
_REGIONS = Sql("""
CREATE OR REPLACE TEMP TABLE regions AS
SELECT number, region, row_number() OVER (ORDER BY number, region) - 1 AS place
FROM (
    FROM (SELECT DISTINCT number, region FROM usage_days)
    QUALIFY count(*) OVER (PARTITION BY number) > 1
)
""")
# A charge for more than a day does not show up to which day the vendor has delivered the usage.
_LOADED_MONTHS = Sql("""
SELECT export, month, max(first_day) FILTER (days = 1)
FROM series_usage WHERE NOT is_credit GROUP BY export, month ORDER BY month
""")


def read_daily_costs(
    connection: DuckDBPyConnection,
    last: BillingMonth | None = None,
    service_usage: Sql | None = None,
) -> DailyCosts | None:
    """Return the daily costs of thirteen months up to `last`; by default, up to the newest month.

    A `last` after the newest month counts as the newest month. None if there are no charges. A
    service that costs little is left out, so there may be no series. Needs the relations `focus`
    and `focus_named`.

    `service_usage` is for callers that have already computed the effective cost of usage of these
    months: a query with the columns month, export, currency, provider, account, service and usage.

    Replaces the temporary tables `series` and `regions` of the connection, and drops those named
    `series_usage`, `prices` and `usage_days`.
    """
    newest = newest_month(connection)
    if newest is None:
        return None
    last = min(last, newest) if last else newest
    first = last
    for _ in range(DAILY_MONTHS - 1):
        first = first.previous
    months = {"first": first.first_day, "last": last.first_day}
    connection.execute(_SERIES.format(usage=service_usage or _SERVICE_USAGE), months)
    connection.execute(_SERIES_USAGE, months)
    connection.execute(_PRICES)
    connection.execute(_DAYS, {"first": first.first_day})
    day_count = (last.next.first_day - first.first_day).days
    costs = _arrays(connection, first.first_day, day_count)
    _leave_out_unknown_days(connection, costs)
    for table in ("series_usage", "prices", "usage_days"):
        connection.execute(f"DROP TABLE {table}")
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
    connection.execute(_REGIONS)
    regions = connection.execute("SELECT number, region FROM regions ORDER BY place").fetchall()
    costs = np.zeros((len(regions), day_count))
    columns = connection.execute(
        "SELECT place, day, cost FROM usage_days JOIN regions USING (number, region)"
    ).fetchnumpy()
    costs[columns["place"], columns["day"]] = columns["cost"]
    return regions, costs


def _leave_out_unknown_days(connection: DuckDBPyConnection, costs: DailyCosts) -> None:
    """Set the costs of days to NaN that the series' export has not loaded, or not complete."""
    exports = connection.execute("SELECT export FROM series ORDER BY number").fetchall()
    loaded: dict[str | None, dict[BillingMonth, date | None]] = {}
    for export, month, last_day in connection.execute(_LOADED_MONTHS).fetchall():
        loaded.setdefault(export, {})[BillingMonth.of(month)] = last_day
    months = [BillingMonth.of(costs.day(number)) for number in range(costs.day_count)]
    for export in {export for (export,) in exports}:
        rows = np.array([name == export for (name,) in exports])
        last_days = loaded.get(export, {})
        is_loaded = np.array([month in last_days for month in months])
        if last_days:
            total = costs.cost[rows].sum(axis=0)
            newest = max(last_days)
            is_loaded[_complete_days(costs, total, newest, last_days[newest]) :] = False
        costs.cost[np.ix_(rows, ~is_loaded)] = np.nan


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
