"""The code location: what it holds, that it loads without credentials and network, and a month of
it that `dagster asset materialize` loads from a plain shell, as CI does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from finops_dagster_tests.project import ROOT, STAGES, Project

DAGSTER = str(Path(sys.executable).parent / "dagster")


def test_every_export_has_its_chain_checks_job_and_sensor(
    project: Project,
) -> None:
    project.add_export(name="be-ta", table="beta")
    definitions = project.definitions()
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        f"{export}/{stage}" for export in ("acme", "be-ta") for stage in STAGES
    }
    node = graph.get(dg.AssetKey(["be-ta", "parquet"]))
    assert (node.group_name, node.owners, node.kinds) == ("be_ta", ["team:finops"], {"parquet"})
    assert node.description
    assert isinstance(node.partitions_def, dg.MonthlyPartitionsDefinition)
    job = definitions.resolve_job_def("be_ta_month")
    assert {key.path[0] for key in job.asset_layer.executable_asset_keys} == {"be-ta"}
    assert definitions.get_sensor_def("be_ta_manifests").job_name == "be_ta_month"
    for stage in ("billing_table", "parquet"):
        check = graph.get(dg.AssetCheckKey(dg.AssetKey(["acme", stage]), "reconciles"))
        assert check.blocking
        assert check.partitions_def is not None


def test_bigquery_adds_a_warehouse_table(project: Project) -> None:
    project.database = {"backend": "bigquery", "bigquery": {"project_id": "acme"}}
    keys = project.definitions().resolve_asset_graph().get_all_asset_keys()
    assert {key.path[-1] for key in keys} == {*STAGES, "warehouse_table"}


def load(config: str) -> subprocess.CompletedProcess[str]:
    """Load the code location with nothing else in the environment; it must import no client."""
    clients = "google.cloud dagster_gcp pandas azure snowflake adbc_driver_manager dlt boto3"
    code = (
        "import sys, finops_dagster.definitions;"
        f"print(*(name for name in {[*clients.split(), 'sqlalchemy']} if name in sys.modules))"
    )
    environment = {"FINOPS_CONFIG": config, "PATH": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("config", ["finops.toml", "bigquery.toml"])
def test_definitions_load_with_an_empty_environment_and_import_no_client(config: str) -> None:
    done = load(f"config/{config}")
    assert (done.returncode, done.stderr) == (0, "")
    assert config == "bigquery.toml" or done.stdout == "\n"


def test_a_mistake_in_the_settings_is_one_line_and_no_stack_trace(tmp_path: Path) -> None:
    config = tmp_path / "finops.toml"
    config.write_text("[storage]\nfolder = 1")
    done = load(str(config))
    assert (done.returncode, done.stderr) == (1, f"{config}: storage.folder: unknown key\n")


def start(project: Project, month: str, *options: str) -> subprocess.Popen[str]:
    """Begin to materialize a month."""
    command = [DAGSTER, "asset", "materialize", "-m", "finops_dagster.definitions"]
    return subprocess.Popen(
        [*command, "--select", "group:acme", "--partition", month, *options],
        env=project.shell_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_shell_loads_a_month_and_may_log_in_json(
    project: Project,
) -> None:
    project.deliver("1", "2")
    (text,) = re.findall(r"--config-json '(.*)'", (ROOT / "docs/operations.md").read_text())
    process = start(project, "2024-01", "--config-json", text)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert project.totals() == (2, 3)
    records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    of_dagster = [record["dagster_meta"] for record in records]
    assert {meta["job_tags"]["dagster/partition"] for meta in of_dagster} == {"2024-01"}


@pytest.mark.thorough
def test_what_fails_in_a_shell_has_another_exit_code_and_its_reason(project: Project) -> None:
    cell = "line 2, column \"lineItem/UnblendedCost\": '1.2.3' cannot be kept exactly"
    project.deliver("1.2.3")
    for month, reason in {"2024-01": cell, "2024-02": "acme has no manifest of 2024-02"}.items():
        process = start(project, month)
        output, _ = process.communicate()
        assert process.returncode == 1
        assert reason in output


@pytest.mark.thorough
def test_months_side_by_side_wait_for_their_turn_at_the_database(project: Project) -> None:
    months = ["2024-01", "2024-02", "2024-03"]
    for month in months:
        project.deliver("1", month=month)
    runs = [start(project, month) for month in months]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output
    assert [project.totals(month) for month in months] == [(1, 1)] * 3
