"""A version is the vendor's id, the list of files, and their bytes; never a mix of two."""

import gzip
import json
import os
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.lake import FolderFile
from finops_dagster_tests.cur import Put, csv_bytes, line_items, zip_bytes
from finops_dagster_tests.finops import Finops, older_document
from finops_dagster_tests.project import UNCHANGED, Project
from finops_dagster_tests.servers.s3 import S3Server

OTHER = re.compile(r"v1\+[0-9a-f]{8}")


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.thorough)])
def anywhere(request: pytest.FixtureRequest, project: Project) -> Project:
    """Return a project whose export reads a folder, or a bucket."""
    if request.param == "s3":
        request.getfixturevalue("put_in_bucket")
    return project


def part(*costs: str) -> bytes:
    """Return a gzip file whose size depends only on the length of its text."""
    return gzip.compress(csv_bytes(line_items("2024-01", *costs)), 0, mtime=0)


def load(project: Project, *parts: bytes) -> str:
    """Deliver these files as the vendor's version v1, load them, and return the version id."""
    project.deliver(*parts)
    version: str = project.load().metadata("parquet")["manifest_id"]
    return version


def loads(project: Project) -> list[tuple[Any, ...]]:
    return project.query("SELECT manifest_id, row_count FROM finops_state.runs ORDER BY ALL")


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
@pytest.mark.quick("other-bytes-of-the-same-size", "no-files")
def test_other_files_with_the_same_vendor_id_are_a_new_version(
    anywhere: Project, others: list[bytes], totals: tuple[int, int | None]
) -> None:
    project = anywhere
    assert load(project, part("1")) == "v1"
    project.deliver(*others)
    outcome = project.load()
    (version,) = outcome.data_versions() - {"v1"}
    assert OTHER.fullmatch(version)
    assert project.totals() == project.parquet_totals() == totals
    for stage in ("staged_files", "billing_table", "parquet"):
        assert outcome.metadata(stage)["manifest_id"] == version
    warning = f"the vendor delivered other files with the id v1 before; these are version {version}"
    assert warning in outcome.metadata("staged_files")["warnings"]
    header, *_ = outcome.metadata("billing_table")["restatement"].splitlines()
    assert header.replace("`", "") == f"| service | account | v1 | {version} | change |"
    assert project.ledger() == [("v1", "superseded"), (version, "loaded")]
    footer = FolderFile(project.parquet_path()).version()
    assert footer is not None
    assert footer.manifest_id == version
    assert project.load().outcomes() == UNCHANGED
    assert project.load(force=True).data_versions() == {"v1", version}
    assert len(loads(project)) == 3


def test_the_first_files_again_are_the_first_version_again(anywhere: Project) -> None:
    v1, fives, _, again, last = (load(anywhere, part(cost)) for cost in "15715")
    assert (v1, again, last) == ("v1", "v1", fives)
    assert [version for version, _ in anywhere.ledger()][-2:] == ["v1", fives]
    assert len(anywhere.ledger()) == 3
    assert anywhere.totals() == (1, 5)
    assert len(loads(anywhere)) == 5


def test_a_copy_with_other_times_is_the_same_version(project: Project) -> None:
    keys = project.deliver(part("1"), part("2"))
    project.load()
    written = project.parquet_path().stat().st_mtime_ns
    for key, when in zip(keys, (0, time.time() + 7200), strict=True):
        os.utime(project.source / key, (when, when))
    first, again = project.load(), project.load()
    assert first.outcomes() == again.outcomes() == UNCHANGED
    metadata = first.metadata("staged_files")
    assert metadata["bytes_fetched"] > 0
    warning = "other ETags than before, but the same bytes: they are still version v1"
    assert warning in metadata["warnings"]
    assert again.metadata("staged_files")["bytes_fetched"] == 0
    assert loads(project) == [("v1", 2)]
    assert project.parquet_path().stat().st_mtime_ns == written


