"""Oracle's daily files: never changed, adding up, with rows of several months."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from finops_dagster.billing.errors import ManifestInvalid, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, UNCHANGED, Project, requested_months
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.sources.focus_files.deliveries import (
    charges,
    costs,
    csv_bytes,
    daily_key,
    deliver_day,
    load,
    use_bucket,
    use_focus_files,
)

JANUARY, FEBRUARY, MARCH = (BillingMonth(2026, number) for number in (1, 2, 3))
SENSOR = "oracle_manifests"


@pytest.fixture
def project(project: Project) -> Project:
    return use_focus_files(project, "incremental")


@pytest.fixture
def in_bucket(project: Project, s3: S3Server, bucket: str) -> S3Server:
    use_bucket(project, s3, bucket)
    return s3


def deliver_two_months(project: Project) -> None:
    """Deliver a file of January, one of both months, and one of February."""
    deliver_day(project, "2026-01-31", charges("2026-01", "1", "2"))
    deliver_day(project, "2026-02-01", [*charges("2026-01", "4"), *charges("2026-02", "8")])
    deliver_day(project, "2026-02-02", charges("2026-02", "16"))


def versions(project: Project) -> dict[str, str]:
    """Return the version of each month that the source has."""
    return {
        str(month): manifest.id
        for month, manifest in project.available_versions().items()
        if isinstance(manifest, Manifest)
    }


def downloads(s3: S3Server) -> list[str]:
    return [path for method, path in s3.requests if method == "GET" and path.endswith(".gz")]


def forget(project: Project, *folders: str) -> None:
    for folder in folders:
        shutil.rmtree(project.folder / "data" / folder, ignore_errors=True)


def test_a_file_of_two_months_counts_once_in_each(project: Project) -> None:
    deliver_two_months(project)
    january = load(project, "2026-01")
    load(project, "2026-02")
    assert costs(project, "2026-01") == [1, 2, 4]
    assert costs(project, "2026-02") == [8, 16]
    assert january.metadata("staged_files")["files"] == 2
    assert january.metadata("staged_files")["rows"] == 3
    assert load(project, "2026-01").outcomes() == UNCHANGED
    missing = project.available_versions()[MARCH]
    assert isinstance(missing, ManifestMissing)
    assert "oracle has no 2026-03: none of the 3 files below" in str(missing)


def test_a_new_file_changes_the_months_that_it_holds_and_no_other(
    project: Project, in_bucket: S3Server
) -> None:
    deliver_two_months(project)
    first = project.tick(sensor=SENSOR)
    assert requested_months(first) == ["2026-02", "2026-01"]
    for month in ("2026-01", "2026-02"):
        load(project, month)
    before = versions(project)
    second = project.tick(first.cursor, SENSOR)
    assert requested_months(second) == []
    deliver_day(project, "2026-02-03", charges("2026-02", "32"))
    third = project.tick(second.cursor, SENSOR)
    assert requested_months(third) == ["2026-02"]
    assert versions(project)["2026-01"] == before["2026-01"]
    metadata = load(project, "2026-02").metadata("billing_table")
    assert (metadata["rows_changed"], metadata["cost_changed"]) == (1, 32)
    assert costs(project, "2026-02") == [8, 16, 32]
    assert requested_months(project.tick(third.cursor, SENSOR)) == []
    # Corrections of an older month come late, in another day's folder.
    deliver_day(project, "2026-03-09", charges("2026-01", "-2", oci_BackReferenceNumber="V2.abc"))
    assert requested_months(project.tick(third.cursor, SENSOR)) == ["2026-01"]
    load(project, "2026-01")
    assert costs(project, "2026-01") == [-2, 1, 2, 4]


@pytest.mark.thorough
def test_a_known_file_is_not_read_again(project: Project, in_bucket: S3Server) -> None:
    deliver_two_months(project)
    project.tick(sensor=SENSOR)
    assert len(downloads(in_bucket)) == 3
    for month in ("2026-01", "2026-02"):
        load(project, month)
    assert len(downloads(in_bucket)) == 3  # the copies that were read are staged
    # Those that all their months have are no longer needed.
    versions(project)
    names = {path.name for path in project.folder.glob("data/staging/oracle/shared/*")}
    assert names == {".lock", "months.json", "staged.jsonl"}
    in_bucket.requests.clear()
    project.tick(sensor=SENSOR)
    assert [method for method, _ in in_bucket.requests] == ["GET"]  # one listing
    deliver_day(project, "2026-02-03", charges("2026-02", "32"))
    for month in ("2026-01", "2026-02"):
        load(project, month)
    assert [path.rpartition("/")[2] for path in downloads(in_bucket)] == [
        daily_key("2026-02-03").rpartition("/")[2]
    ]


def test_cleanup_deletes_the_copies_that_no_month_has_staged(
    project: Project, in_bucket: S3Server, finops: Finops
) -> None:
    deliver_two_months(project)
    before = versions(project)
    lines = "".join(f'{key} = "{value}"\n' for key, value in project.export.items())
    (project.folder / "finops.toml").write_text(f"[[exports]]\n{lines}")
    deleted = finops.json("state", "cleanup", "--older-than", "0h")
    assert [row["what"] for row in deleted] == ["staged files"] * 3
    in_bucket.requests.clear()
    assert versions(project) == before
    assert not downloads(in_bucket)


@pytest.mark.thorough
def test_the_commands_of_the_vendor_read_what_is_recorded(
    project: Project, in_bucket: S3Server, finops: Finops
) -> None:
    deliver_two_months(project)
    for month in ("2026-01", "2026-02"):
        load(project, month)
    lines = "".join(f'{key} = "{value}"\n' for key, value in project.export.items())
    (project.folder / "finops.toml").write_text(f"[[exports]]\n{lines}")
    in_bucket.requests.clear()
    rows = finops.json("focus-files", "discover-manifests")
    assert [(row["month"], row["files"], row["loaded"]) for row in rows] == [
        ("2026-02", 2, "yes"),
        ("2026-01", 2, "yes"),
    ]
    assert "1 month" not in finops("config", "check")
    assert not downloads(in_bucket)


@pytest.mark.thorough
def test_a_backfill_downloads_each_file_once_also_where_runs_begin_together(
    project: Project, in_bucket: S3Server
) -> None:
    project.export |= {"start_month": "2023-01", "end_month": "2025-12"}
    months = [str(month) for month in project.first_export().months()]
    for month in months:
        later = str(BillingMonth.parse(month).next)
        deliver_day(project, f"{later}-01", [*charges(month, "1"), *charges(later, "2")])
    in_bucket.requests.clear()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: versions(project), range(2))
    assert first == second and sorted(first) == months
    assert len(downloads(in_bucket)) == len(months) == 36
    for month in months[:2]:
        load(project, month)
    assert len(downloads(in_bucket)) == 36
    assert costs(project, months[1]) == [1, 2]


@pytest.mark.parametrize("kept", ["lake", "ledger"])
@pytest.mark.quick("lake")
def test_months_are_remembered_when_staging_folder_and_index_are_lost(
    project: Project, in_bucket: S3Server, kept: str
) -> None:
    deliver_two_months(project)
    for month in ("2026-01", "2026-02"):
        load(project, month)
    before = versions(project)
    forget(project, "staging", *(["parquet"] if kept == "ledger" else []))
    in_bucket.requests.clear()
    assert versions(project) == before
    assert not downloads(in_bucket)


@pytest.mark.thorough
def test_a_deleted_file_is_no_restatement(project: Project) -> None:
    deliver_two_months(project)
    assert load(project, "2026-01").checks()["manifest.files_still_available"]
    before = versions(project)
    forget(project, "staging")
    (project.source / daily_key("2026-01-31")).unlink()
    assert versions(project) == before
    run = load(project, "2026-01")
    assert {**run.outcomes(), "manifest": "unchanged"} == UNCHANGED
    assert run.checks()["manifest.files_still_available"] is False
    assert "FOCUS Reports/2026/01/31/" in run.check_descriptions()["files_still_available"]
    assert costs(project, "2026-01") == [1, 2, 4]


@pytest.mark.thorough
def test_a_new_version_keeps_the_rows_of_a_deleted_file_or_is_refused(
    project: Project, in_bucket: S3Server, bucket: str
) -> None:
    deliver_two_months(project)
    load(project, "2026-01")
    in_bucket.client().delete_object(Bucket=bucket, Key=daily_key("2026-01-31"))
    deliver_day(project, "2026-02-03", charges("2026-01", "32"))
    load(project, "2026-01")  # from the staged copy
    assert costs(project, "2026-01") == [1, 2, 4, 32]
    forget(project, "staging")
    deliver_day(project, "2026-02-04", charges("2026-01", "64"))
    error = project.materialize("2026-01", export="oracle").error
    assert "2026/01/31/" in error and "2026-01 has rows of this file, and no copy" in error
    assert costs(project, "2026-01") == [1, 2, 4, 32]
    deliver_day(project, "2026-01-31", charges("2026-01", "1", "2"))
    load(project, "2026-01")
    assert costs(project, "2026-01") == [1, 2, 4, 32, 64]


@pytest.mark.thorough
def test_a_deleted_file_survives_a_forced_run_by_its_staged_copy(project: Project) -> None:
    deliver_two_months(project)
    load(project, "2026-01")
    (project.source / daily_key("2026-01-31")).unlink()
    load(project, "2026-01", force=True)
    assert costs(project, "2026-01") == [1, 2, 4]


@pytest.mark.thorough
def test_a_version_that_lacks_a_loaded_file_is_refused_where_its_record_was_lost(
    project: Project,
) -> None:
    deliver_two_months(project)
    load(project, "2026-01", stages=["manifest", "staged_files", "billing_table"])
    forget(project, "staging")
    (project.source / daily_key("2026-01-31")).unlink()
    project.execute("UPDATE finops_state.manifests SET state = 'lost'")
    stages = ["manifest", "staged_files"]
    load(project, "2026-01", stages=stages)
    project.execute("UPDATE finops_state.manifests SET state = 'loaded'")
    error = project.materialize("2026-01", export="oracle", stages=["billing_table"]).error
    assert "lacks FOCUS Reports/2026/01/31/" in error
    assert costs(project, "2026-01") == [1, 2, 4]


@pytest.mark.thorough
def test_a_file_with_other_bytes_restates_the_months_that_it_held_and_holds(
    project: Project,
) -> None:
    deliver_two_months(project)
    for month in ("2026-01", "2026-02"):
        load(project, month)
    before = versions(project)
    deliver_day(project, "2026-02-01", [*charges("2026-02", "8"), *charges("2026-03", "128")])
    assert {
        month for month, version in versions(project).items() if version != before.get(month)
    } == {"2026-01", "2026-02", "2026-03"}
    warning = load(project, "2026-01").metadata("manifest")["warnings"]
    assert "were changed after they were loaded: FOCUS Reports/2026/02/01/" in warning
    assert "2026-01 is restated" in warning
    assert costs(project, "2026-01") == [1, 2]
    load(project, "2026-03")
    assert costs(project, "2026-03") == [128]
    assert "warnings" not in load(project, "2026-01").metadata("manifest")


@pytest.mark.thorough
def test_a_copied_bucket_with_other_etags_has_the_same_versions(project: Project) -> None:
    deliver_two_months(project)
    load(project, "2026-01")
    before = versions(project)
    copy = project.folder / "copy"
    shutil.copytree(project.source / "oracle", copy)
    for path in copy.rglob("*.gz"):
        path.touch()
    project.export["source"] = f"file://{copy}"
    assert versions(project) == before
    assert load(project, "2026-01").outcomes()["billing_table"] == "unchanged"


def test_a_row_without_a_period_is_refused_with_file_and_line(project: Project) -> None:
    deliver_two_months(project)
    load(project, "2026-01")
    rows = [*charges("2026-02", "1"), *charges("2026-02", "2", BillingPeriodStart="")]
    deliver_day(project, "2026-02-03", rows)
    error = project.materialize("2026-02", export="oracle").error
    assert f"{daily_key('2026-02-03')}, line 3: the row has no BillingPeriodStart" in error
    assert "to load the month, repair the file or move it away" in error
    # January has nothing new, and stays as it is.
    assert isinstance(project.available_versions()[JANUARY], Manifest)
    assert load(project, "2026-01").outcomes() == UNCHANGED


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (gzip.compress(csv_bytes(charges("2026-02", "1")))[:-9], "the gzip data is cut short"),
        (gzip.compress(b"Product,Amount\nVM,1\n"), "no column gives billingperiodstart"),
        (
            gzip.compress(csv_bytes(charges("2026-02", "1", BillingPeriodStart="soon"))),
            'line 2, column "BillingP',
        ),
    ],
    ids=["damaged", "no-focus", "no-date"],
)
@pytest.mark.thorough
def test_while_a_file_cannot_be_read_no_month_gets_a_new_version(
    project: Project, body: bytes, message: str
) -> None:
    deliver_two_months(project)
    load(project, "2026-01")
    project.put(daily_key("2026-03-01"), body)
    available = project.available_versions()
    assert isinstance(available[JANUARY], Manifest)
    for month in (FEBRUARY, MARCH):
        error = available[month]
        assert isinstance(error, ManifestInvalid)
        assert daily_key("2026-03-01") in str(error) and message in str(error)
    (project.source / daily_key("2026-03-01")).unlink()
    load(project, "2026-02")
    assert costs(project, "2026-02") == [8, 16]


@pytest.mark.thorough
def test_hostile_names_are_only_names(project: Project, in_bucket: S3Server) -> None:
    body = csv_bytes(charges("2026-01", "1"))
    names = [
        "x..y",
        "'; DROP TABLE x; --.csv",
        "$(touch x)/\u202egnp.csv",
        "a?*[b].csv",
        "日本",
    ]
    for name in names:
        project.put(f"oracle/{name}", body)
    load(project, "2026-01")
    assert costs(project, "2026-01") == [1] * len(names)
    assert load(project, "2026-01").outcomes() == UNCHANGED


def test_empty_files_and_files_without_rows_hold_no_month(project: Project) -> None:
    deliver_two_months(project)
    before = versions(project)
    header, _, _ = csv_bytes(charges("2026-01", "1")).partition(b"\n")
    project.put(daily_key("2026-02-05"), b"")
    project.put(daily_key("2026-02-06"), gzip.compress(b""))
    project.put(daily_key("2026-02-07"), gzip.compress(header + b"\n"))
    assert versions(project) == before


def test_oracle_rows_of_the_sample_of_the_specification_load_exactly(project: Project) -> None:
    sample = ROOT / "../shared/data/focus_sample/focus_sample.csv"
    if not sample.exists():
        pytest.skip("../shared/data has FOCUS's sample data, and is not part of the project")
    with sample.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["ProviderName"] == "Oracle"]
    assert len(rows) == 7
    expected: dict[str, list[Decimal]] = defaultdict(list)
    by_day: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        expected[row["BillingPeriodStart"][:7]].append(Decimal(row["BilledCost"]))
        by_day[row["ChargePeriodEnd"][:10]].append(row)
    for day, day_rows in by_day.items():
        deliver_day(project, day, day_rows)
    project.export |= {"start_month": "2024-09", "end_month": "2024-10"}
    for month, month_costs in expected.items():
        load(project, month)
        assert costs(project, month) == sorted(month_costs)
    assert set(expected) == {"2024-09", "2024-10"}
    assert project.query("SELECT DISTINCT contractedcost, providername FROM oracle_focus") == [
        (None, "Oracle")
    ]
