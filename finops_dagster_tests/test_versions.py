"""A version is the vendor's id, the list of files, and their bytes; never a mix of two."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

import duckdb
import pytest

from finops_dagster.billing.footer import read_footer
from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster_tests.cur import Put, csv_bytes, deliver, items, upload, zipped
from finops_dagster_tests.project import Outcome, Project
from finops_dagster_tests.servers.s3 import S3Server

UNCHANGED = dict.fromkeys(["manifest", "staged_files", "billing_table", "parquet"], "unchanged")
OTHER = re.compile(r"v1\+[0-9a-f]{8}")


@pytest.fixture(params=["folder", "s3"])
def put(request: pytest.FixtureRequest, project: Project) -> Put:
    """Puts into a folder or a bucket that the project's export reads."""
    if request.param == "folder":
        return project.put
    s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
    return _bucket_put(project, s3, bucket)


def _bucket_put(project: Project, s3: S3Server, bucket: str) -> Put:
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
    assert header == f"| | v1 | {version} | change |"
    assert states(project) == [("v1", "superseded"), (version, "loaded")]
    footer = read_footer(project.parquet("2024-01"))
    assert footer is not None
    assert footer.manifest_id == version
    assert project.load("2024-01").outcomes() == UNCHANGED
    assert project.load("2024-01", force=True).data_versions() == {"v1", version}
    assert len(loads(project)) == 3
