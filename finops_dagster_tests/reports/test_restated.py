"""The states of months, their versions, and what restatements changed, as a report has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.columns import Sql, literal
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import CostChange, Restatement, footer_of_restatements
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import footer_texts_of_version, replacing_lake_file
from finops_dagster.lake.footer import LOADED_AT
from finops_dagster.reports import restated
from finops_dagster_tests.reports.months import Months, charge, rows

JANUARY = "2025-01"


@pytest.fixture
def months(tmp_path: Path) -> Months:
    return Months(tmp_path)


def write_bill(
    months: Months,
    cost: str,
    *,
    invoice: str | None = None,
    version: str = "v1",
    restatements: Sequence[Restatement] = (),
    **texts: str,
) -> None:
    """Write the bill that the charges of January are of, with one line item.

    `texts` are further ones of its footer.
    """
    text = "NULL" if invoice is None else literal(invoice)
    query = Sql(f"SELECT CAST({cost} AS DECIMAL(38,18)) AS billedcost, {text} AS invoiceid")
    totals = Totals(1, Decimal(cost), None, {"USD": Decimal(cost)})
    footer = footer_texts_of_version(LoadedVersion(version, totals, "focus")) | texts
    file = months.lake.file("acme", BillingMonth.parse(JANUARY))
    with (
        duckdb.connect() as connection,
        replacing_lake_file(connection, query, file, footer | footer_of_restatements(restatements)),
    ):
        pass


def restatement(day: datetime, *changes: tuple[str | None, str | None, str, str]) -> Restatement:
    costs = [
        CostChange("USD", service, account, Decimal(before), Decimal(after), 1, 1)
        for service, account, before, after in changes
    ]
    return Restatement(1, "v1", "v0", day, "run", tuple(costs))


def january(months: Months) -> dict[str, Any]:
    (version,) = months.document()["versions"]
    return version


def test_a_month_is_final_when_its_bill_says_so(months: Months) -> None:
    months.write(JANUARY, [charge("3")])
    write_bill(months, "3")
    assert january(months)["state"] == "open"
    write_bill(months, "3", invoice="I-1")
    version = january(months)
    assert (version["state"], version["equal"]) == ("final", True)
    assert (version["rows"], version["charges"], version["totals"]) == (1, 1, {"USD": "3"})
    assert months.document()["month_states"] == ["final"]


def test_the_time_of_a_load_is_that_of_its_record_and_not_of_its_file(months: Months) -> None:
    months.write(JANUARY, [charge("3")])
    write_bill(months, "3", loaded_at="2025-02-03T04:05:06.789012")
    assert january(months)["loaded_at"] == "2025-02-03T04:05:06Z"


def test_the_time_of_a_load_of_an_earlier_release_is_that_of_its_file(months: Months) -> None:
    months.write(JANUARY, [charge("3")])
    write_bill(months, "3")
    path = months.lake.file("acme", BillingMonth.parse(JANUARY)).path
    bill = pq.read_table(path, partitioning=None)
    del (texts := dict(bill.schema.metadata))[LOADED_AT.encode()]
    pq.write_table(bill.replace_schema_metadata(texts), path)
    os.utime(path, (86_400, 86_400))
    assert january(months)["loaded_at"] == "1970-01-02T00:00:00Z"


def test_charges_that_differ_from_their_bill_are_not_equal_to_it(months: Months) -> None:
    months.write(JANUARY, [charge("3")])
    write_bill(months, "3.000000000000000001")
    assert january(months)["equal"] is False


def test_nothing_is_said_of_a_bill_of_another_version(months: Months) -> None:
    months.write(JANUARY, [charge("3")])
    write_bill(months, "3", invoice="I-1", version="v2")
    version = january(months)
    assert (version["version"], version["rows"], version["equal"]) == ("v1", None, None)
    assert version["state"] == "open"


@pytest.mark.parametrize(
    ("day", "state"), [(datetime(2025, 2, 15), "final"), (datetime(2025, 2, 16), "restated")]
)
def test_a_closed_month_with_another_version_is_restated(
    months: Months, day: datetime, state: str
) -> None:
    months.write(JANUARY, [charge("3")])
    changed = restatement(day, ("Machines", "002", "1", "2"))
    write_bill(months, "3", invoice="I-1", restatements=[changed])
    assert january(months)["state"] == state
    assert [found["late"] for found in months.document()["restatements"]] == [state == "restated"]


@pytest.mark.parametrize("invoice", [None, "I-1"])
def test_a_restated_month_is_final_now_or_not(months: Months, invoice: str | None) -> None:
    months.write(JANUARY, [charge("3")])
    changed = restatement(datetime(2025, 3, 1), ("Machines", "002", "1", "2"))
    write_bill(months, "3", invoice=invoice, restatements=[changed])
    version = january(months)
    assert (version["state"], version["final"]) == ("restated", invoice is not None)


def test_a_restatement_has_the_services_and_accounts_of_the_report(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restated, "MOST_CHANGES", 2)
    months.write(JANUARY, [charge("3")])
    changes = [
        ("Machines", "002", "1", "2.000000000000000001"),
        ("Gone", "404", "0.5", "0"),
        ("Disks", "002", "1", "0.9"),
        (None, None, "4", "4.1"),
    ]
    write_bill(months, "3", restatements=[restatement(datetime(2025, 2, 3, 4), *changes)])
    document = months.document()
    (found,) = document["restatements"]
    assert (found["from"], found["to"], found["restated_at"]) == (
        "v0",
        "v1",
        "2025-02-03T04:00:00Z",
    )
    unit = Decimal(10) ** document["scale"]
    assert (int(found["before"]) / unit, int(found["after"]) / unit) == (
        Decimal("6.5"), Decimal("7.000000000000000001")
    )  # fmt: skip
    parts = rows({**document, "by_service": found["by_service"]}, "by_service")
    names = [
        row["service"] is not None and document["services"][row["service"]]["name"] for row in parts
    ]
    assert names == ["Machines", "Gone", False]
    assert [row["account"] for row in parts] == [0, None, None]
    assert int(found["by_service"]["before"][2]) / unit == 5
