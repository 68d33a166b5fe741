"""docs/focus.md has the mappings and the questions as the code has them, and the questions work."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import duckdb
import pytest

from finops_dagster_tests.focus import page
from finops_dagster_tests.focus.page import PAGE, questions

PAGE_TEXT = PAGE.read_text(encoding="utf-8")
HOW = "run python -m finops_dagster_tests.focus.page --tables"
QUESTIONS = {question.name: question for question in questions()}
# Two months of AWS in USD and one of Azure in EUR, of which each query reads some columns.
CHARGES = """
    (FROM (VALUES
    ('2026-01', 'AWS', 'USD', 'EC2', 'Usage', NULL, NULL, 10, 10, 12, 11, MAP {'Team': 'web'}),
    ('2026-02', 'AWS', 'USD', 'EC2', 'Usage', NULL, NULL, 20, 20, 20, 20, MAP {'Team': 'web'}),
    ('2026-02', 'AWS', 'USD', 'EC2', 'Usage', 'Plan', 'Used', 0, 45, 60, 60, MAP {'aws:by': 'x'}),
    ('2026-02', 'AWS', 'USD', 'EC2', 'Usage', 'Plan', 'Unused', 0, 5, 0, 0, NULL),
    ('2026-02', 'AWS', 'USD', 'S3', 'Usage', NULL, NULL, 30, 30, 30, 30, NULL),
    ('2026-02', 'AWS', 'USD', 'EC2', 'Purchase', 'Plan', NULL, 50, 0, 50, 50, NULL),
    ('2026-02', 'AWS', 'USD', 'EC2', 'Tax', NULL, NULL, 7, 7, 7, 7, NULL),
    ('2026-02', 'Microsoft', 'EUR', 'VM', 'Usage', NULL, NULL, 60, 60, 100, 80, MAP {'team': 'ops'})
    ) AS charges(month, ProviderName, BillingCurrency, ServiceName, ChargeCategory,
        CommitmentDiscountType, CommitmentDiscountStatus, BilledCost, EffectiveCost, ListCost,
        ContractedCost, Tags))
"""


def test_the_page_has_the_tables_of_the_specification_and_the_mappings() -> None:
    assert page.with_tables(PAGE_TEXT) == PAGE_TEXT, HOW


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_page_has_every_question(name: str) -> None:
    question = QUESTIONS[name]
    introduction = f"### {question.text}\n\n{page.introduction(question)}"
    assert f"{introduction}\n\n```console\n$ {page.command(question)}\n" in PAGE_TEXT


@pytest.fixture(scope="module")
def focus() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE VIEW focus AS SELECT *, CAST(month || '-01' AS DATE) AS x_billing_month, "
            "if(ServiceName = 'S3', 'Seller', ProviderName) AS PublisherName, "
            "CAST(NULL AS VARCHAR) AS ChargeClass, "
            f"if(ServiceName = 'S3', NULL, 'account') AS SubAccountName FROM {CHARGES}"
        )
        yield connection


def test_every_question_has_an_answer(focus: duckdb.DuckDBPyConnection) -> None:
    assert len(QUESTIONS) == 10
    for question in QUESTIONS.values():
        assert focus.sql(question.sql).fetchall(), question.name


ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "top-services": [
        ("EUR", "Microsoft", "VM", 60, 60, 100),
        ("USD", "AWS", "EC2", 77, 77, 72),
        ("USD", "AWS", "S3", 30, 30, 28),
    ],
    "amortized-against-billed": [
        ("2026-01-01", "AWS", "USD", 10, 10, None, None),
        ("2026-02-01", "AWS", "USD", 107, 107, 50, 50),
        ("2026-02-01", "Microsoft", "EUR", 60, 60, None, None),
    ],
    # AWS in February: 110 at list, of which 20 + 45 + 5 + 30 were paid.
    "effective-savings-rate": [
        ("2026-01-01", "AWS", "USD", 12, 1, 1, 10, 16.7),
        ("2026-02-01", "AWS", "USD", 110, 0, 10, 100, 9.1),
        ("2026-02-01", "Microsoft", "EUR", 100, 20, 20, 60, 40),
    ],
    # 45 of 50 used; they cover 60 of EC2's 80. S3 has no commitments.
    "commitments": [("2026-02-01", "AWS", "USD", "Plan", 45, 5, 90, 75)],
    # EC2: what the plan covers has only a tag of AWS, and its unused part has none.
    "untagged": [("USD", "AWS", "EC2", 70, 50, 71.4), ("USD", "AWS", "S3", 30, 30, 100)],
    "marketplace": [("2026-02-01", "AWS", "Seller", "S3", "USD", 1, 30)],
    "tax-and-credits": [("AWS", "USD", "Tax", None, "2026-02-01", 1, 7)],
    "month-against-month": [
        ("EUR", "Microsoft", "VM", 0, 60, 60, None),
        ("USD", "AWS", "EC2", 10, 77, 67, 670),
        ("USD", "AWS", "S3", 0, 30, 30, None),
    ],
    "by-account": [
        ("EUR", "Microsoft", "account", 60, 60, 60),
        ("USD", "AWS", "account", 87, 87, 77),
        ("USD", "AWS", "(none)", 30, 30, 30),
    ],
    "by-tag": [
        ("EUR", "Microsoft", "ops", 60, 60, 60),
        ("USD", "AWS", "(none)", 87, 87, 87),
        ("USD", "AWS", "web", 30, 30, 20),
    ],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_to_a_question(focus: duckdb.DuckDBPyConnection, name: str) -> None:
    answer = [
        tuple(str(cell) if isinstance(cell, date) else cell for cell in row)
        for row in focus.sql(QUESTIONS[name].sql).fetchall()
    ]
    assert answer == ANSWERS[name]
