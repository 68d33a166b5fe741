"""`CostExport` in the project of another team, which has definitions of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from finops_dagster.settings_table import SettingsError
from finops_dagster_tests.project import ROOT, STAGES, Project

PYPROJECT = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{name}"\n'
OWN = """
import dagster as dg

@dg.asset(deps=[dg.AssetKey(["acme", "parquet"])])
def rollup(lake: dg.ResourceParam[str]): ...

@dg.definitions
def own():
    return dg.Definitions([rollup], resources={"lake": "mine"}, executor=dg.in_process_executor)
"""


def write_export(folder: Path, **attributes: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"  {key}: {value}\n" for key, value in attributes.items())
    text = f"type: finops_dagster.components.CostExport\nattributes:\n{lines}"
    (folder / "defs.yaml").write_text(text)


@pytest.fixture
def defs(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder `defs` of a project with two exports and definitions of its own."""
    folder = project.folder / "platform_data"
    for name in ("acme", "be-ta"):
        keys = project.export | {"name": name, "table": name.replace("-", "_")}
        write_export(folder / "defs" / name, **keys)
    (project.folder / "pyproject.toml").write_text(PYPROJECT.format(name=folder.name))
    (folder / "__init__.py").touch()
    (folder / "defs/own.py").write_text(OWN)
    monkeypatch.syspath_prepend(project.folder)
    yield folder / "defs"
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def load(defs: Path) -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=defs)


def test_exports_are_loaded_beside_the_definitions_of_another_project(
    project: Project, defs: Path
) -> None:
    definitions = load(defs)
    keys = definitions.resolve_asset_graph().get_all_asset_keys()
    stages = {f"{export}/{stage}" for export in ("acme", "be-ta") for stage in STAGES}
    assert {key.to_user_string() for key in keys} == {*stages, "rollup"}
    sensors = [sensor.name for sensor in definitions.sensors or []]
    assert sorted(sensors) == ["acme_manifests", "be_ta_manifests", "finops_lost_runs"]
    project.deliver("1", "2")
    result = definitions.resolve_job_def("acme_month").execute_in_process(
        partition_key="2024-01", instance=project.instance
    )
    assert result.success
    assert project.parquet_totals() == (2, 3)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("attributes", "message"),
    {
        "a value": ({"start_month": "2024-13"}, "start_month: '2024-13' is not a month"),
        "missing": ({"export_name": "null"}, "export_name: missing value; set it"),
        "elsewhere": ({"storage": "{parquet_dir: lake}"}, "storage or database differ from"),
    }.values(),
)
def test_a_mistake_in_a_defs_file_is_one_line_with_its_key(
    project: Project, defs: Path, attributes: dict[str, str], message: str
) -> None:
    write_export(defs / "acme", **project.export | attributes)
    with pytest.raises(Exception, match="Error while building") as raised:
        load(defs)
    (error,) = (e for e in causes(raised.value) if isinstance(e, SettingsError))
    assert message in str(error)
    assert len(str(error).splitlines()) == 1


def test_exports_take_their_lake_from_a_settings_file(project: Project, defs: Path) -> None:
    (project.folder / "finops.toml").write_text('[storage]\nparquet_dir = "lake"')
    for path in defs.glob("*/defs.yaml"):
        path.write_text(f"{path.read_text()}  settings: finops.toml\n")
    assert str((load(defs).resources or {})["finops_lake"].root) == "lake"


DEFINITIONS = """
from pathlib import Path

import dagster as dg

folder = Path(__file__).parent / "platform_data" / "defs"
defs = dg.load_from_defs_folder(path_within_project=folder)
"""


MONTH = "-f definitions.py --select key:acme/* --partition 2024-01"


@pytest.mark.thorough
def test_stages_of_a_run_may_be_processes_of_their_own(
    project: Project, defs: Path, tmp_path: Path
) -> None:
    """So they are with Dagster's default executor; two of them then run at the same time."""
    (defs / "own.py").unlink()
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "finops.toml").write_text(
        '[database]\nbackend = "duckdb"\n[database.duckdb]\nwarehouse_path = "warehouse.duckdb"'
    )
    for path in defs.glob("*/defs.yaml"):
        path.write_text(f"{path.read_text()}  settings: finops.toml\n")
    project.deliver("1", "2")
    command = [sys.executable, *f"-m dagster asset materialize {MONTH}".split()]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, check=True, timeout=300)
    with duckdb.connect("warehouse.duckdb") as connection:
        rows = connection.sql("SELECT (SELECT count(*) FROM acme), (SELECT count(*) FROM focus)")
        assert rows.fetchall() == [(2, 2)]