def test_a_copied_bucket_has_the_same_version(
    project: Project, put_in_bucket: Put, s3: S3Server, bucket: str
) -> None:
    client = s3.client()

    def put_in_parts(key: str, body: bytes) -> None:
        target = {"Bucket": bucket, "Key": key}
        target["UploadId"] = client.create_multipart_upload(**target)["UploadId"]
        etag = client.upload_part(**target, PartNumber=1, Body=body)["ETag"]
        parts = {"Parts": [{"ETag": etag, "PartNumber": 1}]}
        client.complete_multipart_upload(**target, MultipartUpload=parts)

    parts = [part("1"), part("2")]
    project.export["source"] = f"s3://{bucket}/original"
    project.deliver(*parts, prefix="original")
    project.load()
    shutil.rmtree(project.folder / "data/staging")
    project.export["source"] = f"s3://{bucket}/copy/of/it"
    project.put = put_in_parts
    project.deliver(*parts, prefix="copy/of/it")
    outcome = project.load()
    assert outcome.outcomes() == {**UNCHANGED, "manifest": "read"}
    assert outcome.metadata("staged_files")["bytes_fetched"] > 0
    s3.requests.clear()
    assert project.load().outcomes() == UNCHANGED
    assert sorted(method for method, _ in s3.requests) == ["GET", "HEAD", "HEAD"]
    assert loads(project) == [("v1", 2)]


def remove_recorded_files(project: Project) -> None:
    """Make the ledger as earlier releases did, without files, and delete the staged files."""
    shutil.rmtree(project.folder / "data/staging")
    columns = ("files", "load_number")
    project.execute(*(f"ALTER TABLE finops_state.manifests DROP COLUMN {name}" for name in columns))


@pytest.mark.parametrize("suffix", ["gz", "zip"])
@pytest.mark.quick("zip")
def test_a_load_that_was_recorded_without_files_is_completed(project: Project, suffix: str) -> None:
    rows = csv_bytes(line_items("2024-01", "1", "2"))
    body = zip_bytes(rows) if suffix == "zip" else gzip.compress(rows)
    # Earlier releases turned a ZIP into gzip, and recorded the size of that.
    gzip_size = len(gzip.compress(rows))
    (key,) = project.deliver(body, suffix=suffix)
    project.load()
    remove_recorded_files(project)
    project.execute(f"UPDATE finops_state.manifests SET byte_count = {gzip_size}")
    outcome = project.load()
    assert outcome.outcomes() == {**UNCHANGED, "manifest": "read"}
    assert outcome.metadata("staged_files")["bytes_fetched"] == 0
    ((files,),) = project.ledger("files")
    assert [(file["name"], file["size"]) for file in files] == [(Path(key).name, len(body))]
    assert len(loads(project)) == 1


@pytest.mark.parametrize(
    ("cost", "is_same"), [("1", True), ("5", False), ("10", False)], ids=["same", "cost", "size"]
)
@pytest.mark.quick("same", "cost")
def test_a_month_without_checksums_is_compared_by_its_totals(
    project: Project, cost: str, is_same: bool
) -> None:
    load(project, part("1"))
    remove_recorded_files(project)
    if cost != "10":  # the size alone tells that one apart
        project.load()
    (key,) = project.deliver(part(cost))
    os.utime(project.source / key, (0, 0))
    version = project.load().metadata("parquet")["manifest_id"]
    assert (version == "v1") is is_same
    assert is_same or OTHER.fullmatch(version)
    assert len(loads(project)) == (1 if is_same else 2)
    assert project.ledger("files")[-1][0][0]["sha256"] is not None


def test_the_lake_knows_the_version_ids_of_a_lost_database(project: Project) -> None:
    load(project, part("1"))
    project.database_file.unlink()
    version = load(project, part("5"))
    assert OTHER.fullmatch(version)
    project.database_file.unlink()
    shutil.rmtree(project.folder / "data/staging")
    assert project.load().metadata("parquet")["manifest_id"] == version


def test_a_loaded_month_survives_files_that_the_vendor_deleted(project: Project) -> None:
    (key,) = project.deliver(part("1"))
    project.load()
    (project.source / key).unlink()
    outcome = project.load()
    assert outcome.outcomes() == UNCHANGED
    warning = "though the manifest lists it; the verified copy of version v1 is used"
    assert warning in outcome.metadata("staged_files")["warnings"]
    project.deliver(part("5"), part("6"))
    (project.source / key).unlink()
    error = project.materialize().error
    assert "though the manifest lists it; wait for the vendor's next manifest, or" in error
    assert error.endswith("finops state reprocess acme 2024-01; the lake keeps version v1")


