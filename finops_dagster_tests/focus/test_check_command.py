"""`finops focus check` on files of charges in the lake."""

from __future__ import annotations

import duckdb
import pytest

from finops_dagster_tests.finops import Finops
from finops_dagster_tests.focus.test_rules import GOOD, USAGE, Charge, write
from finops_dagster_tests.project import Project


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def put_charges(project: Project, month: str, *charges: Charge) -> None:
    folder = project.folder / f"data/parquet/focus/acme/billing_month={month}"
    folder.mkdir(parents=True)
    with duckdb.connect() as connection:
        table = write(connection, *charges)
        connection.execute(f"COPY {table} TO '{folder}/acme-{month}.parquet'")


def test_charges_that_keep_every_rule(project: Project, finops: Finops) -> None:
    put_charges(project, "2026-01", *GOOD)
    assert "no rule is broken" in finops("focus", "check")
    assert finops.json("focus", "check", "acme", "2026-01") == []


def test_a_broken_rule_is_shown_with_an_example(project: Project, finops: Finops) -> None:
    put_charges(project, "2026-01", *GOOD)
    put_charges(project, "2026-02", *GOOD, {**USAGE, "ListCost": "2.5"})
    result = finops.run("focus", "check")
    assert result.exit_code == 1
    assert "ListCost.product" in result.stdout and "2026-02" in result.stdout
    assert "2026-01" not in result.stdout
    assert result.stderr.startswith("checked 2 months: ")
    (row,) = finops.json("focus", "check", "acme")
    assert row | {"text": ""} == {
        "export": "acme",
        "month": "2026-02",
        "rule": "ListCost.product",
        "text": "",
        "rows": 1,
        "example": {
            "ChargeClass": None,
            "ListUnitPrice": "1",
            "PricingQuantity": "2",
            "ListCost": "2.5",
            "x_source_line_items": ["line-1"],
        },
        "required": True,
        "disputed": None,
        "model_rules": ["ListCost-C-009-C", "ListUnitPrice-C-010-C"],
    }
    assert finops.run("focus", "check", "acme", "2026-01").exit_code == 0


def test_a_disputed_rule_is_shown_but_is_no_failure(project: Project, finops: Finops) -> None:
    put_charges(project, "2026-01", {**USAGE, "InvoiceIssuerName": "'Cloud Europe'"})
    result = finops.run("focus", "check")
    assert result.exit_code == 0
    assert "BilledCost.third_party" in result.stdout
    assert "BilledCost.third_party is disputed: " in result.stderr


def test_months_without_charges_are_an_error(project: Project, finops: Finops) -> None:
    put_charges(project, "2026-01", *GOOD)
    output = finops("focus", "check", "acme", "2026-02", code=1)
    assert "has no charges of the selected months" in output
    assert "'other'" in finops("focus", "check", "other", code=1)


def test_a_damaged_file_is_one_line(project: Project, finops: Finops) -> None:
    put_charges(project, "2026-01", *GOOD)
    (path,) = project.folder.glob("data/parquet/focus/acme/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    output = finops("focus", "check", code=1)
    assert "acme-2026-01.parquet cannot be read: " in output
    assert output.endswith("finops state reprocess acme 2026-01 to read the vendor's files again\n")


def test_too_little_memory_is_not_taken_for_a_damaged_file(project: Project) -> None:
    put_charges(project, "2026-01", *GOOD)
    finops = Finops(project, '[database.duckdb]\nthreads = 1\nmemory_limit = "1MB"\n')
    (line,) = finops("focus", "check", code=1).splitlines()
    assert line.startswith("DuckDB needs more memory for this than database.duckdb.memory_limit;")
    assert "cannot be read" not in line and "reprocess" not in line
