"""What becomes of more than 18 decimals, from the vendor's files to the check that says so."""

from __future__ import annotations

import re
from decimal import Decimal

import duckdb
import pytest

from finops_dagster.billing.money import RoundedColumn
from finops_dagster.lake import read_record
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster_tests.cur import HEADERS, deliver, items, line_item
from finops_dagster_tests.project import ROOT, Project

COST = "lineitem_unblendedcost"
NET = "lineitem_netunblendedcost"
USAGE = "lineitem_usageamount"
FINER = (*HEADERS, "lineItem/UsageAmount", "lineItem/NetUnblendedCost")


def deliver_finer(project: Project, *cells: tuple[str, str, str], version: str = "v1") -> None:
    """Deliver January with a row of cost, net cost and usage each."""
    rows = [
        line_item(
            "2024-01",
            lineItem__UnblendedCost=cost,
            lineItem__NetUnblendedCost=net,
            lineItem__UsageAmount=usage,
        )
        for cost, net, usage in cells
    ]
    deliver(project.put, "2024-01", [rows[:1], rows[1:]], headers=FINER, version=version)


def recorded(project: Project) -> list[dict[str, object]] | None:
    """What the ledger says of the version that is loaded."""
    ((rounded,),) = project.query(
        "SELECT decimals_rounded FROM finops_state.manifests WHERE state = 'loaded'"
    )
    return rounded


def test_a_quantity_of_more_decimals_is_rounded_and_counted_and_costs_stay_exact(
    project: Project,
) -> None:
    deliver_finer(project, ("1", "1", "3.3333333333333335E-4"), ("2", "2", "25E-19"))
    outcome = project.load("2024-01")
    assert project.column(USAGE, "2024-01") == [Decimal("2e-18"), Decimal("0.000333333333333333")]
    assert recorded(project) == [{"name": USAGE, "cells": 2, "amount": None}]
    assert f"| {USAGE} | 2 |" in outcome.metadata("billing_table")["decimals_rounded"]
    assert outcome.checks()["billing_table.costs_not_rounded"] is True


def test_where_nothing_is_rounded_nothing_is_said(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "0.123456789012345678", "100E-20")])
    outcome = project.load("2024-01")
    assert recorded(project) == []
    assert "decimals_rounded" not in outcome.metadata("billing_table")
    assert outcome.checks()["billing_table.costs_not_rounded"] is True


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("lineItem/UnblendedCost", ("0.1234567890123456789", "1", "1")),
        ("lineItem/NetUnblendedCost", ("1", "0.1234567890123456789", "1e-30")),
    ],
)
def test_an_amount_of_more_decimals_keeps_the_old_month_and_the_message_names_the_setting(
    project: Project, column: str, cells: tuple[str, str, str]
) -> None:
    deliver_finer(project, ("5", "5", "1"), version="v0")
    project.load("2024-01")
    deliver_finer(project, ("1", "1", "1"), cells)
    error = project.materialize("2024-01").error
    assert f"acme-cur-00002.csv.gz, line 2, column \"{column}\": '0.1234567890123456789'" in error
    assert 'set decimals = "round" for the export to round such amounts to 18 decimals' in error
    assert project.totals("2024-01") == (1, 5)


def test_decimals_round_rounds_amounts_and_says_how_many_and_by_how_much(project: Project) -> None:
    project.export["decimals"] = "round"
    deliver_finer(project, ("25E-19", "1", "1E-19"), ("35E-19", "0.9999999999999999999", "1"))
    outcome = project.load("2024-01")
    assert project.column(COST, "2024-01") == [Decimal("2e-18"), Decimal("4e-18")]
    assert project.column(NET, "2024-01") == [1, 1]
    assert project.parquet_totals("2024-01") == (2, Decimal("6e-18"))
    by_name = {column["name"]: column for column in recorded(project) or ()}
    assert by_name == {
        COST: {"name": COST, "cells": 2, "amount": "0"},
        NET: {"name": NET, "cells": 1, "amount": "0.0000000000000000001"},
        USAGE: {"name": USAGE, "cells": 1, "amount": None},
    }
    assert outcome.metadata("staged_files")["costs_rounded"] == 2
    assert (
        f"| {NET} | 1 | 0.0000000000000000001 |"
        in outcome.metadata("billing_table")["decimals_rounded"]
    )
    assert outcome.success
    assert outcome.checks()["billing_table.costs_not_rounded"] is False
    footer = read_record(project.parquet("2024-01"))
    assert footer is not None
    assert RoundedColumn(COST, 2, Decimal(0)) in (footer.rounded or ())


