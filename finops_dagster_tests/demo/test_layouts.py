"""Where every layout puts its files, and what its manifest says of them."""

import gzip
import json
import zipfile
from collections.abc import Callable
from datetime import date
from functools import cache
from itertools import count
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.demo.athena_names import athena_name, athena_names
from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster_tests.demo.delivered import (
    LAYOUTS,
    all_rows,
    csv_text,
    keys_of,
    layout_id,
    rows_of,
)

Delivered = Callable[[Layout], tuple[Path, Path]]

SEPTEMBER = date(2025, 9, 1)
FIRST = Version(SEPTEMBER, "20250921T050312Z", rows=20)
EXECUTION = "20250921T050312Z-1504fa75-05b8-4696-8e4a-8b901132d588"


def write(folder: Path, layout: Layout, version: Version = FIRST) -> Path:
    return write_version(folder, "a/b", "bill", version, layout=layout, columns=67)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """The folder and top manifest of the first version in a layout, written once; do not change."""
    base = tmp_path_factory.mktemp("layouts")
    numbers = count()

    @cache
    def deliver(layout: Layout) -> tuple[Path, Path]:
        folder = base / str(next(numbers))
        return folder, write(folder, layout)

    return deliver


def keys_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


CUR1 = "a/b/bill/20250901-20251001"
KEYS = {
    Layout(): [
        f"{CUR1}/20250921T050312Z/bill-00001.csv.gz",
        f"{CUR1}/20250921T050312Z/bill-00002.csv.gz",
        f"{CUR1}/20250921T050312Z/bill-Manifest.json",
        f"{CUR1}/bill-Manifest.json",
    ],
    Layout(files="zip"): [
        f"{CUR1}/20250921T050312Z/bill-00001.csv.zip",
        f"{CUR1}/20250921T050312Z/bill-00002.csv.zip",
        f"{CUR1}/20250921T050312Z/bill-Manifest.json",
        f"{CUR1}/bill-Manifest.json",
    ],
    Layout(files="csv", overwrite=True): [
        f"{CUR1}/bill-00001.csv",
        f"{CUR1}/bill-00002.csv",
        f"{CUR1}/bill-Manifest.json",
    ],
    Layout(files="parquet", overwrite=True): [
        f"{CUR1}/bill-Manifest.json",
        "a/b/bill/bill/year=2025/month=9/bill-00001.snappy.parquet",
        "a/b/bill/bill/year=2025/month=9/bill-00002.snappy.parquet",
    ],
    Layout("cur2"): [
        f"a/b/bill/data/BILLING_PERIOD=2025-09/{EXECUTION}/bill-00001.csv.gz",
        f"a/b/bill/data/BILLING_PERIOD=2025-09/{EXECUTION}/bill-00002.csv.gz",
        f"a/b/bill/metadata/BILLING_PERIOD=2025-09/{EXECUTION}/bill-Manifest.json",
        "a/b/bill/metadata/BILLING_PERIOD=2025-09/bill-Manifest.json",
    ],
    Layout("cur2", "parquet", overwrite=True): [
        "a/b/bill/data/BILLING_PERIOD=2025-09/bill-00001.snappy.parquet",
        "a/b/bill/data/BILLING_PERIOD=2025-09/bill-00002.snappy.parquet",
        "a/b/bill/metadata/BILLING_PERIOD=2025-09/bill-Manifest.json",
    ],
    Layout("focus-1.0", partition="billing_period", plain_manifest_name=True): [
        f"a/b/bill/data/billing_period=2025-09/{EXECUTION}/bill-00001.csv.gz",
        f"a/b/bill/data/billing_period=2025-09/{EXECUTION}/bill-00002.csv.gz",
        f"a/b/bill/metadata/billing_period=2025-09/{EXECUTION}/Manifest.json",
        "a/b/bill/metadata/billing_period=2025-09/Manifest.json",
    ],
}


