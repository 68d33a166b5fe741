"""The checks of the report warn of exceeded budgets and of anomalies, with a table by month."""

from datetime import date
from decimal import Decimal

import dagster as dg

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.report_checks import check_anomalies, check_budgets
from finops_dagster.reports.anomalies import Anomaly
from finops_dagster.reports.budgets import BudgetMonth, BudgetSettings
from finops_dagster.reports.findings import AnomalyKind

DECEMBER, JANUARY, FEBRUARY = BillingMonth(2025, 12), BillingMonth(2026, 1), BillingMonth(2026, 2)


def spent(month: BillingMonth, amount: str, days_passed: int | None = None) -> BudgetMonth:
    budget = BudgetSettings(name="Shop", amount=Decimal(10), currency="USD")
    forecast = Decimal(amount) * 28 / (days_passed or 28)
    return BudgetMonth(budget, month, Decimal(amount), days_passed, forecast)


def anomaly(day: date, cost: str) -> Anomaly:
    names = ("USD", "AWS", "0123", "web", "EC2")
    return Anomaly(AnomalyKind.SPIKE, day, day, *names, Decimal(cost), Decimal(5))


def rows(result: dg.AssetCheckResult, name: str) -> list[dict[str, object]]:
    table = result.metadata[name]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def test_a_budget_that_is_exceeded_in_the_newest_months_is_a_warning() -> None:
    result = check_budgets([spent(FEBRUARY, "11", 14), spent(JANUARY, "2")])
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == (
        "Budget Shop: 11.00 of 10.00 USD is spent in 2026-02, with 14 of 28 days passed; at this "
        "rate the month costs 22.00 USD. finops report shows the costs behind it."
    )
    assert rows(result, "budgets") == [
        {
            "month": "2026-02",
            "budget": "Shop",
            "state": "exceeded",
            "currency": "USD",
            "spent": "11.00",
            "amount": "10.00",
            "part": "110.0%",
            "forecast": "22.00",
        },
        {
            "month": "2026-01",
            "budget": "Shop",
            "state": "within budget",
            "currency": "USD",
            "spent": "2.00",
            "amount": "10.00",
            "part": "20.0%",
            "forecast": "2.00",
        },
    ]


def test_a_budget_that_was_exceeded_earlier_is_only_listed() -> None:
    february, exceeded = spent(FEBRUARY, "2", 14), "11"
    assert not check_budgets([february, spent(JANUARY, exceeded)]).passed
    result = check_budgets([february, spent(JANUARY, "2"), spent(DECEMBER, exceeded)])
    assert result.passed
    assert [row["state"] for row in rows(result, "budgets")] == [
        "in progress",
        "within budget",
        "exceeded",
    ]


def test_unusual_days_of_the_newest_months_are_a_warning() -> None:
    anomalies = [anomaly(date(2026, 2, 3), "20"), anomaly(date(2025, 12, 3), "7")]
    result = check_anomalies(anomalies, FEBRUARY)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == (
        "1 unusual change in 2026-02 or the month before; the largest: EC2 of account web cost "
        "20.00 instead of about 5.00 USD on 2026-02-03. finops anomalies --month lists those of "
        "a month."
    )
    assert rows(result, "by_month") == [
        {"month": "2026-02", "currency": "USD", "anomalies": "1", "difference": "+15.00"},
        {"month": "2025-12", "currency": "USD", "anomalies": "1", "difference": "+2.00"},
    ]
    assert [row["first day"] for row in rows(result, "anomalies")] == ["2026-02-03", "2025-12-03"]


def test_without_budgets_and_months_the_checks_pass() -> None:
    assert check_budgets([]).passed
    assert check_anomalies([], None).passed
    assert check_anomalies([anomaly(date(2025, 12, 3), "7")], FEBRUARY).passed
