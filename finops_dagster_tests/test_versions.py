"""A version is the vendor's id, the list of files, and their bytes; never a mix of two."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import duckdb
import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import read_record
from finops_dagster.tables import ledger
from finops_dagster_tests.cur import Put, csv_bytes, deliver, items, zipped
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

UNCHANGED = dict.fromkeys(["manifest", "staged_files", "billing_table", "parquet"], "unchanged")
OTHER = re.compile(r"v1\+[0-9a-f]{8}")


@pytest.fixture(params=["folder", "s3"])
def put(request: pytest.FixtureRequest, project: Project) -> Put:
    """Puts into a folder or a bucket that the project's export reads."""
    if request.param == "folder":
        return project.put
    return request.getfixturevalue("bucket_put")


@pytest.fixture
def bucket_put(project: Project, s3: S3Server, bucket: str) -> Put:
    """Puts into a bucket that the project's export reads."""
    client = s3.client()
    project.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
    return lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)


def part(*costs: str) -> bytes:
    """A file whose size depends on nothing but the length of its text."""
    return gzip.compress(csv_bytes(items("2024-01", *costs)), 0, mtime=0)


def january(put: Put, *parts: bytes) -> list[str]:
    """Deliver these files as version `v1`."""
    return deliver(put, "2024-01", parts, version="v1")


def loads(project: Project) -> list[tuple[Any, ...]]:
    """Every load that was ever committed."""
    return project.query("SELECT manifest_id, row_count FROM finops_state.runs ORDER BY ALL")


def states(project: Project) -> list[tuple[Any, ...]]:
    """Every version that the ledger has, in the order of the loads."""
    return project.query(
        "SELECT manifest_id, state FROM finops_state.manifests ORDER BY load_number"
    )


@pytest.mark.parametrize(
    ("others", "totals"),
    [
        ([part("1"), part("7")], (2, 8)),
        ([part("5")], (1, 5)),
        ([part("1", "1")], (2, 2)),
        ([], (0, None)),
    ],
    ids=["another-file", "other-bytes-of-the-same-size", "another-size", "no-files"],
)
def test_other_files_under_the_same_id_are_a_new_version(
    project: Project, put: Put, others: list[bytes], totals: tuple[int, int | None]
) -> None:
    january(put, part("1"))
    assert project.load("2024-01").data_versions() == {"v1"}
    january(put, *others)
    outcome = project.load("2024-01")
    (version,) = outcome.data_versions() - {"v1"}
    assert OTHER.fullmatch(version)
    assert project.totals("2024-01") == project.parquet_totals("2024-01") == totals
    for stage in ("staged_files", "billing_table", "parquet"):
        assert outcome.metadata(stage)["manifest_id"] == version
    assert (
        f"other files were delivered under the id v1; these are version {version}"
        in (outcome.metadata("staged_files")["warnings"])
    )
    header, *_ = outcome.metadata("billing_table")["restatement"].splitlines()
    assert header.replace("`", "") == f"| | v1 | {version} | change |"
    assert states(project) == [("v1", "superseded"), (version, "loaded")]
    footer = read_record(project.parquet("2024-01"))
    assert footer is not None
    assert footer.manifest_id == version
    assert project.load("2024-01").outcomes() == UNCHANGED
    assert project.load("2024-01", force=True).data_versions() == {"v1", version}
    assert len(loads(project)) == 3


def test_going_back_to_the_first_files_is_the_first_version_again(
    project: Project, put: Put
) -> None:
    for costs in ("1", "5", "7", "1", "5"):
        january(put, part(costs))
        project.load("2024-01")
    versions = [version for version, _ in states(project)]
    assert len(versions) == 3
    assert versions[-2] == "v1"
    assert versions[-1] != versions[0]
    assert project.totals("2024-01") == (1, 5)
    assert len(loads(project)) == 5


def test_a_copy_with_other_times_is_the_same_version(project: Project) -> None:
    keys = january(project.put, part("1"), part("2"))
    project.load("2024-01")
    written = project.parquet("2024-01").stat().st_mtime_ns
    for key in keys:
        os.utime(project.source / key, (0, 0))
    outcome = project.load("2024-01")
    assert outcome.outcomes() == UNCHANGED
    assert outcome.metadata("staged_files")["bytes_fetched"] > 0
    assert (
        "the files have other ETags than before; their bytes are v1's"
        in (outcome.metadata("staged_files")["warnings"])
    )
    again = project.load("2024-01")
    assert again.outcomes() == UNCHANGED
    assert again.metadata("staged_files")["bytes_fetched"] == 0
    assert loads(project) == [("v1", 2)]
    assert project.parquet("2024-01").stat().st_mtime_ns == written


