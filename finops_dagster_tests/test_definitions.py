"""The code location: it loads without credentials and network, in CI, and with fifty exports."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.object_stores import StoreError
from finops_dagster.pipeline.build import build_definitions
from finops_dagster_tests.cur import bucket_put, deliver, line_items
from finops_dagster_tests.project import ROOT, STAGES, Project, requested_months
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.small_mapping import small_mapping

DAGSTER = str(Path(sys.executable).parent / "dagster")


def test_every_export_has_its_assets_checks_job_and_sensor(project: Project) -> None:
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


def test_definitions_of_some_exports_have_the_same_jobs_as_those_of_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("azure", "actual"), small_mapping())
    azure = {"vendor": "azure", "source": "file://azure", "start_month": "2024-01"}
    project.more_exports += [
        {**azure, "name": "actual", "format": "actual", "amortized_from": "amortized"},
        {**azure, "name": "amortized", "format": "amortized"},
    ]
    definitions = build_definitions(project.settings(), ["actual"])
    assets = definitions.resolve_asset_graph().executable_asset_keys
    assert {key.path[0] for key in assets} == {"actual", "amortized", "report"}, "its bills"
    jobs = [d.resolve_job_def("actual_month") for d in (definitions, project.definitions())]
    assert len({job.get_job_snapshot_id() for job in jobs}) == 1, "the UI shows runs of one job"


def load(config: str) -> subprocess.CompletedProcess[str]:
    """Load the code location in an empty environment, and print the clients that it imports."""
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
    process = load(f"config/{config}")
    assert (process.returncode, process.stderr) == (0, "")
    assert config == "bigquery.toml" or process.stdout == "\n"


def test_a_mistake_in_the_settings_is_one_line_without_a_stack_trace(tmp_path: Path) -> None:
    config = tmp_path / "finops.toml"
    config.write_text("[storage]\nfolder = 1")
    process = load(str(config))
    message = f"{config}: storage.folder: unknown key; correct its name, or remove it\n"
    assert (process.returncode, process.stderr) == (1, message)


def start(project: Project, month: str, *options: str) -> subprocess.Popen[str]:
    command = [DAGSTER, "asset", "materialize", "-m", "finops_dagster.definitions"]
    return subprocess.Popen(
        [*command, "--select", "group:acme", "--partition", month, *options],
        env=project.shell_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.thorough
def test_a_shell_loads_a_month_and_may_log_in_json(project: Project) -> None:
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
def test_a_failure_in_a_shell_has_an_exit_code_and_a_reason(project: Project) -> None:
    cell = "line 2, column \"lineItem/UnblendedCost\": '1.2.3' cannot be kept exactly"
    project.deliver("1.2.3")
    for month, reason in {"2024-01": cell, "2024-02": "acme has no manifest of 2024-02"}.items():
        process = start(project, month)
        output, _ = process.communicate()
        assert process.returncode == 1
        assert reason in output


REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]


def payer(number: int, s3: S3Server) -> dict[str, Any]:
    """Return the settings of one export of fifty, each in a bucket of its own."""
    name = f"payer-{number:02}"
    return {
        "name": name,
        "table": name.replace("-", "_"),
        "export_name": name,
        "source": f"s3://billing-of-{name}/cur",
        "endpoint_url": s3.url,
        "region": REGIONS[number % 3],
        "start_month": f"2024-{number % 12 + 1:02}",
        "format": None if number % 2 else "cur1",
    }


@pytest.mark.thorough
def test_fifty_exports_are_independent(project: Project, s3: S3Server) -> None:
    payers = [payer(number, s3) for number in range(50)]
    project.export |= payers[0] | {"source": "s3://billing-of-nobody/cur"}
    for settings in payers[1:]:
        project.add_export(**settings)
    s3.requests.clear()
    definitions = project.definitions()
    assert len(definitions.resolve_asset_graph().get_all_asset_keys()) == 200
    assert s3.requests == [], "no request to a store"
    sensors = {sensor.name for sensor in definitions.sensors or []}
    assert len(sensors - {"lost_runs"}) == 50

    signed: list[str] = []
    s3.fault = lambda environ, _: signed.append(environ["HTTP_AUTHORIZATION"])
    for number in (12, 25, 38):
        settings, bucket = payers[number], f"billing-of-payer-{number}"
        s3.client().create_bucket(Bucket=bucket)
        rows, name = [line_items("2024-03", str(number))], settings["name"]
        deliver(bucket_put(s3, bucket), "2024-03", rows, export_name=name, prefix="cur")
        assert requested_months(project.tick(sensor=f"payer_{number}_manifests")) == ["2024-03"]
        assert f"/{settings['region']}/s3/" in signed[-1]
        project.load("2024-03", export=name)
        cost = f"SELECT lineitem_unblendedcost FROM {settings['table']}"
        assert project.query(cost) == [(number,)]
        partitions = definitions.resolve_job_def(f"payer_{number}_month").partitions_def
        assert partitions is not None
        assert partitions.get_first_partition_key() == settings["start_month"]

    with pytest.raises(StoreError, match=r"s3://billing-of-nobody/cur/.*the bucket does not exist"):
        project.tick(sensor="payer_00_manifests")
    assert "the bucket does not exist" in project.materialize(export="payer-00").error
    key = "cur/payer-25/20240301-20240401/payer-25-Manifest.json"
    bucket_put(s3, "billing-of-payer-25")(key, b"{")
    error = project.materialize("2024-03", export="payer-25").error
    assert error.startswith(f"s3://billing-of-payer-25/{key} is not JSON")
    project.load("2024-03", export="payer-38")
