"""The code location: what it holds, and that it loads without credentials and network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from finops_dagster_tests.project import Project

ROOT = Path(__file__).parents[1]
STAGES = {"manifest", "staged_files", "billing_table", "parquet"}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_every_export_has_its_chain_job_and_sensor(project: Project) -> None:
    project.more_exports = [{**project.export, "name": "be-ta", "table": "beta"}]
    definitions = project.definitions()
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        f"{export}/{stage}" for export in ("acme", "be-ta") for stage in STAGES
    }
    node = graph.get(dg.AssetKey(["be-ta", "parquet"]))
    assert node.group_name == "be_ta"
    assert node.owners == ["team:finops"]
    assert node.kinds == {"parquet"}
    assert node.description
    assert isinstance(node.partitions_def, dg.MonthlyPartitionsDefinition)
    job = definitions.resolve_job_def("be_ta_month")
    assert {key.path[0] for key in job.asset_layer.executable_asset_keys} == {"be-ta"}
    assert definitions.get_sensor_def("be_ta_manifests").job_name == "be_ta_month"


def test_checks_of_the_totals_block_by_partition(project: Project) -> None:
    graph = project.definitions().resolve_asset_graph()
    for stage in ("billing_table", "parquet"):
        check = graph.get(dg.AssetCheckKey(dg.AssetKey(["acme", stage]), "reconciles"))
        assert check.blocking
        assert check.partitions_def is not None


def test_bigquery_adds_a_warehouse_table(project: Project) -> None:
    project.database = {"backend": "bigquery", "bigquery": {"project_id": "acme"}}
    keys = project.definitions().resolve_asset_graph().get_all_asset_keys()
    assert {key.path[-1] for key in keys} == STAGES | {"warehouse_table"}


@pytest.mark.parametrize("config", ["finops.toml", "bigquery.toml"])
def test_definitions_load_with_an_empty_environment(config: str) -> None:
    code = "import finops_dagster.definitions"
    done = run(sys.executable, "-c", code, FINOPS_CONFIG=f"config/{config}", PATH="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_not_needed_is_not_imported() -> None:
    unneeded = "google.cloud dagster_gcp pandas azure snowflake adbc_driver_manager dlt boto3"
    code = (
        "import sys, finops_dagster.definitions;"
        f"print([m for m in {[*unneeded.split(), 'sqlalchemy']} if m in sys.modules])"
    )
    done = run(sys.executable, "-c", code, FINOPS_CONFIG="config/finops.toml", PATH="")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_mistake_in_the_settings_is_one_line_and_no_stack_trace(tmp_path: Path) -> None:
    config = tmp_path / "finops.toml"
    config.write_text("[storage]\nfolder = 1")
    code = "import finops_dagster.definitions"
    done = run(sys.executable, "-c", code, FINOPS_CONFIG=str(config), PATH="")
    assert done.returncode == 1
    assert done.stderr == f"{config}: storage.folder: unknown key\n"
