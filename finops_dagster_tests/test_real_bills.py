"""Public, anonymised bills of real companies, behind manifests as AWS would write them."""

from __future__ import annotations

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster_tests.cur import csv_bytes, deliver, zipped
from finops_dagster_tests.project import ROOT, Project

DATA = ROOT.parent / "shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the public bills are not beside it")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_a_cur_v1_of_november_2023(project: Project, suffix: str) -> None:
    path = DATA / "focus_converters/aws-cur-v1.csv"
    rows = rows_of(path)
    body = {"gz": gzip.compress, "zip": zipped}[suffix](path.read_bytes())
    deliver(project.put, "2023-11", [body], headers=tuple(rows[0]), typed=False, suffix=suffix)
    outcome = project.materialize("2023-11")
    assert outcome.success, outcome.error
    cost = sum(Decimal(row["lineItem/UnblendedCost"]) for row in rows)
    assert project.totals("2023-11") == (len(rows), cost)
    assert project.parquet_totals("2023-11") == (len(rows), cost)
    zeros = sum(Decimal(row["lineItem/UnblendedCost"]) == 0 for row in rows)
    counted = "SELECT count(*) FILTER (lineitem_unblendedcost = 0) FROM aws_billing_data"
    assert project.query(counted) == [(zeros,)]
    assert outcome.metadata("billing_table")["final"] is False


def test_a_focus_1_0_of_september_2024(project: Project) -> None:
    """AWS's rows of the specification's sample, which writes the word NULL for no value."""
    rows = [
        row
        for row in rows_of(DATA / "focus_sample/focus_sample.csv")
        if row["ProviderName"] == "AWS"
    ]
    project.export["format"] = None
    month = "BILLING_PERIOD=2024-09"
    file = f"acme-cur/data/{month}/20241003T000000Z-e1/acme-cur-00001.csv.gz"
    project.put(file, gzip.compress(csv_bytes(rows, tuple(rows[0]))))
    manifest = {
        "executionId": "e1",
        "columns": [{"name": name} for name in rows[0]],
        "billingPeriod": "2024-09",
        "dataFiles": [{"s3Uri": f"s3://acme/{file}"}],
    }
    project.put(f"acme-cur/metadata/{month}/acme-cur-Manifest.json", json.dumps(manifest).encode())
    outcome = project.materialize("2024-09")
    assert outcome.success, outcome.error
    question = (
        "SELECT count(*), sum(billedcost), sum(effectivecost), count(resourceid), "
        "count(tags['application']) FROM aws_billing_data"
    )
    assert project.query(question) == [
        (
            len(rows),
            sum(Decimal(row["BilledCost"]) for row in rows),
            sum(Decimal(row["EffectiveCost"]) for row in rows),
            sum(row["ResourceId"] != "NULL" for row in rows),
            sum('"application"' in row["Tags"] for row in rows),
        )
    ]
