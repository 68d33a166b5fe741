"""`finops query`: what it reads, what it prints, and the files that it writes."""

import json
import re
from decimal import Decimal
from io import StringIO
from pathlib import Path

import duckdb
import pytest
from pytest import MonkeyPatch

from finops_dagster.focus.named_questions import named_questions
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.reports.charges import charge, write_charges

EXACT = """SELECT -98765432109876543210.123456789012345678::DECIMAL(38, 18) AS cost,
    99999999999999999999::HUGEINT AS large, 'a "b",\nc' AS text, NULL AS nothing, '' AS empty"""


@pytest.fixture
def lake(finops: Finops) -> Path:
    """Return the lake of a project, with two charges."""
    lake = finops.project.folder / "data/parquet"
    write_charges(lake, "acme", "2024-01", charge("a", "1.5"), charge("b", "0.25"))
    return lake


def test_csv_and_json_are_exact_on_standard_output_and_in_files(finops: Finops) -> None:
    csv = (
        "cost,large,text,nothing,empty\n"
        '-98765432109876543210.123456789012345678,99999999999999999999,"a ""b"",\nc",,""\n'
    )
    assert finops("query", EXACT, "--format", "csv") == csv
    assert finops("query", EXACT, "--out", "rows.csv") == "rows.csv: 1 row\n"
    assert Path("rows.csv").read_text() == csv
    printed = finops("query", EXACT, "--json")
    assert printed == finops("query", EXACT, "--format", "json")
    assert json.loads(printed) == [
        {
            "cost": "-98765432109876543210.123456789012345678",
            "large": "99999999999999999999",
            "text": 'a "b",\nc',
            "nothing": None,
            "empty": "",
        }
    ]
    assert printed == json.dumps(json.loads(printed), indent=2) + "\n"
    finops("query", EXACT, "--out", "rows.JSON")
    assert Path("rows.JSON").read_text() == printed
    assert finops("query", "SELECT 1 WHERE false", "--json") == "[]\n"
    nested = "SELECT {'a': [1, 2], 'b': {'c': 'x\n'}} AS n, [] AS e, range AS r FROM range(3)"
    printed = finops("query", nested, "--json")
    assert printed == json.dumps(json.loads(printed), indent=2) + "\n"


def test_parquet_has_the_types_and_the_order_of_the_query(finops: Finops) -> None:
    rows = "SELECT range AS i, 1 AS a, 2 AS a FROM range(200000) ORDER BY i DESC"
    result = finops.run("query", rows, "--out", "rows.parquet")
    assert result.stdout == "rows.parquet: 200,000 rows\n"
    assert result.stderr.startswith("several columns are named a; one of them is written as a_1;")
    written = duckdb.sql("FROM 'rows.parquet'")
    assert written.columns == ["i", "a", "a_1"]
    assert written.limit(2).fetchall() == [(199999, 1, 2), (199998, 1, 2)]
    finops("query", EXACT, "--format", "parquet", "--out", "exact")
    cost, large, *_ = duckdb.sql("FROM read_parquet('exact')").fetchall()[0]
    assert (cost, large) == (Decimal("-98765432109876543210.123456789012345678"), 10**20 - 1)


def test_a_file_is_replaced_when_it_is_whole(finops: Finops) -> None:
    file = finops.project.folder / "rows.csv"
    finops("query", "SELECT 1 AS a", "--out", "rows.csv")
    finops("query", "SELECT 2 AS a", "--out", "rows.csv")
    assert file.read_text() == "a\n2\n"
    fails = "SELECT CAST(if(range > 150000, 'x', '1') AS INTEGER) AS a FROM range(200000)"
    error = finops("query", fails, "--out", "rows.csv", code=1)
    assert error.startswith("Conversion Error: Could not convert string 'x' to INT32")
    assert "finops_query" not in error
    assert file.read_text() == "a\n2\n"
    assert list(finops.project.folder.glob("rows*")) == [file]
    missing = finops("query", "SELECT 1", "--out", "none/rows.csv", code=1)
    assert missing.startswith("none/rows.csv cannot be written: the folder none does not exist;")


