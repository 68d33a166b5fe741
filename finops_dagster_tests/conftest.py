"""The real parts that tests run against, and a project in a folder of its own."""

import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from finops_dagster_tests.cur import Put
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

# The same few examples in every run; `--hypothesis-profile=faults` looks for new ones.
hypothesis.settings.register_profile(
    "few", max_examples=100, derandomize=True, deadline=None, database=None
)
hypothesis.settings.register_profile(
    "faults", max_examples=5000, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("few")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for a server."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What is imported stays: the collector, a fifth of all time without this, need not look."""
    gc.set_threshold(20_000, 20, 20)
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_configure() -> None:
    """Tests say what is in their environment; xdist would give them a terminal of 80 columns."""
    for name in ("DAGSTER_HOME", "FINOPS_CONFIG", "COLUMNS"):
        os.environ.pop(name, None)


_bucket_numbers = itertools.count(1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project whose export `acme` reads a local folder."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def finops(project: Project) -> Finops:
    return Finops(project)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 server for all tests; each takes buckets of its own."""
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The S3 server with an empty log, no fault, and credentials in the environment."""
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
    """Puts into a bucket, which the project's export reads."""
    project.use_bucket(s3, bucket)
    return project.put
