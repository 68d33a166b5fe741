"""Output of untrusted text: no command interprets it, and JSON is exact.

Untrusted text comes from bills, file names, stores and databases. It is escaped on a terminal, in a
pipe, in the report's HTML and in the UI's Markdown.
"""

import json
import os
import pty
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from fcntl import ioctl
from html.parser import HTMLParser
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import pytest
from pytest import MonkeyPatch
from rich.cells import cell_len

import finops_dagster
from finops_dagster.billing.errors import escaped
from finops_dagster.cli.output import json_value, value_text
from finops_dagster.pipeline.metadata import safe_markdown
from finops_dagster_tests.cur import line_item
from finops_dagster_tests.finops import FINOPS, CommandResult, Finops
from finops_dagster_tests.project import Project

HOSTILE = {
    "closing": "[/b] x",
    "colour": "[red]5[/red]",
    "emoji": "arn:cloud:key:prod",
    "backslash": "a\\",
    "line": "one\ntwo\r\nthree",
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "direction": "abc\u202edef\u2066\u200f",
    "page": "<script>alert(1)</script>&amp;",
    "table": "a|b`c``d` **e** www.example.com",
    "long": "b" * 5_000 + "e" * 5_000,
}
VERSION = "[/b]:key:-1"
TYPED = "[/b]:key:\x1b[31m"
# The escape sequences that rich writes: colours and cursor movements. A bill may not add others.
RICH_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\??[0-9;]*[hlAKGJ]")
COMMANDS = [
    *("aws discover-manifests", "aws run-pipeline --dry-run", "aws show-state"),
    *("aws show-state --runs", "state list", "state show acme", "state show acme 2024-01"),
    *("state show acme 2024-02", "state report", "state verify"),
    *("state cleanup --dry-run --older-than 0h", "config", "config check", "worker list"),
    "accounts list",
]
QUERIES = ["FROM aws_billing_data", "FROM aws_billing_data LIMIT 1"]
SERVICES = (
    "SELECT lineitem_productcode AS service FROM aws_billing_data ORDER BY identity_lineitemid"
)


@pytest.fixture(scope="module")
def finops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finops]:
    """Return a project with ten months that fail at a hostile cost, and one of hostile services."""
    with MonkeyPatch.context() as patch:
        project = Project(tmp_path_factory.mktemp("hostile"))
        patch.chdir(project.folder)
        services = [
            line_item("2024-01", identity__LineItemId=f"{number:02}", lineItem__ProductCode=text)
            for number, text in enumerate(HOSTILE.values())
        ]
        project.deliver(services, version=VERSION)
        for number, text in enumerate(HOSTILE.values(), 2):
            project.deliver(text, month=f"2024-{number:02}")
        finops = Finops(project)
        settings = project.folder / "finops.toml"
        settings.write_text('project.name = "[/b]:key:"\n' + settings.read_text())
        yield finops


@pytest.fixture(scope="module")
def first_run(finops: Finops) -> CommandResult:
    return finops.run("aws", "run-pipeline")


