"""The sessions in README.md and docs print what the pages show, and links work."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finops_dagster_tests.project import ROOT

# Times, new versions, runs, durations and sizes differ from run to run.
VARIABLE = {
    r"\b(?!2024)\d{8}T\d{6}Z": "VERSION",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ": "TIME",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "RUN",
    r"\b\d+\.\d s\b": "SECONDS",
    r"\b[\d.]+ [kM]B\b": "SIZE",
}


PAGES = {path.name: path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_its_heading(name: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[name].read_text()):
        file, _, anchor = link.partition("#")
        target = PAGES[name].parent / file if file else PAGES[name]
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def sessions(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a page's `console` blocks with the lines that it prints."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        if "$ make" in block or "$ dagster" in block:
            continue  # other tests run these
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *printed = step.splitlines()
            while command.count('"') % 2:
                command = f"{command}\n{printed.pop(0)}"
            yield command, printed


def without_variable_parts(line: str) -> str:
    for pattern, name in VARIABLE.items():
        line = re.sub(pattern, name, line)
    return " ".join(re.sub("─+", "", line).split())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `finops demo`, and return its folder."""
    folder = tmp_path_factory.mktemp("demo")
    run("finops demo", folder)
    return folder


def run(command: str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FINOPS_CONFIG": "data/demo/finops.toml",
        "COLUMNS": "115",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/accounts.md", "docs/budgets.md", "docs/focus.md", "docs/operations.md"],
)
def test_sessions_print_what_the_page_shows(page: str, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder)
    for command, lines in sessions((ROOT / page).read_text()):
        printed = [
            line for line in map(without_variable_parts, run(command, folder).splitlines()) if line
        ]
        shown = [line for line in map(without_variable_parts, lines) if line]
        if "..." in shown:
            assert set(shown) - {"..."} <= set(printed), (command, printed)
        else:
            assert sorted(shown) == sorted(printed), command