@pytest.mark.parametrize("layout", KEYS, ids=layout_id)
def test_every_file_lies_where_aws_puts_it_and_the_top_manifest_is_returned(
    delivered: Delivered, layout: Layout
) -> None:
    folder, top = delivered(layout)
    assert keys_in(folder) == KEYS[layout]
    data = [key for key in KEYS[layout] if not key.endswith("Manifest.json")]
    assert keys_of(top) == data
    manifests = [key for key in KEYS[layout] if key.endswith("Manifest.json")]
    assert str(top.relative_to(folder)) == min(manifests, key=len)
    assert len({(folder / key).read_text() for key in manifests}) == 1


@pytest.mark.parametrize(
    "layout",
    [Layout(), Layout(files="parquet", overwrite=True), Layout("cur2"), Layout("cur2", "parquet")],
    ids=layout_id,
)
def test_a_month_may_be_empty_and_keeps_its_columns(
    tmp_path: Path, delivered: Delivered, layout: Layout
) -> None:
    folder, top = delivered(layout)
    full = folder / keys_of(top)[0]
    empty = tmp_path / keys_of(write(tmp_path, layout, Version(SEPTEMBER, "a", 0, parts=1)))[0]
    assert rows_of(empty) == []
    if layout.files == "parquet":
        assert pq.read_schema(empty) == pq.read_schema(full)
        assert all(field.nullable for field in pq.read_schema(empty))
    else:
        assert csv_text(empty) == csv_text(full).partition("\n")[0] + "\n"


def test_a_zip_holds_the_csv_of_its_own_name_and_no_time(
    tmp_path: Path, delivered: Delivered
) -> None:
    plain, plain_top = delivered(Layout(files="csv"))
    packed, packed_top = delivered(Layout(files="zip"))
    write(tmp_path, Layout(files="zip"))
    archives = keys_of(packed_top)
    for number, (text, archive) in enumerate(zip(keys_of(plain_top), archives, strict=True), 1):
        with zipfile.ZipFile(packed / archive) as opened:
            assert opened.testzip() is None
            (member,) = opened.infolist()
            assert member.filename == f"bill-{number:05}.csv"
            assert member.compress_type == zipfile.ZIP_DEFLATED
            assert opened.read(member) == (plain / text).read_bytes()
        assert (packed / archive).read_bytes() == (tmp_path / archive).read_bytes()


@pytest.mark.parametrize(
    "layout, compression, content_type",
    [
        (Layout(), "GZIP", "text/csv"),
        (Layout(files="zip"), "ZIP", "text/csv"),
        (Layout(files="csv"), "NONE", "text/csv"),
        (Layout(files="parquet", overwrite=True), "Parquet", "Parquet"),
    ],
)
def test_the_manifest_of_cur_v1_says_how_files_are_packed(
    delivered: Delivered, layout: Layout, compression: str, content_type: str
) -> None:
    manifest = json.loads(delivered(layout)[1].read_text())
    assert (manifest["compression"], manifest["contentType"]) == (compression, content_type)
    assert manifest["assemblyId"] == FIRST.assembly_id


