"""`finops config discover` finds folders of FOCUS files, and says which layout it guessed."""

from __future__ import annotations

import gzip
import io
import tomllib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.sources.focus_files.deliveries import (
    charges,
    csv_bytes,
    deliver_day,
    load,
)


def parquet_bytes(month: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(charges(month, "3")), sink)
    return sink.getvalue()


def test_folders_of_both_layouts_become_settings_that_load(
    project: Project, finops: Finops
) -> None:
    deliver_day(project, "2026-01-31", charges("2026-01", "1"))
    deliver_day(project, "2026-02-01", charges("2026-01", "2"))
    project.put("b/billing_period=2026-02/a.parquet", parquet_bytes("2026-02"))
    project.put("b/billing_period=2026-03/b.parquet", parquet_bytes("2026-03"))
    project.put("notes/2026-01/a.csv", b"a,b\n1,2\n")
    output = finops("config", "discover", "source")
    lines = output.splitlines()
    assert "[[exports]]  # found: 2026-01 to 2026-02" in lines
    assert "[[exports]]  # found: 2026-02 to 2026-03" in lines
    assert sum(line.startswith("# layout: files of days, whose rows") for line in lines) == 1
    assert sum(line.startswith("# layout: a folder for each month") for line in lines) == 1
    blocks = tomllib.loads(output)["exports"]
    assert [(block["name"], block["layout"]) for block in blocks] == [
        ("b", "replaced"),
        ("FOCUS-Reports", "incremental"),
    ]
    project.export = {**blocks[1], "name": "oracle"}
    load(project, "2026-01")
    assert project.query("SELECT sum(billedcost) FROM oracle") == [(3,)]


def test_the_search_in_a_bucket_reads_one_file_of_a_folder(
    project: Project, finops: Finops, s3: S3Server, bucket: str
) -> None:
    project.use_bucket(s3, bucket)
    for day in ("2026-01-30", "2026-01-31", "2026-02-01"):
        deliver_day(project, day, charges("2026-01", "1"))
    s3.requests.clear()
    (found,) = finops.json("config", "discover", f"s3://{bucket}", "--endpoint-url", s3.url)
    assert (found["layout"], found["months"]) == ("incremental", 2)
    assert found["source"] == f"s3://{bucket}/oracle/FOCUS Reports"
    assert sum(path.endswith(".gz") for _, path in s3.requests) == 1


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"x", mtime=0)[:12], b"PAR1", b"", b"\x1f\x8b\x00\x00"],
    ids=["cut short", "no footer", "empty", "no gzip"],
)
def test_a_folder_of_other_files_is_none(project: Project, finops: Finops, body: bytes) -> None:
    project.put("2026-01/a.csv", body)
    assert "has no cost export of" in finops("config", "discover", "source", code=1)


@pytest.mark.parametrize("folder", ["20260101-20260131", "2026-01"])
def test_folders_of_other_vendors_are_left_to_them(
    project: Project, finops: Finops, folder: str
) -> None:
    project.put(f"costs/{folder}/run/part_0.csv", csv_bytes(charges("2026-01", "1")))
    if folder == "2026-01":
        project.put(f"costs/{folder}/run/manifest.json", b"{}")
    assert "focus-files" not in finops.run("config", "discover", "source").stdout
