"""Every fault of `make faults`, injected once, at the same moments in every run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from finops_dagster_tests.faults.__main__ import FAULTS
from finops_dagster_tests.faults.disk import FaultUnavailable

# The other faults take minutes together.
QUICK = ("kills",)


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in QUICK else [pytest.mark.thorough]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in FAULTS])
def test_a_fault_loses_nothing(name: str, tmp_path: Path) -> None:
    fault, _ = FAULTS[name]
    with closing(fault(tmp_path, Random(name))) as injected:
        try:
            assert next(injected)
        except FaultUnavailable as error:
            pytest.skip(str(error))
