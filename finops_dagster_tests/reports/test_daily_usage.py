"""The daily costs of usage are those of the charges in the lake."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports.accounts import AccountsSettings
from finops_dagster.reports.anomalies import find_anomalies
from finops_dagster.reports.daily_costs import DailyCosts
from finops_dagster.reports.daily_usage import read_daily_costs
from finops_dagster.reports.relations import open_relations
from finops_dagster.tables.database import DuckDB
from finops_dagster_tests.reports.charges import write_charges
from finops_dagster_tests.reports.months import Charge, Months, charge


def read(lake: Path, last: str | None = None) -> DailyCosts:
    builder = Months(lake).builder("acme", "globex")
    month = BillingMonth.parse(last) if last else None
    with open_relations(DuckDB(), builder.lake, builder.exports, AccountsSettings()) as (
        connection,
        _,
    ):
        costs = read_daily_costs(connection, month)
    assert costs is not None
    return costs


def on(day: str, cost: str, days: int = 1, **columns: Any) -> Charge:
    """Return a charge of usage of these days."""
    start = datetime.fromisoformat(day)
    times = {"ChargePeriodStart": start, "ChargePeriodEnd": start + timedelta(days=days)}
    return charge(cost, **{**times, **columns})


def each_day(month: str, cost: str, **columns: Any) -> list[Charge]:
    first = BillingMonth.parse(month)
    count = (first.next.first_day - first.first_day).days
    return [on(f"{month}-{day:02}", cost, **columns) for day in range(1, count + 1)]


def column(costs: DailyCosts, day: str) -> int:
    return (date.fromisoformat(day) - costs.first_day).days


def test_a_charge_of_several_days_costs_the_same_on_each_within_its_month(tmp_path: Path) -> None:
    charges = [on("2025-02-27", "4", days=9), *each_day("2025-02", "1")]
    Months(tmp_path).write("2025-02", charges)
    costs = read(tmp_path)
    assert costs.cost[0, column(costs, "2025-02-26") :].tolist() == [1, 3, 3]


def test_only_usage_counts(tmp_path: Path) -> None:
    others = [
        on("2025-02-10", "100", ChargeCategory="Purchase"),
        on("2025-02-10", "100", ChargeCategory="Tax"),
        on("2025-02-10", "100", ChargeClass="Correction"),
        on("2025-02-10", "-0.25", ChargeCategory="Credit"),
    ]
    Months(tmp_path).write("2025-02", [*each_day("2025-02", "1"), *others])
    costs = read(tmp_path)
    day = column(costs, "2025-02-10")
    assert (costs.cost[0, day], costs.credits[0, day]) == (1, 0.25)
    assert costs.credits.sum() == 0.25


def test_each_account_service_and_currency_is_a_series_with_the_regions_it_has(
    tmp_path: Path,
) -> None:
    charges = [
        *each_day("2025-02", "1"),
        *each_day("2025-02", "2", RegionId="us-east-1"),
        *each_day("2025-02", "4", BillingCurrency="EUR"),
        *each_day("2025-02", "8", SubAccountId="003"),
        *each_day("2025-02", "16", ServiceName="Disks"),
    ]
    Months(tmp_path).write("2025-02", charges)
    costs = read(tmp_path)
    first = column(costs, "2025-02-01")
    series = [(s.currency, s.account, s.account_name, s.service) for s in costs.series]
    assert series == [
        ("EUR", "002", "web", "Machines"),
        ("USD", "002", "web", "Disks"),
        ("USD", "002", "web", "Machines"),
        ("USD", "003", "web", "Machines"),
    ]
    assert costs.cost[:, first].tolist() == [4, 16, 3, 8]
    assert costs.regions == [(2, "eu-west-1"), (2, "us-east-1")]
    assert costs.region_costs[:, first].tolist() == [1, 2]


def test_usage_is_repriced_with_the_prices_of_the_month_before(tmp_path: Path) -> None:
    sku = {"SkuId": "sku", "PricingUnit": "Hours"}
    for month, cost, hours in (("2025-01", "2", 1), ("2025-02", "12", 3)):
        quantity = {"PricingQuantity": Decimal(hours)}
        charges = each_day(month, cost, **sku, **quantity)
        Months(tmp_path).write(month, charges)
    costs = read(tmp_path)
    assert costs.repriced[0, column(costs, "2025-01-05")] == 2  # no price is known
    assert costs.repriced[0, column(costs, "2025-02-05")] == 6


def test_days_that_are_not_loaded_are_not_known(tmp_path: Path) -> None:
    for month in ("2025-01", "2025-03"):
        Months(tmp_path).write(month, each_day(month, "1"))
    Months(tmp_path).write("2025-03", each_day("2025-03", "1", SubAccountId="9"), "globex")
    costs = read(tmp_path)
    known = ~np.isnan(costs.cost)
    assert known.sum(axis=1).tolist() == [62, 31]
    assert not known[0, column(costs, "2025-02-01") : column(costs, "2025-03-01")].any()


def test_newest_days_that_are_not_complete_are_not_known(tmp_path: Path) -> None:
    Months(tmp_path).write("2025-02", each_day("2025-02", "10"))
    so_far = [on(f"2025-03-{day:02}", "10") for day in range(1, 20)]
    Months(tmp_path).write("2025-03", [*so_far, on("2025-03-20", "4"), on("2025-03-21", "1")])
    costs = read(tmp_path)
    known = np.flatnonzero(~np.isnan(costs.cost[0]))
    assert costs.day(int(known[-1])) == date(2025, 3, 19)


def test_thirteen_months_until_the_last_are_read(tmp_path: Path) -> None:
    for month in ("2023-12", "2024-01", "2025-01", "2025-02"):
        Months(tmp_path).write(month, each_day(month, "1"))
    assert read(tmp_path).first_day == date(2024, 2, 1)
    costs = read(tmp_path, "2025-01")
    assert (costs.first_day, costs.day(costs.day_count - 1)) == (
        date(2024, 1, 1),
        date(2025, 1, 31),
    )
    assert np.nansum(costs.cost) == 62


def test_charges_without_the_columns_of_usage_have_no_days(tmp_path: Path) -> None:
    row = "SELECT CAST(3 AS DECIMAL(38, 18)) AS BilledCost, DATE '2025-01-01' AS x_billing_month"
    write_charges(tmp_path, "acme", "2025-01", row)
    assert read(tmp_path).series == []
    assert find_anomalies(read(tmp_path)) == []
