"""Faults of `make faults` that no other test has, injected once, at the same moments."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from finops_dagster_tests.faults.__main__ import FAULTS
from finops_dagster_tests.faults.disk import FaultUnavailable


# Pods are in deploy/test_pods.py.
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["kills", "disk", "s3", "database"])
def test_a_fault_loses_nothing(name: str, tmp_path: Path) -> None:
    fault, _ = FAULTS[name]
    with closing(fault(tmp_path, Random(name))) as injected:
        try:
            assert next(injected)
        except FaultUnavailable as error:
            pytest.skip(str(error))