def test_a_failed_download_is_resumed_and_never_mixes_two_contents(project: Project) -> None:
    load(project, part("1"), part("2"))
    whole = part("6")
    _, key = project.deliver(part("5"), whole[:-9])
    assert "cut short" in project.materialize().error
    assert project.totals() == (2, 3)
    project.put(key, whole)
    outcome = project.load()
    assert outcome.metadata("staged_files")["bytes_fetched"] == len(whole)
    assert project.totals() == (2, 11)


def overwrite(project: Project, version: str, *parts: bytes) -> list[str]:
    """Deliver a version into the one folder that every version is written to."""
    return project.deliver(*parts, version="current", changes={"assemblyId": version})


def test_files_newer_than_their_manifest_are_an_error(
    project: Project, put_in_bucket: Put, s3: S3Server
) -> None:
    first, _ = overwrite(project, "v1", part("1"), part("20"))
    later = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)

    def overwritten_later(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [header for header in headers if header[0].lower() != "last-modified"]
            return start_response(status, [*kept, ("Last-Modified", later)], *more)

        return s3.serve(environ, start) if environ["PATH_INFO"].endswith(first) else None

    s3.fault = overwritten_later
    assert "is newer than its manifest by 2.0 hours" in project.materialize().error
    project.export["copied"] = True
    outcome = project.load()
    assert project.totals() == (2, 21)
    warning = "only their number shows that all are of one version"
    assert warning in outcome.metadata("staged_files")["warnings"]


@pytest.mark.thorough
def test_every_command_tells_contents_of_one_vendor_id_apart(
    project: Project, finops: Finops
) -> None:
    project.deliver(part("1"))
    finops("aws", "run-pipeline")
    project.deliver(part("5"))
    (planned,) = finops.json("aws", "run-pipeline", "--dry-run")
    would_run = "manifest, staged_files; the other stages if the files changed"
    assert would_run in planned.values()
    version = OTHER.search(finops("aws", "run-pipeline"))
    assert version is not None
    (planned,) = finops.json("aws", "run-pipeline", "--dry-run")
    assert {"nothing: unchanged", version[0]} <= set(planned.values())
    assert finops.json("state", "list", "--stale") == []
    (found,) = finops.json("aws", "discover-manifests")
    assert (found["version"], found["loaded"]) == ("v1", "yes")
    (listed,) = finops.json("state", "list")
    assert (listed["manifest"], listed["parquet"]) == ("v1", version[0])
    (progress,) = finops.json("state", "report")["progress"]
    assert progress["complete"] == 1
    finops("state", "verify")


@pytest.mark.thorough
def test_a_document_of_an_earlier_release_is_imported(project: Project, finops: Finops) -> None:
    for version, cost in {"v1": "1", "v2": "5"}.items():
        project.deliver(part(cost), version=version)
        finops("aws", "run-pipeline")
    finops("state", "export", "state.json")
    records = map(json.loads, Path("state.json").read_text().splitlines())
    document = older_document([*records])
    for version in document["exports"][0]["versions"]:
        del version["load_number"], version["content"]
    Path("state.json").write_text(json.dumps(document))
    project.execute("DELETE FROM finops_state.manifests")
    finops("state", "import", "state.json")
    assert project.ledger() == [("v1", "superseded"), ("v2", "loaded")]


def test_versions_are_ordered_by_load_number_and_not_by_time(project: Project) -> None:
    for version in ("v1", "v2"):
        project.deliver(part("1"), version=version)
        project.load()
    late = "UPDATE finops_state.manifests SET loaded_at = TIMESTAMP '2100-01-01' WHERE manifest_id"
    project.execute(f"{late} = 'v1'")
    project.deliver(part("1", "1"), version="v3")
    for _ in range(2):  # when it is loaded, and when it is unchanged
        metadata = project.load().metadata("billing_table")
        assert metadata["restatement"].startswith("| service | account | v2 | v3 | change |\n")
