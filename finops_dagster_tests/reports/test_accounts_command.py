"""`finops accounts` compares the accounts file with the bill, and fills it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from finops_dagster_tests.finops import Finops
from finops_dagster_tests.reports.charges import charge, write_charges


@pytest.fixture
def lake(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the lake of a project whose settings name the file accounts.csv."""
    monkeypatch.setenv("COLUMNS", "200")
    finops.environment["FINOPS_ACCOUNTS__FILE"] = "accounts.csv"
    return finops.project.folder / "data/parquet"


@pytest.fixture
def put_accounts(finops: Finops) -> Callable[[str], None]:
    """Return a function that writes the accounts file."""
    return lambda text: (finops.project.folder / "accounts.csv").write_text(text) and None


def test_accounts_that_are_not_in_the_file_come_first_with_their_cost(
    finops: Finops, lake: Path, put_accounts: Callable[[str], None]
) -> None:
    in_february = {"day": "2024-02-01"}
    write_charges(lake, "acme", "2024-01", charge("000000000001", "7"), charge("gone", "3"))
    write_charges(
        lake,
        "acme",
        "2024-02",
        charge("000000000001", "0.4", **in_february),
        charge("000000000002", "1000.5", **in_february),
        charge("000000000002", "0.000000000000000001", **in_february),
        charge("000000000003", "2", currency="EUR", **in_february),
    )
    put_accounts("id,name,owner\n000000000001,Shop,Ada\n2,Data,\n77,Other,Grace\ngone,Gone,\n")
    result = finops.run("accounts", "list")
    assert result.stderr.splitlines() == [
        "2 of 4 accounts are not in accounts.csv: 2.00 EUR and 1,000.50 USD of 2024-02",
        "2 of 4 lines of accounts.csv match no charge",
    ]
    rows = finops.json("accounts", "list")
    assert [(row["account_id"], row["name"], row["cost"], row["problem"]) for row in rows] == [
        ("000000000003", "000000000003", "2", "not in the file"),
        ("000000000002", "000000000002", "1000.500000000000000001", "not in the file"),
        (
            "2",
            "Data",
            None,
            "line 3: the bill has 000000000002: a spreadsheet drops leading zeros",
        ),
        ("77", "Other", None, "line 4: no charge has this account"),
        ("000000000001", "Shop", "0.4", None),
        ("gone", "Gone", "0", None),
    ]
    assert rows[0] == {
        "account_id": "000000000003",
        "name": "000000000003",
        "owner": None,
        "environment": None,
        "cost_centre": None,
        "month": "2024-02",
        "cost": "2",
        "currency": "EUR",
        "line": None,
        "problem": "not in the file",
    }
    assert [row["line"] for row in rows] == [None, None, 3, 4, None, None]


def test_a_line_of_other_days_matches_nothing(
    finops: Finops, lake: Path, put_accounts: Callable[[str], None]
) -> None:
    write_charges(lake, "acme", "2024-01", charge("a", "1"), charge("b", "1", payer="a"))
    put_accounts("id,name,owner,valid_to\na,A,Ada,2023-12-31\nb,B,,\n")
    a, line, b = finops.json("accounts", "list")
    assert (a["name"], a["owner"], a["problem"]) == ("a", None, "not in the file")
    assert line["problem"] == "line 2: no charge has this account in these days"
    assert (b["name"], b["problem"]) == ("B", None)
    put_accounts("id,name\na,A\nb,B\n")
    assert finops.run("accounts", "list").stderr == ""


def test_without_a_file_the_accounts_are_listed_as_the_bill_has_them(
    finops: Finops, lake: Path
) -> None:
    del finops.environment["FINOPS_ACCOUNTS__FILE"]
    assert finops("accounts", "list") == "no month has charges\n"
    write_charges(lake, "acme", "2024-01", charge("a", "1"))
    (row,) = finops.json("accounts", "list")
    assert (row["account_id"], row["cost"], row["problem"]) == ("a", "1", None)
    assert "no accounts file is set: set accounts.file" in finops("accounts", "list")


def test_a_broken_file_ends_queries_with_one_line(
    finops: Finops, lake: Path, put_accounts: Callable[[str], None]
) -> None:
    put_accounts("id,name\n,b\n")
    problem = "accounts.csv, line 2: has no account_id; write it, or delete the line\n"
    assert finops("accounts", "list", code=1) == problem
    assert finops("query", "SELECT 1", code=1) == problem
