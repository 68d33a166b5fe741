"""A month a pod: Dagster's launcher for Kubernetes, and disks that end with their pods."""

from pathlib import Path
from random import Random

import pytest

from finops_dagster_tests.faults.pods import loaded_by_pods
from finops_dagster_tests.servers.kubernetes import can_isolate


@pytest.mark.thorough
@pytest.mark.skipif(not can_isolate(), reason="a pod needs unshare, as root or with namespaces")
def test_each_month_is_loaded_once_although_pods_are_killed_and_doubled(tmp_path: Path) -> None:
    held = [*loaded_by_pods(tmp_path / "pods", Random("pods"), (2, 4), 2)]
    assert "8 months as delivered, to the last digit" in held
    assert "no month is shown as failed" in held