def test_the_manifest_of_cur_v1_in_parquet_has_athenas_names(delivered: Delivered) -> None:
    folder, top = delivered(Layout(files="parquet", overwrite=True))
    listed = json.loads(top.read_text())["columns"]
    assert {"category": "line_item", "name": "unblended_cost", "type": "BigDecimal"} in listed
    in_file = pq.read_schema(folder / keys_of(top)[0]).names
    assert [f"{c['category']}_{c['name']}" for c in listed] == in_file[:-2]
    assert in_file[-2:] == ["year", "month"]


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if x.format != "cur1"], ids=layout_id)
def test_the_manifest_of_a_data_export(delivered: Delivered, layout: Layout) -> None:
    folder, top = delivered(layout)
    manifest = json.loads(top.read_text())
    execution = UUID(manifest["executionId"])
    assert (str(execution), execution.version) == (EXECUTION.partition("-")[2], 4)
    assert manifest["exportName"] == "bill"
    assert manifest["exportArn"].startswith("arn:aws:bcm-data-exports:us-east-1:210987654321:")
    assert manifest["billingPeriod"] == {
        "start": "2025-09-01T00:00:00.000Z",
        "end": "2025-10-01T00:00:00.000Z",
    }
    assert all(uri.startswith("s3://example-company-billing/a/b/") for uri in manifest["dataFiles"])
    assert {column["type"] for column in manifest["columns"]} == {
        "string",
        "double",
        "timestamp",
        "map",
    }
    first = folder / keys_of(top)[0]
    assert [column["name"] for column in manifest["columns"]] == list(rows_of(first)[0])


def test_parquet_has_the_types_that_aws_gives(delivered: Delivered) -> None:
    text, double, time = pa.string(), pa.float64(), pa.timestamp("ms")
    text_map, double_map = pa.map_(text, text), pa.map_(text, double)
    expected = {
        Layout(files="parquet", overwrite=True): {
            "line_item_unblended_cost": double,
            "line_item_usage_amount": double,
            "reservation_effective_cost": double,
            "line_item_unblended_rate": text,
            "line_item_usage_start_date": time,
            "bill_billing_period_start_date": time,
            "bill_payer_account_id": text,
            "product_sku": text,
            "resource_tags_user_team": text,
            "year": text,
            "month": text,
        },
        Layout("cur2", "parquet"): {
            "line_item_unblended_cost": double,
            "line_item_net_unblended_cost": double,
            "savings_plan_savings_plan_rate": double,
            "line_item_unblended_rate": text,
            "line_item_usage_start_date": time,
            "reservation_start_time": text,
            "product_instancesku": text,
            "product": text_map,
            "resource_tags": text_map,
            "cost_category": text_map,
            "discount": double_map,
        },
        Layout("focus-1.2", "parquet", overwrite=True): {
            "BilledCost": double,
            "ListUnitPrice": double,
            "ChargePeriodStart": time,
            "InvoiceId": text,
            "ServiceSubcategory": text,
            "Tags": text_map,
            "x_CostCategories": text_map,
            "x_Discounts": double_map,
        },
    }
    for layout, types in expected.items():
        folder, top = delivered(layout)
        schema = pq.read_schema(folder / keys_of(top)[0])
        for column, type_ in types.items():
            field = schema.field(column)
            assert field.type.equals(type_), f"{column} is {field.type}"


def test_every_execution_has_its_own_id(tmp_path: Path) -> None:
    ids = set()
    for assembly_id, seed in [("a", 7), ("b", 7), ("a", 8)]:
        version = Version(SEPTEMBER, assembly_id, 2, parts=1)
        top = write_version(tmp_path, "", "bill", version, layout=Layout("cur2"), seed=seed)
        ids.add(json.loads(top.read_text())["executionId"])
    assert len(ids) == 3


def test_data_files_come_in_the_forms_that_are_seen(tmp_path: Path) -> None:
    forms = {}
    for form in ("uri", "key", "object"):
        layout = Layout("focus-1.0", overwrite=True, data_files=form)
        top = write(tmp_path, layout, Version(SEPTEMBER, "a", 2, parts=1))
        forms[form] = json.loads(top.read_text())["dataFiles"][0]
    key = "a/b/bill/data/BILLING_PERIOD=2025-09/bill-00001.csv.gz"
    uri = f"s3://example-company-billing/{key}"
    size = (tmp_path / key).stat().st_size
    assert forms == {"uri": uri, "key": {"key": key}, "object": {"s3Uri": uri, "size": size}}


