"""A report as a workbook, as CSV files and as JSON."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finops_dagster.focus.azure_usage import AZURE_USAGE
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.reports.document import Document
from finops_dagster.reports.sheets import sheets, write_csv, write_xlsx
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.reports.months import Months, charge
from finops_dagster_tests.small_mapping import small_mapping

HOSTILE = '=HYPERLINK("http://example.com","<b>größe</b> 💸")'


@pytest.fixture
def document(tmp_path: Path) -> Document:
    months = Months(tmp_path / "lake")
    months.write("2025-01", [charge("1.000000000000000001", ResourceName=HOSTILE)])
    months.write("2025-02", [charge("-12345678901.5"), charge("7", BillingCurrency="EUR")])
    return months.document()


def cells(path: Path, name: str) -> list[dict[str, Any]]:
    sheet = openpyxl.load_workbook(path)[name]
    headings, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(headings, row, strict=True)) for row in rows]


def test_a_workbook_has_numbers_and_beside_them_all_their_digits(
    document: Document, tmp_path: Path
) -> None:
    write_xlsx(document, tmp_path / "report.xlsx")
    first, second, third = cells(tmp_path / "report.xlsx", "costs")
    assert (first["month"], first["currency"], first["service"]) == ("2025-01", "USD", "Machines")
    assert (first["billed"], first["billed_exact"]) == (1, "1.000000000000000001")
    assert (second["billed"], second["billed_exact"]) == (-12345678901.5, "-12345678901.5")
    assert (third["currency"], third["effective_exact"]) == ("EUR", "7")


def test_every_sheet_is_in_the_workbook_and_in_the_folder(
    document: Document, tmp_path: Path
) -> None:
    names = [sheet.name for sheet in sheets(document)]
    write_xlsx(document, tmp_path / "report.xlsx")
    write_csv(document, tmp_path / "report")
    assert openpyxl.load_workbook(tmp_path / "report.xlsx").sheetnames == names
    assert {path.stem for path in (tmp_path / "report").iterdir()} == set(names)


def test_no_name_becomes_a_formula(document: Document, tmp_path: Path) -> None:
    write_xlsx(document, tmp_path / "report.xlsx")
    write_csv(document, tmp_path / "report")
    workbook = openpyxl.load_workbook(tmp_path / "report.xlsx")
    types = {cell.data_type for sheet in workbook for row in sheet.iter_rows() for cell in row}
    assert "f" not in types
    assert HOSTILE in {row["resource"] for row in cells(tmp_path / "report.xlsx", "resources")}
    with (tmp_path / "report/resources.csv").open(encoding="utf-8", newline="") as file:
        assert f"'{HOSTILE}" in {row["resource"] for row in csv.DictReader(file)}


def test_a_service_that_only_a_restatement_has_is_of_no_category(
    document: Document, tmp_path: Path
) -> None:
    document["services"][0]["category"] = None
    write_xlsx(document, tmp_path / "report.xlsx")
    services = {row["service"]: row for row in cells(tmp_path / "report.xlsx", "costs")}
    assert services["Machines"]["service_category"] is None


def test_csv_files_have_exact_amounts(document: Document, tmp_path: Path) -> None:
    write_csv(document, tmp_path)
    with (tmp_path / "months.csv").open(encoding="utf-8", newline="") as file:
        months = list(csv.DictReader(file))
    assert [(row["month"], row["currency"], row["billed"]) for row in months] == [
        ("2025-01", "USD", "1.000000000000000001"),
        ("2025-02", "USD", "-12345678901.5"),
        ("2025-02", "EUR", "7"),
    ]


@pytest.fixture
def loaded(finops: Finops) -> Finops:
    months = Months(finops.project.folder / "data/parquet")
    months.write("2024-01", [charge("10"), charge("2", BillingCurrency="EUR")])
    months.write("2024-02", [charge("12.5")])
    return finops


def test_the_command_writes_a_report_in_every_format(loaded: Finops) -> None:
    folder = loaded.project.folder
    assert loaded("report", "--format", "json") == (
        "report.json is written: 2024-01 to 2024-02\n"
        "2024-02 (open): 12.50 USD billed, +2.50 against the month before\n"
    )
    document = json.loads((folder / "report.json").read_text())
    assert [Decimal(units).scaleb(-document["scale"]) for units in document["costs"]["billed"]] == [
        Decimal(10), Decimal("12.5"), Decimal(2)
    ]  # fmt: skip
    loaded("report", "--format", "xlsx", "--out", "bills/report.xlsx")
    assert len(cells(folder / "bills/report.xlsx", "months")) == 3
    loaded("report", "--format", "csv")
    assert loaded("report").startswith("report.html is written: 2024-01 to 2024-02\n")
    assert "<script" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "report/costs.csv").exists()
    assert not list(folder.rglob("*.part"))


def test_the_options_choose_month_and_currency(loaded: Finops) -> None:
    output = loaded("report", "--format", "json", "--month", "2024-01", "--currency", "EUR")
    assert output.splitlines()[1] == "2024-01 (open): 2.00 EUR billed"
    loaded("report", "--format", "json", "--months", "1")
    assert json.loads(Path("report.json").read_text())["months"] == ["2024-02"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--month 2024-03", "no export has charges of 2024-03; choose one of the months with "
                            "charges, 2024-01 to 2024-02"),
        ("--currency GBP", "no charge has the currency GBP; choose USD or EUR"),
        ("--export other", "finops.toml has no export 'other'; name one of these: acme"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_one_line(loaded: Finops, options: str, message: str) -> None:
    assert loaded("report", *options.split(), code=1) == f"{message}\n"


def test_a_report_of_nothing_says_what_to_do(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    assert finops("report", code=1) == (
        "data/parquet has no charges of acme; load a month first, such as by finops aws "
        "run-pipeline\n"
    )


AMORTIZED = """
[[exports]]
name = "amortized"
vendor = "azure"
format = "amortized"
source = "file://source"
start_month = "2024-01"
"""
ACTUAL = AMORTIZED.replace("amortized", "actual") + 'amortized_from = "amortized"'


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (AMORTIZED + ACTUAL, "--export amortized",
         "amortized has no charges of its own; choose actual by --export"),
        (AMORTIZED + ACTUAL, "--export amortized --export acme --month 2024-01",
         "acme, amortized have no charges of their own; choose actual by --export"),
        (AMORTIZED + ACTUAL, "--export acme",
         "acme has no charges of its own; choose actual by --export"),
        (AMORTIZED, "--export amortized",
         "amortized has no charges of its own: they need actual and amortized costs, joined by "
         "amortized_from"),
        ("", "",
         "acme has no charges of its own; add an export of a format that has charges "
         "(docs/focus.md lists them)"),
    ],
    ids=["completes another", "two", "without mapping", "alone", "without any"],
)  # fmt: skip
def test_a_report_of_an_export_without_charges_says_which_one_to_name(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
    options: str,
    message: str,
) -> None:
    monkeypatch.setitem(MAPPINGS, ("azure", "actual"), AZURE_USAGE)
    assert Finops(project, settings)("report", *options.split(), code=1) == f"{message}\n"
