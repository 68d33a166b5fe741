"""The ledger records what a load changed, by service, account and currency."""

from decimal import Decimal

import duckdb
import pytest

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import (
    OTHER,
    Restatement,
    footer_of_restatements,
    restatements_of_footer,
)
from finops_dagster.billing.version import Load
from finops_dagster.sources.aws.data_exports import AwsCur2
from finops_dagster.tables import ledger
from finops_dagster.tables.restatements import (
    copy_replaced_costs,
    overwrite_restatements,
    record_restatement,
    restatements,
)

JANUARY = BillingMonth(2024, 1)
COLUMNS = "line_item_product_code, line_item_usage_account_id, line_item_unblended_cost"
TINY = Decimal("0.000000000000000001")
Cost = tuple[str | None, str | None, str | None] | tuple[str | None, str | None, str | None, str]
"""Service, account and cost of a line item; its currency, if not USD."""


class Month:
    """A month in a billing table, and its ledger."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        ledger.create_tables(self.connection)
        self.version = "v0"

    def load(self, version: str, *costs: Cost) -> Restatement | None:
        """Replace the month's rows by a version with these costs, and record what changed."""
        replaced, self.version = self.version, version
        if replaced != "v0":
            copy_replaced_costs(self.connection, Sql("bill"), AwsCur2())
        self.connection.execute(
            "CREATE OR REPLACE TABLE bill (line_item_currency_code VARCHAR, "
            "line_item_product_code VARCHAR, line_item_usage_account_id VARCHAR, "
            "line_item_unblended_cost DECIMAL(38,18))"
        )
        for *cells, cost, currency in (
            cost if len(cost) == 4 else (*cost, "USD") for cost in costs
        ):
            row = [currency, *cells, cost]
            self.connection.execute("INSERT INTO bill VALUES (?, ?, ?, ?)", row)
        load = Load(
            *(version, Totals(0, Decimal(0)), "cur2", 1, 1, None, f"run of {version}"),
            export="acme",
            month=JANUARY,
            table="bill",
        )
        if replaced == "v0":
            return None
        return record_restatement(self.connection, load, Sql("bill"), replaced, AwsCur2())

    def history(self) -> list[Restatement]:
        """Return the restatements in the ledger, which a footer has to the last digit too."""
        history = restatements(self.connection, "acme", JANUARY)
        assert restatements_of_footer(footer_of_restatements(history)) == history
        return history


Change = tuple[str | None, str | None, str | None, object, object]


def changes_of(restatement: Restatement | None) -> list[Change]:
    """Return currency, service, account, cost before and cost after, in their order."""
    changes = restatement.changes if restatement else ()
    return [(c.currency, c.service, c.account, c.cost_before, c.cost_after) for c in changes]


def test_changes_are_by_service_account_and_currency_and_add_up_to_both_versions() -> None:
    month = Month()
    of_both: list[Cost] = [("EC2", "2", "7"), ("EC2", "1", "30", "EUR")]
    month.load(
        "v1", *of_both, ("EC2", "1", "100.000000000000000001"), ("S3", "1", "50"), ("", "", "9")
    )
    restatement = month.load(
        "v2",
        *of_both,
        ("EC2", "1", "100"),
        ("S3", "1", "25"),
        ("S3", "1", "25"),
        ("Tax", "9", "1", "EUR"),
    )
    assert changes_of(restatement) == [
        ("USD", None, None, 9, 0),
        ("EUR", "Tax", "9", 0, 1),
        ("USD", "EC2", "1", 100 + TINY, 100),
        ("USD", "S3", "1", 50, 50),
        ("EUR", OTHER, OTHER, 30, 30),
        ("USD", OTHER, OTHER, 7, 7),
    ]
    assert restatement is not None
    assert [restatement] == month.history()
    assert (restatement.manifest_id, restatement.replaced_id) == ("v2", "v1")
    assert restatement.run_id == "run of v2"
    euros, dollars = restatement.changes_by_currency
    assert (euros.cost_before, euros.cost_after, euros.added_rows) == (30, 31, 1)
    assert (dollars.cost_before, dollars.cost_after) == (166 + TINY, 157)
    assert (dollars.added_cost, dollars.added_rows) == (-9 - TINY, 0)


