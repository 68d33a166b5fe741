"""One bill in every layout: the same rows and costs, with the folders and types of AWS."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.demo.columns import athena_name
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.demo.delivered import all_rows, cost_column, costs, csv_text, keys_of

Delivered = Callable[[Layout], tuple[Path, Path]]
Rows = Callable[[Layout], list[dict[str, Any]]]

SEPTEMBER = date(2025, 9, 1)
RESTATED = BillVersion(SEPTEMBER, "20251003T050312Z", rows=1100, restated=True)
EXECUTION = "20251003T050312Z-640dc82c-1a12-4162-9c6a-b0a0d0b0c518"
CUR1, ATHENA = Layout(), Layout(files="parquet", overwrite=True)
CUR2, FOCUS = Layout("cur2"), Layout("focus-1.2")
OLD_FOCUS = Layout("focus-1.0", partition="billing_period", plain_manifest_name=True)
CUR2_PARQUET = Layout("cur2", "parquet")
FOCUS_PARQUET = Layout("focus-1.2", "parquet", overwrite=True)
# The folder of the files, and the folders of the manifest in the order of writing.
CUR1_MONTH, PERIOD = "20250901-20251001", "BILLING_PERIOD=2025-09"
CUR1_FOLDERS = [f"{CUR1_MONTH}/20251003T050312Z", f"{CUR1_MONTH}/20251003T050312Z", CUR1_MONTH]
DATA_EXPORT_FOLDERS = [
    f"data/{PERIOD}/{EXECUTION}",
    f"metadata/{PERIOD}/{EXECUTION}",
    f"metadata/{PERIOD}",
]
FOLDERS = {
    CUR1: CUR1_FOLDERS,
    Layout(files="zip"): CUR1_FOLDERS,
    Layout(files="csv", overwrite=True): [CUR1_MONTH, CUR1_MONTH],
    ATHENA: ["bill/year=2025/month=9", CUR1_MONTH],
    CUR2: DATA_EXPORT_FOLDERS,
    CUR2_PARQUET: DATA_EXPORT_FOLDERS,
    OLD_FOCUS: [text.replace("BILLING_PERIOD", "billing_period") for text in DATA_EXPORT_FOLDERS],
    FOCUS: DATA_EXPORT_FOLDERS,
    FOCUS_PARQUET: [f"data/{PERIOD}", f"metadata/{PERIOD}"],
}


def layout_id(layout: Layout) -> str:
    return f"{layout.format}-{layout.files}{'-overwrite' if layout.overwrite else ''}"


every_layout = pytest.mark.parametrize("layout", FOLDERS, ids=layout_id)


def write(folder: Path, layout: Layout, version: BillVersion) -> Path:
    return write_version(folder, "a/b/", "bill", version, layout=replace(layout, columns=205))


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """Return a function to the folder and top manifest of a layout, which tests must not change."""

    @cache
    def deliver(layout: Layout) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("layout")
        return folder, write(folder, layout, RESTATED)

    return deliver


@pytest.fixture(scope="module")
def rows(delivered: Delivered) -> Rows:
    return cache(lambda layout: all_rows(*delivered(layout)))


@every_layout
def test_files_are_where_aws_puts_them_and_the_top_manifest_is_written_last(
    delivered: Delivered, layout: Layout
) -> None:
    folder, top = delivered(layout)
    export_folder, (files, *manifests) = folder / "a/b/bill", FOLDERS[layout]
    name = "Manifest.json" if layout.plain_manifest_name else "bill-Manifest.json"
    data = [export_folder / files / f"bill-0000{number}.{layout.suffix}" for number in (1, 2)]
    copies = [export_folder / folder_name / name for folder_name in manifests]
    assert {path for path in folder.rglob("*") if path.is_file()} == {*data, *copies}
    assert [folder / key for key in keys_of(top)] == data
    assert top == copies[-1]
    assert len({copy.read_text() for copy in copies}) == 1
    assert top.stat().st_mtime_ns == max(path.stat().st_mtime_ns for path in (*data, *copies))


@every_layout
def test_every_row_costs_the_same_in_every_layout(rows: Rows, layout: Layout) -> None:
    expected = costs(rows(CUR1), CUR1)
    assert len(expected) == RESTATED.rows and sum(expected) > 500
    if layout.format.startswith("focus"):
        assert sum(costs(rows(layout), layout)) == sum(expected)
        return
    assert costs(rows(layout), layout) == expected
    if layout.files != "parquet":
        texts = [row[cost_column(layout)] for row in rows(layout)]
        assert texts == [row[cost_column(CUR1)] for row in rows(CUR1)]
        assert layout.format != "cur1" or rows(layout) == rows(CUR1)


@pytest.mark.parametrize(
    "text, typed", [(CUR1, ATHENA), (CUR2, CUR2_PARQUET), (FOCUS, FOCUS_PARQUET)], ids=layout_id
)
def test_parquet_has_the_cells_of_csv(rows: Rows, text: Layout, typed: Layout) -> None:
    for old, new in zip(rows(text), rows(typed), strict=True):
        cells = list(new.values())
        if typed == ATHENA:
            assert (list(new)[-2:], cells[-2:]) == (["year", "month"], ["2025", "9"])
        else:
            assert list(old) == list(new)
        for (header, cell), value in zip(old.items(), cells, strict=False):
            assert value == as_typed(cell, value), header


def as_typed(text: str, cell: object) -> object:
    """Return a CSV cell in the type of the Parquet cell in its place."""
    if isinstance(cell, dict):
        return json.loads(text)
    if isinstance(cell, datetime):
        return datetime.fromisoformat(text).replace(tzinfo=None)
    return (float(text) if isinstance(cell, float) else text) if text else None


def test_parquet_has_the_types_of_aws(delivered: Delivered) -> None:
    text, double, time = pa.string(), pa.float64(), pa.timestamp("ms")
    text_map, double_map = pa.map_(text, text), pa.map_(text, double)
    expected = {
        ATHENA: {
            double: "line_item_unblended_cost line_item_usage_amount reservation_effective_cost",
            time: "line_item_usage_start_date bill_billing_period_start_date",
            text: "line_item_unblended_rate bill_payer_account_id product_sku year month",
        },
        CUR2_PARQUET: {
            double: "line_item_net_unblended_cost savings_plan_savings_plan_rate",
            time: "line_item_usage_start_date",
            text: "line_item_unblended_rate reservation_start_time product_instancesku",
            text_map: "product resource_tags cost_category",
            double_map: "discount",
        },
        FOCUS_PARQUET: {
            double: "BilledCost ListUnitPrice",
            time: "ChargePeriodStart",
            text: "InvoiceId ServiceSubcategory",
            text_map: "Tags x_CostCategories",
            double_map: "x_Discounts",
        },
    }
    for layout, types in expected.items():
        folder, top = delivered(layout)
        schema = pq.read_schema(folder / keys_of(top)[0])
        assert all(field.nullable for field in schema)
        for type_, columns in types.items():
            assert all(schema.field(column).type.equals(type_) for column in columns.split())


@pytest.mark.parametrize("columns", [67, 125, 205])
def test_every_file_of_cur_v1_has_the_header_that_the_manifest_lists(
    tmp_path: Path, columns: int
) -> None:
    version = BillVersion(SEPTEMBER, "a", 40, parts=3)
    top = write_version(tmp_path, "", "o'(1)*.cur", version, layout=Layout(columns=columns))
    assert top == tmp_path / f"o'(1)*.cur/{CUR1_MONTH}/o'(1)*.cur-Manifest.json"
    listed = [f"{c['category']}/{c['name']}" for c in json.loads(top.read_text())["columns"]]
    assert len(listed) == columns
    for key in keys_of(top):
        assert csv_text(tmp_path / key).splitlines()[0].replace('"', "").split(",") == listed


def test_the_manifest_of_cur_v1_has_the_fields_of_aws(delivered: Delivered) -> None:
    packed = {"gzip": "GZIP", "zip": "ZIP", "csv": "NONE", "parquet": "Parquet"}
    for layout in [layout for layout in FOLDERS if layout.format == "cur1"]:
        folder, top = delivered(layout)
        manifest = json.loads(top.read_text())
        period = {"start": "20250901T000000.000Z", "end": "20251001T000000.000Z"}
        assert manifest["billingPeriod"] == period
        assert manifest["compression"] == packed[layout.files]
        assert manifest["contentType"] == ("Parquet" if layout == ATHENA else "text/csv")
        assert (manifest["assemblyId"], len(manifest["account"])) == (RESTATED.assembly_id, 12)
    folder, top = delivered(ATHENA)
    names = [f"{c['category']}_{c['name']}" for c in json.loads(top.read_text())["columns"]]
    assert names == pq.read_schema(folder / keys_of(top)[0]).names[:-2]


@pytest.mark.parametrize("layout", [CUR2, OLD_FOCUS, FOCUS, FOCUS_PARQUET], ids=layout_id)
def test_the_manifest_of_a_data_export_has_the_fields_of_aws(
    delivered: Delivered, rows: Rows, layout: Layout
) -> None:
    manifest = json.loads(delivered(layout)[1].read_text())
    execution = UUID(manifest["executionId"])
    assert (str(execution), execution.version) == (EXECUTION.partition("-")[2], 4)
    assert manifest["exportName"] == "bill"
    assert manifest["exportArn"].startswith("arn:aws:bcm-data-exports:us-east-1:210987654321:")
    end = "2025-10-01T00:00:00.000Z"
    assert manifest["billingPeriod"] == {"start": "2025-09-01T00:00:00.000Z", "end": end}
    assert all(uri.startswith("s3://example-company-billing/a/b/") for uri in manifest["dataFiles"])
    types = {column["name"]: column["type"] for column in manifest["columns"]}
    assert list(types) == sorted(types) == list(rows(layout)[0])
    assert len(types) == {"cur2": 114, "focus-1.0": 48, "focus-1.2": 61}[layout.format]
    assert set(types.values()) == {"string", "double", "timestamp", "map"}
    if layout.files == "gzip":
        column = "bill_billing_period_end_date" if layout == CUR2 else "BillingPeriodEnd"
        assert {row[column] for row in rows(layout)} == {end}


def test_data_files_are_listed_in_each_form_that_is_seen(tmp_path: Path) -> None:
    forms = {}
    for form in ("uri", "key", "object"):
        layout = Layout("focus-1.0", overwrite=True, data_files=form)
        top = write(tmp_path, layout, BillVersion(SEPTEMBER, "a", 2, parts=1))
        forms[form] = json.loads(top.read_text())["dataFiles"][0]
    key = f"a/b/bill/data/{PERIOD}/bill-00001.csv.gz"
    uri = f"s3://example-company-billing/{key}"
    size = (tmp_path / key).stat().st_size
    assert forms == {"uri": uri, "key": {"key": key}, "object": {"s3Uri": uri, "size": size}}


@pytest.mark.parametrize("layout", [CUR1, ATHENA, CUR2_PARQUET], ids=layout_id)
def test_files_without_rows_keep_their_columns(
    tmp_path: Path, delivered: Delivered, layout: Layout
) -> None:
    folder, top = delivered(layout)
    full = folder / keys_of(top)[0]
    keys = keys_of(write(tmp_path, layout, BillVersion(SEPTEMBER, "a", 1, 3, restated=True)))
    for empty in [tmp_path / key for key in keys[:-1]]:
        if layout.files == "parquet":
            assert pq.read_metadata(empty).num_rows == 0
            assert pq.read_schema(empty) == pq.read_schema(full)
        else:
            assert csv_text(empty) == csv_text(full).partition("\n")[0] + "\n"


def test_a_zip_has_a_csv_of_its_own_name_and_the_same_bytes_each_time(
    tmp_path: Path, delivered: Delivered
) -> None:
    packed, top = delivered(Layout(files="zip"))
    write(tmp_path, Layout(files="zip"), RESTATED)
    for number, archive in enumerate(keys_of(top), 1):
        with zipfile.ZipFile(packed / archive) as opened:
            (member,) = opened.infolist()
        assert member.filename == f"bill-{number:05}.csv"
        assert (packed / archive).read_bytes() == (tmp_path / archive).read_bytes()


@pytest.mark.parametrize("files", ["gzip", "parquet"])
def test_a_smaller_refresh_empties_surplus_files_but_not_in_cur_v1(
    tmp_path: Path, files: Any
) -> None:
    for layout in (Layout("cur2", files, overwrite=True), Layout(files=files, overwrite=True)):
        old_keys = keys_of(write(tmp_path, layout, BillVersion(SEPTEMBER, "a", 30)))
        surplus = tmp_path / old_keys[1]
        old = surplus.read_bytes()
        top = write(tmp_path, layout, BillVersion(SEPTEMBER, "b", 20, parts=1))
        assert keys_of(top) == old_keys[:1]
        assert len(all_rows(tmp_path, top)) == 20
        if layout.format == "cur1":
            assert surplus.read_bytes() == old
        elif files == "gzip":
            assert gzip.decompress(surplus.read_bytes()) == b""
        else:
            assert pq.read_metadata(surplus).num_rows == 0
            assert pq.read_schema(surplus) == pq.read_schema(tmp_path / old_keys[0])


@pytest.mark.parametrize("layout", [CUR1, CUR2_PARQUET], ids=layout_id)
def test_versions_are_side_by_side_with_any_number_of_files(
    tmp_path: Path, rows: Rows, layout: Layout
) -> None:
    old = write(tmp_path, layout, RESTATED)
    old_keys = keys_of(old)
    new = write(tmp_path, layout, BillVersion(SEPTEMBER, "new", 20, parts=1))
    assert not set(keys_of(new)) & set(old_keys)
    assert all((tmp_path / key).is_file() for key in old_keys)
    parts = BillVersion(SEPTEMBER, RESTATED.assembly_id, RESTATED.rows, 3, restated=True)
    top = write(tmp_path, layout, parts)
    assert len(keys_of(top)) == 3
    assert all_rows(tmp_path, top) == rows(layout)


# The digests may change with the tables, never with the machine or the version of DuckDB.
PINNED = {
    "cur1": "7e0f9f6c5abd69390c73a26641244fc3e41680b2c382db912dbeb59423334787",
    "cur2": "094972e7485657a4e84b8d832b2401808aeee364de691b9cc0426224e6cb945c",
    "focus-1.0": "a31bc337344c5221d54ad372b99b8dc98e45c87f439ee771ea722e104b623d36",
    "focus-1.2": "02d5c9958de72795828c5e9443e3ae49ad13cdb23d9ce262aa92d3f69eaed395",
}


@pytest.mark.parametrize("name", PINNED)
def test_a_seed_writes_the_same_text_on_every_machine_and_another_seed_another(
    tmp_path: Path, name: Any
) -> None:
    digests = []
    for seed in (7, 8):
        version = BillVersion(date(2024, 1, 1), "20240201T050312Z", rows=1000, parts=1, seed=seed)
        top = write(tmp_path, Layout(name), version)
        digests.append(sha256(csv_text(tmp_path / keys_of(top)[0]).encode()).hexdigest())
    assert digests[0] == PINNED[name] != digests[1]


def test_maps_have_the_cells_of_the_columns_of_cur_v1(rows: Rows) -> None:
    maps = {"product": "product/", "resource_tags": "resourceTags/", "cost_category": "costC"}
    seen = set()
    for old, new in zip(rows(CUR1), rows(CUR2_PARQUET), strict=True):
        for column, category in maps.items():
            filled = [cell for header, cell in old.items() if header.startswith(category) and cell]
            assert sorted(new[column].values()) == sorted(filled)
            seen |= set(new[column])
        discount = old["discount/EdpDiscount"]
        discounts = {f"{name}_discount": float(discount) for name in ("edp", "total") if discount}
        assert new["discount"] == discounts
    assert {"instance_type", "product_name", "region", "organization", "charge_type"} <= seen
    assert {"user_team", "user_cost_center", "aws_created_by", "user_name"} <= seen
    for column in ("resource_tags", "discount"):
        cells = {row[column] for row in rows(CUR2)}
        assert "{}" in cells and len(cells) > 1 and "" not in cells


def test_focus_has_the_accounts_services_and_amortized_costs_of_cur_v1(rows: Rows) -> None:
    categories = {"Usage": "Usage", "DiscountedUsage": "Usage", "SavingsPlanCoveredUsage": "Usage",
                  "SavingsPlanRecurringFee": "Purchase", "RIFee": "Purchase", "Fee": "Purchase",
                  "EdpDiscount": "Adjustment", "Refund": "Adjustment", "Tax": "Tax",
                  "Credit": "Credit"}  # fmt: skip
    seen, charges = set(), iter(rows(FOCUS))
    for old in rows(CUR1):
        kind = old["lineItem/LineItemType"]
        if kind == "SavingsPlanNegation":
            continue
        new = next(charges)
        seen.add(kind)
        assert new["ChargeCategory"] == categories[kind]
        assert new["ServiceName"] == old["product/ProductName"]
        assert new["SubAccountId"] == old["lineItem/UsageAccountId"]
        assert new["BillingAccountId"] == old["bill/PayerAccountId"]
        assert new["InvoiceId"] == old["bill/InvoiceId"] != ""
        assert new["SubAccountName"] and new["BillingAccountName"] == "management"
        assert new["ListCost"] == (old["pricing/publicOnDemandCost"] or new["BilledCost"])
        is_covered = kind == "SavingsPlanCoveredUsage"
        assert new["BilledCost"] == ("0" if is_covered else old["lineItem/UnblendedCost"])
        share = old["savingsPlan/SavingsPlanEffectiveCost"] or old["reservation/EffectiveCost"]
        if kind in ("SavingsPlanRecurringFee", "RIFee"):
            assert Decimal(new["EffectiveCost"]) == 0 != Decimal(new["BilledCost"])
            assert_is_unused(next(charges), old)
        else:
            assert new["EffectiveCost"] == (share or new["BilledCost"])
        if kind in ("SavingsPlanCoveredUsage", "DiscountedUsage"):
            assert 0 < Decimal(share) < Decimal(new["ListCost"])
    assert next(charges, None) is None
    assert seen == set(categories)


def assert_is_unused(charge: dict[str, Any], fee: dict[str, Any]) -> None:
    """Assert that a charge has what was not used of the commitment that a fee is of."""
    assert (charge["ChargeCategory"], charge["CommitmentDiscountStatus"]) == ("Usage", "Unused")
    assert (charge["BilledCost"], charge["ListCost"]) == ("0", "0")
    assert charge["SubAccountId"] == fee["lineItem/UsageAccountId"]
    committed, used, upfront, recurring = (
        Decimal(fee[header] or 0)
        for header in (
            "savingsPlan/TotalCommitmentToDate",
            "savingsPlan/UsedCommitment",
            "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod",
            "reservation/UnusedRecurringFee",
        )
    )
    assert Decimal(charge["EffectiveCost"]) == committed - used + upfront + recurring != 0


def test_headers_become_the_names_of_athena() -> None:
    names = {
        "lineItem/UnblendedCost": "line_item_unblended_cost",
        "reservation/ReservationARN": "reservation_reservation_a_r_n",
        "resourceTags/user:Kostenträger": "resource_tags_user_kostentr_ger",
        "costCategory/Charge type": "cost_category_charge_type",
        "product/intelAvx2Available": "product_intel_avx2_available",
    }
    assert {header: athena_name(header) for header in names} == names
