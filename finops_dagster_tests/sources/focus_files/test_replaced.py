"""Folders of months, of which the newest files count."""

from __future__ import annotations

import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.errors import ManifestInvalid, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.project import Project, requested_months
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.sources.focus_files.deliveries import (
    charges,
    costs,
    csv_bytes,
    load,
    use_bucket,
    use_focus_files,
)

JANUARY = BillingMonth(2026, 1)


@pytest.fixture
def project(project: Project) -> Project:
    return use_focus_files(project, "replaced")


def put(project: Project, path: str, month: str, *values: str) -> None:
    project.put(f"oracle/{path}", csv_bytes(charges(month, *values)))


@pytest.mark.parametrize(
    "folder",
    [
        "2026-01",
        "202601",
        "2026_01",
        "20260101-20260131",
        "20260101-20260201",
        "2026-01-01_2026-02-01",
        "2026/01",
        "2026/1",
        "2026/2026-01",
        "billing_period=2026-01",
        "BILLING_PERIOD=2026-01-01",
        "year=2026/month=1",
        "year=2026/month=01",
    ],
)
def test_a_folder_of_a_month_is_found_however_it_is_spelled(project: Project, folder: str) -> None:
    put(project, f"{folder}/run-7/part-0.csv", "2026-01", "1")
    found = [month for month, m in project.available_versions().items() if isinstance(m, Manifest)]
    assert found == [JANUARY]


@pytest.mark.parametrize(
    "folder", ["2026-13", "20260115-20260320", "2026", "archive/2026-01", "month=1"]
)
def test_a_folder_that_names_no_month_is_none(project: Project, folder: str) -> None:
    put(project, f"{folder}/part-0.csv", "2026-01", "1")
    missing = project.available_versions()[JANUARY]
    assert isinstance(missing, ManifestMissing)
    assert "has no folder of a month (2026-01, 202601" in str(missing)


def test_a_missing_month_names_those_that_exist(project: Project) -> None:
    put(project, "2026-02/part-0.csv", "2026-02", "1")
    missing = str(project.available_versions()[JANUARY])
    assert missing.startswith("oracle has no 2026-01: ") and missing.endswith(
        "has files of 2026-02; wait for the provider"
    )


@pytest.mark.parametrize(
    ("older", "newer"),
    [("202602010312", "202602020312"), ("run=2026-02-01T03:12:00Z", "run=2026-02-01T15:12:00Z")],
)
def test_of_folders_named_by_times_only_the_newest_counts(
    project: Project, older: str, newer: str
) -> None:
    put(project, f"2026-01/{older}/part-0.csv", "2026-01", "1", "2")
    put(project, f"2026-01/{newer}/a/part-0.csv", "2026-01", "4")
    put(project, f"2026-01/{newer}/b/part-0.csv", "2026-01", "8")
    load(project, "2026-01")
    assert costs(project, "2026-01") == [4, 8]


def test_two_folders_of_one_month_are_refused_with_both_names(project: Project) -> None:
    put(project, "2026-01/part-0.csv", "2026-01", "1")
    put(project, "20260101-20260131/part-0.csv", "2026-01", "1")
    put(project, "2026-02/part-0.csv", "2026-02", "1")
    error = project.available_versions()[JANUARY]
    assert isinstance(error, ManifestInvalid)
    assert "oracle/2026-01 and " in str(error) and "oracle/20260101-20260131;" in str(error)
    assert set(requested_months(project.tick(sensor="oracle_manifests"))) == {"2026-01", "2026-02"}
    assert load(project, "2026-02").success


def test_a_month_is_loaded_with_the_spelling_of_its_columns(project: Project) -> None:
    rows = charges("2026-01", "0.123456789012345678", "-1E-7", Provider="Oracle")
    project.put("oracle/2026-01/a.csv", csv_bytes(rows))
    project.put("oracle/2026-01/b/b.csv", csv_bytes(charges("2026-01", "2.50")))
    for other in ("_SUCCESS", ".b.csv.crc", "manifest.json", "_temporary/0/a.csv"):
        project.put(f"oracle/2026-01/{other}", b"not a bill")
    run = load(project, "2026-01")
    assert costs(project, "2026-01") == [
        Decimal("-1E-7"),
        Decimal("0.123456789012345678"),
        Decimal("2.50"),
    ]
    query = (
        "SELECT DISTINCT provider, region, servicesubcategory, usagequantity, contractedcost, "
        "oci_referencenumber, tags['team'], billingperiodstart::DATE::TEXT FROM oracle_focus"
    )
    expected = ("Oracle", "us-phoenix-1", "Virtual Machines", 8, None, "V2.abc", "web")
    assert project.query(query) == [(*expected, "2026-01-01")]
    assert run.metadata("manifest")["files"] == 2
    assert "final" not in run.metadata("billing_table")
    assert set(load(project, "2026-01").outcomes().values()) == {"unchanged"}


