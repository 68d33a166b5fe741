"""Texts of the charges are ENUMs where all their values are known; the files have texts."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from finops_dagster.billing.columns import file_literal
from finops_dagster.focus.enums import literal_texts
from finops_dagster.lake import distinct_values_in_footer


@pytest.mark.parametrize(
    ("sql", "texts"),
    [
        ("'Usage'", {"Usage"}),
        ("NULL", set()),
        ("CASE WHEN kind = 'x' THEN 'a b' WHEN cost > 5 THEN NULL ELSE 'c' END", {"a b", "c"}),
        ("CASE charge WHEN 0 THEN 'a' END", {"a"}),
        ("kind", None),
        ("'a' || kind", None),
        ("CASE WHEN cost > 5 THEN 'a' ELSE kind END", None),
        ("CASE WHEN cost > 5 THEN 'a' || kind ELSE 'b' END", None),
        ("CASE WHEN cost > 5 THEN CASE WHEN kind = 'x' THEN 'a' END END", None),
        ("CASE WHEN cost > 5 THEN 'a' END || CASE WHEN cost > 6 THEN 'b' END", None),
        ("coalesce(kind, 'a')", None),
        ("'it''s'", None),
    ],
)
def test_the_texts_of_an_expression_are_known_if_it_gives_literals_alone(
    sql: str, texts: set[str] | None
) -> None:
    assert literal_texts(sql) == texts


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("'a'", {"a"}),
        ("if(row < 2100, 'a', NULL)", {"a"}),
        ("if(row % 2 = 0, 'a', 'b')", {"a", "b"}),
        ("CASE WHEN row < 2048 THEN 'a' WHEN row % 2 = 0 THEN 'b' ELSE 'c' END", {"a", "b", "c"}),
        ("if(row < 2048, NULL, 'a')", {"a"}),
        ("'a' || row % 3", None),
        ("if(row < 2048, 'a', 'b' || row % 3)", None),
        ("NULL::VARCHAR", None),
        ("repeat('a', 200)", None),
        ("e'a\\nb'", None),
        ("1", None),
        ("['a']", None),
    ],
    ids=[
        "one",
        "one, and nulls",
        "two",
        "two in each row group",
        "a row group without any",
        "many",
        "many in one row group",
        "none",
        "long",
        "not printable",
        "numbers",
        "lists",
    ],
)
def test_the_footer_has_all_texts_of_columns_with_few(
    tmp_path: Path, cell: str, texts: set[str] | None
) -> None:
    path = tmp_path / "two-row-groups.parquet"
    duckdb.execute(
        f"COPY (SELECT {cell} AS cell FROM range(4096) AS rows(row)) TO {file_literal(path)} "
        "(FORMAT parquet, ROW_GROUP_SIZE 2048)"
    )
    assert distinct_values_in_footer(path).get("cell") == texts
