"""The size of runs: tags by which a run launcher gives a run more or less of a machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ByteSize, field_validator

from finops_dagster.settings_table import SettingsTable


class RunSize(SettingsTable):
    """A size of runs: a block `[[run_sizes]]`.

    `up_to` is the size of the largest month that it is for, in bytes of the vendor's files, such as
    "2GB"; None for the last size. `tags` are those of the run. A tag is a text, or a table, which
    becomes JSON as the launchers for Kubernetes and ECS want it; any other value is refused.
    """

    up_to: ByteSize | None = None
    tags: dict[str, Any]

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: dict[str, Any]) -> dict[str, Any]:
        for name, value in tags.items():
            if not isinstance(value, str | dict):
                raise ValueError(f"the tag {name} must be a text or a table; write it in quotes")
        return tags

    def run_tags(self) -> dict[str, str]:
        """Return the tags with values of text, as Dagster needs them: tables become JSON."""
        return {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self.tags.items()
        }


def check_run_sizes(sizes: Sequence[RunSize]) -> Sequence[RunSize]:
    """Return the sizes, which may be none.

    Raises ValueError unless each but the last has a limit above the one before, and the last none.
    """
    limits = [size.up_to for size in sizes]
    if not sizes:
        return sizes
    *bounded, last = limits
    if last is not None:
        raise ValueError(
            "the last run size must have no up_to: it is for all larger months; remove up_to"
        )
    if None in bounded or bounded != sorted({*filter(None, bounded)}):
        raise ValueError(
            "each run size but the last needs an up_to that is above the one before; set it, or "
            "correct their order"
        )
    return sizes


def tags_of_size(sizes: Sequence[RunSize], month_bytes: int | None) -> dict[str, str]:
    """Return the tags of the smallest size that a month of `month_bytes` bytes fits into.

    None is a month whose size is unknown, as neither it nor an earlier month is loaded: it gets the
    last, largest size. Without sizes, there are no tags.
    """
    for size in sizes:
        if size.up_to is None or (month_bytes is not None and month_bytes <= size.up_to):
            return size.run_tags()
    return {}
