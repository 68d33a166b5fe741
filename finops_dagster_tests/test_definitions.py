"""The code location: what it holds, that it loads without credentials and network, a month of it
that `dagster asset materialize` loads from a plain shell, as CI does, and tens of exports in it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores, StoreError
from finops_dagster.pipeline.export import Export
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import ROOT, STAGES, Project, months
from finops_dagster_tests.servers.s3 import S3Server

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


Exports = list[dict[str, Any]]
REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]


@pytest.fixture
def fifty(project: Project, s3: S3Server) -> Exports:
    """Fifty exports of the project, each with a bucket for it, which is not there yet."""
    project.export, *project.more_exports = exports = [
        {
            **project.export,
            "name": f"payer-{number:02}",
            "table": f"payer_{number:02}",
            "export_name": f"payer-{number:02}",
            "source": f"s3://billing-of-{number:02}/cur",
            "endpoint_url": s3.url,
            "region": REGIONS[number % 3],
            "start_month": f"2024-{number % 12 + 1:02}" if number else "2024-01",
            "format": None if number % 2 else "cur1",
        }
        for number in range(50)
    ]
    return exports


def deliver_to(s3: S3Server, number: int) -> None:
    """Make the bucket of an export, and deliver January to it, which costs its number."""
    client, bucket = s3.client(), f"billing-of-{number:02}"
    client.create_bucket(Bucket=bucket)
    deliver(
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        "2024-01",
        [items("2024-01", str(number))],
        report=f"payer-{number:02}",
        prefix="cur",
    )


def test_definitions_of_fifty_exports_ask_no_store(
    project: Project, s3: S3Server, fifty: Exports
) -> None:
    s3.requests.clear()
    definitions = project.definitions()
    assert len(definitions.resolve_asset_graph().get_all_asset_keys()) == 200
    assert s3.requests == []
    sensors = {sensor.name for sensor in definitions.sensors or []}
    assert len(sensors - {"lost_runs"}) == 50


@pytest.mark.thorough
def test_each_export_has_its_own_region_first_month_and_table(
    project: Project, s3: S3Server, fifty: Exports
) -> None:
    for number in range(50):
        deliver_to(s3, number)
    signed: list[str] = []
    s3.fault = lambda environ, _: signed.append(environ["HTTP_AUTHORIZATION"])
    stores = ObjectStores()
    for given, settings in zip(fifty, project.settings().exports, strict=True):
        export = Export(settings)
        assert export.source(stores).versions([BillingMonth(2024, 1)])
        assert f"/{given['region']}/s3/" in signed[-1]
        assert export.partitions.get_first_partition_key() == given["start_month"]
        assert export.table == given["table"]
    for number in (0, 12, 36):
        project.load(export=f"payer-{number:02}")
        cost = f"SELECT lineitem_unblendedcost FROM payer_{number:02}"
        assert project.query(cost) == [(number,)]


def test_a_broken_export_fails_alone(project: Project, s3: S3Server, fifty: Exports) -> None:
    for number in (12, 24):
        deliver_to(s3, number)
    fifty[0]["source"] = "s3://billing-of-nobody/cur"
    key = "cur/payer-24/20240101-20240201/payer-24-Manifest.json"
    s3.client().put_object(Bucket="billing-of-24", Key=key, Body=b"{")
    with pytest.raises(StoreError, match=r"s3://billing-of-nobody/cur/.*no such bucket"):
        project.tick(sensor="payer_00_manifests")
    assert "no such bucket" in project.materialize(export="payer-00").error
    error = project.materialize(export="payer-24").error
    assert error.startswith(f"s3://billing-of-24/{key} is not JSON")
    assert months(project.tick(sensor="payer_12_manifests")) == ["2024-01"]
    project.load(export="payer-12")
