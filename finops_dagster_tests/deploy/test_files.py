"""The files of deploy/ are read by the programs that they are for, or by a stand-in for them."""

import configparser
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification

from finops_dagster_tests.project import ROOT

DEPLOY, BIN = ROOT / "deploy", Path(sys.executable).parent
CHART = Path(__file__).parent / "chart"


def document(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return content


def test_the_dockerfile_is_linted() -> None:
    command = [BIN / "hadolint", "--no-color", DEPLOY / "Dockerfile"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""


def test_the_image_installs_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = [
        line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if "ARG EXTRAS=" in line
    ]
    assert {*line.partition("=")[2].split(",")} <= project["optional-dependencies"].keys()


def test_docker_reads_the_compose_file() -> None:
    compose = ComposeSpecification.model_validate(document("compose.yaml"))
    assert compose.services
    assert compose.services.keys() == {"postgresql", "code", "webserver", "daemon"}
    for service in compose.services.values():
        published = [str(port) for port in service.ports or []]
        assert all(port.startswith("127.0.0.1:") for port in published)


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(values, name="finops", namespace="finops")
    return [yaml.safe_load(text) for text in rendered.values()]


def test_the_values_are_values_of_the_chart_and_kubernetes_takes_the_job_of_a_run() -> None:
    (job,) = render(document("values.yaml"))
    kubernetes_validate.validate(job, "1.34", strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    # The code server has the same mounts: there, too, `finops` reads the history of all pods.
    assert mounted["instance"] == f"{mounted['home']}/dagster.yaml"
    assert {source["secretRef"]["name"] for source in container["envFrom"]} == {"finops-secrets"}


def test_a_misspelt_value_is_refused() -> None:
    values = document("values.yaml")
    values["dagsterDaemon"]["runRetrys"] = values["dagsterDaemon"].pop("runRetries")
    with pytest.raises(helm.HelmValuesError, match="runRetrys"):
        render(values)


def test_the_chart_and_the_instance_file_say_the_same() -> None:
    instance, values = document("dagster.yaml"), document("values.yaml")
    daemon = values["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    runs = instance["concurrency"]["runs"]
    assert queue["maxConcurrentRuns"] == runs["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == runs["tag_concurrency_limits"]
    assert daemon["runRetries"]["maxRetries"] == instance["run_retries"]["max_retries"]
    scheme = instance["storage"]["postgres"]["postgres_db"]["scheme"]
    assert values["postgresql"]["postgresqlScheme"] == scheme
    of_chart = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    of_instance = instance["run_launcher"]["config"]["run_k8s_config"]
    for_runs = of_instance["container_config"]["resources"]
    assert of_chart["containerConfig"]["resources"] == for_runs


@pytest.mark.thorough
@pytest.mark.parametrize("unit", sorted(path.name for path in DEPLOY.glob("systemd/*")))
def test_the_programs_of_the_units_are_installed(unit: str) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / unit)
    program, *arguments = parser["Service"]["ExecStart"].split()
    help_text = subprocess.run(
        [BIN / Path(program).name, *arguments[: 1 if arguments[0] == "run" else 0], "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(option in help_text for option in arguments if option.startswith("--"))
