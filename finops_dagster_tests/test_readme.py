"""What the README tells people to type is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import duckdb
import pytest

from finops_dagster.settings import Settings
from finops_dagster_tests.cur import HEADERS, deliver, line_item
from finops_dagster_tests.project import Project

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("sql", blocks("sql"))
def test_the_queries_run_and_find_something(project: Project, sql: str) -> None:
    headers = (*HEADERS, "lineItem/UsageAccountId", "lineItem/LineItemType")
    for month in ("2024-01", "2024-02"):
        row = line_item(month, lineItem__UsageAccountId="0123", lineItem__LineItemType="Usage")
        deliver(project.put, month, [[row]], headers=headers)
        assert project.materialize(month).success
    assert duckdb.execute(sql).fetchall()


def test_the_settings_are_valid() -> None:
    (text,) = blocks("toml")
    assert Settings.model_validate(tomllib.loads(text)).exports[0].name == "acme"


def test_every_make_command_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z]+)", README)) <= targets


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"\b(?:config|docs)/[a-z_]+\.[a-z]+", README)
    assert named
    assert all((ROOT / name).exists() for name in named)
