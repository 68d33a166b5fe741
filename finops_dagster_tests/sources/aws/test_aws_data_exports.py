"""Manifests of CUR 2.0 and FOCUS: every form that is documented or known, and none that is not."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.manifest import Column, ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.cur2 import AwsCur2
from finops_dagster.sources.aws.focus import AwsFocus

CUR2, FOCUS = AwsCur2(), AwsFocus()
MONTH = BillingMonth(2025, 9)
KEY = "a/acme/metadata/BILLING_PERIOD=2025-09/acme-Manifest.json"
FILE = "acme/data/BILLING_PERIOD=2025-09/20250921T050312Z-2d3b/acme-00001.csv.gz"
STAGED = f"a/{FILE}"


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "executionId": "2d3b",
        "exportArn": "arn:aws:bcm-data-exports:us-east-1:012345678901:export/acme-1f",
        "columns": [
            {"name": "line_item_unblended_cost", "type": "double"},
            {"name": "resource_tags", "type": "map"},
        ],
        "billingPeriod": {"start": "2025-09-01T00:00:00.000Z", "end": "2025-10-01T00:00:00.000Z"},
        "dataFiles": [f"s3://old-bucket/old/prefix/{FILE}"],
        **changes,
    }


def parse(document: Any, key: str = KEY) -> Manifest:
    source = ManifestFile(
        key, f"s3://bucket/{key}", "e7a9-2", datetime(2025, 9, 21, tzinfo=UTC), 100
    )
    return CUR2.parse_manifest(json.dumps(document).encode(), source, MONTH)


def test_a_manifest_is_read() -> None:
    read = parse(manifest())
    assert (read.format, read.month, read.id) == ("cur2", "2025-09", "2d3b")
    assert read.files == (ListedFile(STAGED),)
    assert not read.is_overwritten


@pytest.mark.parametrize(
    "listed",
    [
        f"s3://any-bucket/{FILE}",
        FILE,
        *({name: FILE} for name in "key s3Key fileKey filePath path relativePath".split()),
        *({name: f"s3://any/{FILE}"} for name in "s3Uri uri url key filePath".split()),
        {"s3Uri": f"s3://any-bucket/x/y/{FILE}", "size": 77},
        {"s3Uri": None, "key": "00001.csv.gz", "url": f"https://b.s3.amazonaws.com/{FILE}"},
    ],
)
def test_files_are_listed_in_every_form_that_readers_know(listed: Any) -> None:
    (file,) = parse(manifest(dataFiles=[listed])).files
    assert file == ListedFile(STAGED, 77 if "size" in listed else None)


def test_a_name_alone_lies_in_the_months_folder_of_data() -> None:
    (file,) = parse(manifest(dataFiles=["acme-00001.csv.gz"])).files
    assert file.key == "a/acme/data/BILLING_PERIOD=2025-09/acme-00001.csv.gz"
    (file,) = parse(
        manifest(dataFiles=[{"fileKey": "x.parquet"}]),
        KEY.replace("BILLING_PERIOD", "billing_period"),
    ).files
    assert file.key == "a/acme/data/billing_period=2025-09/x.parquet"


def test_a_list_of_files_is_all_that_a_manifest_needs() -> None:
    read = parse({"dataFiles": [f"s3://b/{FILE}"]})
    assert read.files == (ListedFile(STAGED),)
    assert (read.columns, read.month) == ((), "2025-09")


@pytest.mark.parametrize("columns", [["a", "b"], [{"name": "a"}, {"name": "b", "type": 3}]])
def test_columns_may_be_names_alone(columns: Any) -> None:
    assert parse(manifest(columns=columns)).columns == (Column("a"), Column("b"))


def test_files_may_be_listed_as_cur_v1_does() -> None:
    document = manifest(reportKeys=[FILE])
    del document["dataFiles"]
    assert parse(document).files == (ListedFile(STAGED),)


def test_small_letters_stay_small() -> None:
    small = FILE.replace("BILLING_PERIOD", "billing_period")
    (file,) = parse(manifest(dataFiles=[small])).files
    assert file.key == f"a/{small}"


def test_an_export_at_the_buckets_root_is_resolved() -> None:
    (file,) = parse(manifest(), KEY.removeprefix("a/")).files
    assert file.key == FILE


@pytest.mark.parametrize(
    "period",
    ["2025-09", {"start": "2025-09-01"}, {"start": "20250901T000000.000Z"}, None, {}],
)
def test_the_period_may_be_spelled_in_several_ways_or_be_missing(period: Any) -> None:
    assert parse(manifest(billingPeriod=period)).month == "2025-09"


def test_a_version_without_an_execution_is_named_by_its_assembly_or_its_folder() -> None:
    assert parse(manifest(executionId=None, assemblyId="20250921T050312Z")).id == "20250921T050312Z"
    for folder in ("20250921T050312Z-2d3b", "2025-09-21T05:03:12.789Z-2d3b"):
        files = [f"acme/data/BILLING_PERIOD=2025-09/{folder}/{n}.csv.gz" for n in (1, 2)]
        read = parse({"dataFiles": files})
        assert read.id == folder
        assert not read.is_overwritten


@pytest.mark.parametrize(
    "files",
    [
        ["acme/data/BILLING_PERIOD=2025-09/1.csv.gz"],
        ["acme/data/BILLING_PERIOD=2025-09/eu/1.parquet"],
        [f"acme/data/BILLING_PERIOD=2025-09/2025092{n}T050312Z-2d3b/1.csv.gz" for n in (1, 2)],
        [],
    ],
)
def test_a_version_with_no_name_at_all_is_named_by_what_its_manifest_says(files: list[str]) -> None:
    read = parse({"dataFiles": files})
    body = json.dumps({"dataFiles": files}).encode()
    assert read.id == hashlib.md5(body).hexdigest()  # so the ETag that S3 gives it
    assert parse({"dataFiles": files}, KEY.removeprefix("a/")).id == read.id
    assert parse({"dataFiles": files, "more": 1}).id != read.id


def test_files_whose_keys_name_no_version_are_overwritten_by_the_next() -> None:
    assert parse(manifest(dataFiles=["acme/data/BILLING_PERIOD=2025-09/x.csv.gz"])).is_overwritten


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"executionId": ""}, "has no executionId or assemblyId; is it the manifest of CUR 2.0?"),
        ({"executionId": "a\nb"}, "'a\\nb' is no usable name of a version"),
        ({"executionId": "\u202eab"}, "is no usable name of a version"),
        ({"executionId": "x" * 257}, "is no usable name of a version"),
        ({"executionId": " "}, "is no usable name of a version"),
        ({"dataFiles": {}}, "has no list of dataFiles or reportKeys"),
        ({"dataFiles": [3]}, "lists 3, which is no key of a file"),
        ({"dataFiles": [{"size": 3}]}, "lists {'size': 3}, which is no key of a file"),
        ({"dataFiles": ["acme/data/date=2025-09-01/x"]}, "no file below the month's folder"),
        ({"dataFiles": [FILE.replace("2025-09", "2025-08")]}, "no file below the month's folder"),
        ({"dataFiles": [f"s3://b/{FILE}/../../x"]}, "leads elsewhere"),
        ({"columns": [{"type": "string"}]}, "in columns has no name"),
        ({"columns": {}}, "has no list of columns"),
        ({"columns": [3]}, "3 in columns has no name"),
        ({"billingPeriod": "2025-08"}, "billingPeriod is '2025-08', expected the first day of"),
    ],
)
def test_a_wrong_manifest_is_one_line_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(manifest(**changes))
    assert str(caught.value).startswith(f"s3://bucket/{KEY}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_manifest_is_looked_for_in_either_case_and_under_either_name() -> None:
    home = CUR2.home("a", "acme")
    assert CUR2.manifest_keys(home, "acme", MONTH) == (
        "a/acme/metadata/BILLING_PERIOD=2025-09/acme-Manifest.json",
        "a/acme/metadata/BILLING_PERIOD=2025-09/Manifest.json",
        "a/acme/metadata/billing_period=2025-09/acme-Manifest.json",
        "a/acme/metadata/billing_period=2025-09/Manifest.json",
    )
    assert CUR2.home("", "acme") == "acme/metadata"


@pytest.mark.parametrize(
    ("header", "declared", "expected"),
    [
        ("line_item_unblended_cost", "string", SqlType.MONEY),
        ("reservation_net_upfront_value", None, SqlType.MONEY),
        ("split_line_item_split_cost", "double", SqlType.MONEY),
        ("line_item_unblended_rate", "string", SqlType.TEXT),
        ("bill_billing_period_start_date", "timestamp", SqlType.TIME),
        ("resource_tags", "string", SqlType.TEXT_MAP),
        ("discount", "map", SqlType.MONEY_MAP),
        ("product_operation", "double", SqlType.TEXT),
        ("capacity_reservation_new", "map<string,double>", SqlType.MONEY_MAP),
        ("capacity_reservation_new", "decimal(38,18)", SqlType.MONEY),
        ("capacity_reservation_new", None, None),
    ],
)
def test_types_come_from_what_is_known_then_from_the_manifest(
    header: str, declared: str | None, expected: SqlType | None
) -> None:
    assert CUR2.sql_type(header, declared) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("BilledCost", SqlType.MONEY),
        ("ChargePeriodStart", SqlType.TIME),
        ("Tags", SqlType.TEXT_MAP),
        ("x_Discounts", SqlType.MONEY_MAP),
        ("SubAccountId", None),
    ],
)
def test_focus_columns_are_known_in_any_case(header: str, expected: SqlType | None) -> None:
    assert FOCUS.sql_type(header, None) is expected
    assert FOCUS.column(header) == header.lower()