def test_a_copied_bucket_with_multipart_etags_and_another_prefix_is_the_same_version(
    project: Project, bucket_put: Put, s3: S3Server, bucket: str
) -> None:
    client = s3.client()

    def put_in_parts(key: str, body: bytes) -> None:
        target = {"Bucket": bucket, "Key": key}
        upload_id = client.create_multipart_upload(**target)["UploadId"]
        etag = client.upload_part(**target, UploadId=upload_id, PartNumber=1, Body=body)["ETag"]
        client.complete_multipart_upload(
            **target,
            UploadId=upload_id,
            MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]},
        )

    source = project.export["source"]
    project.export["source"] = f"{source}/original"
    parts = [part("1"), part("2")]
    deliver(bucket_put, "2024-01", parts, version="v1", prefix="original")
    project.load("2024-01")
    shutil.rmtree(project.folder / "data/staging")
    project.export["source"] = f"{source}/copy/of/it"
    deliver(put_in_parts, "2024-01", parts, version="v1", prefix="copy/of/it")
    outcome = project.load("2024-01")
    assert outcome.outcomes() == {**UNCHANGED, "manifest": "read"}
    assert outcome.metadata("staged_files")["bytes_fetched"] > 0
    s3.requests.clear()
    assert project.load("2024-01").outcomes() == UNCHANGED
    assert sorted(method for method, _ in s3.requests) == ["GET", "HEAD", "HEAD"]
    assert loads(project) == [("v1", 2)]


def as_before_files_were_kept(project: Project) -> None:
    """Make the ledger that earlier releases made, and no staged files."""
    shutil.rmtree(project.folder / "data/staging")
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute("ALTER TABLE finops_state.manifests DROP COLUMN files")
        connection.execute("ALTER TABLE finops_state.manifests DROP COLUMN load_number")


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_a_month_from_before_files_were_kept_is_completed_and_not_loaded_again(
    project: Project, suffix: str
) -> None:
    rows = csv_bytes(items("2024-01", "1", "2"))
    body = zipped(rows) if suffix == "zip" else gzip.compress(rows)
    of_gzip = len(gzip.compress(rows))  # which earlier releases made of a ZIP, and kept the size of
    (key,) = deliver(project.put, "2024-01", [body], version="v1", suffix=suffix)
    project.load("2024-01")
    as_before_files_were_kept(project)
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute("UPDATE finops_state.manifests SET byte_count = ?", [of_gzip])
    outcome = project.load("2024-01")
    assert outcome.outcomes() == {**UNCHANGED, "manifest": "read"}
    assert outcome.metadata("staged_files")["bytes_fetched"] == 0
    ((files,),) = project.query("SELECT files FROM finops_state.manifests")
    assert [(file["name"], file["size"]) for file in files] == [(key.split("/")[-1], len(body))]
    assert len(loads(project)) == 1


def test_a_month_from_before_files_were_kept_with_other_sizes_is_a_new_version(
    project: Project,
) -> None:
    january(project.put, part("1"))
    project.load("2024-01")
    as_before_files_were_kept(project)
    january(project.put, part("10"))
    assert OTHER.fullmatch(project.load("2024-01").metadata("parquet")["manifest_id"])


@pytest.mark.parametrize(("cost", "is_same"), [("1", True), ("5", False)])
def test_a_month_without_checksums_is_compared_by_rows_and_cost_under_other_etags(
    project: Project, cost: str, is_same: bool
) -> None:
    january(project.put, part("1"))
    project.load("2024-01")
    as_before_files_were_kept(project)
    project.load("2024-01")
    (key,) = january(project.put, part(cost))
    os.utime(project.source / key, (0, 0))
    version = project.load("2024-01").metadata("parquet")["manifest_id"]
    assert (version == "v1") is is_same
    assert len(loads(project)) == (1 if is_same else 2)
    ((files,),) = project.query("SELECT files FROM finops_state.manifests WHERE state = 'loaded'")
    assert files[0]["sha256"] is not None


