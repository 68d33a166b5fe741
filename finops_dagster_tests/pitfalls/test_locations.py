"""Where the files of a month are, what else is there, and which rows belong to the month."""

from __future__ import annotations

import pytest

from finops_dagster_tests.cur import line_item, line_items
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server


@pytest.mark.parametrize("prefix", ["", "cur", "a/b c/d", "/cur"])
@pytest.mark.parametrize("export_name", ["acme-cur", "x.*+(1)'!"])
def test_prefixes_and_export_names_are_taken_literally(
    project: Project, prefix: str, export_name: str
) -> None:
    project.export["source"] += f"/{prefix}"
    project.export["export_name"] = export_name
    project.deliver("1", prefix=prefix, export_name=export_name)
    project.load()
    assert project.totals() == (1, 1)


def test_files_of_a_replicated_bucket_are_read_beside_the_manifest(project: Project) -> None:
    """S3 replication copies the manifest as it is, with bucket and prefix of the original."""
    project.deliver("1", bucket="the-original", manifest_prefix="original/prefix/")
    project.load()
    assert project.totals() == (1, 1)


def test_two_exports_of_one_month_do_not_touch_each_other(project: Project) -> None:
    project.add_export(name="beta", export_name="b", table="beta")
    project.deliver("1")
    project.deliver("2", export_name="b")
    assert project.materialize().success
    assert project.materialize(export="beta").success
    assert project.totals() == (1, 1)
    assert project.query("SELECT lineitem_unblendedcost FROM beta") == [(2,)]


def test_a_table_with_months_of_another_export_is_refused(project: Project) -> None:
    project.deliver("1")
    project.load()
    project.export |= {"name": "other"}
    error = project.materialize(export="other").error
    assert "table aws_billing_data already has months of the export 'acme'" in error
    assert project.totals() == (1, 1)


def test_other_manifests_in_the_months_folder_are_ignored(project: Project) -> None:
    """AWS keeps a manifest in each version's folder, and one for Redshift beside the newest."""
    project.deliver("1")
    folder = "acme-cur/20240101-20240201"
    project.put(f"{folder}/acme-cur-RedshiftManifest.json", b'{"entries": []}')
    project.put(f"{folder}/v0/acme-cur-Manifest.json", b"{}")
    project.put(f"{folder}/zz-Manifest.json", b"{}")
    project.load()
    assert project.totals() == (1, 1)


def test_the_folder_of_december_ends_in_january(project: Project) -> None:
    keys = project.deliver("1", month="2023-12")
    assert "/20231201-20240101/" in keys[0]
    project.load("2023-12")
    assert project.totals("2023-12") == (1, 1)


def test_rows_used_outside_the_month_belong_to_the_month_of_their_bill(
    project: Project,
) -> None:
    """AWS bills a refund in the month in which it is granted."""
    refund = line_item("2024-01", lineItem__UsageStartDate="2023-11-30T23:00:00Z")
    project.deliver([refund])
    project.load()
    assert project.totals() == (1, 1)


def test_rows_billed_in_another_month_fail_the_load_and_keep_the_month(
    project: Project,
) -> None:
    run = project.load_refused_version("2024-01", line_items("2024-02", "2"))
    assert run.checks() == {
        "manifest.manifest_is_fresh": True,
        "billing_table.reconciles": False,
    }
    assert (
        "table aws_billing_data has 1 row of another billing month (2024-02); run finops state "
        "reprocess" in run.error
    )


@pytest.mark.thorough
def test_old_versions_beside_the_manifest_are_never_listed(project: Project, s3: S3Server) -> None:
    """A report that keeps its versions has thousands of their files beside the manifest."""
    folder = "cur/acme-cur/20240101-20240201"
    for number in range(1100):
        project.put(f"{folder}/old{number:04}/acme-cur-1.csv.gz", b"x")
    (key,) = project.deliver("1", prefix="cur")
    bucket = project.export["source"].removeprefix("s3://")
    project.export["source"] += "/cur"
    s3.requests.clear()
    project.load()
    assert s3.requests == [
        ("GET", f"/{bucket}/{folder}/acme-cur-Manifest.json"),
        ("HEAD", f"/{bucket}/{key}"),
        ("GET", f"/{bucket}/{key}"),
    ]