def test_the_same_version_is_recorded_only_if_something_changed() -> None:
    month = Month()
    month.load("v1", ("EC2", "1", "5"), ("S3", "1", None))
    assert month.load("v1", ("EC2", "1", "5"), ("S3", "1", None)) is None
    assert month.history() == []
    corrected = month.load("v1", ("EC2", "1", "5"), ("S3", "1", "0.5"))
    assert changes_of(corrected) == [
        ("USD", "S3", "1", 0, Decimal("0.5")),
        ("USD", OTHER, OTHER, 5, 5),
    ]
    other = month.load("v2", ("EC2", "1", "5"), ("S3", "1", "0.5"))
    assert changes_of(other) == [("USD", OTHER, OTHER, Decimal("5.5"), Decimal("5.5"))]
    assert [restatement.number for restatement in month.history()] == [2, 1]


def test_services_and_accounts_beyond_the_limit_are_added_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finops_dagster.tables.restatements.MAX_CHANGES", 2)
    month = Month()
    month.load("v1", ("A", "1", "1"), ("B", "1", "2"), (OTHER, OTHER, "3"), ("D", "1", "4"))
    month.load("v2", ("A", "1", "-1"), ("B", "1", "2.5"), (OTHER, OTHER, "9"), ("E", "1", "1"))
    (restatement,) = month.history()
    assert sorted(changes_of(restatement)) == [
        ("USD", "D", "1", 4, 0),
        ("USD", OTHER, OTHER, 3, Decimal("2.5")),
        ("USD", OTHER, OTHER, 3, 9),
    ]
    (total,) = restatement.changes_by_currency
    assert (total.cost_before, total.cost_after) == (10, Decimal("11.5"))


def test_the_newest_restatements_of_a_month_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finops_dagster.tables.restatements.MAX_RESTATEMENTS", 2)
    month = Month()
    for number in range(1, 6):
        month.load(f"v{number}", ("EC2", "1", str(number)))
    assert [(r.number, r.manifest_id) for r in month.history()] == [(4, "v5"), (3, "v4")]


def test_a_ledger_gets_the_restatements_that_it_lacks() -> None:
    month = Month()
    for number in range(1, 5):
        month.load(f"v{number}", ("EC2", "1", str(number)))
    history = month.history()
    month.connection.execute("DELETE FROM finops_state.restatements WHERE restatement_number = 1")
    month.connection.execute(
        "UPDATE finops_state.restatements SET cost_after = 0 WHERE restatement_number = 3"
    )
    assert overwrite_restatements(month.connection, "acme", JANUARY, history) == 2
    assert month.history() == history
    assert overwrite_restatements(month.connection, "acme", JANUARY, history) == 0


def test_a_thousand_changes_of_a_large_bill_are_listed() -> None:
    month = Month()
    month.load("v1", ("EC2", "1", "5"))
    copy_replaced_costs(month.connection, Sql("bill"), AwsCur2())
    month.connection.execute(
        "INSERT INTO bill SELECT 'USD', range // 50, range % 50, range FROM range(3000)"
    )
    load = Load(
        *("v2", Totals(0, Decimal(0)), "cur2", 1, 1, None, ""),
        export="acme",
        month=JANUARY,
        table="bill",
    )
    restatement = record_restatement(month.connection, load, Sql("bill"), "v1", AwsCur2())
    assert restatement is not None
    assert [change.added_cost for change in restatement.changes[:-1]] == [*range(2999, 1999, -1)]
    assert restatement.changes[-1].rows_after == 2001
    (total,) = restatement.changes_by_currency
    assert total.cost_after == 5 + sum(range(3000))


def test_a_footer_of_an_earlier_release_has_no_restatements() -> None:
    assert restatements_of_footer({"manifest_id": "v1", "total_cost": "1"}) == []
    assert footer_of_restatements([]) == {}
