"""The metadata and the terminal show what a restatement changed, and whether a month is final."""

from datetime import date
from decimal import Decimal

import pytest

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.cur import HEADERS as PLAIN
from finops_dagster_tests.cur import line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project

HEADERS = (*PLAIN, "bill/InvoiceId", "lineItem/CurrencyCode", "lineItem/Extra")
WITH_ACCOUNT = (*PLAIN, "lineItem/UsageAccountId")


def bill(**costs: str) -> list[dict[str, str]]:
    return [
        line_item(
            "2024-01",
            lineItem__ProductCode=service,
            lineItem__UsageAccountId="111111111111",
            lineItem__UnblendedCost=cost,
        )
        for service, cost in costs.items()
    ]


def test_the_metadata_has_rows_cost_and_the_five_largest_changes(project: Project) -> None:
    first = bill(EC2="100", S3="50", RDS="20", SQS="4", SNS="3", Lambda="2", Glue="1", Tax="9")
    second = bill(EC2="100", S3="40", RDS="21", SQS="2", SNS="7", Lambda="2.5", Athena="30")
    project.deliver(first, headers=WITH_ACCOUNT)
    assert "restatement" not in project.load().metadata("billing_table")
    project.deliver(second, version="v2", headers=WITH_ACCOUNT)
    metadata = project.load().metadata("billing_table")
    assert (metadata["rows_changed"], metadata["cost_changed"]) == (-1, 13.5)
    assert "final" not in metadata, "an export without invoices cannot tell"
    assert metadata["restatement"].splitlines() == [
        "| service | account | v1 | v2 | change |",
        "|---|---|---:|---:|---:|",
        "| rows |  | 8 | 7 | -1 |",
        "| cost |  | 189.00 | 202.50 | +13.50 |",
        "| Athena | 111111111111 | 0.00 | 30.00 | +30.00 |",
        "| S3 | 111111111111 | 50.00 | 40.00 | -10.00 |",
        "| Tax | 111111111111 | 9.00 | 0.00 | -9.00 |",
        "| SNS | 111111111111 | 3.00 | 7.00 | +4.00 |",
        "| SQS | 111111111111 | 4.00 | 2.00 | -2.00 |",
        "| other |  | 123.00 | 123.50 | +0.50 |",
    ]
    changes = {"replaced_version", "rows_changed", "cost_changed", "restatement", "restated"}
    again = project.load().metadata("billing_table")
    assert {name: again[name] for name in changes} == {name: metadata[name] for name in changes}
    for force in (True, False):
        again = project.load(force=force).metadata("billing_table")
        assert not changes & again.keys(), "the same rows were loaded again"
    project.deliver(second[:1], version="v3", headers=WITH_ACCOUNT)
    assert project.load().metadata("billing_table")["rows_changed"] == -6


@pytest.mark.thorough
def test_warnings_and_new_columns_are_repeated_until_the_next_version(project: Project) -> None:
    january, february = (
        [line_item(month, lineItem__Extra="2024-01-02T03:04:05Z")]
        for month in ("2024-01", "2024-02")
    )
    project.deliver(january, headers=HEADERS, types={"lineItem/Extra": "DateTime"})
    project.load()
    project.deliver("1", month="2024-02")
    project.load("2024-02")
    project.deliver(february, month="2024-02", version="v2", headers=HEADERS)
    for _ in range(2):
        outcome = project.load("2024-02")
        warnings = outcome.metadata("billing_table")["warnings"]
        assert "lineitem_extra changed from TIMESTAMP to text" in warnings
        assert outcome.metadata("manifest")["columns_added"] == ", ".join(sorted(HEADERS[-3:]))
    project.deliver(february, month="2024-02", version="v3", headers=HEADERS)
    assert project.load("2024-02").metadata("manifest")["columns_added"] == ""


@pytest.mark.parametrize(
    ("invoices", "final"),
    [
        ([("1", "E1"), ("2", "E2")], True),
        ([("1", "E1"), ("2", "")], False),
        ([("1", ""), ("2", "")], False),
        ([("1", "E1"), ("0", "")], True),
        ([("0", "")], False),
        ([], False),
    ],
    ids=["all", "some", "none", "all-that-cost", "nothing-costs", "no-rows"],
)
@pytest.mark.quick("some", "all-that-cost", "no-rows")
def test_a_month_is_final(project: Project, invoices: list[tuple[str, str]], final: bool) -> None:
    rows = [
        line_item("2024-01", lineItem__UnblendedCost=cost, bill__InvoiceId=invoice)
        for cost, invoice in invoices
    ]
    project.deliver(rows, headers=HEADERS)
    for _ in range(2):
        assert project.load().metadata("billing_table")["final"] is final