def test_a_month_is_final_where_every_cost_has_an_invoice(project: Project) -> None:
    project.put("oracle/2026-01/a.csv", csv_bytes(charges("2026-01", "1", InvoiceId="7")))
    assert load(project, "2026-01").metadata("billing_table")["final"] is True


def test_a_month_restated_with_fewer_files_is_replaced(
    project: Project, s3: S3Server, bucket: str
) -> None:
    use_bucket(project, s3, bucket)
    for name, cost in (("a", "1"), ("b", "2"), ("c", "4")):
        put(project, f"2026-01/{name}.csv", "2026-01", cost)
    first = project.tick(sensor="oracle_manifests")
    assert requested_months(first) == ["2026-01"]
    load(project, "2026-01")
    assert requested_months(project.tick(first.cursor, "oracle_manifests")) == []
    s3.client().delete_object(Bucket=bucket, Key="oracle/2026-01/b.csv")
    put(project, "2026-01/c.csv", "2026-01", "8")
    second = project.tick(first.cursor, "oracle_manifests")
    assert requested_months(second) == ["2026-01"]
    metadata = load(project, "2026-01").metadata("billing_table")
    assert costs(project, "2026-01") == [1, 8]
    assert (metadata["rows_changed"], metadata["cost_changed"]) == (-1, 2)
    assert requested_months(project.tick(second.cursor, "oracle_manifests")) == []


def test_a_file_that_is_staged_already_is_not_downloaded_again(
    project: Project, s3: S3Server, bucket: str
) -> None:
    use_bucket(project, s3, bucket)
    for name, cost in (("a", "1"), ("b", "2"), ("c", "4")):
        put(project, f"2026-01/{name}.csv", "2026-01", cost)
    load(project, "2026-01")
    put(project, "2026-01/c.csv", "2026-01", "8")
    (staged,) = project.folder.glob("data/staging/oracle/2026-01/*/b.csv")
    staged.write_bytes(staged.read_bytes().replace(b",2,", b",3,"))  # a damaged copy is not taken
    s3.requests.clear()
    load(project, "2026-01")
    downloads = [path for method, path in s3.requests if method == "GET" and path.endswith(".csv")]
    assert sorted(path.rpartition("/")[2] for path in downloads) == ["b.csv", "c.csv"]
    assert costs(project, "2026-01") == [1, 2, 8]


def test_a_folder_that_changes_while_it_is_fetched_is_refused(
    project: Project, s3: S3Server, bucket: str
) -> None:
    use_bucket(project, s3, bucket)
    put(project, "2026-01/a.csv", "2026-01", "1")
    load(project, "2026-01")
    put(project, "2026-01/a.csv", "2026-01", "2")

    def add_file(environ: dict[str, str], _: object) -> None:
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith("a.csv"):
            s3.fault = None
            put(project, "2026-01/b.csv", "2026-01", "4")

    s3.fault = add_file
    error = project.materialize("2026-01", export="oracle").error
    assert "oracle/2026-01 has changed since 2026-01 was listed: the vendor is writing" in error
    assert costs(project, "2026-01") == [1]
    load(project, "2026-01")
    assert costs(project, "2026-01") == [2, 4]


def test_a_later_folder_that_comes_after_the_manifest_is_the_next_version(
    project: Project,
) -> None:
    """The files of the manifest are not missing: the month must only be run again."""
    put(project, "2026-01/202602010312/part-0.csv", "2026-01", "1")
    project.load("2026-01", export="oracle", stages=["manifest"])
    put(project, "2026-01/202602020312/part-0.csv", "2026-01", "2")
    run = project.materialize("2026-01", export="oracle", stages=["staged_files"])
    assert "the vendor is writing the next version; run the month again" in run.error
    load(project, "2026-01")
    assert costs(project, "2026-01") == [2]


def test_parquet_and_csv_may_stand_side_by_side_whatever_their_names(project: Project) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(charges("2026-01", "3")), sink)
    project.put("oracle/2026-01/data", sink.getvalue())
    put(project, "2026-01/parquet", "2026-01", "4")
    load(project, "2026-01")
    assert costs(project, "2026-01") == [3, 4]


def test_a_file_of_another_month_is_refused(project: Project) -> None:
    put(project, "2026-01/a.csv", "2026-02", "3")
    assert "1 row of another billing month" in project.materialize("2026-01", export="oracle").error


def test_a_file_without_focus_columns_is_refused_by_name(project: Project) -> None:
    project.put("oracle/2026-01/report.csv", b"Product,Amount\nVM,1\n")
    error = project.materialize("2026-01", export="oracle").error
    assert "report.csv: no column gives billedcost, the cost of the month" in error
    assert "Product, Amount" in error