def on_terminal(finops: Finops, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of a command on a terminal of 80 columns."""
    terminal, command_end = pty.openpty()
    ioctl(command_end, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**finops.environment, "TERM": "xterm"}
    with subprocess.Popen(
        [*FINOPS, *arguments], env=environment, stdout=command_end, stderr=command_end
    ) as process:
        os.close(command_end)
        printed = b""
        try:
            while chunk := os.read(terminal, 65536):
                printed += chunk
        except OSError:  # Linux raises when the command's end is closed.
            pass
    os.close(terminal)
    return process.returncode, printed.decode().replace("\r\n", "\n")


def assert_is_safe(printed: str) -> None:
    """Assert that a terminal would interpret nothing but rich's own escape sequences."""
    assert "Traceback" not in printed
    plain = RICH_ESCAPES.sub("", printed)
    assert all(char.isprintable() or char in "\n\r" for char in plain), ascii(plain)


def assert_shows(printed: str, *texts: str) -> None:
    """Assert that the output has the texts, escaped, wherever lines are folded."""
    assert_is_safe(printed)
    flat = re.sub(r"\s", "", RICH_ESCAPES.sub("", printed))
    for text in texts:
        expected = re.sub(r"\s", "", escaped(text))
        if len(expected) > 1000:
            assert expected[:50] in flat
            assert expected not in flat
        else:  # A cell in a message is a literal, in which a backslash is doubled.
            assert expected in flat or expected.replace("\\", "\\\\") in flat, ascii(printed)


@pytest.mark.thorough
def test_failed_months_show_the_escaped_cell_and_the_next_month_runs(
    first_run: CommandResult,
) -> None:
    assert first_run.exit_code == 1
    *failed, last = first_run.stdout.splitlines()
    # As a later month succeeded, what failed is printed once more, last.
    assert first_run.stderr.splitlines() == failed
    assert f"acme 2024-01  exported  {VERSION}  10 rows  10.00" in last
    for line, text in zip(failed, reversed(HOSTILE.values()), strict=True):
        assert "failed: " in line
        assert_shows(line, text)


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_query_escapes_cells_and_its_json_has_them_whole(finops: Finops) -> None:
    result = finops.run("query", SERVICES)
    assert_shows(result.stdout, *(text for text in HOSTILE.values() if len(text) < 1000))
    _, _, *cells = result.stdout.splitlines()
    assert len(cells) == len(HOSTILE)  # each row in one line
    assert [cell for cell in cells if cell.endswith("…")] == ["b" * 199 + "…"]
    assert result.stderr == "cut, with an ellipsis: 1 cell; use --format csv or json for all\n"
    assert [row["service"] for row in finops.json("query", SERVICES)] == list(HOSTILE.values())
    one_row = finops("query", f"{SERVICES} DESC LIMIT 1")
    assert "… 9,000 characters are not shown …" in re.sub(r"\s+", " ", one_row)


def test_csv_is_escaped_on_a_terminal_alone(finops: Finops) -> None:
    sql = """SELECT '\x1b]0;title\x07' AS "a\x1bb", 'one\ntwo\r\n "three", \x1b[31m' AS text,
        NULL AS nothing, '' AS empty UNION ALL SELECT 'plain', '\u202e', 'x', '"' ORDER BY 1"""
    csv = (
        'a\x1bb,text,nothing,empty\n\x1b]0;title\x07,"one\ntwo\r\n ""three"", \x1b[31m",,""\n'
        'plain,\u202e,x,""""\n'
    )
    assert finops("query", sql, "--format", "csv") == csv
    code, printed = on_terminal(finops, "query", sql, "--format", "csv")
    assert_is_safe(printed)
    assert (code, printed.splitlines()) == (
        0,
        [
            "a\\x1bb,text,nothing,empty",
            '\\x1b]0;title\\x07,"one\\ntwo\\r\\n ""three"", \\x1b[31m",,""',
            'plain,\\u202e,x,""""',
        ],
    )
    on_terminal(finops, "query", sql, "--out", "rows.csv")
    with Path("rows.csv").open(newline="") as file:
        assert file.read() == csv


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize(
    "command", [*(command.split() for command in COMMANDS), *(["query", sql] for sql in QUERIES)]
)
def test_every_command_fits_80_columns_and_its_json_has_plain_keys_and_zones(
    finops: Finops, command: list[str], monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = finops.run(*command)
    assert result.exit_code == (command == ["state", "verify"] and "differs" in result.output)
    assert_is_safe(result.output)
    assert max(map(cell_len, result.stdout.splitlines())) <= 80, result.stdout
    if command[0] == "query":
        return
    for key, value in pairs(finops.json(*command)):
        assert re.fullmatch("[a-z][a-z0-9_]*", key)
        if re.match(r"\d{4}-\d\d-\d\d", str(value)):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)


def pairs(document: Any) -> Iterator[tuple[str, Any]]:
    for part in document if isinstance(document, list) else document.values():
        yield from pairs(part) if isinstance(part, list) else part.items()


class Browser(HTMLParser):
    """The text and the tags that a browser finds in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_state_and_report_show_escaped_reasons_and_html_has_no_foreign_tags(
    finops: Finops,
) -> None:
    browser = Browser()
    browser.feed(finops("state", "report", "--format", "html"))
    assert "script" not in browser.tags
    for shown in (finops("state", "report"), browser.text):
        assert_shows(shown, "[/b]:key:")
    for number, text in enumerate(HOSTILE.values(), 2):
        assert_shows(finops("state", "show", "acme", f"2024-{number:02}"), text)


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_a_terminal_shows_the_same_text_as_a_pipe(finops: Finops) -> None:
    code, printed = on_terminal(finops, "aws", "run-pipeline", "--end-date", "2024-02")
    assert code == 1
    assert_shows(printed, HOSTILE["closing"])
    assert f"acme 2024-01  unchanged  {VERSION}" in printed
    code, printed = on_terminal(finops, "query", "SELECT '[/b]' AS a, ':key:' AS b, chr(27) AS c")
    assert code == 0
    assert RICH_ESCAPES.sub("", printed).split()[-3:] == ["[/b]", ":key:", r"\x1b"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["-c", f"{TYPED}.toml", "config"], 1),
        (["state", "show", TYPED], 1),
        (["query", f'FROM "{TYPED}"'], 1),
        (["worker", "stop", TYPED], 1),
        (["state", "import", f"{TYPED}.json"], 1),
        (["aws", "show-state", "--start-date", TYPED], 2),
        ([TYPED], 2),
    ],
    ids=lambda value: str(value)[:24],
)
def test_messages_escape_what_was_typed(finops: Finops, command: list[str], code: int) -> None:
    assert_shows(finops(*command, code=code), "[/b]:key:")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_markdown_shows_names_without_interpreting_them(text: str) -> None:
    cell = safe_markdown(text)
    assert "|" not in cell and "\n" not in cell and len(cell) < 1100
    if not text.isalnum():
        fence = re.match("`+", cell)
        assert fence is not None and cell.endswith(fence[0])
        assert fence[0] not in cell[len(fence[0]) : -len(fence[0])]
    plain = "Amazon Elastic-Compute pricing_weight 2"
    assert safe_markdown(plain) == plain


def test_query_names_every_column_and_counts_those_it_hides(
    finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    assert finops("query", "SELECT 1 a, 2 a").split()[:5] == ["a", "a", "────", "1", "2"]
    result = finops.run("query", "--json", "SELECT 1 a, 2 a, 3 a_1")
    assert json.loads(result.stdout) == [{"a": 1, "a_2": 2, "a_1": 3}]
    assert result.stderr == (
        "several columns are named a; one of them is written as a_2; to choose the names, rename "
        "the columns with AS\n"
    )

    monkeypatch.setenv("COLUMNS", "80")
    columns = ", ".join(f"{number} AS column{number}" for number in range(198))
    result = finops.run("query", f"SELECT {columns} FROM range(2)")
    header, _, *rows = result.stdout.splitlines()
    shown = header.split()
    assert shown[:5] == ["column0", "column1", "column2", "column3", "…"]
    assert shown[-1] == "column197"
    assert len(rows) == 2
    left_out = 198 - len(shown) + 1
    assert result.stderr == (
        f"not shown: {left_out} of 198 columns; select fewer, or use --format csv or json for all\n"
    )
    one_row = finops("query", f"SELECT {columns}").splitlines()
    assert len(one_row) == 198 and one_row[9].split() == ["column9", "9"]


def test_json_rounds_nothing_and_times_have_their_zone(finops: Finops) -> None:
    (row,) = finops.json(
        "query",
        """SELECT 0.10::DECIMAL(38,18) AS cost, 9007199254740993 AS large, 2 AS small,
        TIMESTAMP '2024-01-03 04:00:00' AS at, DATE '2024-01-03' AS day, NULL AS nothing,
        '' AS empty, {'a': [1.5, 2.5]} AS nested, MAP {'k': 0.5} AS tags, '\\xAA'::BLOB AS bytes,
        'infinity'::DOUBLE AS endless""",
    )
    assert row == {
        "cost": "0.1",
        "large": "9007199254740993",
        "small": 2,
        "at": "2024-01-03T04:00:00Z",
        "day": "2024-01-03",
        "nothing": None,
        "empty": "",
        "nested": {"a": ["1.5", "2.5"]},
        "tags": {"k": "0.5"},
        "bytes": "\\xAA",
        "endless": "inf",
    }
    shown = finops("query", "SELECT NULL AS nothing, '' AS empty, 1234 AS year")
    assert shown.splitlines()[-1].split() == ["NULL", "1234"]


def test_a_time_without_a_zone_is_in_utc_in_a_table_as_in_json(monkeypatch: MonkeyPatch) -> None:
    at = datetime(2024, 1, 1, 6, 30)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert (value_text(at), json_value(at)) == ("2024-01-01 06:30:00Z", "2024-01-01T06:30:00Z")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_run_pipeline_prints_a_line_of_json_for_each_month(finops: Finops) -> None:
    result = finops.run("aws", "run-pipeline", "--end-date", "2024-02", "--json")
    assert result.exit_code == 1
    failed, loaded = map(json.loads, result.stdout.splitlines())
    assert (failed["month"], failed["outcome"]) == ("2024-02", "failed")
    assert re.search("'\\[/b] x' (is|cannot)", failed["reason"])
    assert loaded.pop("seconds") > 0
    assert loaded.pop("run")
    changes = ("replaced_version", "rows_changed", "cost_changed", "largest_changes", "reason")
    assert loaded == dict.fromkeys(changes) | {
        "export": "acme",
        "month": "2024-01",
        "outcome": "unchanged",
        "version": VERSION,
        "rows": 10,
        "cost": "10",
        # The small bill lacks columns that FOCUS demands.
        "failed_checks": ["focus_conforms"],
    }


def test_only_terminal_creates_consoles() -> None:
    package = Path(finops_dagster.__file__).parent
    modules = [path for path in package.rglob("*.py") if "Console(" in path.read_text()]
    assert modules == [package / "terminal.py"]
