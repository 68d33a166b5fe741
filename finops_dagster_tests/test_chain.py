"""The chain of one export, used as a person would."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline.build import build_resources
from finops_dagster_tests.cur import HEADERS, csv_bytes, deliver, items, line_item
from finops_dagster_tests.project import Project

UNCHANGED = dict.fromkeys(["manifest", "staged_files", "billing_table", "parquet"], "unchanged")


def test_every_stage_tells_the_same_totals_and_version(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "0.1", "0.02"), items("2024-01", "3")])
    outcome = project.materialize("2024-01")
    assert outcome.success
    assert outcome.data_versions() == {"20240301T000000Z"}
    for stage, rows in {
        "staged_files": "rows",
        "billing_table": "dagster/partition_row_count",
        "parquet": "dagster/partition_row_count",
    }.items():
        metadata = outcome.metadata(stage)
        assert (metadata[rows], metadata["total_cost_exact"]) == (3, "3.12")
    assert outcome.metadata("staged_files")["files"] == 2
    assert outcome.metadata("manifest")["columns"] == len(HEADERS)
    assert all(outcome.checks().values())


def test_the_ledger_says_what_was_loaded(project: Project) -> None:
    keys = deliver(project.put, "2024-01", [items("2024-01", "0.1", "0.02")])
    project.materialize("2024-01")
    size = sum((project.source / key).stat().st_size for key in keys)
    ((export, month, version, table, rows, cost, files, bytes_, run_id, state, content),) = (
        project.query(
            "SELECT export, billing_month, manifest_id, table_name, row_count, total_cost, "
            "file_count, byte_count, run_id, state, files FROM finops_state.manifests"
        )
    )
    assert (export, str(month), version, table) == (
        "acme",
        "2024-01-01",
        "20240301T000000Z",
        "aws_billing_data",
    )
    assert (rows, cost, files, bytes_, state) == (2, Decimal("0.12"), 1, size, "loaded")
    assert len(run_id) == 36
    (file,) = content
    body = (project.source / keys[0]).read_bytes()
    assert (file["name"], file["size"]) == ("acme-cur-00001.csv.gz", size)
    assert file["sha256"] == hashlib.sha256(body).hexdigest()


def test_column_types_are_the_same_in_table_and_parquet(project: Project) -> None:
    headers = (*HEADERS, "resourceTags/user:Cost Center", "costCategory/Team")
    deliver(
        project.put,
        "2024-01",
        [[line_item("2024-01", **{"resourceTags__user:Cost Center": "0042"})]],
        headers=headers,
        types={"resourceTags/user:Cost Center": "BigDecimal", "costCategory/Team": "DateTime"},
    )
    assert project.materialize("2024-01").success
    expected = [
        ("billing_month", "DATE"),
        ("manifest_id", "VARCHAR"),
        ("identity_lineitemid", "VARCHAR"),
        ("bill_payeraccountid", "VARCHAR"),
        ("bill_billingperiodstartdate", "TIMESTAMP"),
        ("lineitem_usagestartdate", "TIMESTAMP"),
        ("lineitem_productcode", "VARCHAR"),
        ("lineitem_lineitemdescription", "VARCHAR"),
        ("lineitem_unblendedcost", "DECIMAL(38,18)"),
        ("resourcetags_user_cost_center", "VARCHAR"),
        ("costcategory_team", "VARCHAR"),
    ]
    assert [row[:2] for row in project.query("DESCRIBE aws_billing_data")] == expected
    lake = f"read_parquet('{project.parquet('2024-01')}', hive_partitioning = false)"
    assert [row[:2] for row in duckdb.sql(f"DESCRIBE FROM {lake}").fetchall()] == expected
    assert project.column("resourcetags_user_cost_center", "2024-01") == ["0042"]


def test_parquet_is_zstd_and_says_which_version_it_is(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "0.25")])
    project.materialize("2024-01")
    metadata = pq.read_metadata(project.parquet("2024-01"))
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert metadata.metadata[b"manifest_id"] == b"20240301T000000Z"
    assert Decimal(metadata.metadata[b"total_cost"].decode()) == Decimal("0.25")
    assert [p.name for p in project.parquet("2024-01").parent.iterdir()] == ["acme-2024-01.parquet"]


def test_offsets_of_timestamps_are_honoured(project: Project) -> None:
    times = ["2024-01-02T00:00:00Z", "2024-01-02 00:00:00.000", "2024-01-02T01:00:00+01:00"]
    rows = [line_item("2024-01", lineItem__UsageStartDate=time) for time in times]
    deliver(project.put, "2024-01", [rows])
    assert project.materialize("2024-01").success
    assert {str(t) for t in project.column("lineitem_usagestartdate", "2024-01")} == {
        "2024-01-02 00:00:00"
    }


def test_months_stand_beside_each_other(project: Project) -> None:
    for month, cost in {"2023-12": "1", "2024-01": "2", "2024-02": "4"}.items():
        deliver(project.put, month, [items(month, cost)])
        assert project.materialize(month).success
    deliver(project.put, "2024-01", [items("2024-01", "8")], version="v2")
    assert project.materialize("2024-01").success
    totals = {month: project.totals(month) for month in ("2023-12", "2024-01", "2024-02")}
    assert totals == {"2023-12": (1, 1), "2024-01": (1, 8), "2024-02": (1, 4)}


def test_a_month_without_a_manifest_fails_and_says_so(project: Project) -> None:
    error = project.materialize("2024-01").error
    assert "acme has no manifest of 2024-01" in error
    assert "acme-cur/20240101-20240201/acme-cur-Manifest.json" in error


def test_an_unchanged_month_needs_no_staged_files(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    shutil.rmtree(project.folder / "data/staging")
    shutil.rmtree(project.source / "acme-cur/20240101-20240201/20240301T000000Z")
    outcome = project.materialize("2024-01")
    assert outcome.outcomes() == {**UNCHANGED, "manifest": "read"}
    assert project.materialize("2024-01").outcomes() == UNCHANGED


def test_force_does_every_stage_again(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    outcome = project.materialize("2024-01", force=True)
    assert outcome.success
    assert outcome.outcomes() == {
        "manifest": "unchanged",
        "staged_files": "staged",
        "billing_table": "loaded",
        "parquet": "exported",
    }
    assert outcome.metadata("staged_files")["bytes_fetched"] > 0
    assert project.totals("2024-01") == (1, 1)


def test_rows_taken_out_of_the_table_are_noticed_and_loaded_again(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", "2")])
    project.materialize("2024-01")
    with duckdb.connect("data/finops.duckdb") as connection:
        connection.execute("DELETE FROM aws_billing_data WHERE lineitem_unblendedcost = 2")
    outcome = project.materialize("2024-01")
    assert outcome.outcomes() == {**UNCHANGED, "billing_table": "loaded"}
    assert project.totals("2024-01") == (2, 3)


@pytest.mark.parametrize(
    ("damage", "outcome"),
    [
        (lambda p: p.unlink(), "exported"),
        (lambda p: p.write_bytes(b"PAR1"), "exported again, as the file was damaged"),
    ],
)
def test_a_lost_or_damaged_parquet_file_is_written_again(
    project: Project, damage, outcome: str
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    damage(project.parquet("2024-01"))
    again = project.materialize("2024-01")
    assert again.outcomes() == {**UNCHANGED, "parquet": outcome}
    assert project.parquet_totals("2024-01") == (1, 1)


def test_a_lost_database_is_made_again(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    project.materialize("2024-01")
    (project.folder / "data/finops.duckdb").unlink()
    outcome = project.materialize("2024-01")
    assert outcome.outcomes() == {**UNCHANGED, "billing_table": "loaded"}
    assert project.totals("2024-01") == (1, 1)


def test_a_staged_file_that_was_changed_is_fetched_again(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.materialize("2024-01")
    (project.folder / "data/finops.duckdb").unlink()
    (staged,) = project.folder.glob("data/staging/acme/2024-01/v1/*.csv.gz")
    tampered = gzip.compress(csv_bytes(items("2024-01", "9")))
    staged.write_bytes(tampered.ljust(staged.stat().st_size, b"\0")[: staged.stat().st_size])
    outcome = project.materialize("2024-01")
    assert outcome.metadata("staged_files")["bytes_fetched"] > 0
    assert project.totals("2024-01") == (1, 1)


def test_files_that_arrived_before_a_failure_are_not_fetched_again(project: Project) -> None:
    keys = deliver(project.put, "2024-01", [items("2024-01", "1"), items("2024-01", "2")])
    second = (project.source / keys[1]).read_bytes()
    (project.source / keys[1]).write_bytes(second[:-9])
    assert "cut short" in project.materialize("2024-01").error
    (project.source / keys[1]).write_bytes(second)
    outcome = project.materialize("2024-01")
    assert outcome.metadata("staged_files")["bytes_fetched"] == len(second)
    assert project.totals("2024-01") == (2, 3)


def test_a_log_line_that_was_cut_by_a_crash_is_passed_over(project: Project) -> None:
    parts = [items("2024-01", "1"), items("2024-01", "2")]
    deliver(project.put, "2024-01", parts, version="v1")
    first = project.load("2024-01", stages=["manifest", "staged_files"]).metadata("staged_files")
    (log,) = project.folder.glob("data/staging/acme/2024-01/v1/staged.jsonl")
    log.write_text(log.read_text()[:-5])
    again = project.load("2024-01").metadata("staged_files")
    assert 0 < again["bytes_fetched"] < first["bytes_fetched"]
    assert project.totals("2024-01") == (2, 3)


def test_a_count_is_not_believed_when_a_file_came_after_it(project: Project) -> None:
    keys = deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    assert project.materialize("2024-01", stages=["manifest", "staged_files"]).success
    month = BillingMonth(2024, 1)
    project.put(keys[0], gzip.compress(csv_bytes(items("2024-01", "2"))))
    staged = build_resources(project.settings()).staging.month("acme", month)
    manifest = staged.manifest()
    assert manifest is not None
    source = project.the_export().source(ObjectStores())
    source.fetch(manifest, source.delivery(manifest), staged.version(manifest), force=False)
    # and the process dies before it has counted
    assert project.materialize("2024-01").success
    assert project.totals("2024-01") == (1, 2)


def test_each_month_can_have_a_database_of_its_own(project: Project) -> None:
    project.database = {"duckdb": {"database_path": "data/{export}-{month}.duckdb"}}
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1")])
        assert project.materialize(month).success
        assert project.materialize(month).outcomes() == UNCHANGED
    assert sorted(path.name for path in Path("data").iterdir()) == [
        "acme-2024-01.duckdb",
        "acme-2024-02.duckdb",
        "parquet",
        "staging",
    ]


def test_costs_by_service_are_told_largest_first(project: Project) -> None:
    rows = [
        line_item("2024-01", lineItem__ProductCode=service, lineItem__UnblendedCost=cost)
        for service, cost in [("AmazonS3", "1.5"), ("AmazonEC2", "1000.25"), ("", "-0.5")]
    ]
    deliver(project.put, "2024-01", [rows])
    table = project.materialize("2024-01").metadata("billing_table")["cost_by_service"]
    assert table.splitlines()[2:] == [
        "| AmazonEC2 | 1,000.25 |",
        "| AmazonS3 | 1.50 |",
        "| `(none)` | -0.50 |",
    ]


def test_an_unusual_cost_is_noticed_but_loaded(project: Project) -> None:
    for month, cost in {"2024-01": "100", "2024-02": "151"}.items():
        deliver(project.put, month, [items(month, cost)])
    assert project.materialize("2024-01").checks()["billing_table.usual_cost"]
    outcome = project.materialize("2024-02")
    assert outcome.success
    assert not outcome.checks()["billing_table.usual_cost"]


def test_a_key_that_leads_out_of_the_folder_is_refused(project: Project) -> None:
    deliver(
        project.put,
        "2024-01",
        [items("2024-01", "1")],
        changes={"reportKeys": ["acme-cur/20240101-20240201/../../../etc/passwd"]},
    )
    assert "leads elsewhere" in project.materialize("2024-01").error


def test_a_stage_run_alone_says_what_it_misses(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    for stage, missing in {
        "staged_files": "acme/manifest",
        "billing_table": "acme/staged_files",
        "parquet": "acme/billing_table",
    }.items():
        assert f"materialize {missing}" in project.materialize("2024-01", stages=[stage]).error
    assert project.materialize("2024-01", stages=["manifest"]).success
    error = project.materialize("2024-01", stages=["billing_table"]).error
    assert "materialize acme/staged_files" in error
