"""`finops config discover` finds every layout of AWS, and prints settings that can be pasted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.object_stores import ObjectStores
from finops_dagster.settings import Settings, load_settings
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.aws.source import AwsSource
from finops_dagster_tests.cur import HEADERS, upload
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

LAYOUTS = {
    "a/b/acme-cur": Layout(),
    "a/b/acme-athena": Layout(files="parquet", overwrite=True),
    "a/acme-cur2": Layout("cur2"),
    "acme.focus": Layout("focus-1.0", overwrite=True),
    "a/acme-focus-12": Layout("focus-1.2", partition="billing_period", plain_manifest_name=True),
}


def pasted(finops: Finops, *arguments: str) -> Settings:
    """Return the settings that the command prints, read from a file of nothing else."""
    result = finops.run("config", "discover", *arguments)
    assert result.exit_code == 0, result.exception
    file = finops.project.folder / "pasted.toml"
    file.write_text(result.stdout)
    return load_settings(file)


def found_exports(settings: Settings, root: str) -> dict[str, tuple[str | None, str]]:
    """Return format and first month of each export, by its path below the root."""
    exports = [export for export in settings.exports if isinstance(export, AwsExport)]
    return {
        f"{export.source}/{export.export_name}".removeprefix(f"{root}/"): (
            export.format,
            export.start_month,
        )
        for export in exports
    }


def has_first_month(settings: Settings) -> bool:
    """Return whether each export has a manifest of its start month."""
    for export in settings.exports:
        assert isinstance(export, AwsExport)
        month = BillingMonth.parse(export.start_month)
        version = AwsSource(export, ObjectStores()).newest_manifests([month])[month]
        assert isinstance(version, Manifest), version
    return True


def write_all(folder: Path) -> None:
    for key, layout in LAYOUTS.items():
        prefix, _, name = key.rpartition("/")
        for month in (2, 3):
            version = BillVersion(date(2024, month, 1), "20240403T051544Z", rows=30)
            write_version(folder, prefix, name, version, layout=layout)
    (folder / "a/logs/2024/01").mkdir(parents=True)
    (folder / "a/logs/2024/01/x.log").write_text("no bill")
    (folder / "a/b/acme-cur/20240101-20240201").mkdir()  # without a manifest yet


ALL = {key: (layout.format.partition("-")[0], "2024-02") for key, layout in LAYOUTS.items()}


@pytest.mark.thorough
def test_every_layout_in_a_folder_is_found_without_a_settings_file(
    project: Project, finops: Finops
) -> None:
    write_all(project.source)
    (project.folder / "finops.toml").unlink()
    settings = pasted(finops, "source")
    assert found_exports(settings, f"file://{project.source}") == ALL
    assert has_first_month(settings)
    rows = json.loads(finops.run("config", "discover", "source", "--json").stdout)
    assert {(row["format"], row["months"], row["problem"]) for row in rows} == {
        (name, 2, "") for name in ("cur1", "cur2", "focus")
    }


@pytest.mark.thorough
def test_every_layout_in_a_bucket_is_found_and_no_folder_is_listed_again(
    project: Project, finops: Finops, s3: S3Server, bucket: str
) -> None:
    write_all(project.source)
    upload(
        project.source, lambda key, body: s3.client().put_object(Bucket=bucket, Key=key, Body=body)
    )
    listed: list[Any] = []

    def record(environ: dict[str, Any], _: Callable[..., Any]) -> Iterable[bytes] | None:
        query = parse_qs(environ["QUERY_STRING"])
        listed.extend([query.get("prefix")] if "list-type" in query else [])
        return None

    s3.fault = record
    store_options = ["--endpoint-url", s3.url, "--region", "us-east-1", "--requester-pays"]
    settings = pasted(finops, f"s3://{bucket}/", *store_options)
    # Once for its folders, and once for its files if it has no folders.
    assert max(Counter(map(str, listed)).values()) <= 2
    assert found_exports(settings, f"s3://{bucket}") == ALL
    assert {(export.region, export.requester_pays) for export in settings.exports} == {
        ("us-east-1", True)
    }
    assert has_first_month(settings)
    assert found_exports(
        pasted(finops, f"s3://{bucket}/a/acme-cur2", *store_options), f"s3://{bucket}"
    ) == {"a/acme-cur2": ("cur2", "2024-02")}


def test_exports_of_one_name_get_different_names_and_their_own_formats(
    project: Project, finops: Finops
) -> None:
    version = BillVersion(date(2024, 1, 1), "20240203T051544Z", rows=30)
    for layout in (Layout(), Layout("focus-1.2")):
        write_version(project.source, "x", "acme", version, layout=layout)
    write_version(project.source, "y", "acme", version, layout=Layout("cur2"))
    settings = pasted(finops, str(project.source))
    assert [(export.name, export.format) for export in settings.exports] == [
        ("acme", "cur1"),
        ("acme-2", "focus"),
        ("acme-3", "cur2"),
    ]
    assert has_first_month(settings)


def test_a_format_that_cannot_be_told_is_explained_in_a_comment(
    project: Project, finops: Finops
) -> None:
    version = BillVersion(date(2024, 1, 1), "20240203T051544Z", rows=30)
    manifest = write_version(project.source, "", "acme", version, layout=Layout("cur2"))
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**fields, "columns": []}))
    comment = (
        "Manifest.json: its columns do not show whether it is cur2 or focus (columns: none); set "
        "the format of acme\n"
    )
    assert comment in finops.run("config", "discover", "source").stdout
    assert found_exports(pasted(finops, "source"), f"file://{project.source}") == {
        "acme": (None, "2024-01")
    }
    manifest.write_text("{")
    assert "Manifest.json is not JSON: " in finops.run("config", "discover", "source").stdout
    assert pasted(finops, "source").exports[0].name == "acme"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "é\u202e", "-", "[x]", "x" * 200])
def test_a_name_of_any_characters_can_be_pasted(
    project: Project, finops: Finops, name: str
) -> None:
    project.deliver("1", export_name=name, headers=HEADERS)
    settings = pasted(finops, "source")
    assert found_exports(settings, f"file://{project.source}") == {name: ("cur1", "2024-01")}
    assert has_first_month(settings)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("source/a", "; its folders are: other, y=1; name "),
        ("nowhere", "; its folders are: none; name the folder "),
        ("ftp://x", "ftp://x: source: 'ftp://x' is not the address of a store; write s3://bucket/"),
        ("s3://arn:x", "s3://arn:x: source: 's3://arn:x' is not the ARN of an access point"),
    ],
)
def test_a_source_without_exports_is_reported_in_one_line(
    project: Project, finops: Finops, source: str, message: str
) -> None:
    for name in ("other", "y=1"):
        (project.source / "a" / name).mkdir(parents=True)
    output = finops("config", "discover", source, code=1)
    assert message in output
    assert len(output.splitlines()) == 1
