"""Fixtures of all tests: a project, the `finops` command, and real servers."""

import gc
import itertools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster_tests.cur import Put
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.azurite import AzureServer
from finops_dagster_tests.servers.gcs import GcsServer
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.servers.webhook import WebhookServer

# The same examples in every run; `--hypothesis-profile=faults` looks for new ones.
hypothesis.settings.register_profile(
    "few", max_examples=50, derandomize=True, deadline=None, database=None
)
hypothesis.settings.register_profile(
    "faults", max_examples=5000, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("few")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are cores, as some tests wait for a server."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark parameters as thorough, except those that the test's mark `quick` names.

    `quick("zip", "cost")` keeps the parameters whose id contains `zip` or `cost` in `make test`.
    """
    for item in items:
        quick = item.get_closest_marker("quick")
        if quick and not any(part in item.name.partition("[")[2] for part in quick.args):
            item.add_marker("thorough")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what was imported: it takes a fifth of all time otherwise."""
    gc.set_threshold(20_000, 20, 20)
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_configure() -> None:
    """Remove variables that change the results; xdist would set a terminal of 80 columns."""
    for name in ("DAGSTER_HOME", "FINOPS_CONFIG", "COLUMNS"):
        os.environ.pop(name, None)


_bucket_numbers = itertools.count(1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return an empty project in the working directory, whose export `acme` reads a local folder.

    Most tests are about the bill alone: no format has a mapping to FOCUS, unless a test sets one.
    """
    monkeypatch.chdir(tmp_path)
    for key in list(MAPPINGS):
        monkeypatch.delitem(MAPPINGS, key)
    return Project(tmp_path)


@pytest.fixture
def finops(project: Project) -> Finops:
    return Finops(project)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Unpack the wheel, and return the environment of commands that use it."""
    pytest.importorskip("setuptools")
    package = ROOT / "finops_dagster"
    source, site = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, source / package.name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta as b; b.build_wheel({str(source)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (file,) = source.glob("*.whl")
    zipfile.ZipFile(file).extractall(site)
    variables = {"PYTHONPATH": str(site), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    return {name: v for name, v in os.environ.items() if name != "FINOPS_CONFIG"} | variables


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Start the S3 server of all tests; each test creates its own buckets."""
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Return the S3 server with an empty log, no fault, and credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    s3_server.requests.clear()
    yield s3_server
    s3_server.fault = None


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = f"acme-billing-{next(_bucket_numbers)}"
    s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def put_in_bucket(project: Project, s3: S3Server, bucket: str) -> Put:
    """Return a function that writes to a bucket, which the project's export reads."""
    project.use_bucket(s3, bucket)
    return project.put


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    """Start the Azure Blob server of all tests; each test creates its own containers."""
    server = AzureServer()
    yield server
    server.close()


@pytest.fixture
def azure(azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureServer]:
    """Return the server with an empty log, no fault, and a connection string in the environment."""
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure_server.connection_string)
    azure_server.requests.clear()
    yield azure_server
    azure_server.reset()


@pytest.fixture
def container(azure: AzureServer) -> str:
    name = f"acme-costs-{next(_bucket_numbers)}"
    azure.container(name).create_container()
    return name


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """Start the server of Google Cloud Storage of all tests; each test creates its own buckets."""
    server = GcsServer()
    yield server
    server.close()


@pytest.fixture
def gcs(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    """Return the server with an empty log, no fault, and its address in the environment."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    gcs_server.requests.clear()
    yield gcs_server
    gcs_server.reset()


@pytest.fixture
def gcs_bucket(gcs: GcsServer) -> str:
    name = f"acme-costs-{next(_bucket_numbers)}"
    gcs.bucket(name).create()
    return name


@pytest.fixture
def lake_storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the settings `[storage]` of an empty lake in a store.

    It is S3, unless a test has another one, `https`, `abfss` or `gs`, as an indirect parameter.
    """
    kind = getattr(request, "param", "s3")
    if kind == "s3":
        s3, bucket = map(request.getfixturevalue, ("s3", "bucket"))
        keys = {"endpoint_url": s3.url, "region": "us-east-1"}
        return {"parquet_dir": f"s3://{bucket}/lake", "lake": keys}
    if kind == "gs":
        gcs, bucket = map(request.getfixturevalue, ("gcs", "gcs_bucket"))
        # pyarrow waits without end for a server in its own process, such as the tests' proxy.
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.server_url)
        return {"parquet_dir": f"gs://{bucket}/lake"}
    azure, container = map(request.getfixturevalue, ("azure", "container"))
    root = azure.url if kind == "https" else "abfss:/"
    return {"parquet_dir": f"{root}/{container}/lake"}


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    """Return a server whose URL, with a secret in it, is in the variable ALERT_WEBHOOK."""
    server = WebhookServer()
    monkeypatch.setenv("ALERT_WEBHOOK", f"{server.url}/services/hunter2")
    yield server
    server.close()
