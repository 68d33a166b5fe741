"""What the README and docs/exports.md tell people to type is true."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import duckdb
import pytest

from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster.settings import Settings
from finops_dagster_tests.cur import HEADERS, deliver, line_item
from finops_dagster_tests.project import Project

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXPORTS = (ROOT / "docs/exports.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


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
    named = re.findall(r"\b(?:config|docs)/[a-z0-9_-]+\.[a-z]+", README + EXPORTS)
    assert named
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize("text", blocks("toml", EXPORTS))
def test_an_export_is_the_first_in_the_file_that_is_named_beside_it(text: str) -> None:
    ((name,), (shown,)) = re.findall(r"config/\S+.toml", text), tomllib.loads(text)["exports"]
    first = tomllib.loads((ROOT / name).read_text())["exports"][0]
    assert first == shown


@pytest.mark.thorough
def test_the_way_from_cur_v1_to_cur_2_0_loses_nothing(project: Project) -> None:
    compare, view = blocks("sql", EXPORTS)
    own = {"cur1": {"column_names": "athena"}, "cur2": {}}
    for name, settings in own.items():
        export = {**project.export, **settings, "format": name, "export_name": name}
        project.more_exports.append({**export, "name": f"acme-{name}", "table": f"aws_{name}"})
        for month in (1, 2, 3):
            version = Version(date(2026, month, 1), f"20260{month}28T000000Z", rows=500)
            write_version(project.source, "", name, version, layout=Layout(name))
            project.load(f"2026-0{month}", export=f"acme-{name}")
    compared = duckdb.execute(compare).fetchall()
    assert [row[-1] for row in compared] == [0, 0, 0]
    cost = sum(row[3] for row in compared)
    with duckdb.connect() as connection:
        rows = connection.execute(view).fetchall()
    assert sum(row[-1] for row in rows) == cost
    assert len({row[1] for row in rows if row[0] == date(2026, 1, 1)}) > 1
    assert {row[1] for row in rows if row[0] == date(2026, 1, 1)} == {
        row[1] for row in rows if row[0] == date(2026, 2, 1)
    }
