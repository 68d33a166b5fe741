"""The version of a mapping changes with all that its charges depend on, and with nothing else."""

import importlib
from pathlib import Path

import pytest

from finops_dagster.focus.mapping import FocusMapping, Input

_MODULE = '''"""Cells of an invented bill."""

def cost(columns):
    """Return SQL for the cost."""
    # Discounts are negative.
    return f"{sorted(columns)[0]} + 1", columns
'''


@pytest.mark.parametrize(
    ("old", "new", "is_new_version"),
    [
        ("the cost.", "the cost\n\n    of a line item.", False),
        ("Cells of", "The cells of", False),
        ("# Discounts are negative.", "", False),
        ("# Discounts are negative.", "# Discounts are negative,\n\n    # and credits too.", False),
        ("+ 1", "+ 2", True),
        ("sorted(columns)", "list(columns)", True),
    ],
)
def test_comments_and_docstrings_are_no_part_of_a_version(
    old: str, new: str, is_new_version: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"{tmp_path.name}_cells.py"
    file.write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    build = importlib.import_module(file.stem).cost

    def version() -> str:
        return FocusMapping("small", [Input("cost", build=build)], [], {}).version

    before = version()
    file.write_text(_MODULE.replace(old, new))
    assert (version() != before) == is_new_version
