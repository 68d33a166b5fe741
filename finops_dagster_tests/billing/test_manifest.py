"""Every version has a staging folder of its own, and none leads elsewhere."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from finops_dagster.billing.manifest import staging_folder_name

IDS = st.text(min_size=1, max_size=256) | st.text("ab./:~+-", min_size=1, max_size=5)


def test_a_plain_id_is_the_name_of_its_folder() -> None:
    for version in ("20240203T000000Z", "2d3b-11", "a" * 200, "v1+0a1b2c3d"):
        assert staging_folder_name(version) == version


@given(IDS, IDS)
def test_every_id_has_a_folder_of_its_own(first: str, second: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}", staging_folder_name(first))
    assert (staging_folder_name(first) == staging_folder_name(second)) == (first == second)