@pytest.mark.parametrize(
    "layout",
    [Layout(), Layout("cur2", "parquet"), Layout("focus-1.2", overwrite=True)],
    ids=["cur1", "cur2", "focus"],
)
@pytest.mark.quick("cur1", "focus")
def test_a_final_month_is_recognized_in_every_format(project: Project, layout: Layout) -> None:
    project.export["format"] = None
    month = date(2024, 1, 1)
    for version in (
        BillVersion(month, "20240202T000000Z", rows=1000),
        BillVersion(month, "20240207T000000Z", rows=1005, restated=True),
    ):
        write_version(project.source, "", "acme-cur", version, layout=layout)
        metadata = project.load().metadata("billing_table")
        assert metadata["final"] is version.restated
    assert metadata["rows_changed"] == 5
    assert Decimal(str(metadata["cost_changed"])) != 0
    changes = metadata["restatement"]
    assert "| AmazonEC2 |" in changes or "Elastic Compute" in changes
    _, account, *_ = changes.splitlines()[4].strip("| ").split(" | ")
    assert account.isdecimal() and len(account) == 12


def priced(*rows: tuple[str, str, str]) -> list[dict[str, str]]:
    return [
        line_item(
            "2024-01",
            lineItem__ProductCode=service,
            lineItem__CurrencyCode=currency,
            lineItem__UnblendedCost=cost,
        )
        for service, currency, cost in rows
    ]


@pytest.mark.parametrize("is_first", [True, False], ids=["first-version", "restated"])
def test_services_are_listed_by_cost(project: Project, is_first: bool) -> None:
    if not is_first:
        project.deliver(priced(("AmazonEKS", "USD", "5")), headers=HEADERS)
        project.load()
    rows = priced(
        ("AmazonEC2", "USD", "1000.5"),
        ("AmazonEKS", "USD", ""),
        ("AmazonEKS", "USD", ""),
        ("Tax", "EUR", ""),
        ("", "", ""),
        ("Credit", "USD", "-1"),
    )
    project.deliver(rows, version="v2", headers=HEADERS)
    outcome = project.load()
    metadata = outcome.metadata("billing_table")
    assert metadata["cost_by_service"].splitlines()[2:] == [
        "| AmazonEC2 | 1,000.50 |",
        "| `(none)` | 0.00 |",
        "| AmazonEKS | 0.00 |",
        "| Tax | 0.00 |",
        "| Credit | -1.00 |",
    ]
    assert metadata["currency"] == "USD"
    assert outcome.checks()["billing_table.one_currency"]
    assert project.totals() == (6, Decimal("999.5"))
    assert is_first or "| AmazonEKS in USD | `(none)` | 5.00 | 0.00 |" in metadata["restatement"]


def test_a_month_without_any_cost_is_loaded(project: Project) -> None:
    project.deliver(priced(("AmazonEC2", "USD", ""), ("", "", "")), headers=HEADERS)
    outcome = project.load()
    metadata = outcome.metadata("billing_table")
    assert (metadata["total_cost_exact"], metadata["currency"]) == ("0", "")
    assert all(outcome.checks().values())


@pytest.mark.thorough
def test_the_terminal_shows_what_changed(project: Project, finops: Finops) -> None:
    project.deliver(bill(EC2="100", S3="50"))
    first = finops("aws", "run-pipeline")
    project.deliver(bill(EC2="100.000000000000000001"), version="v2")
    change = "-1 row, -50.00 against v1"
    second = finops("aws", "run-pipeline")
    assert second.endswith(f" s  restated: {change}  failed checks: not_fewer_rows\n")
    for unchanged in (first, finops("aws", "run-pipeline")):
        assert "restated" not in unchanged, "this run changed nothing"
    assert "failed checks" not in first
    shown = " ".join(finops("state", "show", "acme", "2024-01").split())
    assert change in shown
    assert "largest changes" in shown
    assert "S3 in (none)" in shown
    table = finops.json("state", "show", "acme", "2024-01")[2]
    assert (table["replaced_version"], table["rows_changed"]) == ("v1", -1)
    assert table["cost_changed"] == "-49.999999999999999999"
    changes = [(c["service"], c["cost_before"], c["cost_after"]) for c in table["largest_changes"]]
    assert changes == [("S3", "50", "0"), ("EC2", "100", "100.000000000000000001")]
    (restatement,) = finops.json("state", "report")["restatements"]
    assert restatement["largest_change"] == "S3 in (none) -50.00"
    totals = (restatement["cost_before"], restatement["cost_after"])
    assert totals == ("150", "100.000000000000000001")
    again = finops("state", "reprocess", "acme", "2024-01")
    assert "restated" not in again, "the same rows were loaded again"
    assert "against" not in finops("state", "show", "acme", "2024-01")
    assert finops.json("state", "report")["restatements"] == [restatement]
