"""Public, anonymised bills of real companies, behind manifests as AWS would write them."""

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster_tests.cur import csv_bytes, zipped
from finops_dagster_tests.project import ROOT, Project

DATA = ROOT.parent / "shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the public bills are not beside it")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zip", zipped)])
def test_a_cur_v1_of_november_2023(project: Project, suffix: str, pack) -> None:
    path, month = DATA / "focus_converters/aws-cur-v1.csv", "2023-11"
    rows = rows_of(path)
    files = {"headers": tuple(rows[0]), "typed": False, "suffix": suffix}
    project.deliver(pack(path.read_bytes()), month=month, **files)
    assert project.load(month).metadata("billing_table")["final"] is False
    costs = [Decimal(row["lineItem/UnblendedCost"]) for row in rows]
    totals = (len(costs), sum(costs))
    assert project.totals(month) == project.parquet_totals(month) == totals
    assert project.column("lineitem_unblendedcost", month).count(0) == costs.count(Decimal(0))


def test_a_focus_1_0_of_september_2024(project: Project) -> None:
    """AWS's rows of the specification's sample, which writes the word NULL for no value."""
    sample = rows_of(DATA / "focus_sample/focus_sample.csv")
    rows = [row for row in sample if row["ProviderName"] == "AWS"]
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
    project.load("2024-09")
    loaded = project.query(
        "SELECT count(*), sum(billedcost), sum(effectivecost), count(resourceid), "
        "count(tags['application']) FROM aws_billing_data"
    )
    billed, effective = (
        sum(Decimal(row[name]) for row in rows) for name in ("BilledCost", "EffectiveCost")
    )
    resources = sum(row["ResourceId"] != "NULL" for row in rows)
    tags = sum('"application"' in row["Tags"] for row in rows)
    assert loaded == [(len(rows), billed, effective, resources, tags)]
