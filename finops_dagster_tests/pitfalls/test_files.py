"""Files that are missing, damaged, empty, in a ZIP, or changed while they are read."""

from __future__ import annotations

import gzip
from decimal import Decimal

import pytest

from finops_dagster_tests.cur import csv_bytes, line_item, line_items, zip_bytes
from finops_dagster_tests.project import UNCHANGED, Project
from finops_dagster_tests.servers.s3 import S3Server


def test_a_restatement_with_fewer_rows_and_files_leaves_no_old_rows(
    project: Project,
) -> None:
    """AWS rewrites the whole month each time, and a later version can be smaller."""
    project.deliver(line_items("2024-01", "1", "2"), line_items("2024-01", "4"))
    project.load()
    project.deliver("8", version="v2")
    run = project.load()
    assert project.totals() == project.parquet_totals() == (1, 8)
    assert project.column("manifest_id") == ["v2"]
    assert run.checks()["billing_table.not_fewer_rows"] is False
    assert project.ledger() == [("v1", "superseded"), ("v2", "loaded")]
    assert [path.name for path in project.folder.glob("data/staging/acme/2024-01/*/")] == ["v2"]


def test_a_file_replaced_during_its_download_fails_the_month(
    project: Project, s3: S3Server
) -> None:
    """An export that overwrites has the files of its next version under the same keys."""
    project.deliver("1")
    project.load()
    (key,) = project.deliver("2", version="v2")

    def replace_before_get(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(key):
            s3.fault = None
            project.put(key, gzip.compress(csv_bytes(line_items("2024-01", "3"))))

    s3.fault = replace_before_get
    assert "changed while it was read" in project.materialize().error
    assert project.totals() == (1, 1)
    assert project.materialize().success
    assert project.totals() == (1, 3)


def test_a_missing_file_keeps_the_loaded_month(project: Project) -> None:
    (key,) = project.deliver("1", version="v2")
    missing = key.replace("-00001", "-00002")
    run = project.load_refused_version(
        "2024-01", line_items("2024-01", "2"), changes={"reportKeys": [key, missing]}
    )
    assert missing in run.error
    assert "though the manifest lists it" in run.error


LONG = csv_bytes(line_items("2024-01", *map(str, range(200))))
GZIP, ZIP = gzip.compress(LONG), zip_bytes(LONG)


@pytest.mark.parametrize(
    ("body", "suffix", "reason"),
    [
        (GZIP[: len(GZIP) // 2], "gz", "cut short"),
        (GZIP[:-4], "gz", "cut short"),
        (GZIP[:60] + bytes([GZIP[60] ^ 1]) + GZIP[61:], "gz", "damaged"),
        (GZIP[:-8] + b"\1\2\3\4" + GZIP[-4:], "gz", "damaged"),
        (GZIP + b"trailing", "gz", "the gzip data is"),
        (b"identity/LineItemId\nx\n", "gz", "damaged"),
        (ZIP[:-30], "zip", "the ZIP is damaged"),
        (ZIP[:70] + bytes([ZIP[70] ^ 1]) + ZIP[71:], "zip", "damaged"),
        (LONG, "zip", "the ZIP is damaged"),
    ],
    ids="half no-trailer flipped wrong-crc trailing no-gzip cut-zip flipped-zip no-zip".split(),
)
@pytest.mark.quick("half", "wrong-crc", "trailing", "flipped-zip")
def test_a_damaged_archive_keeps_the_loaded_month(
    project: Project, body: bytes, suffix: str, reason: str
) -> None:
    error = project.load_refused_version("2024-01", body, suffix=suffix).error
    assert reason in error
    assert f"acme-cur-00001.csv.{suffix}" in error


@pytest.mark.parametrize(
    "parts",
    [[[]], [b""], [[], b""], []],
    ids=["header-only", "zero-bytes", "both", "no-files"],
)
@pytest.mark.quick("both", "no-files")
def test_an_empty_version_replaces_the_month_and_fails_the_check_not_fewer_rows(
    project: Project, parts
) -> None:
    """A month without rows is valid, and rare enough to need a look."""
    project.deliver("1")
    project.load()
    project.deliver(*parts, version="v2")
    run = project.load()
    assert project.totals() == project.parquet_totals() == (0, None)
    assert run.checks()["billing_table.not_fewer_rows"] is False
    assert project.load().outcomes() == UNCHANGED


def test_a_load_that_fails_midway_keeps_the_loaded_month(project: Project) -> None:
    good_rows = [line_item("2024-01", lineItem__UsageStartDate="2024-01-01T00:00:00Z")] * 300_000
    bad_row = line_item("2024-01", lineItem__UsageStartDate="yesterday")
    error = project.load_refused_version("2024-01", good_rows, [*good_rows[:5], bad_row]).error
    assert "acme-cur-00002.csv.gz, line 7, column \"lineItem/UsageStartDate\": 'yesterday'" in error
    assert project.ledger() == [("v1", "loaded")]


def test_running_the_same_version_again_does_nothing(project: Project, s3: S3Server) -> None:
    project.deliver("1")
    project.load()
    written = project.parquet_path().stat().st_mtime_ns
    s3.requests.clear()
    assert project.load().outcomes() == UNCHANGED
    assert [method for method, _ in s3.requests] == ["GET", "HEAD"]
    assert project.parquet_path().stat().st_mtime_ns == written
    assert project.ledger() == [("v1", "loaded")]


def test_a_zip_is_read_like_any_other_file(project: Project) -> None:
    project.deliver(zip_bytes(csv_bytes(line_items("2024-01", "0.0000008"))), suffix="zip")
    project.load()
    assert project.totals() == (1, Decimal("0.0000008"))


@pytest.mark.parametrize(
    "empty",
    [b"", [], gzip.compress(b""), gzip.compress(b"\xef\xbb\xbf")],
    ids=["zero-bytes", "header-only", "nothing", "bom-alone"],
)
def test_an_empty_file_adds_no_rows(project: Project, empty: bytes | list[dict[str, str]]) -> None:
    """Data Exports that overwrite empty the files that a smaller version no longer needs."""
    project.deliver(line_items("2024-01", "1"), empty)
    project.load()
    assert project.totals() == (1, 1)
