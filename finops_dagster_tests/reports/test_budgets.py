"""Budgets: what was spent of them, in which month, and what becomes of a month in progress."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finops_dagster.reports.accounts import AccountsSettings
from finops_dagster.reports.budgets import (
    BudgetMonth,
    BudgetSettings,
    budget_months,
    unmatched_filter_messages,
)
from finops_dagster.reports.relations import open_relations
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.reports.months import Months, charge


def budget(**settings: Any) -> BudgetSettings:
    return BudgetSettings.model_validate(
        {"name": "Shop", "amount": "10", "currency": "USD", **settings}
    )


def months_of(lake: Path, *budgets: BudgetSettings, today: date) -> list[BudgetMonth]:
    builder, accounts = Months(lake).builder(), AccountsSettings(file=accounts_file(lake))
    with open_relations(DuckDB(), builder.lake, builder.exports, accounts) as (connection, _):
        return budget_months(connection, budgets, today)


def accounts_file(lake: Path) -> Path | None:
    file = lake / "accounts.csv"
    return file if file.exists() else None


def spent(lake: Path, **filters: Any) -> Decimal:
    (of_month,) = months_of(lake, budget(**filters), today=date(2026, 1, 1))
    return of_month.spent


def test_a_budget_counts_the_charges_that_match_all_its_filters_exactly(tmp_path: Path) -> None:
    charges = [
        charge("1", "0.000000000000000001"),
        charge("2", SubAccountId="003", SubAccountName="data"),
        charge("4", ServiceName="Disks", Tags={"Team": "Shop"}),
        charge("8", ProviderName="Other", Tags={"team": "data"}),
        charge("16", BillingCurrency="EUR"),
        charge("32", ChargeCategory="Tax", SubAccountId=None, ServiceName=None),
    ]
    Months(tmp_path).write("2025-02", charges)
    (tmp_path / "accounts.csv").write_text("id,name,owner\n003,Warehouse,Ada\n")
    assert spent(tmp_path) == Decimal("46.000000000000000001")
    assert spent(tmp_path, cost="billed") == 47
    assert spent(tmp_path, currency="eur") == 16
    assert spent(tmp_path, provider="other") == 8
    assert spent(tmp_path, account="warehouse") == spent(tmp_path, account="003") == 2
    assert spent(tmp_path, owner=["ada", "nobody"]) == 2
    assert spent(tmp_path, service=["DISKS", "(none)"]) == 36
    assert spent(tmp_path, tag={"TEAM": "shop"}) == 4
    assert spent(tmp_path, tag={"team": ["shop", "data"]}) == 12
    assert spent(tmp_path, tag={"team": "shop"}, provider="Other") == 0


def test_a_subscription_of_azure_is_named_by_its_id(tmp_path: Path) -> None:
    Months(tmp_path).write("2025-02", [charge("3", SubAccountId="/subscriptions/0a1b")])
    assert spent(tmp_path, account="0A1B") == spent(tmp_path, account="/subscriptions/0a1b") == 3


def test_a_budget_is_exceeded_by_more_than_its_amount(tmp_path: Path) -> None:
    for month, cost in (("2025-01", "10"), ("2025-02", "10.000000000000000001")):
        Months(tmp_path).write(month, [charge(cost)])
    february, january = months_of(tmp_path, budget(), today=date(2026, 1, 1))
    assert (str(february.month), february.state) == ("2025-02", "exceeded")
    assert (str(january.month), january.state) == ("2025-01", "within budget")
    assert january.sentence == "Budget Shop: 10.00 of 10.00 USD was spent in 2025-01."


@pytest.mark.parametrize(
    ("cost", "state"), [("4", "in progress"), ("6", "forecast to exceed"), ("11", "exceeded")]
)
def test_a_month_in_progress_has_a_forecast(tmp_path: Path, cost: str, state: str) -> None:
    # The newest day may have come in part: it says nothing of the days to come.
    days = [charge(cost if day == 1 else "0", **on(day)) for day in range(1, 16)]
    fee = charge("0", ChargeCategory="Purchase", **on(28))  # it says nothing of how far usage is
    Months(tmp_path).write("2025-02", [*days, fee])
    (month,) = months_of(tmp_path, budget(), today=date(2025, 2, 15))
    assert (month.days_passed, month.percent_passed) == (15, Decimal("53.6"))
    assert (month.forecast, month.state) == (2 * Decimal(cost), state)
    assert "15 of 28 days passed" in month.sentence


def test_a_forecast_is_never_below_what_was_spent(tmp_path: Path) -> None:
    Months(tmp_path).write("2025-02", [charge("1", **on(1)), charge("7", **on(28))])
    (month,) = months_of(tmp_path, budget(), today=date(2025, 2, 28))
    assert month.forecast == 8


def test_each_provider_of_a_budget_goes_on_from_its_own_last_day(tmp_path: Path) -> None:
    charges = [
        charge("1", **on(1)),
        charge("0", **on(15)),
        charge("1", ProviderName="Slow", **on(1)),
        charge("0", ProviderName="Slow", **on(8)),
        charge("1", ProviderName="Fees", ChargeCategory="Purchase", **on(28)),
        charge("1", BillingCurrency="EUR", **on(2)),
    ]
    Months(tmp_path).write("2025-02", charges)
    budgets = [budget(), budget(name="b", provider="cloud"), budget(name="c", account="none")]
    whole, cloud, none = months_of(tmp_path, *budgets, today=date(2025, 2, 21))
    assert (whole.days_passed, whole.forecast) == (8, 2 + 4 + 1)
    assert (cloud.days_passed, cloud.forecast) == (15, 2)
    assert (none.days_passed, none.forecast) == (2, 0)


def test_a_charge_of_before_the_month_is_of_its_first_day(tmp_path: Path) -> None:
    start = {"ChargePeriodStart": datetime(2025, 1, 31)}
    Months(tmp_path).write("2025-02", [charge("1", **start)])
    (month,) = months_of(tmp_path, budget(), today=date(2025, 2, 2))
    assert month.days_passed == 1


def test_a_month_is_open_until_vendors_have_closed_it(tmp_path: Path) -> None:
    Months(tmp_path).write("2025-02", [charge("1")])
    (early,) = months_of(tmp_path, budget(), today=date(2025, 3, 15))
    (late,) = months_of(tmp_path, budget(), today=date(2025, 3, 16))
    assert (early.state, late.state) == ("open", "within budget")
    assert early.sentence.endswith("1.00 of 10.00 USD was spent in 2025-02, which is still open.")


def test_a_month_without_usage_has_no_forecast(tmp_path: Path) -> None:
    Months(tmp_path).write("2025-02", [charge("11", ChargeCategory="Purchase")])
    (month,) = months_of(tmp_path, budget(), today=date(2025, 2, 1))
    assert (month.forecast, month.state) == (None, "exceeded")


def on(day: int) -> dict[str, datetime]:
    return {"ChargePeriodStart": datetime(2025, 2, day)}


def test_a_filter_that_matches_nothing_is_named_with_what_there_is(tmp_path: Path) -> None:
    Months(tmp_path).write("2025-01", [charge("1"), charge("9", ServiceName="Disks")])
    budgets = [
        budget(service="machines"),
        budget(name="Data", service=["Disks", "Disk"]),
        budget(name="Other", provider="Cloud", currency="EUR"),
    ]
    builder = Months(tmp_path).builder()
    relations = open_relations(DuckDB(), builder.lake, builder.exports, AccountsSettings())
    with relations as (connection, _):
        assert unmatched_filter_messages(connection, budgets) == [
            "budget 'Data': no charge of any month has the service 'Disk'; "
            "the charges have Disks, Machines; correct the filter",
            "budget 'Other': no charge of any month has provider = Cloud and currency = EUR; "
            "correct the filters or the currency",
        ]


HOSTILE = "'; DROP VIEW focus; --", '"', "\U0001f600", "%", "a" * 300


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    for place, name in enumerate(HOSTILE):
        assert budget(name=name, service=name, tag={name: name}).filter_text
        Months(tmp_path).write("2025-01", [charge("1", ServiceName=name, Tags={name: name})])
        assert spent(tmp_path, service=name, tag={name: name}) == 1, place


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"amount": 0}, "greater than 0"),
        ({"amount": "nan"}, "finite number"),
        ({"cost": "list"}, "'effective' or 'billed'"),
        ({"service": []}, "at least 1 item"),
        ({"team": "x"}, "not permitted"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        budget(**settings)


def test_two_budgets_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two budgets have the name 'Shop'"):
        Settings.model_validate({"budgets": [budget().model_dump()] * 2})


BUDGETS = """
[[budgets]]
name = "Shop"
amount = 10
currency = "USD"
service = "Machines"