def test_a_lost_database_knows_the_first_files_by_the_lake(project: Project) -> None:
    january(project.put, part("1"))
    project.load("2024-01")
    project.database_file.unlink()
    january(project.put, part("5"))
    version = project.load("2024-01").metadata("parquet")["manifest_id"]
    assert OTHER.fullmatch(version)
    project.database_file.unlink()
    shutil.rmtree(project.folder / "data/staging")
    assert project.load("2024-01").metadata("parquet")["manifest_id"] == version


def test_files_that_are_gone_do_not_fail_a_month_that_is_loaded(project: Project) -> None:
    keys = january(project.put, part("1"))
    project.load("2024-01")
    (project.source / keys[0]).unlink()
    outcome = project.load("2024-01")
    assert outcome.outcomes() == UNCHANGED
    assert (
        "though the manifest lists it; v1 stays as it was fetched before"
        in outcome.metadata("staged_files")["warnings"]
    )
    january(project.put, part("5"), part("6"))
    (project.source / keys[0]).unlink()
    error = project.materialize("2024-01").error
    assert "though the manifest lists it; the month was left as it was" in error


def test_a_run_that_was_killed_goes_on_and_never_mixes_two_contents(project: Project) -> None:
    keys = january(project.put, part("1"), part("2"))
    project.load("2024-01")
    keys = january(project.put, part("5"), part("6")[:-9])
    assert "cut short" in project.materialize("2024-01").error
    assert project.totals("2024-01") == (2, 3)
    whole = part("6")
    project.put(keys[1], whole)
    outcome = project.load("2024-01")
    assert outcome.metadata("staged_files")["bytes_fetched"] == len(whole)
    assert project.totals("2024-01") == (2, 11)


def overwriting(put: Put, version: str, *parts: bytes) -> list[str]:
    """Deliver a version into the folder that every version is written to."""
    changes = {"assemblyId": version}
    return deliver(put, "2024-01", parts, version="current", changes=changes)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_version_that_is_half_overwritten_is_refused_and_the_next_is_loaded(
    project: Project, is_loaded: bool
) -> None:
    first, second = overwriting(project.put, "v1", part("1"), part("20"))
    if is_loaded:
        project.load("2024-01")
    project.put(first, part("100", "11"))
    times = {first: 90, second: -3600}
    manifest = next(project.source.glob("acme-cur/*/acme-cur-Manifest.json"))
    for key, seconds in times.items():
        when = manifest.stat().st_mtime + seconds
        os.utime(project.source / key, (when, when))
    error = project.materialize("2024-01").error
    assert (
        f"{project.source / first} is newer than its manifest by 2 minutes: the vendor is" in error
    )
    assert "set copied = true" in error
    if is_loaded:
        assert project.totals("2024-01") == (2, 21)
    overwriting(project.put, "v2", part("100", "11"))
    project.load("2024-01")
    assert project.totals("2024-01") == (2, 111)


def test_what_was_written_with_its_manifest_is_no_overwriting(project: Project) -> None:
    first, _ = overwriting(project.put, "v1", part("1"), part("20"))
    manifest = next(project.source.glob("acme-cur/*/acme-cur-Manifest.json"))
    when = manifest.stat().st_mtime + 59
    os.utime(project.source / first, (when, when))
    assert project.load("2024-01").success


