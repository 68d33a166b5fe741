"""The Azure bill of the demo has the layout, the columns and the sums of a FOCUS export."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import defaultdict
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.demo.azure.export import AzureRun, write_run
from finops_dagster_tests.project import ROOT

Row = dict[str, str]
FIRST = AzureRun(date(2024, 2, 1), datetime(2024, 3, 5, 3, 12, 44, 518204), resources=140)
RESTATED = replace(FIRST, submitted_at=datetime(2024, 4, 9, 14, 5, 2, 1), restated=True)
MICROSOFTS_COLUMNS = ROOT.parent / "shared" / "data" / "FocusCost_1.2-preview.json"
COSTS = {
    "BilledCost": "x_BilledUnitPrice",
    "EffectiveCost": "x_EffectiveUnitPrice",
    "ContractedCost": "ContractedUnitPrice",
    "ListCost": "ListUnitPrice",
}


def manifest_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def rows_of(container: Path, manifest: Path) -> list[Row]:
    return [
        row
        for blob in manifest_of(manifest)["blobs"]
        for row in csv.DictReader(
            io.StringIO(
                gzip.decompress((container / blob["blobName"]).read_bytes()).decode("utf-8-sig")
            )
        )
    ]


def total(rows: list[Row], column: str) -> Decimal:
    with localcontext(prec=60):
        return sum((Decimal(row[column]) for row in rows), Decimal(0))


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("container")


@pytest.fixture(scope="module")
def manifest(container: Path) -> Path:
    return write_run(container, "costs", "daily", FIRST)


@pytest.fixture(scope="module")
def first(container: Path, manifest: Path) -> list[Row]:
    return rows_of(container, manifest)


@pytest.fixture(scope="module")
def restated(container: Path) -> list[Row]:
    return rows_of(container, write_run(container, "costs", "daily", RESTATED))


def test_a_run_has_a_folder_and_a_manifest_of_its_own(
    container: Path, manifest: Path, restated: list[Row]
) -> None:
    month = container / "costs" / "daily" / "20240201-20240229"
    assert sorted(path.name for path in month.iterdir()) == ["202403050312", "202404091405"]
    assert manifest == month / "202403050312" / FIRST.id / "manifest.json"
    document = manifest_of(manifest)
    run, export = document["runInfo"], document["exportConfig"]
    assert run["submittedTime"] == "2024-03-05T03:12:44.5182040Z"
    assert (run["startDate"], run["endDate"]) == ("2024-02-01T00:00:00", "2024-02-29T00:00:00Z")
    assert (run["runId"], export["type"]) == (FIRST.id, "FocusCost")
    assert document["dataRowCount"] == sum(blob["dataRowCount"] for blob in document["blobs"])
    assert len(restated) == document["dataRowCount"] + 3
    for blob in document["blobs"]:
        content = (container / blob["blobName"]).read_bytes()
        text = gzip.decompress(content)
        assert len(content) == blob["byteCount"]
        assert text.startswith(b"\xef\xbb\xbfBilledCost,BillingAccountId,")
        assert len(list(csv.reader(io.StringIO(text.decode())))) == blob["dataRowCount"] + 1


def test_a_run_has_the_same_bytes_everywhere(
    container: Path, manifest: Path, tmp_path: Path
) -> None:
    again = write_run(tmp_path, "costs", "daily", FIRST)
    assert again.read_bytes() == manifest.read_bytes()
    for blob in manifest_of(manifest)["blobs"]:
        name = blob["blobName"]
        assert (tmp_path / name).read_bytes() == (container / name).read_bytes()


def test_the_columns_are_microsofts(first: list[Row]) -> None:
    if not MICROSOFTS_COLUMNS.exists():
        pytest.skip(f"{MICROSOFTS_COLUMNS} is not in this checkout")
    types = {
        column["ColumnName"]: column["DataType"]
        for column in json.loads(MICROSOFTS_COLUMNS.read_text())["Columns"]
    }
    assert list(first[0]) == list(types)
    del types["ConsumedUnit"]  # declared as Decimal, but it is text
    for name, kind in types.items():
        values = {row[name] for row in first} - {""}
        if kind in ("Decimal", "Number"):
            assert all(Decimal(value).is_finite() for value in values), name
        elif kind == "DateTime":
            assert all(datetime.strptime(value, "%Y-%m-%dT00:00:00Z") for value in values), name
        elif kind == "JSON":
            assert all(isinstance(json.loads(value), dict) for value in values), name
        elif kind == "Boolean":
            assert values == {"True", "False"}, name


def test_every_cost_is_price_times_quantity_exactly(first: list[Row]) -> None:
    longest = 0
    for row in first:
        for cost, price in COSTS.items():
            exact = Decimal(row[cost])
            assert exact == Decimal(row[price]) * Decimal(row["PricingQuantity"]), row
            assert -exact.as_tuple().exponent <= 18
            longest = max(longest, len(row[cost].partition(".")[2]))
    assert longest > 15
    assert {row["BillingCurrency"] for row in first} == {"EUR"}


def test_a_commitment_is_billed_when_bought_and_effective_when_used(first: list[Row]) -> None:
    commitments: dict[str, list[Row]] = defaultdict(list)
    for row in first:
        if row["CommitmentDiscountId"]:
            commitments[row["CommitmentDiscountId"]].append(row)
    assert len(commitments) == 3
    for rows in commitments.values():
        (purchase,) = (row for row in rows if row["ChargeCategory"] == "Purchase")
        assert purchase["EffectiveCost"] == "0"
        assert total(rows, "BilledCost") == Decimal(purchase["BilledCost"]) > 0
        assert total(rows, "EffectiveCost") == Decimal(purchase["BilledCost"])
        unused = [row for row in rows if row["CommitmentDiscountStatus"] == "Unused"]
        assert unused and not any(row["ResourceId"] + row["SubAccountId"] for row in unused)
    others = [row for row in first if not row["CommitmentDiscountId"]]
    assert total(others, "BilledCost") == total(others, "EffectiveCost")


def test_ids_are_written_in_several_cases_and_tags_as_json(first: list[Row]) -> None:
    spellings: dict[str, set[str]] = defaultdict(set)
    for row in first:
        spellings[row["ResourceId"].lower()].add(row["ResourceId"])
    assert sum(len(ids) == 2 for ids in spellings.values()) > 0.8 * len(spellings)
    tags = [json.loads(row["Tags"]) for row in first if row["Tags"]]
    assert {"app", "team", "env", "CostCenter"} == set().union(*tags)
    assert any(not row["Tags"].isascii() for row in first)
    assert any({'"', ","} <= set(row["ChargeDescription"]) for row in first)
    assert len({row["SubAccountName"] for row in first} - {""}) == 6
    assert len({row["PublisherName"] for row in first}) == 2


def test_a_restated_month_is_an_invoice_in_whole_cents(
    first: list[Row], restated: list[Row]
) -> None:
    assert {row["InvoiceId"] for row in first} == {""}
    (invoice,) = {row["InvoiceId"] for row in restated}
    assert invoice
    assert total(restated, "BilledCost") == round(total(restated, "BilledCost"), 2)
    assert total(first, "BilledCost") != round(total(first, "BilledCost"), 2)
    added = {"Adjustment": 1, "Credit": 1}
    assert {kind: sum(row["ChargeCategory"] == kind for row in restated) for kind in added} == added
    (refund,) = (row for row in restated if row["ChargeClass"] == "Correction")
    assert Decimal(refund["BilledCost"]) < 0
    assert refund["ChargePeriodEnd"] < refund["BillingPeriodStart"] == "2024-02-01T00:00:00Z"


def test_a_restated_month_changes_only_a_few_other_amounts(
    first: list[Row], restated: list[Row]
) -> None:
    def usage(rows: list[Row]) -> dict[tuple[str, ...], Row]:
        names = (
            "ChargePeriodStart",
            "ResourceId",
            "SkuId",
            "CommitmentDiscountId",
            "ChargeCategory",
        )
        return {
            tuple(row[name].lower() for name in names): row
            for row in rows
            if row["ChargeCategory"] in ("Usage", "Purchase") and not row["ChargeClass"]
        }

    before, after = usage(first), usage(restated)
    assert before.keys() == after.keys()
    changed = [
        (old, after[key])
        for key, old in before.items()
        if Decimal(old["BilledCost"]) != Decimal(after[key]["BilledCost"])
    ]
    assert 0 < len(changed) < len(first) / 100
    for old, new in changed:
        assert 1.04 < float(new["PricingQuantity"]) / float(old["PricingQuantity"]) < 1.06


def test_resources_stay_the_same_from_month_to_month(first: list[Row], tmp_path: Path) -> None:
    march = replace(FIRST, first_day=date(2024, 3, 1), submitted_at=datetime(2024, 4, 5, 3, 9))
    rows = rows_of(tmp_path, write_run(tmp_path, "", "daily", march))
    assert {row["ResourceId"].lower() for row in rows} == {
        row["ResourceId"].lower() for row in first
    }
    assert {row["ChargePeriodStart"][:7] for row in rows} == {"2024-03"}