[[budgets]]
name = "Discs"
amount = 99.5
currency = "USD"
service = "Discs"
"""


def test_finops_budgets_shows_a_month_and_fails_if_a_budget_is_exceeded(finops: Finops) -> None:
    finops = Finops(finops.project, BUDGETS)
    lake = Months(finops.project.folder / "data/parquet")
    assert "no month has charges" in finops("budgets")
    lake.write("2025-01", [charge("11")])
    lake.write("2025-02", [charge("5"), charge("7", ServiceName="Disks")])
    result = finops.run("budgets", "--json")
    assert result.exit_code == 0
    assert "no charge of any month has the service 'Discs'" in result.stderr
    shop, discs = finops.json("budgets")
    assert shop == {
        "month": "2025-02",
        "budget": "Shop",
        "filter": "service = Machines",
        "cost": "effective",
        "spent": "5",
        "amount": "10",
        "currency": "USD",
        "percent_spent": "50",
        "percent_passed": "100",
        "forecast": "5",
        "state": "within budget",
    }
    assert (discs["budget"], discs["spent"], discs["amount"]) == ("Discs", "0", "99.5")
    assert "exceeded" in finops("budgets", "--month", "2025-01", code=1)
    for command in ("budgets", "anomalies"):
        problem = finops(command, "--month", "2024-12", code=1)
        assert (
            "no export has charges of 2024-12; choose one of the months with charges, 2025-01 to"
        ) in problem


def test_config_check_names_a_filter_that_matches_nothing(finops: Finops) -> None:
    finops = Finops(finops.project, BUDGETS)
    assert "2 budgets; no month has charges yet" in finops("config", "check", code=1)
    Months(finops.project.folder / "data/parquet").write("2025-01", [charge("11")])
    rows = json.loads(finops("config", "check", "--json", code=1))
    (problem,) = [row["problem"] for row in rows if row["what"] == "budgets"]
    assert problem.startswith("budget 'Discs': no charge of any month has the service 'Discs'")


def test_a_variable_sets_all_budgets_or_none(finops: Finops) -> None:
    finops = Finops(finops.project, BUDGETS)
    block = {"name": "All", "amount": "5", "currency": "USD"}
    finops.environment["FINOPS_BUDGETS"] = json.dumps([block])
    settings = {row["setting"]: row for row in finops.json("config")}
    assert settings["budgets[0].name"]["from"] == "FINOPS_BUDGETS"
    assert "budgets[1].name" not in settings
    finops.environment["FINOPS_BUDGETS__AMOUNT"] = "6"
    assert "no variable sets a single key of a budget" in finops("config", code=1)


def test_no_budgets_are_no_error(finops: Finops) -> None:
    assert "no budgets are set" in finops("budgets")
