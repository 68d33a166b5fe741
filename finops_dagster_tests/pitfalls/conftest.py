"""Run every pitfall in a folder and in a bucket; in a bucket alone where the test uses `s3`.

Pitfalls of cells and columns do not depend on the store: `make thorough` runs them in a bucket.
"""

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
    """Return a project whose export is in the store, which `put` writes to."""
    if store == "s3":
        project.use_bucket(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))
    return project
