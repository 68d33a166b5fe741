"""`finops config discover` finds Azure's exports, and prints settings that can be pasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores
from finops_dagster.settings import load_settings
from finops_dagster.sources.azure.settings import AzureExport
from finops_dagster.sources.azure.source import AzureSource
from finops_dagster_tests.azure import ENROLMENT, Run, costs, deliver
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project


def found(finops: Finops, source: Path) -> dict[str, tuple[str, str, str, tuple[str, ...]]]:
    """Return format, source, first month and names of each export that the command prints.

    Every export has a run of its first month.
    """
    result = finops.run("config", "discover", str(source))
    assert result.exit_code == 0, result.output
    file = finops.project.folder / "pasted.toml"
    file.write_text(result.stdout)
    exports = {}
    for export in load_settings(file).exports:
        assert isinstance(export, AzureExport)
        month = BillingMonth.parse(export.start_month)
        manifest = AzureSource(export, ObjectStores()).newest_manifests([month])[month]
        assert isinstance(manifest, Manifest)
        place = export.source.removeprefix(f"file://{finops.project.source}").strip("/")
        exports[export.name] = (export.format, place, export.start_month, export.export_names)
    return exports


def test_exports_of_one_scope_and_dataset_are_one_block(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, Run(month, export="contoso-focus-daily"), costs("1", month=month))
    deliver(project.put, Run("2023-12", export="contoso-focus-last", number=2), costs("1"))
    deliver(project.put, Run(export="contoso-actual", dataset="ActualCost"), costs("1"))
    deliver(project.put, Run(export="prices", dataset="PriceSheet"), costs("1"))
    expected = {
        "contoso-focus": ("focus", "exports", "2023-12", ()),
        "contoso-actual": ("actual", "exports", "2024-01", ()),
    }
    assert found(finops, project.source) == expected
    assert found(finops, project.source / "exports") == expected


@pytest.mark.parametrize("layout", ["run times", "dates first", "dates first, run ids"])
def test_exports_of_two_scopes_are_named(project: Project, finops: Finops, layout: str) -> None:
    deliver(project.put, Run(export="a", layout=layout), costs("1"))
    deliver(project.put, Run("2024-02", export="b", scope=ENROLMENT, layout=layout), costs("1"))
    assert found(finops, project.source) == {
        "a": ("focus", "exports", "2024-01", ("a",)),
        "b": ("focus", "exports", "2024-02", ("b",)),
    }


def test_the_folder_of_one_export_may_be_searched(project: Project, finops: Finops) -> None:
    deliver(project.put, Run(export="a"), costs("1"))
    deliver(project.put, Run(export="b", scope=ENROLMENT), costs("1"))
    assert found(finops, project.source / "exports/a") == {
        "a": ("focus", "exports/a", "2024-01", ())
    }


def test_an_export_whose_dataset_is_not_said_needs_a_format(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, Run(export="old", manifest="2021-01-01"), costs("1"))
    output = finops("config", "discover", str(project.source))
    assert "manifest.json does not say its dataset; set the format" in output
    assert 'name = "old"' in output
    assert "format =" not in output


def test_exports_of_aws_are_not_taken_for_azures(project: Project, finops: Finops) -> None:
    folder = "cur/acme/20240101-20240201"
    project.put(f"{folder}/acme-00001.csv.gz", b"x")
    project.put(f"{folder}/acme-Manifest.json", b"{}")
    output = finops("config", "discover", str(project.source))
    assert output.count("[[exports]]") == 1
    assert 'vendor = "aws"' in output
