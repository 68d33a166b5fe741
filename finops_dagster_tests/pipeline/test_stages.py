"""Each stage works from the data of the previous one alone."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import dagster as dg
import duckdb
import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.build import build_resources
from finops_dagster.pipeline.manifest import newest_manifest
from finops_dagster.pipeline.staged_files import MonthStaging, StagingResult
from finops_dagster_tests.cur import Put, csv_bytes, line_items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import UNCHANGED, MonthRun, Project
from finops_dagster_tests.servers.s3 import S3Server

HOLD_DATABASE = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
)


def versions(outcome: MonthRun) -> dict[str, str]:
    """Return the version of each stage."""
    return {stage: outcome.metadata(stage)["manifest_id"] for stage in outcome.outcomes()}


def test_stages_after_the_download_need_no_vendor(project: Project) -> None:
    project.database = {
        "backend": "duckdb",
        "duckdb": {"warehouse_path": str(project.folder / "warehouse.duckdb")},
    }
    project.deliver("1", "2")
    project.load(stages=["manifest", "staged_files"])
    shutil.rmtree(project.source)
    for stage in ("billing_table", "parquet", "warehouse_table"):
        for force in (False, True):
            outcome = project.load(stages=[stage], force=force)
            assert versions(outcome) == {stage: "v1"}
            assert all(outcome.checks().values())
    assert project.totals() == project.parquet_totals() == (2, 3)


def test_records_beside_staged_files_keep_the_keys_that_earlier_releases_wrote(
    project: Project,
) -> None:
    project.deliver("1")
    project.load()
    (path,) = Path("data/staging").rglob("version.json")
    (record,) = json.loads(path.read_text())
    keys = "manifest_id totals format files bytes content vendor_id rounded"
    assert set(record) >= set(keys.split())
    assert record["files"] == 1 and record["bytes"] > 0
    manifest = json.loads(path.with_name("manifest.json").read_text())
    assert set(manifest) >= {"format", "month", "id", "source", "columns", "files"}


def test_two_months_download_while_a_third_has_the_database_open(
    project: Project, s3: S3Server, put_in_bucket: Put
) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
    export, resources = project.first_export(), build_resources(project.settings())
    both_download = Barrier(2)

    def wait_for_other_download(environ: dict[str, Any], _: object) -> None:
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".csv.gz"):
            both_download.wait(timeout=60)

    def stage(text: str) -> StagingResult:
        month = BillingMonth.parse(text)
        source = project.source_of(export)
        manifest, staged = (
            newest_manifest(source, month),
            resources.staging.staged_month("acme", month),
        )
        staged.write_manifest(manifest)
        files = MonthStaging(export, manifest, staged, None, resources.database.duckdb)
        return files.download_and_count(source, force=False)

    s3.fault = wait_for_other_download
    command = [sys.executable, "-c", HOLD_DATABASE, str(project.database_file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as third:
        assert third.stdout is not None
        assert third.stdout.readline() == "held\n"
        with ThreadPoolExecutor() as pool:
            staged = list(pool.map(stage, ["2024-01", "2024-02"]))
        third.kill()
    assert [result.outcome for result in staged] == ["staged", "staged"]
    assert [result.version.totals.rows for result in staged] == [1, 1]


@pytest.mark.parametrize("is_in_lake", [True, False], ids=["from-the-lake", "fetched-again"])
@pytest.mark.quick("from-the-lake")
def test_lost_databases_are_restored_from_the_lake_or_the_vendor(
    project: Project, is_in_lake: bool
) -> None:
    months = ["2024-01", "2024-02"]
    for month in months:
        project.deliver("0.1", "0.000000000000000002", month=month)
        project.load(month)
    before = [project.query(f"FROM {project.parquet_scan(month)}") for month in months]
    project.database_file.unlink()
    for folder in (project.folder / "data/staging/acme").glob("*/*/"):
        shutil.rmtree(folder)  # as cleanup does
    if is_in_lake:
        shutil.rmtree(project.source / "acme-cur", ignore_errors=False)
        for month in months:  # the manifests alone
            project.deliver(month=month, changes={"reportKeys": file_keys(project, month)})
    else:
        shutil.rmtree(project.folder / "data/parquet")
    for month in months:
        outcome = project.load(month)
        fetched = outcome.metadata("staged_files")["bytes_fetched"]
        assert (fetched == 0) is is_in_lake
        assert outcome.outcomes()["billing_table"] == "loaded"
        assert set(versions(outcome).values()) == {"v1"}
        assert project.load(month).outcomes() == UNCHANGED
    assert [project.query(f"FROM {project.parquet_scan(month)}") for month in months] == before


def file_keys(project: Project, month: str) -> list[str]:
    """Return the key of the month's only file."""
    period = f"{month.replace('-', '')}01-{BillingMonth.parse(month).next.first_day:%Y%m%d}"
    return [f"acme-cur/{period}/v1/acme-cur-00001.csv.gz"]


