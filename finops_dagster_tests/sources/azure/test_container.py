"""Azure's exports in a container of a real server: found, loaded, restated, and looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest

from finops_dagster.settings import load_settings
from finops_dagster_tests.azure import Run, costs, deliver
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project, requested_months
from finops_dagster_tests.servers.azurite import AzureServer


@pytest.fixture
def project(project: Project, azure: AzureServer, container: str) -> Project:
    """Return a project whose export is in the folder `exports` of a container."""
    client = azure.container(container)
    project.put = lambda key, body: client.upload_blob(key, body, overwrite=True)
    project.export["source"] = f"{azure.url}/{container}/exports"
    return project


def total(project: Project) -> int:
    ((amount,),) = project.query("SELECT sum(billedcost) FROM azure")
    return int(amount)


def test_a_month_in_a_container_is_loaded_and_restated(project: Project) -> None:
    deliver(project.put, Run(), costs("1", "2"))
    project.load(export="contoso")
    assert total(project) == 3
    assert set(project.load(export="contoso").outcomes().values()) == {"unchanged"}
    deliver(project.put, Run(number=2), costs("5"))
    project.load(export="contoso")
    assert total(project) == 5


def test_the_exports_of_a_container_are_found(
    project: Project, azure: AzureServer, container: str, finops: Finops
) -> None:
    deliver(project.put, Run(), costs("1"))
    file = project.folder / "found.toml"
    file.write_text(finops("config", "discover", f"{azure.url}/{container}"))
    (export,) = load_settings(file).exports
    project.export = export.model_dump(mode="json", exclude_defaults=True) | {"table": "azure"}
    project.load(export=export.name)
    assert total(project) == 1


def test_a_tick_lists_the_months_and_reads_no_manifest_twice(
    project: Project, azure: AzureServer
) -> None:
    for number in (1, 2, 3):
        deliver(project.put, Run(number=number), costs("1"))
    first = project.tick(sensor="contoso_manifests")
    assert requested_months(first) == ["2024-01"]
    azure.requests.clear()
    assert requested_months(project.tick(first.cursor, "contoso_manifests")) == []
    assert azure.requests
    assert all("comp=list" in path for _, path in azure.requests)


@pytest.mark.thorough
def test_thousands_of_runs_cost_a_listing_and_a_manifest_of_each_month(
    project: Project, azure: AzureServer
) -> None:
    months, numbers = ("2023-10", "2023-11"), range(1, 1001)
    with ThreadPoolExecutor(8) as pool:
        for month, number in product(months, numbers):
            pool.submit(deliver, project.put, Run(month, number))
    azure.requests.clear()
    assert requested_months(project.tick(sensor="contoso_manifests")) == ["2023-11", "2023-10"]
    listings = [path for _, path in azure.requests if "comp=list" in path]
    manifests = [path for _, path in azure.requests if path.endswith("manifest.json")]
    assert len(manifests) == len(months)
    assert len(listings) + len(manifests) == len(azure.requests) <= 10
