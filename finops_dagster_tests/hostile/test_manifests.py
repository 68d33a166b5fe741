"""Manifests with hostile names and ids: read safely, or refused before anything is fetched."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.billing.manifest import ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.staging.folder import StagedMonth
from finops_dagster.staging.gzip_check import InflationLimits
from finops_dagster_tests.cur import csv_bytes, line_items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.hostile.reading import one_line
from finops_dagster_tests.project import Project

MONTH_FOLDER = "acme-cur/20240101-20240201"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "..": (
        {"reportKeys": [f"{MONTH_FOLDER}/../../../etc/passwd"]},
        "which has a control character, or . or ..",
    ),
    "1,024 bytes": ({"reportKeys": [f"{MONTH_FOLDER}/{'ü' * 512}"]}, "File name too long"),
    "a version of two lines": ({"assemblyId": "a\nb"}, "'a\\nb' is not a usable version id"),
}
# Names that are those of other files in the staging folder, lead out of it, or collide.
NAMES = [
    *("a.csv.gz", "b/a.csv.gz", "000000", "000001.csv.gz", "staged.jsonl", ".lock", "..."),
    *("manifest.json", "a.csv.gz.part", "a.csv.gz.part.gz", "~", "a*", "a[1]", "a b", "'; --"),
    *("x" * 255, "ü" * 100, "🎉", "-rf", "C:\\x", "%2e%2e"),
]
MANIFEST = {
    "assemblyId": "v",
    "columns": [],
    "billingPeriod": {"start": "20240101T000000.000Z"},
}
SOURCE = ManifestFile(f"{MONTH_FOLDER}/acme.json", "x", "etag", datetime(2024, 2, 1, tzinfo=UTC), 1)


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_an_unusable_manifest_is_refused_and_the_month_is_kept(
    project: Project, changes: dict[str, Any], message: str
) -> None:
    project.deliver("7", version="before")
    project.load("2024-01", stages=["manifest", "staged_files", "billing_table"])
    project.deliver(version="after", changes=changes)
    outcome = project.materialize("2024-01", stages=["manifest", "staged_files", "billing_table"])
    assert message in one_line(Exception(outcome.error))
    assert project.totals() == (1, 7)


@pytest.mark.parametrize(
    "version",
    [
        "2024-02-03T04:05:06.789Z-2d3b:1",
        "../../x",
        *(
            pytest.param(version, marks=pytest.mark.thorough)
            for version in ("/etc", ".", "a b\\c", "é🎉", "manifest.json")
        ),
    ],
)
def test_a_version_with_any_id_keeps_it_and_is_staged_below_its_month(
    finops: Finops, version: str
) -> None:
    project = finops.project
    project.deliver("7", version="before")
    project.load()
    project.deliver("9", version="v", changes={"assemblyId": version})
    outcome = project.load()
    assert outcome.data_versions() == {version}
    assert project.query("SELECT DISTINCT manifest_id FROM aws_billing_data") == [(version,)]
    month = project.folder / "data/staging/acme/2024-01"
    assert [path.parent.parent for path in project.folder.rglob("staged.jsonl")] == [month]
    assert project.load().outcomes()["billing_table"] == "unchanged"
    rows = finops.json("state", "cleanup", "--older-than", "0d", "--dry-run")
    assert sum(row["what"] == "staged files" for row in rows) == 1


def test_keys_with_any_name_are_staged_as_files_of_their_own(project: Project) -> None:
    keys = [f"{MONTH_FOLDER}/20240301T000000Z/{name}" for name in NAMES]
    for number, key in enumerate(keys):
        project.put(key, gzip.compress(csv_bytes(line_items("2024-01", str(2**number)))))
    project.deliver(changes={"reportKeys": keys})
    project.load()
    assert project.totals() == (len(NAMES), 2 ** len(NAMES) - 1)
    assert project.materialize("2024-01", force=True).success


@pytest.mark.thorough
def test_a_manifest_of_100000_files_is_read(tmp_path: Path) -> None:
    keys = [f"old/{MONTH_FOLDER}/v/{number % 2}/{number:05}.csv.gz" for number in range(100_000)]
    body = json.dumps({**MANIFEST, "reportKeys": keys}).encode()
    manifest = AwsCur1().parse_manifest(body, SOURCE, BillingMonth(2024, 1))
    month = StagedMonth(tmp_path, InflationLimits(ratio=300, total=10**12))
    month.write_manifest(manifest)
    staged = month.manifest()
    assert staged == manifest
    assert len(staged.files) == len(set(month.staged_version(staged).paths)) == 100_000


def test_months_before_the_start_and_in_the_future_are_ignored(project: Project) -> None:
    for month in ("2023-12", "2024-01", "2099-01"):
        project.deliver("1", month=month)
    for folder in ("20240001-20240101", "20241301-20250101", "99991201-100000101", "x\ny"):
        project.put(f"acme-cur/{folder}/acme-cur-Manifest.json", b"no manifest")
    project.export["start_month"] = "2024-01"
    versions = project.available_versions()
    assert min(versions) == BillingMonth(2024, 1)
    assert max(versions) == BillingMonth.current()
    available = [
        month for month, version in versions.items() if not isinstance(version, ManifestMissing)
    ]
    assert available == [BillingMonth(2024, 1)]


def test_finops_loads_months_and_refuses_arguments_that_are_not_months(finops: Finops) -> None:
    for month in ("2023-12", "2024-01", "2099-01"):
        finops.project.deliver("1", month=month)
    finops.run("aws", "run-pipeline")
    (month,) = finops.json("aws", "show-state")
    assert month["month"] == "2024-01"
    arabic = "\u0661\u0662\u0663\u0664-\u0660\u0661"
    for month in ("2024-13", "2024-00", "2024", arabic, "2024-01\n", "../2024-01"):
        refused = finops.run("aws", "run-pipeline", "--start-date", month)
        assert refused.exit_code == 2
        assert "YYYY-MM" in refused.output
