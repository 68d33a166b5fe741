"""Run every pitfall in a folder; in a bucket alone where the test uses `s3`.

Pitfalls of files and of where they are depend on the store: `make thorough` runs them in a bucket.
"""

from __future__ import annotations

import pytest

from finops_dagster_tests.project import Project

_DEPEND_ON_THE_STORE = ("test_data_exports", "test_files", "test_locations")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the stores that a test runs against."""
    if "store" not in metafunc.fixturenames:
        return
    if "s3" in metafunc.fixturenames:
        metafunc.parametrize("store", ["s3"])
    elif metafunc.module.__name__.rpartition(".")[2] in _DEPEND_ON_THE_STORE:
        in_bucket = pytest.param("s3", marks=pytest.mark.thorough)
        metafunc.parametrize("store", ["folder", in_bucket])
    else:
        metafunc.parametrize("store", ["folder"])


@pytest.fixture
def project(project: Project, store: str, request: pytest.FixtureRequest) -> Project:
    """Return a project whose export is in the store, which `put` writes to."""
    if store == "s3":
        project.use_bucket(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))
    return project
