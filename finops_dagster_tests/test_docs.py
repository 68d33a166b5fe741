"""What the README and the pages of docs/ tell people to type, and to build on, is so."""

import re
import tomllib
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster.settings import Settings
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.project import ROOT, SETTINGS, STAGES, Project

README, EXPORTS, REFERENCE = (
    (ROOT / page).read_text() for page in ("README.md", "docs/exports.md", "docs/reference.md")
)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_queries_of_the_readme_run_and_find_something(project: Project) -> None:
    headers = (*HEADERS, "lineItem/UsageAccountId", "lineItem/LineItemType")
    for month in ("2024-01", "2024-02"):
        row = line_item(month, lineItem__UsageAccountId="0123", lineItem__LineItemType="Usage")
        project.deliver([row], month=month, headers=headers)
        project.load(month)
    for sql in blocks("sql"):
        assert duckdb.execute(sql).fetchall(), sql


def test_the_settings_commands_and_files_of_the_readme_are_there() -> None:
    (text,) = blocks("toml")
    assert Settings.model_validate(tomllib.loads(text)).exports[0].name == "acme"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z]+)", README)) <= targets
    files = re.findall(r"\b(?:config|docs)/[a-z0-9_-]+\.[a-z]+", README + EXPORTS)
    assert files
    assert all((ROOT / file).exists() for file in files)


@pytest.mark.parametrize("text", blocks("toml", EXPORTS))
def test_an_export_is_the_first_in_the_file_that_is_named_beside_it(text: str) -> None:
    ((name,), (shown,)) = re.findall(r"config/\S+.toml", text), tomllib.loads(text)["exports"]
    assert tomllib.loads((ROOT / name).read_text())["exports"][0] == shown


@pytest.mark.thorough
def test_the_way_from_cur_v1_to_cur_2_0_loses_nothing(project: Project) -> None:
    compare, view = blocks("sql", EXPORTS)
    for name, style in {"cur1": "athena", "cur2": "flat"}.items():
        export = {"format": name, "export_name": name, "column_names": style}
        project.add_export(name=f"acme-{name}", table=f"aws_{name}", **export)
        for month in (1, 2, 3):
            version = Version(date(2026, month, 1), f"20260{month}28T000000Z", rows=500)
            write_version(project.source, "", name, version, layout=Layout(name))
            project.load(f"2026-0{month}", export=f"acme-{name}")
    compared = duckdb.execute(compare).fetchall()
    assert [row[-1] for row in compared] == [0, 0, 0]
    with duckdb.connect() as connection:
        rows = connection.execute(view).fetchall()
    assert sum(row[-1] for row in rows) == sum(row[3] for row in compared)
    in_january, in_february = (
        {row[1] for row in rows if row[0] == date(2026, month, 1)} for month in (1, 2)
    )
    assert len(in_january) > 1
    assert in_january == in_february


def test_the_money_columns_of_every_format_are_listed() -> None:
    rows = re.findall(r"^\| (`[a-zA-Z/]+`|all versions) \| ([\w, ]+) \|$", EXPORTS, re.MULTILINE)
    listed = [
        first.strip("`").removeprefix("all versions") + name
        for first, names in rows
        for name in names.split(", ")
    ]
    cur1 = {name for name in listed if "/" in name}
    for style in ("flat", "athena"):
        vendor = aws_formats(style)["cur1"]
        assert vendor.money == set(map(vendor.column, cur1))
    formats = aws_formats("athena")
    assert formats["cur2"].money == formats["cur1"].money | {"discount"}
    assert formats["focus"].money == {name.lower() for name in listed if "/" not in name}


def test_metadata_and_checks_are_those_of_the_reference(project: Project) -> None:
    project.database = {"duckdb": {"warehouse_path": "data/warehouse.duckdb"}}
    for version, cost in (("v1", "1"), ("v2", "2")):
        project.deliver(cost, version=version)
        outcome = project.load()
    for stage in (*STAGES, "warehouse_table"):
        (row,) = re.findall(rf"^\| `{stage}` \|(.*)\|(.*)\|$", REFERENCE, re.MULTILINE)
        keys, checks = (set(re.findall(r"`([^`]+)`", cell)) for cell in row)
        assert keys == set(outcome.metadata(stage))
        assert {f"{stage}.{check}" for check in checks} == {
            check for check in outcome.checks() if check.startswith(f"{stage}.")
        }


def test_the_lines_of_python_of_the_reference_run(project: Project) -> None:
    Path("config").mkdir()
    Path("config/finops.toml").write_text(SETTINGS)
    (code,) = blocks("python", REFERENCE)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["definitions"], dg.Definitions)
    for module, name in re.findall(r"`([a-z_.]+)\.([a-zA-Z_]+)(?:\(|`)", REFERENCE):
        if module != "finops_dagster" and (ROOT / "finops_dagster" / module.split(".")[0]).exists():
            assert hasattr(__import__(f"finops_dagster.{module}", fromlist=[name]), name)
