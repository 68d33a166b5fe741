"""A report has the names and owners of the accounts file, as `focus_named` has them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster.reports.accounts import AccountsSettings
from finops_dagster.reports.builder import Scope
from finops_dagster.reports.document import Document
from finops_dagster.reports.relations import create_relations
from finops_dagster_tests.reports.months import Months, charge, rows

ACCOUNTS = """account_id,name,owner,cost_centre,valid_from,valid_to
002,web shop,Ann,CC-1,,2025-01-15
002,web shop,Bob,CC-1,2025-01-16,
/subscriptions/AB,sky,Cat,,,
001,payer,Finance,CC-9,,
"""
CHARGES = [
    charge("1", ChargePeriodStart=datetime(2025, 1, 15, 23)),
    charge("2", ChargePeriodStart=datetime(2025, 1, 16)),
    charge("4", ChargePeriodStart=datetime(2024, 12, 31)),
    charge("8", ProviderName="Sky", SubAccountId="/subscriptions/ab", SubAccountName="s"),
    charge("16", SubAccountId=None, SubAccountName=None, BillingAccountName="Acme"),
    charge("32", SubAccountId="003", SubAccountName=None),
    charge("64", SubAccountId="004", BillingAccountId="999", SubAccountName="lost"),
    charge("128", SubAccountId="001", SubAccountName="payer's own"),
]
COLUMNS = "AccountName, AccountOwner, AccountCostCentre, AccountListed"


@pytest.fixture
def months(tmp_path: Path) -> Months:
    months = Months(tmp_path / "lake")
    months.write("2025-01", CHARGES)
    (tmp_path / "accounts.csv").write_text(ACCOUNTS)
    return months


def named(months: Months) -> Document:
    settings = AccountsSettings(file=months.root.parent / "accounts.csv")
    return replace(months.builder(), accounts=settings).document(Scope())


def test_the_costs_of_a_report_by_owner_are_those_of_focus_named(months: Months) -> None:
    document = named(months)
    found: dict[tuple[object, ...], Decimal] = defaultdict(Decimal)
    for row in rows(document, "costs"):
        account = document["accounts"][row["account"]]
        owner = account["owner"]
        owner = None if owner is None else document["owners"][owner]
        key = (account["name"], owner, account["cost_centre"], account["listed"])
        found[key] += row["billed"]
    with duckdb.connect() as connection:
        builder, settings = (
            months.builder(),
            AccountsSettings(file=months.root.parent / "accounts.csv"),
        )
        create_relations(connection, months.lake, builder.exports, settings)
        expected = connection.execute(
            f"SELECT {COLUMNS}, sum(BilledCost) FROM focus_named GROUP BY ALL"
        ).fetchall()
    assert found == {tuple(key): cost for *key, cost in expected}
    assert ("web shop", "Ann", "CC-1", True) in found


def test_an_account_that_changed_its_owner_has_a_line_for_each(months: Months) -> None:
    document = named(months)
    owners = [account["owner"] for account in document["accounts"] if account["id"] == "002"]
    assert sorted(document["owners"][owner] for owner in owners) == ["Ann", "Bob"]
