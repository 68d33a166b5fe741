"""Every fault of `make faults`, a few times, always the same."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from finops_dagster_tests.faults.__main__ import FAULTS
from finops_dagster_tests.faults.namespace import NotHere

TIMES = 1


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    fault, _ = FAULTS[name]
    with closing(fault(tmp_path, Random(name))) as injected:
        try:
            assert len(list(islice(injected, TIMES))) == TIMES
        except NotHere as error:
            pytest.skip(str(error))
