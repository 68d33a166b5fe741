"""Every pitfall is met in a folder and in a bucket; one that takes the S3 server only there. What
is a matter of the cells and columns alone is met in a bucket by `make thorough`."""

from __future__ import annotations

import pytest

from finops_dagster_tests.project import Project


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the stores that a test runs against."""
    if "store" not in metafunc.fixturenames:
        return
    if "s3" in metafunc.fixturenames:
        metafunc.parametrize("store", ["s3"])
    else:
        is_slow = metafunc.module.__name__.rpartition(".")[2] in ("test_cells", "test_columns")
        s3 = pytest.param("s3", marks=[pytest.mark.thorough] if is_slow else [])
        metafunc.parametrize("store", ["folder", s3])


@pytest.fixture
def project(project: Project, store: str, request: pytest.FixtureRequest) -> Project:
    """A project whose export lies in the store, and whose `put` puts there."""
    if store == "s3":
        project.use_bucket(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))
    return project
