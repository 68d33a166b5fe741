"""Manifests of AWS: every documented or known form is read, and every other one refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.manifest import ListedColumn, ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster_tests.hostile.reading import one_line

FORMATS = aws_formats()
MONTH = BillingMonth(2024, 1)
MONTH_FOLDER = "acme/20240101-20240201"
DATA_FOLDER = "acme/data/BILLING_PERIOD=2024-01"
FILE = f"{DATA_FOLDER}/20240121T050312Z-2d3b/acme-00001.csv.gz"
FILE_KEY = f"a/{FILE}"
KEYS = {
    "cur1": f"cur/{MONTH_FOLDER}/acme-Manifest.json",
    "cur2": "a/acme/metadata/BILLING_PERIOD=2024-01/acme-Manifest.json",
}
MANIFESTS: dict[str, dict[str, Any]] = {
    "cur1": {
        "assemblyId": "20240203T000000Z",
        "account": "012345678901",
        "columns": [
            {"category": "identity", "name": "LineItemId", "type": "String"},
            {"category": "lineItem", "name": "UnblendedCost", "type": "BigDecimal"},
            {"category": "resourceTags", "name": "user:Cost Center"},
        ],
        "billingPeriod": {"start": "20240101T000000.000Z", "end": "20240201T000000.000Z"},
        "reportKeys": [f"cur/{MONTH_FOLDER}/20240203T000000Z/acme-00001.csv.gz"],
    },
    "cur2": {
        "executionId": "2d3b",
        "exportArn": "arn:aws:bcm-data-exports:us-east-1:012345678901:export/acme-1f",
        "columns": [
            {"name": "line_item_unblended_cost", "type": "double"},
            {"name": "resource_tags", "type": "map"},
        ],
        "billingPeriod": {"start": "2024-01-01T00:00:00.000Z", "end": "2024-02-01T00:00:00.000Z"},
        "dataFiles": [f"s3://old-bucket/old/prefix/{FILE}"],
    },
}


def parse(name: str, document: Any, key: str = "") -> Manifest:
    key = key or KEYS[name]
    written = datetime(2024, 2, 1, tzinfo=UTC)
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    source = ManifestFile(key, f"s3://bucket/{key}", "e7a9-2", written, 100)
    return FORMATS[name].parse_manifest(body, source, MONTH)


def cur1(**changes: Any) -> Manifest:
    return parse("cur1", {**MANIFESTS["cur1"], **changes})


def cur2(**changes: Any) -> Manifest:
    return parse("cur2", {**MANIFESTS["cur2"], **changes})


def test_a_manifest_is_read() -> None:
    read = cur1()
    assert (read.format, read.month, read.id) == ("cur1", "2024-01", "20240203T000000Z")
    assert read.columns == (
        ListedColumn("identity/LineItemId", "String"),
        ListedColumn("lineItem/UnblendedCost", "BigDecimal"),
        ListedColumn("resourceTags/user:Cost Center", None),
    )
    assert read.files == (ListedFile(f"cur/{MONTH_FOLDER}/20240203T000000Z/acme-00001.csv.gz"),)
    assert not read.will_be_overwritten
    read = cur2()
    assert (read.format, read.month, read.id) == ("cur2", "2024-01", "2d3b")
    assert read.files == (ListedFile(FILE_KEY),)
    assert not read.will_be_overwritten


@pytest.mark.parametrize("prefix", ["", "/", "a/b/", "20240101-20240201/acme/"])
def test_files_are_beside_the_manifest_whatever_prefix_it_lists(prefix: str) -> None:
    (file,) = cur1(reportKeys=[f"{prefix}{MONTH_FOLDER}/x/acme-1.csv.gz"]).files
    assert file.key == f"cur/{MONTH_FOLDER}/x/acme-1.csv.gz"


@pytest.mark.parametrize("month", ["1", "01"])
def test_parquet_is_in_the_second_folder_of_the_report(month: str) -> None:
    rest = f"acme/year=2024/month={month}/acme-00001.snappy.parquet"
    columns = [{"category": "line_item", "name": "unblended_cost", "type": "BigDecimal"}]
    read = cur1(reportKeys=[f"old/prefix/acme/{rest}"], columns=columns)
    assert [file.key for file in read.files] == [f"cur/acme/{rest}"]
    assert [column.header for column in read.columns] == ["line_item_unblended_cost"]
    assert read.will_be_overwritten


def test_a_parquet_manifest_may_list_the_headers_of_csv() -> None:
    read = cur1(reportKeys=["acme/acme/year=2024/month=1/acme-1.snappy.parquet"])
    assert [column.header for column in read.columns] == [
        "identity_line_item_id",
        "line_item_unblended_cost",
        "resource_tags_user_cost_center",
    ]


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
def test_every_known_form_of_listed_files_is_read(listed: Any) -> None:
    (file,) = cur2(dataFiles=[listed]).files
    assert file == ListedFile(FILE_KEY, 77 if "size" in listed else None)
    assert cur2(dataFiles=None, reportKeys=[FILE]).files == (ListedFile(FILE_KEY),)


def test_a_bare_file_name_is_in_the_months_data_folder() -> None:
    (file,) = cur2(dataFiles=["acme-00001.csv.gz"]).files
    assert file.key == f"a/{DATA_FOLDER}/acme-00001.csv.gz"
    small = KEYS["cur2"].replace("BILLING_PERIOD", "billing_period")
    (file,) = parse("cur2", {"dataFiles": [{"fileKey": "x.parquet"}]}, small).files
    assert file.key == "a/acme/data/billing_period=2024-01/x.parquet"


def test_the_months_folder_keeps_its_case_and_may_be_at_the_buckets_root() -> None:
    small = FILE.replace("BILLING_PERIOD", "billing_period")
    assert cur2(dataFiles=[small]).files == (ListedFile(f"a/{small}"),)
    (file,) = parse("cur2", MANIFESTS["cur2"], KEYS["cur2"].removeprefix("a/")).files
    assert file.key == FILE


def test_columns_may_be_bare_names_or_missing() -> None:
    for columns in (["a", "b"], [{"name": "a"}, {"name": "b", "type": 3}]):
        assert cur2(columns=columns).columns == (ListedColumn("a"), ListedColumn("b"))
    assert cur1(columns=None).columns == ()
    read = parse("cur2", {"dataFiles": [f"s3://b/{FILE}"]})
    assert (read.files, read.columns, read.month) == ((ListedFile(FILE_KEY),), (), "2024-01")


@pytest.mark.parametrize("start", ["20240101T000000.000Z", "2024-01-01T00:00:00Z", "2024-01-01"])
def test_the_billing_period_is_read_in_every_known_spelling(start: str) -> None:
    for read in (cur1, cur2):
        assert read(billingPeriod={"start": start}).month == "2024-01"
    for period in ("2024-01", None, {}):
        assert cur2(billingPeriod=period).month == "2024-01"


def test_a_version_without_execution_id_is_named_by_assembly_id_or_folder() -> None:
    assert cur2(executionId=None, assemblyId="20240121T050312Z").id == "20240121T050312Z"
    for folder in ("20240121T050312Z-2d3b", "2024-01-21T05:03:12.789Z-2d3b"):
        read = parse("cur2", {"dataFiles": [f"{DATA_FOLDER}/{folder}/{n}.csv.gz" for n in (1, 2)]})
        assert read.id == folder
        assert not read.will_be_overwritten


@pytest.mark.parametrize(
    "files",
    [
        [f"{DATA_FOLDER}/1.csv.gz"],
        [f"{DATA_FOLDER}/eu/1.parquet"],
        [f"{DATA_FOLDER}/2024012{n}T050312Z-2d3b/1.csv.gz" for n in (1, 2)],
        [],
    ],
)
def test_a_version_without_any_id_is_named_by_the_digest_of_its_manifest(files: list[str]) -> None:
    read = parse("cur2", {"dataFiles": files})
    body = json.dumps({"dataFiles": files}).encode()
    assert read.id == hashlib.md5(body).hexdigest()  # so the ETag that S3 gives it
    assert parse("cur2", {"dataFiles": files}, KEYS["cur2"].removeprefix("a/")).id == read.id
    assert parse("cur2", {"dataFiles": files, "more": 1}).id != read.id


def test_files_whose_keys_name_no_version_are_overwritten_by_the_next_one() -> None:
    assert cur2(dataFiles=[f"{DATA_FOLDER}/x.csv.gz"]).will_be_overwritten


BAD_PATH = "has a control character, or . or .. in its path"
NO_FILE = "which is not a file below the month's folder, such as "
NO_NAME = "is not a usable version id"
WRONG_CUR1: list[tuple[dict[str, Any], str]] = [
    (
        {"assemblyId": None},
        "has no assemblyId, which a manifest of CUR v1 has; check the export's format",
    ),
    ({"assemblyId": None, "\n": 1, "x" * 9999: 1}, "has no assemblyId"),
    ({"assemblyId": "a\0b"}, f"'a\\x00b' {NO_NAME}"),
    ({"assemblyId": "a\nb"}, f"'a\\nb' {NO_NAME}"),
    ({"assemblyId": "x" * 300}, NO_NAME),
    ({"reportKeys": None}, "has no list of reportKeys"),
    ({"reportKeys": [3]}, "lists 3, which is not the key of a file"),
    ({"reportKeys": ["a/b.csv.gz"]}, f"lists 'a/b.csv.gz', {NO_FILE}20240101-20240201"),
    ({"reportKeys": [f"{MONTH_FOLDER}/../../../etc/passwd"]}, BAD_PATH),
    ({"reportKeys": [f"{MONTH_FOLDER}/."]}, BAD_PATH),
    ({"reportKeys": [f"{MONTH_FOLDER}/x\0.csv.gz"]}, f"x\\x00.csv.gz', which {BAD_PATH}"),
    ({"reportKeys": [f"{MONTH_FOLDER}/x\ny.csv.gz"]}, f"x\\ny.csv.gz', which {BAD_PATH}"),
    ({"reportKeys": ["/etc/passwd"]}, NO_FILE),
    ({"reportKeys": [f"{MONTH_FOLDER}//etc/passwd"]}, NO_FILE),
    ({"reportKeys": [f"{MONTH_FOLDER}/"]}, NO_FILE),
    ({"reportKeys": ["20240201-20240301/x.csv.gz"]}, NO_FILE),
    ({"reportKeys": ["x" * 1_000_000]}, "xxx...xxx"),
    ({"reportKeys": [f"{MONTH_FOLDER}/\ud800.csv.gz"]}, "is not JSON: "),
    ({"reportKeys": [f"{MONTH_FOLDER}/x.gz", f"other/{MONTH_FOLDER}/x.gz"]}, "x.gz' twice"),
    ({"columns": [{"name": "x"}]}, "columns[0] has no category or no name"),
    ({"columns": {}}, "has no list of columns"),
    ({"columns": json.loads("[" * 250 + "]" * 250)}, "recursion limit exceeded"),
    ({"billingPeriod": {"start": "20240201T000000.000Z"}}, "expected the first day of 2024-01"),
    ({"billingPeriod": {"start": "20241301T000000.000Z"}}, "expected the first day of"),
    ({"billingPeriod": {"start": "20240001T000000.000Z"}}, "expected the first day of"),
    ({"billingPeriod": {"start": "a\nb"}}, "billingPeriod is 'a\\nb', expected"),
    ({"billingPeriod": None}, "billingPeriod is None"),
]
WRONG_CUR2: list[tuple[dict[str, Any], str]] = [
    ({"executionId": ""}, "has no executionId or assemblyId, which a manifest of CUR 2.0 has;"),
    ({"executionId": "a\nb"}, f"'a\\nb' {NO_NAME}"),
    ({"executionId": "\u202eab"}, NO_NAME),
    ({"executionId": "x" * 257}, NO_NAME),
    ({"executionId": " "}, NO_NAME),
    ({"dataFiles": {}}, "has no list of dataFiles or reportKeys"),
    ({"dataFiles": [3]}, "lists 3, which is not the key of a file"),
    ({"dataFiles": [{"size": 3}]}, "lists {'size': 3}, which is not the key of a file"),
    ({"dataFiles": ["acme/data/date=2024-01-01/x"]}, NO_FILE),
    ({"dataFiles": [FILE.replace("2024-01", "2023-12")]}, NO_FILE),
    ({"dataFiles": [f"s3://b/{FILE}/../../x"]}, BAD_PATH),
    ({"columns": [{"type": "string"}]}, "in columns has no name"),
    ({"columns": {}}, "has no list of columns"),
    ({"columns": [3]}, "3 in columns has no name"),
    ({"billingPeriod": "2023-12"}, "billingPeriod is '2023-12', expected the first day of"),
]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [*(("cur1", *case) for case in WRONG_CUR1), *(("cur2", *case) for case in WRONG_CUR2)],
)
def test_an_invalid_manifest_fails_with_one_line_that_names_it(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(name, {**MANIFESTS[name], **changes})
    assert one_line(caught.value).startswith(f"s3://bucket/{KEYS[name]}")
    assert message in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"'])
def test_a_file_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="is not"):
        parse("cur1", body)


@pytest.mark.parametrize("month", ["2024-01", "2023-12", "2024-10"])
def test_the_manifest_is_in_the_folder_of_its_month(month: str) -> None:
    billing_month = BillingMonth.parse(month)
    assert FORMATS["cur1"].months_folder("", "acme") == "acme"
    assert FORMATS["cur1"].manifest_keys("acme", "acme", billing_month) == (
        f"acme/{billing_month.first_day:%Y%m%d}-{billing_month.next.first_day:%Y%m%d}/acme-Manifest.json",
        f"acme/acme/year={billing_month.year}/month={billing_month.month}/acme-Manifest.json",
        f"acme/acme/year={billing_month.year}/month={billing_month.month:02}/acme-Manifest.json",
    )
    home = FORMATS["cur2"].months_folder("a", "acme")
    assert FORMATS["cur2"].months_folder("", "acme") == "acme/metadata"
    assert FORMATS["cur2"].manifest_keys(home, "acme", billing_month) == (
        f"a/acme/metadata/BILLING_PERIOD={month}/acme-Manifest.json",
        f"a/acme/metadata/BILLING_PERIOD={month}/Manifest.json",
        f"a/acme/metadata/billing_period={month}/acme-Manifest.json",
        f"a/acme/metadata/billing_period={month}/Manifest.json",
    )
