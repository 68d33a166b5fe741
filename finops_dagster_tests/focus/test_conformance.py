"""The charges that each mapping makes of a bill, judged by the foundation's validator."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from finops_dagster.demo.azure.export import AzureRun, write_run
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.sources.aws.data_exports import AwsFocus
from finops_dagster.sources.base import Format
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster_tests.focus.charges import good_charges
from finops_dagster_tests.focus.known_false import wrong_rules
from finops_dagster_tests.focus.native_month import NativeMonth
from finops_dagster_tests.focus.reports import IS_RECORDING, Report, digest_of
from finops_dagster_tests.focus.test_azure_usage import (
    IN_ACTUAL,
    IN_AMORTIZED,
    IN_BOTH,
    TwoBills,
    load_both,
    named,
)
from finops_dagster_tests.focus.validator import judge, needs_validator
from finops_dagster_tests.project import ROOT, Project

CHARGES = good_charges().values()
DATA = ROOT.parent / "shared/data"


def _aws(project: Project, layout: Layout, *, restated: bool = True) -> Path:
    project.export |= {"format": layout.format.partition("-")[0]}
    version = BillVersion(date(2024, 1, 1), "20240203T050312Z", rows=2_000, restated=restated)
    write_version(project.source, "", "acme-cur", version, layout=layout)
    project.load()
    return project.focus_path()


def _public_aws(project: Project) -> Path:
    bill = _public("focus_converters/aws-cur-v1.csv")
    headers = tuple(bill.decode().splitlines()[0].split(","))
    files = {"headers": headers, "with_types": False, "suffix": "gz"}
    project.deliver(gzip.compress(bill), month="2023-11", **files)
    project.load("2023-11")
    return project.focus_path("2023-11")


def _azure_focus(project: Project) -> Path:
    project.export |= {"vendor": "azure", "format": "focus"}
    del project.export["export_name"]
    submitted_at = datetime(2024, 2, 3, 5, tzinfo=UTC)
    run = AzureRun(date(2024, 1, 1), submitted_at, resources=60, restated=True)
    write_run(project.source, "", "contoso", run)
    project.load()
    return project.focus_path()


def _azure_usage(project: Project) -> Path:
    bills = TwoBills(project.folder / "lake")
    bills.derive(named(IN_BOTH | IN_ACTUAL), named(IN_BOTH | IN_AMORTIZED))
    return _only_file(bills)


def _public_azure(project: Project) -> Path:
    bill = _public("focus_converters/azure-ea-export.csv")
    return _only_file(load_both(project, bill, bill, "2023-09"))


def _focus(project: Project, bill_format: Format) -> Path:
    """Return what becomes of a file that is FOCUS, and keeps every rule already."""
    month = NativeMonth(project.folder / "lake", bill_format)
    month.derive(*({name: _text(cell) for name, cell in charge.items()} for charge in CHARGES))
    return month.path


def _text(cell: object) -> str | None:
    if cell is None or isinstance(cell, dict):
        return cell and json.dumps(cell)
    return str(cell)


def _public(path: str) -> bytes:
    """Return a real bill, which its owner published with other names in it."""
    if not DATA.is_dir():
        pytest.skip("the public bills are not in ../shared/data")
    return (DATA / path).read_bytes()


def _only_file(bills: TwoBills) -> Path:
    (path,) = (bills.lake.root / "focus").rglob("*.parquet")
    return path


BILLS: dict[str, Callable[[Project], Path]] = {
    "aws-cur1": lambda project: _aws(project, Layout("cur1")),
    "aws-cur1-public": _public_aws,
    "aws-cur2-before-the-invoice": lambda project: _aws(
        project, Layout("cur2", "parquet"), restated=False
    ),
    "aws-focus": lambda project: _focus(project, AwsFocus()),
    "aws-focus-demo": lambda project: _aws(project, Layout("focus-1.2")),
    "azure-focus": _azure_focus,
    "azure-usage": _azure_usage,
    "azure-usage-public": _public_azure,
    "focus-files": lambda project: _focus(project, FocusFilesFormat()),
}
"""Functions that make charges of a bill in a project, and return their file."""

QUICK = {"aws-cur1", "azure-focus", "azure-usage"}


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.thorough) for name in BILLS
    ]
)
def bill(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def charges(bill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the bill's charges. The fixture `project` would have no mapping."""
    monkeypatch.chdir(tmp_path)
    return BILLS[bill](Project(tmp_path))


def test_recorded_report(bill: str, charges: Path) -> None:
    """No rule failed but known false ones when the same charges were judged."""
    report = Report.read(bill)
    assert (report.digest, report.charges) == digest_of(charges), (
        "the charges differ from those that were judged; reports.py says how to record a report"
    )
    assert wrong_rules(charges, report.judgment) == {}


@needs_validator
@pytest.mark.thorough
def test_judgment(bill: str, charges: Path, tmp_path: Path) -> None:
    """No rule fails but known false ones, each on the charges that its reason holds of."""
    report = Report.of(charges, judge(charges, tmp_path / "judgment"))
    assert wrong_rules(charges, report.judgment) == {}
    if IS_RECORDING:
        report.record(bill)
    assert report == Report.read(bill)


def test_each_bill_has_a_report() -> None:
    folder = Path(__file__).parent / "reports"
    assert {path.stem for path in folder.iterdir()} == BILLS.keys()
