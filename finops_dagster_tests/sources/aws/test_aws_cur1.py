"""CUR v1 manifests: what they say, and what is said of those that say it wrongly."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.manifest import Column, ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.cur1 import AwsCur1

VENDOR = AwsCur1()
MONTH = BillingMonth(2024, 1)
KEY = "cur/acme/20240101-20240201/acme-Manifest.json"
SOURCE = ManifestFile(KEY, f"s3://bucket/{KEY}", "etag", datetime(2024, 2, 1, tzinfo=UTC), 100)


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "assemblyId": "20240203T000000Z",
        "account": "012345678901",
        "columns": [
            {"category": "identity", "name": "LineItemId", "type": "String"},
            {"category": "lineItem", "name": "UnblendedCost", "type": "BigDecimal"},
            {"category": "resourceTags", "name": "user:Cost Center"},
        ],
        "compression": "GZIP",
        "billingPeriod": {"start": "20240101T000000.000Z", "end": "20240201T000000.000Z"},
        "reportKeys": ["cur/acme/20240101-20240201/20240203T000000Z/acme-00001.csv.gz"],
        **changes,
    }


def parse(document: Any) -> Manifest:
    return VENDOR.parse_manifest(json.dumps(document).encode(), SOURCE, MONTH)


def test_a_manifest_is_read() -> None:
    read = parse(manifest())
    assert read.id == "20240203T000000Z"
    assert read.columns == (
        Column("identity/LineItemId", "String"),
        Column("lineItem/UnblendedCost", "BigDecimal"),
        Column("resourceTags/user:Cost Center", None),
    )
    assert read.files == (
        ListedFile("cur/acme/20240101-20240201/20240203T000000Z/acme-00001.csv.gz"),
    )
    assert not read.is_overwritten


@pytest.mark.parametrize("prefix", ["", "/", "a/b/", "20240101-20240201/acme/"])
def test_files_lie_beside_the_manifest_whatever_prefix_they_had(prefix: str) -> None:
    key = f"{prefix}acme/20240101-20240201/x/acme-1.csv.gz"
    (file,) = parse(manifest(reportKeys=[key])).files
    assert file.key == "cur/acme/20240101-20240201/x/acme-1.csv.gz"


@pytest.mark.parametrize("month", ["1", "01"])
def test_parquet_lies_in_the_reports_second_folder(month: str) -> None:
    rest = f"acme/year=2024/month={month}/acme-00001.snappy.parquet"
    read = parse(
        manifest(
            compression="Parquet",
            reportKeys=[f"old/prefix/acme/{rest}"],
            columns=[{"category": "line_item", "name": "unblended_cost", "type": "BigDecimal"}],
        )
    )
    assert [file.key for file in read.files] == [f"cur/acme/{rest}"]
    assert [column.header for column in read.columns] == ["line_item_unblended_cost"]
    assert read.is_overwritten


@pytest.mark.parametrize("columns", [{}, {"columns": None}])
def test_a_manifest_without_columns_leaves_them_to_the_files(columns: Any) -> None:
    document = {name: value for name, value in manifest().items() if name != "columns"}
    assert parse({**document, **columns}).columns == ()


def test_a_parquet_manifest_may_have_the_csv_files_names() -> None:
    read = parse(manifest(reportKeys=["acme/acme/year=2024/month=1/acme-1.snappy.parquet"]))
    assert [column.header for column in read.columns] == [
        "identity_line_item_id",
        "line_item_unblended_cost",
        "resource_tags_user_cost_center",
    ]


@pytest.mark.parametrize(
    ("header", "flat", "athena"),
    [
        ("lineItem/UnblendedCost", "lineitem_unblendedcost", "line_item_unblended_cost"),
        (
            "reservation/ReservationARN",
            "reservation_reservationarn",
            "reservation_reservation_a_r_n",
        ),
        ("product/instanceType", "product_instancetype", "product_instance_type"),
        ("splitLineItem/SplitCost", "splitlineitem_splitcost", "split_line_item_split_cost"),
        ("resourceTags/user:cost-center", "resourcetags_user_cost_center", None),
        ("costCategory/Charge type", "costcategory_charge_type", "cost_category_charge_type"),
    ],
)
def test_a_column_has_one_name_whether_it_comes_in_csv_or_in_parquet(
    header: str, flat: str, athena: str | None
) -> None:
    athena = athena or "resource_tags_user_cost_center"
    for spelled in (header, athena):
        assert AwsCur1("flat").column(spelled) == flat
        assert AwsCur1("athena").column(spelled) == athena


@pytest.mark.parametrize("start", ["20240101T000000.000Z", "2024-01-01T00:00:00Z", "2024-01-01"])
def test_the_period_may_be_spelled_in_several_ways(start: str) -> None:
    assert parse(manifest(billingPeriod={"start": start})).month == "2024-01"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"assemblyId": None},
            "has no assemblyId; is it the manifest of CUR v1? It has assemblyId, account,",
        ),
        ({"assemblyId": "a\0b"}, "'a\\x00b' is no usable name of a version"),
        ({"reportKeys": None}, "has no list of reportKeys"),
        ({"reportKeys": [3]}, "lists 3, which is no key of a file"),
        (
            {"reportKeys": ["a/b.csv.gz"]},
            "lists 'a/b.csv.gz', which is no file below the month's folder (20240101-20240201|",
        ),
        ({"reportKeys": ["acme/20240101-20240201/../../x"]}, "which leads elsewhere"),
        ({"reportKeys": ["acme/20240101-20240201/x\0y"]}, "which leads elsewhere"),
        ({"columns": [{"name": "x"}]}, "columns[0] has no category and name"),
        ({"columns": {}}, "has no list of columns"),
        ({"billingPeriod": {"start": "20240201T000000.000Z"}}, "expected the first day of 2024-01"),
        ({"billingPeriod": None}, "billingPeriod is None"),
    ],
)
def test_a_wrong_manifest_is_one_line_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse(manifest(**changes))
    assert str(caught.value).startswith(f"s3://bucket/{KEY}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="is not"):
        VENDOR.parse_manifest(body, SOURCE, MONTH)


@pytest.mark.parametrize(
    ("header", "declared", "expected"),
    [
        ("lineItem/UnblendedCost", "String", SqlType.MONEY),
        ("lineItem/UnblendedCost", None, SqlType.MONEY),
        ("lineItem/UnblendedRate", "String", SqlType.TEXT),
        ("lineItem/UsageStartDate", None, SqlType.TIME),
        ("reservation/StartTime", "OptionalString", SqlType.TEXT),
        ("pricing/somethingNew", "OptionalBigDecimal", SqlType.MONEY),
        ("pricing/somethingNew", None, None),
        ("identity/TimeInterval", "Interval", SqlType.TEXT),
        ("resourceTags/user:cost", "BigDecimal", SqlType.TEXT),
        ("costCategory/Team", "DateTime", SqlType.TEXT),
    ],
)
def test_types_come_from_the_manifest_then_from_what_is_known(
    header: str, declared: str | None, expected: SqlType | None
) -> None:
    assert VENDOR.sql_type(header, declared) is expected


@pytest.mark.parametrize(
    ("month", "folder"),
    [
        ("2024-01", "20240101-20240201"),
        ("2023-12", "20231201-20240101"),
        ("2024-02", "20240201-20240301"),
    ],
)
def test_the_manifest_lies_in_the_folder_of_its_month(month: str, folder: str) -> None:
    home = VENDOR.home("", "acme")
    year, number = month.split("-")
    assert VENDOR.manifest_keys(home, "acme", BillingMonth.parse(month)) == (
        f"acme/{folder}/acme-Manifest.json",
        f"acme/acme/year={year}/month={int(number)}/acme-Manifest.json",
        f"acme/acme/year={year}/month={number}/acme-Manifest.json",
    )
