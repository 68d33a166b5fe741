"""Where Data Exports differ from CUR v1: maps, and the spelling of the month's folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection
from decimal import Decimal

import pytest

from finops_dagster_tests.cur import csv_bytes
from finops_dagster_tests.project import Project

MAPS = ("bill_billing_period_start_date", "line_item_unblended_cost", "resource_tags", "discount")


def deliver_maps(
    project: Project,
    *cells: tuple[str, str],
    period: str = "BILLING_PERIOD",
    manifest_period: str | None = None,
    file_period: str | None = None,
    name: str = "Manifest",
    only: Collection[str] = ("executionId", "columns", "dataFiles"),
) -> None:
    """Deliver a CUR 2.0 of January in CSV whose rows have these tags and discounts.

    The manifest lists files in the folder `<period>=2024-01`, and has `only` these fields. The
    folder of the manifest itself is called `manifest_period`, that of the file `file_period`.
    """
    project.export["format"] = "cur2"
    rows = [dict(zip(MAPS, ("2024-01-01T00:00:00.000Z", "1", *row), strict=True)) for row in cells]
    month = f"{period}=2024-01"
    file = f"acme-cur/data/{month}/2024-e1/acme-cur-00001.csv.gz"
    key = file.replace(period, file_period or period)
    project.put(key, gzip.compress(csv_bytes(rows, MAPS)))
    manifest = {
        "executionId": "e1",
        "columns": [{"name": name} for name in MAPS],
        "dataFiles": [f"s3://b/{file}"],
    }
    body = json.dumps({field: manifest[field] for field in only}).encode()
    project.put(f"acme-cur/metadata/{manifest_period or period}=2024-01/{name}.json", body)


def test_maps_in_csv_are_json_text(project: Project) -> None:
    """CUR 2.0 has the tags of a line item in one column; `{}` is a line item without tags."""
    tags = '{"user_team": "Größe, \\"A\\"", "aws_created_by": ""}'
    exact = '{"edp": -0.1234567890123456789e1, "b": 123456789012345678.123456789012345678}'
    deliver_maps(project, (tags, exact), ("{}", "{}"), ("", ""))
    project.load()
    rows = project.query("SELECT resource_tags, discount FROM aws_billing_data ORDER BY 1")
    amounts = {
        "edp": Decimal("-1.234567890123456789"),
        "b": Decimal("123456789012345678.123456789012345678"),
    }
    assert rows == [
        ({}, {}),
        ({"user_team": 'Größe, "A"', "aws_created_by": ""}, amounts),
        (None, None),
    ]


def test_numbers_in_a_map_of_texts_keep_their_digits(project: Project) -> None:
    tags = (
        '{"a 1": 0.1000, "b": "x\\": 7.0", "c": {"d": [1.0, -2.50E+3, "0.10"]}, '
        '"e\\\\": 1.0E-7, "f": "", "g": 100000000000000000000.10, "h": null, "i": true}'
    )
    deliver_maps(project, (tags, "{}"))
    project.load()
    assert project.query("SELECT resource_tags FROM aws_billing_data") == [
        (
            {
                "a 1": "0.1000",
                "b": 'x": 7.0',
                "c": '{"d":[1.0,-2.50E+3,"0.10"]}',
                "e\\": "1.0E-7",
                "f": "",
                "g": "100000000000000000000.10",
                "h": None,
                "i": "true",
            },
        )
    ]


def test_another_format_in_the_same_table_is_refused_before_the_load(
    project: Project,
) -> None:
    project.deliver("5", month="2024-02")
    project.load("2024-02")
    deliver_maps(project, ("{}", "{}"))
    error = project.materialize().error
    assert "holds months of acme in the format cur1, and 2024-01 is in the format cur2" in error
    assert project.totals("2024-02") == (1, 5)
    assert "line_item_unblended_cost" not in {
        name for (name,) in project.query("SELECT column_name FROM duckdb_columns()")
    }


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        (("not json", ""), "resource_tags"),
        (("[1]", ""), "resource_tags"),
        (('{"a": 1', ""), "resource_tags"),
        (("", '{"edp": "much"}'), "discount"),
        (("", '{"edp": 0.1234567890123456789}'), "discount"),
    ],
)
@pytest.mark.quick("cells0", "cells4")
def test_an_invalid_map_fails_with_line_and_column(
    project: Project, cells: tuple[str, str], column: str
) -> None:
    deliver_maps(project, ("{}", "{}"), cells)
    error = project.materialize().error
    assert f'line 3, column "{column}": ' in error
    assert "cannot be kept exactly as MAP(VARCHAR, " in error


@pytest.mark.parametrize("period", ["BILLING_PERIOD", "billing_period"])
@pytest.mark.parametrize("name", ["acme-cur-Manifest", "Manifest"])
def test_the_months_folder_is_found_in_either_case(
    project: Project, period: str, name: str
) -> None:
    """AWS writes `BILLING_PERIOD=`; FinOps hubs and CID read `billing_period=`."""
    deliver_maps(project, ("{}", "{}"), period=period, name=name)
    project.put(f"acme-cur/metadata/{period}=2024-01/acme-cur-Metadata.json", b"{}")
    project.load()


@pytest.mark.parametrize(
    ("period", "manifest_period", "file_period"),
    [
        ("BILLING_PERIOD", "billing_period", "billing_period"),
        ("BILLING_PERIOD", "BILLING_PERIOD", "billing_period"),
        ("billing_period", "BILLING_PERIOD", "BILLING_PERIOD"),
        ("billing_period", "BILLING_PERIOD", "billing_period"),
        ("BILLING_PERIOD", "billing_period", "Billing_Period"),
    ],
)
@pytest.mark.quick(
    "billing_period-BILLING_PERIOD-BILLING_PERIOD", "BILLING_PERIOD-billing_period-Billing_Period"
)
def test_a_copy_whose_folders_differ_in_case_from_its_manifest_is_read(
    project: Project, period: str, manifest_period: str, file_period: str
) -> None:
    deliver_maps(
        project,
        ("{}", "{}"),
        period=period,
        manifest_period=manifest_period,
        file_period=file_period,
    )
    project.load()
    assert project.query("SELECT count(*) FROM aws_billing_data") == [(1,)]


def test_files_of_another_account_are_never_read(project: Project) -> None:
    project.export |= {"format": "cur2", "source": f"{project.export['source']}/account=1"}
    file = "acme-cur/data/BILLING_PERIOD=2024-01/acme-cur-00001.csv.gz"
    project.put(f"account=01/{file}", b"of another account")
    project.put(
        "account=1/acme-cur/metadata/BILLING_PERIOD=2024-01/Manifest.json",
        json.dumps({"dataFiles": [file]}).encode(),
    )
    error = project.materialize().error
    assert f"account=1/{file}: there is no such" in error
    assert "though the manifest lists it" in error


@pytest.mark.parametrize("only", [("dataFiles",), ("executionId", "dataFiles")])
def test_columns_come_from_the_files_where_the_manifest_lists_none(
    project: Project, only: Collection[str]
) -> None:
    deliver_maps(project, ('{"a": "b"}', ""), only=only)
    assert project.load().metadata("manifest")["columns"] == 0
    assert project.query(
        "SELECT resource_tags, line_item_unblended_cost FROM aws_billing_data"
    ) == [({"a": "b"}, 1)]
    del project.export["format"]
    error = project.materialize().error
    assert "its columns do not show whether it is cur2 or focus (columns: none)" in error
    assert "set the format of acme" in error


def test_a_manifest_that_stops_listing_columns_removes_none(project: Project) -> None:
    deliver_maps(project, ("{}", "{}"))
    project.load()
    deliver_maps(project, ("{}", "{}"), only=("executionId", "dataFiles"))
    metadata = project.load().metadata("manifest")
    assert (metadata["columns_added"], metadata["columns_removed"]) == ("", "")