def test_sql_comes_from_an_argument_a_file_or_standard_input(
    finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    commented = "-- a = comment\nSELECT 42 AS answer;"
    Path("q.sql").write_text(f"\ufeff{commented}")
    monkeypatch.setattr("sys.stdin", StringIO(commented))
    for arguments in (["--", commented], ["--file", "q.sql"], ["-"]):
        assert (
            finops.run("query", "--json", *arguments).stdout == '[\n  {\n    "answer": 42\n  }\n]\n'
        )
    assert "SQL that begins with -- is taken for an option; write --" in finops(
        "query", commented, code=2
    )
    assert finops("query", "--file", "none.sql", code=1).startswith("none.sql cannot be read: No")
    Path("q.sql").write_bytes(b"SELECT '\xe9'")
    assert finops("query", "--file", "q.sql", code=1).startswith("q.sql is not in UTF-8; convert")
    for wrong in ([], ["SELECT 1", "--file", "q.sql"], ["--file", "q.sql", "--named", "x"]):
        assert "give exactly one of SQL, --file and --named" in finops("query", *wrong, code=2)


def test_options_that_exclude_each_other_are_named(finops: Finops) -> None:
    for options, problem in {
        "--json --format csv": "--json and --format csv exclude each other",
        "--format parquet": "--format parquet needs a file: add --out FILE",
        "--out x.txt": "--out needs --format csv, json or parquet",
        "--out x.csv --format table": "--out needs --format csv, json or parquet",
        "--format xlsx": "'xlsx' is not one of",
    }.items():
        assert problem in finops("query", "SELECT 1", *options.split(), code=2)


def test_a_question_is_asked_by_its_name(finops: Finops, lake: Path) -> None:
    for arguments in (["--named"], ["--named="]):
        listed = finops("query", *arguments)
        assert all(name in listed for name in named_questions())
    assert "Which services cost most in the last month?" in listed
    assert {row["name"] for row in finops.json("query", "--named")} == set(named_questions())
    unknown = finops("query", "--named", "top", code=1)
    assert unknown.startswith("there is no question 'top'; choose one of these: amortized-against")
    # These charges lack a column.
    assert 'column "ProviderName" not found' in finops("query", "--named", "top-services", code=1)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "SELECT sum(BilledCosts) FROM focus",
            [
                'Binder Error: Referenced column "BilledCosts" not found in FROM clause! Candidate '
                'bindings: "BilledCost"; correct the query',
                "LINE 1: SELECT sum(BilledCosts) FROM focus",
                "                   ^^^^^^^^^^^",
            ],
        ),
        (
            "FROM focus_name",
            [
                "Catalog Error: Table with name focus_name does not exist! Did you mean "
                '"focus_named"? The tables are: accounts, focus, focus_named',
                "LINE 1: FROM focus_name",
                "             ^^^^^^^^^^",
            ],
        ),
        (
            "SELECT 1,\n\t'\x1b[31m', 2 3",
            [
                'Parser Error: syntax error at or near "3"; correct the query',
                "LINE 2:  ' [31m', 2 3",
                "                    ^",
            ],
        ),
    ],
)
def test_an_error_keeps_the_hints_of_duckdb(
    finops: Finops, lake: Path, sql: str, said: list[str]
) -> None:
    first, *place = finops("query", sql, code=1).splitlines()
    assert first.startswith(said[0].partition(' bindings: "')[0])
    assert place == said[1:]


def test_too_little_memory_is_not_taken_for_bad_sql(finops: Finops) -> None:
    Finops(finops.project, '[database.duckdb]\nthreads = 1\nmemory_limit = "2MB"\n')
    distinct = "SELECT count(DISTINCT hash(range)) FROM range(1000000)"
    for options in ([], ["--json"], ["--format", "csv"], ["--out", "rows.csv"]):
        (line,) = finops("query", distinct, *options, code=1).splitlines()
        assert line.startswith("DuckDB needs more memory for this than database.duckdb.memory_lim")
        assert "correct the query" not in line and "damaged" not in line


LONG = "SELECT -98765432109876543210.123456789012345678::DECIMAL(38, 18) AS cost, "


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_number_is_shown_whole_in_one_line_on_any_terminal(
    finops: Finops, monkeypatch: MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    largest = 2**127 - 1
    others = f"'{'word ' * 30}' AS text, {largest} AS large, 1.5e300::DOUBLE AS double"
    for rows in ("", " FROM range(2)"):
        shown = finops.run("query", f"{LONG}{others}, cost AS last{rows}").stdout
        assert "-98765432109876543210.123456789012345678" in shown
        digits = re.findall(r"[-+.\de]*\d[-+.\de]*", shown)
        wholes = {"-98765432109876543210.123456789012345678", str(largest), "1.5e+300"}
        assert set(digits) <= wholes


def test_amounts_of_a_column_have_the_same_decimals_and_end_below_each_other(
    finops: Finops,
) -> None:
    sql = "SELECT unnest([2505.10, 18300.94, -0.5, NULL]::DECIMAL(38, 18)[]) AS cost, 'x' AS text"
    heading, _, *rows = finops("query", sql).splitlines()
    assert heading == "    cost  text"
    assert rows == [" 2505.10  x", "18300.94  x", "   -0.50  x", "    NULL  x"]


def test_a_long_heading_is_folded_before_a_cell_is_cut(
    finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    service = "Relational Database Service"
    sql = f"SELECT 'EUR' AS BillingCurrency, '{service}' AS x, 5 AS of_all FROM range(2)"
    assert finops.run("query", sql).stdout.splitlines()[:2] == [
        "Billing   x                              of_",
        "Currency                                 all",
    ]