def test_a_month_that_is_unchanged_says_again_what_was_rounded(project: Project) -> None:
    project.export["decimals"] = "round"
    deliver_finer(project, ("25E-19", "1", "1"), ("35E-19", "1", "1"))
    first = project.load("2024-01")
    again = project.load("2024-01")
    assert again.outcomes()["billing_table"] == "unchanged"
    for name in ("decimals_rounded", "dagster/column_schema"):
        assert again.metadata("billing_table")[name] == first.metadata("billing_table")[name]
    assert again.metadata("staged_files")["costs_rounded"] == 2
    assert again.checks()["billing_table.costs_not_rounded"] is False


def test_of_a_month_that_was_loaded_before_roundings_were_counted_nothing_is_claimed(
    project: Project,
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.load("2024-01")
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute("ALTER TABLE finops_state.manifests DROP COLUMN decimals_rounded")
    again = project.load("2024-01")
    assert recorded(project) is None
    assert again.outcomes()["billing_table"] == "unchanged"
    assert again.checks()["billing_table.costs_not_rounded"] is True


@pytest.mark.parametrize("cell", ["1_000", "NaN", "1,5", "0x10"])
def test_what_is_no_number_is_refused_in_a_quantity_and_where_amounts_are_rounded(
    project: Project, cell: str
) -> None:
    project.export["decimals"] = "round"
    deliver_finer(project, ("1", "1", "1E-19"), ("1", "1", cell))
    error = project.materialize("2024-01").error
    assert f'column "lineItem/UsageAmount": {cell!r} cannot be kept exactly' in error
    assert "decimals" not in error.partition("DECIMAL")[2]


def test_a_column_that_the_vendor_adds_is_money_where_its_name_says_so(project: Project) -> None:
    headers = (*HEADERS, "lineItem/SomeNewCost", "lineItem/SomeNewRatio")
    types = dict.fromkeys(headers[-2:], "OptionalBigDecimal")
    for version, new in {"v1": {"Ratio": "1E-19"}, "v2": {"Cost": "1E-19"}}.items():
        cells = {f"lineItem__SomeNew{name}": cell for name, cell in new.items()}
        rows = [line_item("2024-01", **cells)]
        deliver(project.put, "2024-01", [rows], headers=headers, types=types, version=version)
        outcome = project.materialize("2024-01")
        assert outcome.success is (version == "v1")
    assert 'column "lineItem/SomeNewCost"' in outcome.error


def test_the_docs_list_the_money_columns_of_every_format() -> None:
    docs = (ROOT / "docs/exports.md").read_text()
    rows = re.findall(r"^\| (`[a-zA-Z/]+`|all versions) \| ([\w, ]+) \|$", docs, re.MULTILINE)
    listed = [
        first.strip("`").removeprefix("all versions") + name
        for first, names in rows
        for name in names.split(", ")
    ]
    cur1 = {name for name in listed if "/" in name}
    for style in ("flat", "athena"):
        vendor = aws_formats(style)["cur1"]
        assert vendor.money == set(map(vendor.column, cur1))
    formats = aws_formats("athena")
    assert formats["cur2"].money == formats["cur1"].money | {"discount"}
    assert formats["focus"].money == {name.lower() for name in listed if "/" not in name}
