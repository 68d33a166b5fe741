"""Fixtures of the stages' tests: an export with charges."""

import pytest

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster_tests.project import Project
from finops_dagster_tests.small_mapping import small_mapping


@pytest.fixture
def focus(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project whose export has a small mapping to FOCUS."""
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    return project