def test_a_data_export_that_overwrites_empties_files_that_it_needs_no_more(tmp_path: Path) -> None:
    fewer = Version(SEPTEMBER, "20250922T050312Z", rows=20, parts=1)
    for files in ("gzip", "parquet"):
        layout = Layout("cur2", files, overwrite=True)
        before = keys_of(write(tmp_path, layout, Version(SEPTEMBER, "a", 30)))
        top = write(tmp_path, layout, fewer)
        assert keys_of(top) == before[:1]
        assert len(all_rows(tmp_path, top)) == 20
        for surplus in before[1:]:
            assert rows_of(tmp_path / surplus) == []
            if files == "gzip":
                assert gzip.decompress((tmp_path / surplus).read_bytes()) == b""
            else:
                schemas = [pq.read_schema(tmp_path / key) for key in (before[0], surplus)]
                assert schemas[0] == schemas[1]


def test_cur_v1_that_overwrites_leaves_files_that_it_needs_no_more(tmp_path: Path) -> None:
    for layout in (Layout(overwrite=True), Layout(files="parquet", overwrite=True)):
        before = keys_of(write(tmp_path, layout, Version(SEPTEMBER, "a", 30)))
        old = [(tmp_path / key).read_bytes() for key in before]
        after = keys_of(write(tmp_path, layout, Version(SEPTEMBER, "b", 20, parts=1)))
        assert after == before[:1]
        assert (tmp_path / before[0]).read_bytes() != old[0]
        assert [(tmp_path / key).read_bytes() for key in before[1:]] == old[1:]


def test_a_new_execution_stands_beside_the_old_one(tmp_path: Path) -> None:
    old = keys_of(write(tmp_path, Layout("cur2"), Version(SEPTEMBER, "old", 30, parts=3)))
    top = write(tmp_path, Layout("cur2"), Version(SEPTEMBER, "new", 20, parts=1))
    assert not set(keys_of(top)) & set(old)
    assert sum(len(rows_of(tmp_path / key)) for key in old) == 30


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
def test_no_file_changes_after_the_top_manifest(delivered: Delivered, layout: Layout) -> None:
    folder, top = delivered(layout)
    times = [(folder / key).stat().st_mtime_ns for key in keys_in(folder)]
    assert max(times) == top.stat().st_mtime_ns


def test_impossible_layouts_are_refused() -> None:
    for impossible in (
        {"format": "cur2", "files": "zip"},
        {"format": "cur2", "files": "csv"},
        {"format": "focus-1.0", "files": "zip"},
        {"format": "focus-1.2", "files": "csv"},
        {"format": "focus-0.5"},
        {"files": "rar"},
    ):
        with pytest.raises(ValueError, match="there is no"):
            Layout(**impossible)
    with pytest.raises(ValueError, match="always overwrites"):
        Layout(files="parquet")
    with pytest.raises(ValueError, match="data_files"):
        Layout("cur2", data_files="arn")
    with pytest.raises(ValueError, match="partition"):
        Layout("cur2", partition="date")


def test_athenas_names() -> None:
    names = {
        "lineItem/UnblendedCost": "line_item_unblended_cost",
        "reservation/ReservationARN": "reservation_reservation_a_r_n",
        "pricing/publicOnDemandCost": "pricing_public_on_demand_cost",
        "resourceTags/user:team": "resource_tags_user_team",
        "resourceTags/aws:createdBy": "resource_tags_aws_created_by",
        "resourceTags/user:Kostenträger": "resource_tags_user_kostentr_ger",
        "costCategory/Charge type": "cost_category_charge_type",
        "product/intelAvx2Available": "product_intel_avx2_available",
    }
    assert {header: athena_name(header) for header in names} == names


def test_of_two_tags_with_one_name_the_second_is_left_out() -> None:
    tags = ["resourceTags/user:team", "resourceTags/user:Team", "resourceTags/user:app"]
    assert athena_names(tags) == {
        "resourceTags/user:team": "resource_tags_user_team",
        "resourceTags/user:app": "resource_tags_user_app",
    }
