"""A reader, which counts and loads files as the project does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finops_dagster_tests.hostile.reading import Reader


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Return one reader for all tests of a module."""
    with Reader.below(tmp_path_factory.mktemp("bills")) as reader:
        yield reader
