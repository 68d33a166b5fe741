"""The sessions in README.md and docs print what the pages show, and links work."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finops_dagster_tests.finops import FINOPS, Finops
from finops_dagster_tests.project import ROOT, Project

DEMO = "data/demo/finops.toml"
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
def demo(tmp_path_factory: pytest.TempPathFactory, wheel: dict[str, str]) -> tuple[Path, str]:
    """Run the wheel's `finops demo` in an empty folder; return the folder, and what it prints.

    The variables are those of other settings, which the demo does not use.
    """
    folder = tmp_path_factory.mktemp("demo")
    other_settings = {
        "OPEN_FINOPS_DATABASE_BACKEND": "bigquery",
        "FINOPS_STORAGE__PARQUET_DIR": "lake",
    }
    environment = wheel | other_settings
    printed = subprocess.run(
        [*FINOPS, "demo"], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return folder, printed.stdout


@pytest.fixture
def finops(demo: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finops:
    """Return the commands for a copy of the demo."""
    folder = tmp_path / "demo"
    shutil.copytree(demo[0], folder)
    monkeypatch.chdir(folder)
    finops = Finops(Project(folder))
    finops.environment |= {"FINOPS_CONFIG": DEMO, "COLUMNS": "115"}
    return finops


def run(command: str, finops: Finops) -> str:
    """Run a command of the shell: `finops` in this process, which saves seconds, others in bash."""
    if command.startswith("finops "):
        return finops.run(*shlex.split(command, comments=True)[1:]).output
    shell = ["bash", "-c", command]
    return subprocess.run(shell, cwd=finops.project.folder, capture_output=True, text=True).stdout


@pytest.mark.thorough
@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/accounts.md", "docs/budgets.md", "docs/focus.md", "docs/operations.md"],
)
def test_sessions_print_what_the_page_shows(page: str, finops: Finops) -> None:
    for command, lines in sessions((ROOT / page).read_text()):
        printed = [
            line for line in map(without_variable_parts, run(command, finops).splitlines()) if line
        ]
        shown = [line for line in map(without_variable_parts, lines) if line]
        if "..." in shown:
            assert set(shown) - {"..."} <= set(printed), (command, printed)
        else:
            assert sorted(shown) == sorted(printed), command


def lines_without_seconds(text: str) -> set[str]:
    return {re.sub(r" +\d+\.\d s$", "", line).strip() for line in text.splitlines()}


@pytest.mark.thorough
def test_the_demo_loads_three_months_of_two_clouds_and_restates_one(
    demo: tuple[Path, str], finops: Finops
) -> None:
    folder, printed = demo
    (session,) = re.findall(r"\$ make demo\n(.*?)\n\$", PAGES["README.md"].read_text(), re.DOTALL)
    assert lines_without_seconds(session) - {"..."} <= lines_without_seconds(printed)
    assert {path.name for path in folder.iterdir()} == {"data", ".dagster"}, "its own settings"
    assert [path.name for path in (folder / "data").iterdir()] == ["demo"]
    stale = ("state", "list", "--stale")
    assert finops.json(*stale) == []
    assert "AWS restated 2024-03" in finops("demo", "--restate")
    assert [row["month"] for row in finops.json(*stale)] == ["2024-03"]
    lines = finops("aws", "run-pipeline").splitlines()
    assert lines[0].startswith("demo 2024-03  exported")
    assert finops.json(*stale) == []
    assert "Nothing has changed: every stage" in finops("demo")