def test_a_bucket_that_is_overwritten_is_refused_by_the_times_of_the_store(
    project: Project, bucket_put: Put, s3: S3Server
) -> None:
    first, _ = overwriting(bucket_put, "v1", part("1"), part("20"))
    later = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)

    def overwritten_later(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [header for header in headers if header[0].lower() != "last-modified"]
            return start_response(status, [*kept, ("Last-Modified", later)], *more)

        return s3.serve(environ, start) if environ["PATH_INFO"].endswith(first) else None

    s3.fault = overwritten_later
    assert "is newer than its manifest by 2.0 hours" in project.materialize("2024-01").error
    project.export["copied"] = True
    outcome = project.load("2024-01")
    assert project.totals("2024-01") == (2, 21)
    assert (
        "copied = true: that all files are of one version is known by their number alone"
        in (outcome.metadata("staged_files")["warnings"])
    )


def test_a_part_that_is_overwritten_during_the_download_is_refused(
    project: Project, bucket_put: Put, s3: S3Server
) -> None:
    overwriting(bucket_put, "v1", part("1"), part("20"))
    project.load("2024-01")
    _, second = overwriting(bucket_put, "v2", part("5"), part("60"))

    def overwrite_before_it_is_read(environ: Any, start_response: Any) -> None:
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(second):
            s3.fault = None
            bucket_put(second, part("77"))

    s3.fault = overwrite_before_it_is_read
    assert "changed while it was read; run the month again" in project.materialize("2024-01").error
    assert project.totals("2024-01") == (2, 21)


def test_a_copy_whose_keys_name_the_version_needs_no_setting(project: Project) -> None:
    (key,) = january(project.put, part("1"))
    when = datetime.now(UTC).timestamp() + 7200
    os.utime(project.source / key, (when, when))
    assert "warnings" not in project.load("2024-01").metadata("staged_files")


def test_every_command_knows_that_an_id_may_have_several_contents(
    project: Project, finops: Finops
) -> None:
    january(project.put, part("1"))
    assert finops.here("aws", "run-pipeline").exit_code == 0
    january(project.put, part("5"))
    (planned,) = finops.json("aws", "run-pipeline", "--dry-run")
    would_run = "manifest, staged_files; and the rest if its files are others"
    assert would_run in planned.values()
    line = finops.here("aws", "run-pipeline").stdout
    version = OTHER.search(line)
    assert version is not None, line
    (planned,) = finops.json("aws", "run-pipeline", "--dry-run")
    assert {"nothing: unchanged", version[0]} <= set(planned.values())
    assert finops.json("state", "list", "--stale") == []
    (found,) = finops.json("aws", "discover-manifests")
    assert (found["version"], found["loaded"]) == ("v1", "yes")
    (listed,) = finops.json("state", "list")
    assert (listed["manifest"], listed["parquet"]) == ("v1", version[0])
    (progress,) = json.loads(finops.here("state", "report", "--format", "json").stdout)["progress"]
    assert progress["complete"] == 1
    assert finops.here("state", "verify").exit_code == 0


@pytest.mark.thorough
def test_files_and_the_order_of_loads_move_to_another_machine(
    project: Project, finops: Finops
) -> None:
    for cost in ("1", "5", "1"):
        january(project.put, part(cost))
        assert finops.here("aws", "run-pipeline").exit_code == 0
    recorded = (
        "SELECT manifest_id, state, files, load_number FROM finops_state.manifests ORDER BY ALL"
    )
    before = project.query(recorded)
    assert max((row[3], row[0], row[1]) for row in before) == (3, "v1", "loaded")
    assert finops.here("state", "export", "state.json").exit_code == 0
    shutil.rmtree(project.folder / ".dagster")
    shutil.rmtree(project.folder / "data/staging")
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute("DELETE FROM finops_state.manifests")
    assert finops.here("state", "import", "state.json").exit_code == 0
    assert project.query(recorded) == before
    assert "unchanged" in finops.here("aws", "run-pipeline").stdout


def test_a_document_of_an_earlier_release_is_imported(project: Project, finops: Finops) -> None:
    for version, cost in {"v1": "1", "v2": "5"}.items():
        deliver(project.put, "2024-01", [part(cost)], version=version)
        assert finops.here("aws", "run-pipeline").exit_code == 0
    assert finops.here("state", "export", "state.json").exit_code == 0
    document = json.loads((project.folder / "state.json").read_text())
    for version in document["exports"][0]["versions"]:
        del version["load_number"], version["content"]
    (project.folder / "state.json").write_text(json.dumps(document))
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute("DELETE FROM finops_state.manifests")
    assert finops.here("state", "import", "state.json").exit_code == 0
    assert states(project) == [("v1", "superseded"), ("v2", "loaded")]


def test_the_order_of_versions_is_that_of_the_loads_and_not_of_the_clock(project: Project) -> None:
    for version in ("v1", "v2"):
        deliver(project.put, "2024-01", [part("1")], version=version)
        project.load("2024-01")
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute(
            "UPDATE finops_state.manifests SET loaded_at = TIMESTAMP '2100-01-01' "
            "WHERE manifest_id = 'v1'"
        )
        found = [one.manifest_id for one in ledger.loads(connection, "acme")]
    assert found == ["v2", "v1"]
    deliver(project.put, "2024-01", [part("1", "1")], version="v3")
    project.load("2024-01")
    with duckdb.connect(str(project.database_file)) as connection:
        before = ledger.superseded(connection, "acme", BillingMonth(2024, 1))
    assert before is not None
    assert before.manifest_id == "v2"
