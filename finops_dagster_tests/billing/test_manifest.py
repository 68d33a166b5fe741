"""Every version has a staging folder of its own, and none leads elsewhere."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from finops_dagster.billing.manifest import version_folder

IDS = st.text(min_size=1, max_size=256) | st.text("ab./:~+-", min_size=1, max_size=5)


def test_a_plain_id_is_the_name_of_its_folder() -> None:
    for version in ("20240203T000000Z", "2d3b-11", "a" * 200, "v1+0a1b2c3d"):
        assert version_folder(version) == version


@given(IDS, IDS)
def test_every_id_has_a_folder_of_its_own(first: str, second: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}", version_folder(first))
    assert (version_folder(first) == version_folder(second)) == (first == second)
