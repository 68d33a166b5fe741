"""Each line that docs/troubleshooting.md quotes is one that the program prints."""

import ast
import re
from collections.abc import Iterator

import pytest

from finops_dagster_tests.project import ROOT

# What the system prints, and names in symptoms that are no quotation.
NOT_OURS = {"Killed", "DAGSTER_HOME", "state list", "finops state list"}


def texts() -> Iterator[str]:
    """Yield all texts of the package; a value that is put into one is a line end."""
    for path in (ROOT / "finops_dagster").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "\n" for p in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


PAGE = (ROOT / "docs/troubleshooting.md").read_text()
ROWS = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", PAGE, re.MULTILINE)]
# The column of what a person sees is the first, or the second where the first names a store.
SEEN = [row[1] if row[0] in ("S3", "Azure", "Google Cloud", "folder") else row[0] for row in ROWS]
QUOTED = {line for cell in SEEN for line in re.findall(r"`([^`]+)`", cell)}
ALL = "\0".join(texts())


def test_the_page_quotes_lines() -> None:
    assert len(QUOTED) > 40


@pytest.mark.parametrize("line", sorted(QUOTED - NOT_OURS))
def test_a_quoted_line_is_in_the_package(line: str) -> None:
    assert line in ALL
