"""What a restatement changed, and whether a month is final, is said where people look for it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster_tests.cur import HEADERS, deliver, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project

INVOICED = (*HEADERS, "bill/InvoiceId")


def bill(**costs: str) -> list[dict[str, str]]:
    """A row a service."""
    return [
        line_item("2024-01", lineItem__ProductCode=service, lineItem__UnblendedCost=cost)
        for service, cost in costs.items()
    ]


def test_the_metadata_says_rows_cost_and_the_five_largest_moves(project: Project) -> None:
    first = bill(EC2="100", S3="50", RDS="20", SQS="4", SNS="3", Lambda="2", Glue="1", Tax="9")
    second = bill(EC2="100", S3="40", RDS="21", SQS="2", SNS="7", Lambda="2.5", Athena="30")
    deliver(project.put, "2024-01", [first], version="v1")
    metadata = project.materialize("2024-01").metadata("billing_table")
    assert "restatement" not in metadata
    deliver(project.put, "2024-01", [second], version="v2")
    metadata = project.materialize("2024-01").metadata("billing_table")
    assert metadata["rows_changed"] == -1
    assert metadata["cost_changed"] == 13.5
    assert metadata["restatement"].splitlines() == [
        "| | v1 | v2 | change |",
        "|---|---:|---:|---:|",
        "| rows | 8 | 7 | -1 |",
        "| cost | 189.00 | 202.50 | +13.50 |",
        "| Athena | 0.00 | 30.00 | +30.00 |",
        "| S3 | 50.00 | 40.00 | -10.00 |",
        "| Tax | 9.00 | 0.00 | -9.00 |",
        "| SNS | 3.00 | 7.00 | +4.00 |",
        "| SQS | 4.00 | 2.00 | -2.00 |",
        "| 3 more | 23.00 | 23.50 | +0.50 |",
    ]
    for force in (False, True, False):
        again = project.load("2024-01", force=force).metadata("billing_table")
        for name in ("rows_changed", "cost_changed", "restatement"):
            assert again[name] == metadata[name], "it stays until the next version"
    deliver(project.put, "2024-01", [second[:1]], version="v3")
    assert project.load("2024-01").metadata("billing_table")["rows_changed"] == -6


def test_warnings_stay_on_the_page_of_their_version(project: Project) -> None:
    headers = (*HEADERS, "lineItem/Extra")
    for month, kind in {"2024-01": "DateTime", "2024-02": "String"}.items():
        rows = [line_item(month, lineItem__Extra="2024-01-02T03:04:05Z")]
        deliver(project.put, month, [rows], headers=headers, types={"lineItem/Extra": kind})
        said = project.load(month).metadata("billing_table")
    assert "lineitem_extra was TIMESTAMP" in said["warnings"]
    assert project.load("2024-02").metadata("billing_table")["warnings"] == said["warnings"]


def test_new_columns_stay_on_the_page_of_their_version(project: Project) -> None:
    deliver(project.put, "2024-01", [bill(EC2="1")], version="v1")
    project.load("2024-01")
    headers = (*HEADERS, "lineItem/UsageAmount")
    deliver(project.put, "2024-01", [bill(EC2="1")], version="v2", headers=headers)
    for _ in range(2):
        assert project.load("2024-01").metadata("manifest")["columns_added"] == (
            "lineItem/UsageAmount"
        )
    deliver(project.put, "2024-01", [bill(EC2="1")], version="v3", headers=headers)
    assert project.load("2024-01").metadata("manifest")["columns_added"] == ""


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
def test_a_month_is_final_when_all_that_costs_is_on_an_invoice(
    project: Project, invoices: list[tuple[str, str]], final: bool
) -> None:
    rows = [
        line_item("2024-01", lineItem__UnblendedCost=cost, bill__InvoiceId=invoice)
        for cost, invoice in invoices
    ]
    deliver(project.put, "2024-01", [rows], headers=INVOICED)
    assert project.materialize("2024-01").metadata("billing_table")["final"] is final
    assert project.materialize("2024-01").metadata("billing_table")["final"] is final


def test_an_export_without_invoices_does_not_say_whether_it_is_final(project: Project) -> None:
    deliver(project.put, "2024-01", [bill(EC2="1")])
    assert "final" not in project.materialize("2024-01").metadata("billing_table")


@pytest.mark.parametrize(
    "layout",
    [Layout(), Layout("cur2", "parquet"), Layout("focus-1.2", overwrite=True)],
    ids=["cur1", "cur2", "focus"],
)
def test_a_months_end_is_seen_in_every_format(project: Project, layout: Layout) -> None:
    project.export["format"] = None
    month = date(2024, 1, 1)
    for version in (
        Version(month, "20240202T000000Z", rows=1000),
        Version(month, "20240207T000000Z", rows=1005, restated=True),
    ):
        write_version(project.source, "", "acme-cur", version, layout=layout)
        metadata = project.materialize("2024-01").metadata("billing_table")
        assert metadata["final"] is version.restated
    assert metadata["rows_changed"] == 5
    assert Decimal(str(metadata["cost_changed"])) != 0
    assert (
        "| AmazonEC2 |" in metadata["restatement"] or "Elastic Compute" in metadata["restatement"]
    )


PRICED = (*HEADERS, "lineItem/CurrencyCode")


def priced(*rows: tuple[str, str, str]) -> list[dict[str, str]]:
    """A row of each service, currency and cost."""
    return [
        line_item(
            "2024-01",
            lineItem__ProductCode=service,
            lineItem__CurrencyCode=currency,
            lineItem__UnblendedCost=cost,
        )
        for service, currency, cost in rows
    ]


@pytest.mark.parametrize("first", [True, False], ids=["first-version", "restated"])
def test_a_service_and_a_currency_without_any_cost_are_loaded(
    project: Project, first: bool
) -> None:
    if not first:
        rows = priced(("AmazonEKS", "USD", "5"))
        deliver(project.put, "2024-01", [rows], version="v1", headers=PRICED)
        project.load("2024-01")
    rows = priced(
        ("AmazonEC2", "USD", "2.5"),
        ("AmazonEKS", "USD", ""),
        ("AmazonEKS", "USD", ""),
        ("Tax", "EUR", ""),
        ("", "", ""),
        ("Credit", "USD", "-1"),
    )
    deliver(project.put, "2024-01", [rows], version="v2", headers=PRICED)
    outcome = project.load("2024-01")
    metadata = outcome.metadata("billing_table")
    assert metadata["cost_by_service"].splitlines()[2:] == [
        "| AmazonEC2 | 2.50 |",
        "| `(none)` | 0.00 |",
        "| AmazonEKS | 0.00 |",
        "| Tax | 0.00 |",
        "| Credit | -1.00 |",
    ]
    assert metadata["currency"] == "USD"
    assert outcome.checks()["billing_table.one_currency"]
    assert project.totals("2024-01") == (6, Decimal("1.5"))
    if not first:
        assert "| AmazonEKS | 5.00 | 0.00 | -5.00 |" in metadata["restatement"]


def test_a_month_without_any_cost_is_loaded(project: Project) -> None:
    rows = priced(("AmazonEC2", "USD", ""), ("", "", ""))
    deliver(project.put, "2024-01", [rows], version="v1", headers=PRICED)
    outcome = project.load("2024-01")
    metadata = outcome.metadata("billing_table")
    assert (metadata["total_cost_exact"], metadata["currency"]) == ("0", "")
    assert all(outcome.checks().values())


def test_the_terminal_says_what_a_restatement_changed(project: Project, finops: Finops) -> None:
    deliver(project.put, "2024-01", [bill(EC2="100", S3="50")], version="v1")
    assert "restated" not in finops("aws", "run-pipeline")
    deliver(project.put, "2024-01", [bill(EC2="100.000000000000000001")], version="v2")
    words = "-1 rows, -50.00 against v1"
    assert f" s  restated: {words}" in finops("aws", "run-pipeline")
    assert "restated" not in finops("aws", "run-pipeline"), "this run changed nothing"
    assert words in finops("state", "show", "acme", "2024-01")
    table = finops.json("state", "show", "acme", "2024-01")[2]
    assert (table["replaced_version"], table["rows_changed"]) == ("v1", -1)
    assert table["cost_changed"] == "-49.999999999999999999"


def test_the_terminal_names_the_checks_that_a_loaded_month_fails(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [bill(EC2="1", S3="2")], version="v1")
    assert "failed checks" not in finops("aws", "run-pipeline")
    deliver(project.put, "2024-01", [bill(EC2="1")], version="v2")
    said = finops("aws", "run-pipeline")
    assert said.endswith("restated: -1 rows, -2.00 against v1  failed checks: not_fewer_rows\n")
