"""Budgets and unusual days, as a report has them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from finops_dagster.reports.budgets import BudgetSettings
from finops_dagster.reports.builder import Scope
from finops_dagster_tests.reports.months import Months, charge
from finops_dagster_tests.reports.test_document import SMALL_BILL


def test_a_report_has_the_budgets_of_its_months(tmp_path: Path) -> None:
    months = Months(tmp_path)
    months.write("2025-01", [charge("1"), charge("2.5", SubAccountId="003")])
    months.write("2025-02", [charge("4")])
    budgets = [
        BudgetSettings(name="web", amount=Decimal(3), currency="USD", account="002"),
        BudgetSettings(name="pounds", amount=Decimal(3), currency="GBP"),
    ]
    document = replace(months.builder(), budgets=budgets).document(Scope())
    unit = 10 ** document["scale"]
    found = [(row["name"], row["month"], int(row["spent"]) / unit) for row in document["budgets"]]
    assert found == [("web", 1, 4), ("web", 0, 1)]
    assert document["budgets"][0].keys() == SMALL_BILL["budgets"][0].keys()
    assert int(document["budgets"][0]["amount"]) == 3 * unit


def test_a_report_has_the_unusual_days_of_its_months(tmp_path: Path) -> None:
    months = Months(tmp_path)
    first, days = datetime(2025, 1, 1), 31 + 28 + 31
    by_month: dict[str, list[object]] = {}
    for number in range(days):
        day = first + timedelta(days=number)
        cost = "900" if day == datetime(2025, 3, 12) else str(100 + number % 3)
        usage = charge(
            cost, ChargePeriodStart=day, ChargePeriodEnd=day + timedelta(days=1), SkuId="sku"
        )
        by_month.setdefault(f"{day:%Y-%m}", []).append(usage)
    for month, charges in by_month.items():
        months.write(month, charges)
    document = json.loads(json.dumps(months.document()))
    (anomaly,) = document["anomalies"]
    assert anomaly.keys() == SMALL_BILL["anomalies"][0].keys()
    assert (anomaly["day"], anomaly["kind"]) == ("2025-03-12", "spike")
    assert document["services"][anomaly["service"]]["name"] == "Machines"
    assert document["accounts"][anomaly["account"]]["id"] == "002"
