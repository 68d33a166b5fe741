"""One bill in every layout in which AWS delivers it, through the whole chain: it is the same bill."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster_tests.cur import Put
from finops_dagster_tests.project import Outcome, Project
from finops_dagster_tests.servers.s3 import S3Server

JANUARY = Version(date(2024, 1, 1), "20240203T050312Z", rows=1200)
FEBRUARY = Version(date(2024, 2, 1), "20240302T044907Z", rows=1100)
COSTS = {
    "cur1": "lineitem_unblendedcost",
    "cur2": "line_item_unblended_cost",
    "focus": "billedcost",
}
LAYOUTS = {
    "cur1-gzip": Layout(),
    "cur1-zip": Layout(files="zip"),
    "cur1-csv": Layout(files="csv"),
    "cur1-gzip-overwrite": Layout(overwrite=True),
    "cur1-zip-overwrite": Layout(files="zip", overwrite=True),
    "cur1-parquet": Layout(files="parquet", overwrite=True),
    "cur2-gzip": Layout("cur2"),
    "cur2-gzip-key-small": Layout("cur2", data_files="key", partition="billing_period"),
    "cur2-gzip-overwrite": Layout("cur2", overwrite=True, data_files="object"),
    "cur2-parquet": Layout("cur2", "parquet", plain_manifest_name=True),
    "cur2-parquet-overwrite": Layout("cur2", "parquet", overwrite=True),
    "focus-1.0-gzip": Layout("focus-1.0", partition="billing_period"),
    "focus-1.0-parquet": Layout("focus-1.0", "parquet"),
    "focus-1.2-gzip": Layout("focus-1.2"),
    "focus-1.2-parquet-overwrite": Layout("focus-1.2", "parquet", overwrite=True),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


@pytest.fixture(scope="module")
def january(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Decimal]:
    """Rows and cost of the bill, added up from the text of its CUR v1 by other means."""
    folder = tmp_path_factory.mktemp("january")
    manifest = json.loads(write_version(folder, "", "acme-cur", JANUARY).read_text())
    costs = []
    for key in manifest["reportKeys"]:
        with gzip.open(folder / key, "rt", encoding="utf-8", newline="") as text:
            costs += [Decimal(row["lineItem/UnblendedCost"]) for row in csv.DictReader(text)]
    return len(costs), sum(costs, Decimal(0))


def deliver(project: Project, version: Version, layout: Layout, prefix: str = "") -> None:
    write_version(project.source, prefix, "acme-cur", version, layout=layout)


def load(project: Project, month: str = "2024-01", **options: str) -> Outcome:
    outcome = project.materialize(month, **options)
    assert outcome.success, outcome.error
    return outcome


def format_of(layout: Layout) -> str:
    return layout.format.partition("-")[0]


def totals(project: Project, layout: Layout, month: str = "2024-01") -> tuple[int, Decimal]:
    (row,) = project.query(
        f"SELECT count(*), sum({COSTS[format_of(layout)]}) FROM aws_billing_data "
        "WHERE billing_month = ?::DATE",
        f"{month}-01",
    )
    return row


@every_layout
def test_the_month_is_the_same_whatever_the_layout(
    project: Project, layout: Layout, january: tuple[int, Decimal]
) -> None:
    deliver(project, JANUARY, layout)
    project.export["format"] = format_of(layout)
    outcome = load(project)
    assert totals(project, layout) == january
    assert outcome.metadata("manifest")["format"] == format_of(layout)
    assert outcome.metadata("parquet")["total_cost_exact"] == str(january[1])
    assert outcome.metadata("staged_files")["costs_rounded"] == 0
    assert "warnings" not in outcome.metadata("billing_table")
    assert set(load(project).outcomes().values()) == {"unchanged"}


@pytest.fixture
def put(project: Project, s3: S3Server, bucket: str) -> Put:
    """Puts into a bucket that the project's export reads."""
    client = s3.client()
    project.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
    return lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)


def upload(folder: Path, put: Put) -> None:
    """Put everything that lies in a folder into the bucket, manifests last as AWS does."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.suffix == ".json", path)):
        put(str(path.relative_to(folder)), path.read_bytes())


@every_layout
@pytest.mark.parametrize("prefix", ["", "a/b (1).*"])
def test_the_format_is_found_in_a_bucket_too(
    project: Project, put: Put, layout: Layout, prefix: str, january: tuple[int, Decimal]
) -> None:
    deliver(project, JANUARY, layout, prefix)
    upload(project.source, put)
    project.export |= {"format": None, "source": f"{project.export['source']}/{prefix}"}
    assert load(project).metadata("manifest")["format"] == format_of(layout)
    assert totals(project, layout) == january
