"""Hostile headers: each tag becomes a column of its own, and no row is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from finops_dagster.billing.money import Totals
from finops_dagster_tests.cur import HEADERS, csv_bytes, line_item
from finops_dagster_tests.hostile.reading import Reader, one_line
from finops_dagster_tests.project import Project

TAGS = {
    '"; DROP TABLE x; --': "resourcetags____drop_table_x____",
    "'; DROP TABLE x; --": "resourcetags____drop_table_x____",
    "two\nlines": "resourcetags_two_lines",
    "two\r\nlines, ": "resourcetags_two__lines__",
    "🎉": "resourcetags__",
    "日本": "resourcetags___",
    "x" * 300: "resourcetags_" + "x" * 300,
    "!?*[]{}": "resourcetags________",
    "": "resourcetags_",
    "a\0b": "resourcetags_a_b",
    "billing_month": "resourcetags_billing_month",
    "\u202egat": "resourcetags__gat",
}
FIRST = ",".join(HEADERS)
ROW = b"abc,1,2024-01-01T00:00:00Z,2024-01-03T04:00:00Z,AmazonEC2,,1"
REFUSED = {
    "a quote never closed": (FIRST + ',"tag', "the header cannot be read: unexpected end of data"),
    "text after a quote": (FIRST + ',"tag"x', "the header cannot be read: ',' expected"),
    "a quote in a bare name": (' "' + FIRST, "the header cannot be read: a quote is inside an"),
    "a column twice": (FIRST + ",lineItem/UnblendedCost", "'lineItem/UnblendedCost' twice"),
    "two columns without a name": (FIRST + ",,", "the header has the column '' twice"),
    "a name of 200,000 characters": (FIRST + "," + "x" * 200_000, "field larger than field limit"),
    "a header of 17 million": (FIRST + ",a" * 8_500_000, "longer than 16,777,216 characters"),
    "no cost": ("a\x1bb," + "c" * 9_000, "the file has the columns a\\x1bb, ccc"),
}


def tagged(*tags: str) -> bytes:
    """Return a bill of two rows in which the value of each tag is its number."""
    cells = {f"resourceTags__{tag}": str(number) for number, tag in enumerate(tags)}
    headers = (*(f"resourceTags/{tag}" for tag in tags), *HEADERS)
    return csv_bytes([line_item("2024-01", **cells)] * 2, headers)


@pytest.mark.parametrize(("tag", "name"), TAGS.items(), ids=range(len(TAGS)))
def test_any_tag_becomes_a_column(reader: Reader, tag: str, name: str) -> None:
    assert reader.load(tagged(tag)) == Totals(2, 2)
    assert reader.columns()[2] == name


def test_all_these_tags_in_one_bill_keep_their_values(reader: Reader) -> None:
    assert reader.load(tagged(*TAGS)) == Totals(2, 2)
    names = reader.columns()
    assert len(set(names)) == len(names) == 2 + len(TAGS) + len(HEADERS)
    (row,) = reader.connection.execute("SELECT DISTINCT * FROM bill").fetchall()
    assert row[2 : 2 + len(TAGS)] == tuple(map(str, range(len(TAGS))))


def test_a_tag_cannot_take_the_hashed_name_of_another(reader: Reader) -> None:
    assert reader.load(tagged("user:team", "user:Team", "user:team_9515dbf8")) == Totals(2, 2)
    assert reader.columns()[2:5] == [
        "resourcetags_user_team",
        "resourcetags_user_team_9515dbf8474f531b",
        "resourcetags_user_team_9515dbf8",
    ]


def test_a_column_without_a_header_is_named_by_a_hash(reader: Reader) -> None:
    assert reader.load(f"{FIRST},\n".encode() + ROW + b",x\n") == Totals(1, 1)
    assert reader.columns()[-1] == "_e3b0c442"


@pytest.mark.parametrize("header", [FIRST.replace(",", '","').join('""'), FIRST])
def test_a_byte_order_mark_is_not_part_of_the_first_name(reader: Reader, header: str) -> None:
    assert reader.load(f"\ufeff{header}\n".encode() + ROW) == Totals(1, 1)
    assert "identity_lineitemid" in reader.columns()


@pytest.mark.parametrize(("header", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_header_that_cannot_be_read_is_refused(reader: Reader, header: str, message: str) -> None:
    assert message in reader.refusal(header.encode() + b"\n" + ROW + b"\n")


def test_a_header_of_another_encoding_is_refused_in_words(reader: Reader) -> None:
    header = (FIRST + ",Gebühr").encode("latin-1")
    assert "its bytes are not UTF-8" in reader.refusal(header + b"\n" + ROW + b"\n")


def test_2000_tags_are_loaded(reader: Reader) -> None:
    assert reader.load(tagged(*map(str, range(2_000)))) == Totals(2, 2)


def test_loaded_months_keep_their_values_when_a_month_adds_600_tags(project: Project) -> None:
    project.deliver("7")
    project.load()
    headers = (*HEADERS, *(f"resourceTags/{number}" for number in range(600)))
    tagged = line_item("2024-02", resourceTags__599="x")
    project.deliver([tagged], month="2024-02", headers=headers)
    project.load("2024-02")
    assert project.totals("2024-01") == (1, 7)
    assert project.column("lineitem_productcode", "2024-01") == ["AmazonEC2"]
    assert project.column("resourcetags_599", "2024-01") == [None]
    assert project.column("resourcetags_599", "2024-02") == ["x"]
    assert project.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'") == [
        ("aws_billing_data",)
    ]


@pytest.mark.thorough
def test_20000_columns_are_refused_where_memory_is_short_and_the_month_is_kept(
    project: Project,
) -> None:
    project.database = {"duckdb": {"memory_limit": "600MB", "threads": 1}}
    project.deliver("7")
    project.load()
    headers = (*HEADERS, *(f"resourceTags/{number}" for number in range(20_000)))
    project.deliver("1", version="v2", headers=headers)
    error = one_line(Exception(project.materialize("2024-01").error))
    assert "than database.duckdb.memory_limit; raise it, or lower" in error
    assert project.totals("2024-01") == (1, 7)


@pytest.mark.thorough
def test_20000_columns_are_loaded_with_enough_memory(tmp_path: Path) -> None:
    with Reader.below(tmp_path, memory_limit="6GB") as reader:
        assert reader.load(tagged(*map(str, range(20_000)))) == Totals(2, 2)
