"""`finops focus compare` on the charges of two exports of one month."""

from __future__ import annotations

import duckdb
import pytest

from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project

FIRST = """
    ('1', 'EC2', 'Usage', 'USD', 1.000000000000000001, 3),
    ('1', 'EC2', 'Usage', 'USD', 2, 0),
    ('1', 'S3', 'Usage', 'USD', 5, 5),
    (NULL, 'Tax', 'Tax', 'USD', 7, 7)
"""
# One charge in place of two, a service less by 2, and a category that the other does not have.
SECOND = """
    ('1', 'EC2', 'Usage', 'USD', 3.000000000000000001, 3),
    ('1', 'S3', 'Usage', 'USD', 3, 5),
    ('1', 'S3', 'Credit', 'USD', 0, -1),
    (NULL, 'Tax', 'Tax', 'USD', 7, 7)
"""


OWN = """
[[exports]]
name = "own"
vendor = "aws"
format = "focus"
source = "file://source"
export_name = "own"
start_month = "2024-01"
table = "own"
"""


@pytest.fixture
def finops(project: Project, monkeypatch: pytest.MonkeyPatch) -> Finops:
    monkeypatch.setenv("COLUMNS", "200")
    put_charges(project, "acme", FIRST)
    put_charges(project, "own", SECOND)
    return Finops(project, OWN)


def put_charges(project: Project, export: str, rows: str) -> None:
    folder = project.folder / f"data/parquet/focus/{export}/billing_month=2026-01"
    folder.mkdir(parents=True, exist_ok=True)
    names = "SubAccountId, ServiceName, ChargeCategory, BillingCurrency, BilledCost, EffectiveCost"
    exact = ", ".join(f"{cost}::DECIMAL(38, 18) AS {cost}" for cost in names.split(", ")[-2:])
    duckdb.execute(
        f"COPY (SELECT * REPLACE ({exact}) FROM (VALUES {rows}) AS charges({names})) "
        f"TO '{folder}/{export}-2026-01.parquet'"
    )


def test_what_differs_is_shown_with_the_largest_difference_first(finops: Finops) -> None:
    result = finops.run("focus", "compare", "acme", "own", "2026-01")
    assert result.exit_code == 1
    assert "billed acme" in result.stdout and "effective own" in result.stdout
    assert "EC2" not in result.stdout and "Tax" not in result.stdout
    assert result.stderr.splitlines()[-2:] == [
        "2 of 4 groups of account, service and category differ",
        "USD: acme: billed 15.000000000000000001, effective 15, "
        "own: billed 13.000000000000000001, effective 14",
    ]
    s3 = {"account": "1", "service": "S3", "currency": "USD"}
    assert finops.json("focus", "compare", "acme", "own", "2026-01") == [
        {
            **s3,
            "category": "Usage",
            **{"rows_1": 1, "rows_2": 1},
            **{"billed_1": "5", "billed_2": "3", "effective_1": "5", "effective_2": "5"},
        },
        {
            **s3,
            "category": "Credit",
            **{"rows_1": 0, "rows_2": 1},
            **{"billed_1": "0", "billed_2": "0", "effective_1": "0", "effective_2": "-1"},
        },
    ]


def test_other_numbers_of_charges_are_no_difference(project: Project, finops: Finops) -> None:
    put_charges(project, "own", SECOND.replace("'USD', 3, 5", "'USD', 5, 5").replace("-1", "0"))
    result = finops.run("focus", "compare", "acme", "own", "2026-01")
    assert (result.exit_code, result.stdout.strip()) == (0, "nothing differs")


def test_exports_and_months_without_charges_are_errors(finops: Finops) -> None:
    assert "own has no charges of 2026-02" in finops(
        "focus", "compare", "own", "acme", "2026-02", code=1
    )
    assert "no export 'other'" in finops("focus", "compare", "acme", "other", "2026-01", code=1)
