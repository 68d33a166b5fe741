"""The first steps after installing the package, and the code that README and docs show."""

import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.settings import Settings, load_settings
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.finops import FINOPS, Finops
from finops_dagster_tests.project import ROOT, SETTINGS, STAGES, Project

PACKAGE = ROOT / "finops_dagster"
# Files of the package, with the copies in the project that people read.
COPIES = {
    "cli/first_settings.toml": "config/finops.toml",
    "demo/demo.toml": "config/demo.toml",
    "dagster.yaml": "dagster.yaml",
    "workspace.yaml": "workspace.yaml",
}
DATA = (
    "demo/kinds.csv demo/azure/charges.sql focus/currencies.json focus/focus-1.2-model.toml "
    "focus/focus-1.2.toml focus/questions/top-services.sql"
).split()


def in_folder(folder: Path, environment: dict[str, str], *command: str) -> str:
    """Run a command in a folder, and return what it prints."""
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_wheel_has_all_files_of_the_first_steps(tmp_path: Path, wheel: dict[str, str]) -> None:
    site = Path(wheel["PYTHONPATH"])
    assert not (site / "finops_dagster_tests").exists()
    assert "config/finops.toml is written" in in_folder(tmp_path, wheel, *FINOPS, "init")
    for packaged in (*COPIES, *DATA):
        text = (site / PACKAGE.name / packaged).read_text()
        assert text == (PACKAGE / packaged).read_text()
        assert packaged not in COPIES or text == (ROOT / COPIES[packaged]).read_text()


@pytest.mark.thorough
def test_dg_scaffolds_an_export_from_the_wheel(tmp_path: Path, wheel: dict[str, str]) -> None:
    package = tmp_path / "platform_data"
    (package / "defs").mkdir(parents=True)
    (package / "__init__.py").touch()
    project = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{}"\n'
    (tmp_path / "pyproject.toml").write_text(project.format(package.name))
    environment = wheel | {"PYTHONPATH": f"{tmp_path}:{wheel['PYTHONPATH']}"}
    command = [str(Path(sys.executable).parent / "dg"), "scaffold", "defs"]
    in_folder(tmp_path, environment, *command, "finops_dagster.components.CostExport", "acme")
    text = (package / "defs/acme/defs.yaml").read_text()
    assert text.startswith("type: finops_dagster.components.CostExport")
    assert "name: acme" in text


def test_init_writes_settings_and_replaces_none(project: Project, finops: Finops) -> None:
    del finops.environment["FINOPS_CONFIG"]
    assert "finops init writes a first one" in finops("config", code=1)
    assert finops("init").startswith("config/finops.toml is written.")
    file = project.folder / "config/finops.toml"
    (export,) = load_settings(file).exports
    assert export.name == "acme"
    assert file.read_text().count("#") > 15
    for name in ("dagster.yaml", "workspace.yaml"):
        written = project.folder / name
        assert written.read_text() == (ROOT / name).read_text()
        written.write_text("mine")
    file.write_text("mine")
    assert "config/finops.toml exists already" in finops("init", code=1)
    assert file.read_text() == "mine"
    assert finops("init", "-c", "other.toml").startswith("other.toml is written.")
    assert (project.folder / "workspace.yaml").read_text() == "mine"


def test_the_demo_restates_its_own_bill_alone_and_has_its_own_settings(finops: Finops) -> None:
    assert "run finops demo first" in finops("demo", "--restate", code=1)
    assert "has its own settings" in finops("demo", "--backend", "sql", code=2)


def test_make_dev_runs_finops_dev() -> None:
    make = ["make", "--dry-run", "dev", "CONFIG=mine.toml", "PORT=3001"]
    result = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "finops --config mine.toml dev --port 3001\n" in result.stdout


def test_one_command_pins_the_whole_dagster_family(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    make = ["make", "dagster", "VERSION=1.14.3"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    pinned = "".join(
        (tmp_path / name).read_text() for name in ("pyproject.toml", "constraints.txt")
    )
    pins = re.findall(r"\bdagster((?:-[a-z0-9]+)*)==([0-9.]+)", pinned)
    core = set(" -graphql -pipes -shared -webserver -cloud-cli -dg-cli -dg-core".split(" "))
    assert {(name in core, version) for name, version in pins} == {
        (True, "1.14.3"),
        (False, "0.30.3"),
    }
    assert len(pins) == 25
    assert subprocess.run(make[:2], cwd=tmp_path, capture_output=True).returncode == 2


README, EXPORTS, REFERENCE = (
    (ROOT / page).read_text() for page in ("README.md", "docs/exports.md", "docs/reference.md")
)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_queries_of_the_readme_return_rows(project: Project) -> None:
    headers = (*HEADERS, "lineItem/UsageAccountId", "lineItem/LineItemType")
    for month in ("2024-01", "2024-02"):
        row = line_item(month, lineItem__UsageAccountId="0123", lineItem__LineItemType="Usage")
        project.deliver([row], month=month, headers=headers)
        project.load(month)
    for sql in blocks("sql"):
        assert duckdb.execute(sql).fetchall(), sql


def test_the_settings_targets_and_files_of_the_readme_exist() -> None:
    (text,) = blocks("toml")
    assert Settings.model_validate(tomllib.loads(text)).exports[0].name == "acme"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z]+)", README)) <= targets
    files = re.findall(r"\b(?:config|docs)/[a-z0-9_-]+\.[a-z]+", README + EXPORTS)
    assert files
    assert all((ROOT / file).exists() for file in files)


@pytest.mark.parametrize("text", blocks("toml", EXPORTS))
def test_each_export_of_the_docs_is_the_first_in_the_file_it_names(text: str) -> None:
    ((name,), (shown,)) = re.findall(r"config/\S+.toml", text), tomllib.loads(text)["exports"]
    assert tomllib.loads((ROOT / name).read_text())["exports"][0] == shown


@pytest.mark.thorough
def test_the_queries_for_moving_from_cur_v1_to_cur_2_0_lose_nothing(project: Project) -> None:
    compare, view = blocks("sql", EXPORTS)
    for name, style in {"cur1": "athena", "cur2": "flat"}.items():
        export = {"format": name, "export_name": name, "column_names": style}
        project.add_export(name=f"acme-{name}", table=f"aws_{name}", **export)
        for month in (1, 2, 3):
            version = BillVersion(date(2026, month, 1), f"20260{month}28T000000Z", rows=500)
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


def test_the_reference_lists_every_metadata_key_and_check(project: Project) -> None:
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


def test_the_python_code_of_the_reference_runs(project: Project) -> None:
    Path("config").mkdir()
    Path("config/finops.toml").write_text(SETTINGS)
    (code,) = blocks("python", REFERENCE)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["definitions"], dg.Definitions)
    for module, name in re.findall(r"`([a-z_.]+)\.([a-zA-Z_]+)(?:\(|`)", REFERENCE):
        if module != "finops_dagster" and (ROOT / "finops_dagster" / module.split(".")[0]).exists():
            assert hasattr(__import__(f"finops_dagster.{module}", fromlist=[name]), name)
