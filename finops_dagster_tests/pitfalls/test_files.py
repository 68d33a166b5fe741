"""Files that are missing, damaged, empty, zipped, or changed while they are read."""

from __future__ import annotations

import gzip
from decimal import Decimal

import pytest

from finops_dagster_tests.cur import csv_bytes, deliver, items, line_item, zipped
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server


def test_03_restatement_with_fewer_rows_and_parts_leaves_nothing_of_the_old(
    project: Project,
) -> None:
    deliver(
        project.put, "2024-01", [items("2024-01", "1", "2"), items("2024-01", "4")], version="v1"
    )
    project.load("2024-01")
    deliver(project.put, "2024-01", [items("2024-01", "8")], version="v2")
    outcome = project.materialize("2024-01")
    assert project.totals("2024-01") == (1, 8)
    assert project.parquet_totals("2024-01") == (1, 8)
    assert project.column("manifest_id", "2024-01") == ["v2"]
    assert outcome.checks()["billing_table.not_fewer_rows"] is False
    assert outcome.success
    states = project.query("SELECT manifest_id, state FROM finops_state.manifests ORDER BY 1")
    assert states == [("v1", "superseded"), ("v2", "loaded")]
    assert [path.name for path in project.folder.glob("data/staging/acme/2024-01/*/")] == ["v2"]


def test_04_a_file_replaced_during_its_download_is_noticed(project: Project, s3: S3Server) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    (key,) = deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2")

    def replace_before_get(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(key):
            s3.fault = None
            project.put(key, gzip.compress(csv_bytes(items("2024-01", "3"))))

    s3.fault = replace_before_get
    assert "changed while it was read" in project.materialize("2024-01").error
    assert project.totals("2024-01") == (1, 1)
    assert project.materialize("2024-01").success
    assert project.totals("2024-01") == (1, 3)


def test_05_a_missing_part_keeps_the_old_month(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    (key,) = deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2")
    missing = key.replace("-00001", "-00002")
    changes = {"reportKeys": [key, missing]}
    deliver(project.put, "2024-01", [items("2024-01", "2")], version="v2", changes=changes)
    error = project.materialize("2024-01").error
    assert missing in error
    assert "though the manifest lists it" in error
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: body[: len(body) // 2], "cut short"),
        (lambda body: body[:-4], "cut short"),
        (lambda body: body[:60] + bytes([body[60] ^ 1]) + body[61:], "damaged"),
        (lambda body: body[:-8] + b"\1\2\3\4" + body[-4:], "damaged"),
        (lambda body: body + b"trailing", "the gzip data is"),
        (lambda body: b"identity/LineItemId\nx\n", "damaged"),
    ],
    ids=["half", "no-trailer", "flipped-bit", "wrong-crc", "garbage-after", "not-gzip"],
)
def test_05_a_damaged_gzip_keeps_the_old_month(project: Project, damage, reason: str) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    body = gzip.compress(csv_bytes(items("2024-01", *map(str, range(200)))))
    deliver(project.put, "2024-01", [damage(body)], version="v2")
    error = project.materialize("2024-01").error
    assert reason in error
    assert "acme-cur-00001.csv.gz" in error
    assert project.totals("2024-01") == (1, 1)
    assert not list(project.folder.rglob("*.part"))


@pytest.mark.parametrize(
    "parts",
    [[[]], [b""], [[], b""], []],
    ids=["header-only", "zero-bytes", "both", "no-files"],
)
def test_11_an_empty_month_replaces_the_old_one_and_says_so(project: Project, parts) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    deliver(project.put, "2024-01", parts, version="v2")
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert project.totals("2024-01") == (0, None)
    assert project.parquet_totals("2024-01") == (0, None)
    assert outcome.checks()["billing_table.not_fewer_rows"] is False
    assert project.materialize("2024-01").outcomes() == dict.fromkeys(
        outcome.outcomes(), "unchanged"
    )


def test_11_an_emptied_surplus_part_counts_nothing(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1"), b"", []])
    project.load("2024-01")
    assert project.totals("2024-01") == (1, 1)


def test_29_a_load_that_fails_in_its_middle_leaves_the_old_month_readable(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    good = [line_item("2024-01", lineItem__UsageStartDate="2024-01-01T00:00:00Z")] * 300_000
    bad = line_item("2024-01", lineItem__UsageStartDate="yesterday")
    deliver(project.put, "2024-01", [good, [*good[:5], bad]], version="v2")
    error = project.materialize("2024-01").error
    assert "acme-cur-00002.csv.gz, line 7, column \"lineItem/UsageStartDate\": 'yesterday'" in error
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)
    assert project.query("SELECT manifest_id, state FROM finops_state.manifests") == [
        ("v1", "loaded")
    ]


def test_30_a_rerun_of_the_same_version_does_nothing(project: Project, s3: S3Server) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.load("2024-01")
    written = project.parquet("2024-01").stat().st_mtime_ns
    s3.requests.clear()
    outcome = project.materialize("2024-01")
    assert outcome.outcomes() == {
        "manifest": "unchanged",
        "staged_files": "unchanged",
        "billing_table": "unchanged",
        "parquet": "unchanged",
    }
    assert [method for method, _ in s3.requests] == ["GET", "HEAD"]
    assert project.parquet("2024-01").stat().st_mtime_ns == written
    assert project.query("SELECT count(*) FROM finops_state.manifests") == [(1,)]


def test_18_a_zip_is_read_like_any_other_file(project: Project) -> None:
    deliver(
        project.put, "2024-01", [zipped(csv_bytes(items("2024-01", "0.0000008")))], suffix="zip"
    )
    project.load("2024-01")
    assert project.totals("2024-01") == (1, Decimal("0.0000008"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: body[:-30], "the ZIP is damaged"),
        (lambda body: body[:70] + bytes([body[70] ^ 1]) + body[71:], "damaged"),
        (lambda body: csv_bytes(items("2024-01", "2")), "the ZIP is damaged"),
    ],
    ids=["cut-short", "flipped-bit", "no-zip"],
)
def test_18_a_damaged_zip_keeps_the_old_month(project: Project, damage, reason: str) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    body = zipped(csv_bytes(items("2024-01", *map(str, range(200)))))
    deliver(project.put, "2024-01", [damage(body)], version="v2", suffix="zip")
    error = project.materialize("2024-01").error
    assert reason in error
    assert "acme-cur-00001.csv.zip" in error
    assert project.totals("2024-01") == (1, 1)
    assert not list(project.folder.rglob("*.part*"))


@pytest.mark.parametrize("body", [b"", b"\xef\xbb\xbf"], ids=["nothing", "bom-alone"])
def test_a_part_that_holds_nothing_is_left_out(project: Project, body: bytes) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1"), gzip.compress(body)])
    project.load("2024-01")
    assert project.totals("2024-01") == (1, 1)
