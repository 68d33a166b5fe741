"""Numbers with more than 18 decimals, from the vendor's files to the check."""

from decimal import Decimal
from typing import Any

from finops_dagster.billing.money import RoundedColumn
from finops_dagster.lake import FolderFile
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.project import Project

COST = "lineitem_unblendedcost"
NET = "lineitem_netunblendedcost"
USAGE = "lineitem_usageamount"
FINER = (*HEADERS, "lineItem/UsageAmount", "lineItem/NetUnblendedCost")
CHECK = "billing_table.costs_not_rounded"


def deliver_amounts(project: Project, *cells: tuple[str, str, str], version: str = "v1") -> None:
    """Deliver one file for each row of cost, net cost and usage."""
    names = ("lineItem__UnblendedCost", "lineItem__NetUnblendedCost", "lineItem__UsageAmount")
    rows = [line_item("2024-01", **dict(zip(names, row, strict=True))) for row in cells]
    project.deliver(*([row] for row in rows), headers=FINER, version=version)


def recorded_roundings(project: Project) -> Any:
    """Return the rounded columns that the ledger records."""
    ((rounded,),) = project.ledger("decimals_rounded")
    return rounded


def test_quantities_are_rounded_and_counted_and_costs_stay_exact(project: Project) -> None:
    deliver_amounts(project, ("1", "1", "3.3333333333333335E-4"), ("2", "2", "25E-19"))
    outcome = project.load()
    assert project.column(USAGE) == [Decimal("2e-18"), Decimal("0.000333333333333333")]
    assert recorded_roundings(project) == [{"name": USAGE, "cells": 2, "amount": None}]
    assert f"| {USAGE} | 2 |" in outcome.metadata("billing_table")["decimals_rounded"]
    assert CHECK not in outcome.checks()


def test_nothing_is_reported_if_nothing_was_rounded_or_counted(project: Project) -> None:
    project.export["decimals"] = "round"
    project.deliver("0.123456789012345678", "100E-20")
    for was_counted in (True, False):
        outcome = project.load()
        assert recorded_roundings(project) == ([] if was_counted else None)
        assert "decimals_rounded" not in outcome.metadata("billing_table")
        assert outcome.checks()[CHECK] is True
        assert was_counted or outcome.outcomes()["billing_table"] == "unchanged"
        # as before roundings were counted
        project.execute("ALTER TABLE finops_state.manifests DROP COLUMN decimals_rounded")


def test_a_19th_decimal_of_money_is_an_error_that_names_the_setting(project: Project) -> None:
    deliver_amounts(project, ("5", "5", "1"), version="v0")
    project.load()
    deliver_amounts(project, ("1", "1", "1"), ("1", "0.1234567890123456789", "1e-30"))
    error = project.materialize().error
    cell = "line 2, column \"lineItem/NetUnblendedCost\": '0.1234567890123456789'"
    assert f"acme-cur-00002.csv.gz, {cell}" in error
    assert 'set decimals = "round" for the export to round such amounts to 18 decimals' in error
    assert project.totals() == (1, 5)


def test_rounded_amounts_are_reported_in_every_run(project: Project) -> None:
    project.export["decimals"] = "round"
    deliver_amounts(project, ("25E-19", "1", "1E-19"), ("35E-19", "0.9999999999999999999", "1"))
    first, second = project.load(), project.load()
    assert project.column(COST) == [Decimal("2e-18"), Decimal("4e-18")]
    assert project.column(NET) == [1, 1]
    assert project.parquet_totals() == (2, Decimal("6e-18"))
    assert sorted(tuple(column.values()) for column in recorded_roundings(project)) == [
        (NET, 1, "0.0000000000000000001"),
        (COST, 2, "0"),
        (USAGE, 1, None),
    ]
    footer = FolderFile(project.parquet_path()).version()
    assert footer is not None
    assert RoundedColumn(COST, 2, Decimal(0)) in (footer.rounded or ())
    assert second.outcomes()["billing_table"] == "unchanged"
    for outcome in (first, second):
        metadata = outcome.metadata("billing_table")
        assert f"| {NET} | 1 | 0.0000000000000000001 |" in metadata["decimals_rounded"]
        assert outcome.metadata("staged_files")["costs_rounded"] == 2
        assert outcome.checks()[CHECK] is False
        assert (
            metadata["dagster/column_schema"]
            == first.metadata("billing_table")["dagster/column_schema"]
        )


def test_a_new_column_of_the_vendor_is_money_if_its_name_ends_so(project: Project) -> None:
    headers = (*HEADERS, "lineItem/SomeNewCost", "lineItem/SomeNewRatio")
    types = dict.fromkeys(headers[-2:], "OptionalBigDecimal")
    for version, name in {"v1": "Ratio", "v2": "Cost"}.items():
        rows = [line_item("2024-01", **{f"lineItem__SomeNew{name}": "1E-19"})]
        project.deliver(rows, headers=headers, types=types, version=version)
        outcome = project.materialize()
        assert outcome.success is (version == "v1")
    assert 'column "lineItem/SomeNewCost"' in outcome.error