def test_a_lost_record_never_reuses_a_version_id(project: Project) -> None:
    def load(cost: str) -> dict[str, str]:
        part = gzip.compress(csv_bytes(line_items("2024-01", cost)), mtime=0)
        project.deliver(part)
        shutil.rmtree(project.folder / "data/staging", ignore_errors=True)
        shutil.rmtree(project.folder / "data/parquet", ignore_errors=True)
        return versions(project.load())

    assert load("1")["billing_table"] == "v1"
    other = load("5")
    assert other["billing_table"] == other["parquet"]
    assert other["billing_table"].startswith("v1+")
    assert project.totals() == (1, 5)
    assert load("1")["billing_table"] == "v1"
    assert load("5")["billing_table"] == other["billing_table"]


@pytest.mark.thorough
def test_older_files_are_deleted_once_the_newer_are_whole_and_cleanup_leaves_the_record(
    finops: Finops,
) -> None:
    project = finops.project
    folder = project.folder / "data/staging/acme/2024-01"
    project.deliver("1")
    project.load()
    project.deliver(line_items("2024-01", "2"), b"\x1f\x8bcut", version="v2")
    assert not project.materialize().success
    assert (folder / "v1").is_dir()
    project.deliver("2", version="v2")
    project.load(stages=["manifest", "staged_files"])
    assert [path.name for path in folder.glob("*/")] == ["v2"]
    project.load()
    finops.json("state", "cleanup", "--older-than", "0d")
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "manifest.json",
        "version.json",
    ]
    assert project.load().outcomes() == UNCHANGED


@pytest.mark.parametrize("stage", ["manifest", "staged_files", "billing_table"])
@pytest.mark.quick("billing_table")
def test_a_run_fails_if_another_has_loaded_a_newer_version(project: Project, stage: str) -> None:
    project.deliver("1")
    definitions, run_id = project.definitions(), "11111111-1111-1111-1111-111111111111"

    def overtake(event: dg.EventLogEntry) -> None:
        materialization = event.asset_materialization
        if materialization is not None and materialization.asset_key.path[-1] == stage:
            project.deliver("2", "3", version="v2")
            project.load()

    project.instance.add_event_listener(run_id, overtake)
    outcome = MonthRun(
        definitions.resolve_job_def("acme_month").execute_in_process(
            partition_key="2024-01", instance=project.instance, run_id=run_id, raise_on_error=False
        )
    )
    assert outcome.error == (
        "version v1 is no longer the month's newest: another run has staged v2 since this run "
        "began; nothing needs to be done, unless that run fails; the lake keeps version v2"
    )
    next_stage = {"staged_files": "billing_table", "billing_table": "parquet"}.get(stage)
    failed = [name for name, passed in outcome.checks().items() if not passed]
    assert failed == ([] if next_stage is None else [f"{next_stage}.reconciles"])
    assert project.totals() == project.parquet_totals() == (2, 5)
    assert project.load().outcomes() == UNCHANGED


def test_column_names_of_a_lost_database_come_from_the_lake(project: Project) -> None:
    def header(name: str, month: str) -> list[str]:
        headers = (*line_items(month, "1")[0], f"resourceTags/user:{name}")
        project.deliver("1", month=month, headers=headers)
        project.load(month)
        connection: duckdb.DuckDBPyConnection
        with duckdb.connect(str(project.database_file)) as connection:
            described = connection.execute("DESCRIBE aws_billing_data").fetchall()
        return [row[0] for row in described if row[0].startswith("resourcetags")]

    (team,) = header("Team", "2024-01")
    project.database_file.unlink()
    assert header("team", "2024-02")[0] != team
    assert Path(project.parquet_path()).exists()


@pytest.mark.thorough
def test_an_invalid_amount_is_one_line_of_output(project: Project, finops: Finops) -> None:
    project.deliver("1", "12.3.4")
    process = finops.start("aws", "run-pipeline")
    output, errors = process.communicate()
    assert (process.returncode, errors) == (1, "")
    assert output.count("\n") == 1
    assert "line 3, column \"lineItem/UnblendedCost\": '12.3.4' cannot be kept exactly" in output
