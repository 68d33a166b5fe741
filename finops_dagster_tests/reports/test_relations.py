"""The relations of a query: the charges of all exports, and the names of their accounts."""

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finops_dagster.billing.columns import literal
from finops_dagster.billing.errors import BillError
from finops_dagster.lake import FolderLake
from finops_dagster.reports.accounts import AccountsSettings
from finops_dagster.reports.relations import create_relations, open_relations
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.database import DuckDB
from finops_dagster_tests.reports.charges import charge, write_charges

EXPORTS = [
    ExportSettings(name=name, vendor="aws", start_month="2024-01") for name in ("acme", "globex")
]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def test_the_views_of_a_lake_without_months_are_the_accounts_alone(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    assert create_relations(connection, FolderLake(tmp_path), EXPORTS, AccountsSettings()) == [
        "accounts"
    ]
    assert connection.execute("FROM accounts").fetchall() == []


def test_focus_named_has_the_charges_of_focus_once_each(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    write_charges(tmp_path, "acme", "2024-01", charge("a", "1.000000000000000001"))
    write_charges(tmp_path, "acme", "2024-02", charge(None, "2"))
    # FOCUS does not require the columns of sub accounts.
    without_accounts = "SELECT CAST(3 AS DECIMAL(38, 18)) AS BilledCost, 'x' AS x_more"
    write_charges(tmp_path, "globex", "2024-01", without_accounts)
    views = create_relations(connection, FolderLake(tmp_path), EXPORTS, AccountsSettings())
    assert views == ["accounts", "focus", "focus_named"]
    names = "SELECT BilledCost, AccountName, AccountOwner, x_more FROM focus_named ORDER BY 1"
    assert connection.execute(names).fetchall() == [
        (Decimal("1.000000000000000001"), "a", None, None),
        (Decimal(2), "p", None, None),
        (Decimal(3), None, None, "x"),
    ]


SORTED = (
    "CREATE TEMP TABLE sorted AS SELECT range, hash(range) AS h FROM range(10_000_000) ORDER BY h"
)


def test_too_little_memory_or_disk_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, message in (("", "needs more memory"), (f"{tmp_path}/file/below", "move it away")):
        with (
            pytest.raises(BillError, match=message) as raised,
            open_relations(DuckDB(), FolderLake(tmp_path), EXPORTS, AccountsSettings()) as (
                connection,
                _,
            ),
        ):
            connection.execute(f"SET temp_directory = {literal(folder)}")
            connection.execute("SET memory_limit = '20MB'")
            connection.execute(SORTED)
        assert "damaged" not in str(raised.value)


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    write_charges(tmp_path, "acme", "2024-01", charge("a", "1"))
    (path,) = tmp_path.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-8])
    with (
        pytest.raises(BillError, match="a Parquet file is damaged: run finops state verify --deep"),
        open_relations(DuckDB(), FolderLake(tmp_path), EXPORTS, AccountsSettings()),
    ):
        pass


def named(lake: Path, text: str, columns: str) -> list[tuple[Any, ...]]:
    """Return columns of `focus_named` by an accounts file of this text, sorted by cost."""
    file = lake / "accounts.csv"
    file.write_text(text)
    with duckdb.connect() as connection:
        accounts = AccountsSettings(file=file)
        create_relations(connection, FolderLake(lake), EXPORTS, accounts)
        return connection.execute(
            f"SELECT {columns} FROM focus_named ORDER BY BilledCost"
        ).fetchall()


def test_a_charge_has_the_line_of_its_sub_account_or_else_of_its_billing_account(
    tmp_path: Path,
) -> None:
    accounts = {"listed": "1", "unlisted": "2", None: "3", "p": "4"}
    charges = [charge(account, cost) for account, cost in accounts.items()]
    other_payer = charge("unlisted", "5", payer="q")
    write_charges(tmp_path, "acme", "2024-01", *charges, other_payer)
    file = "id,name,owner,cost centre,Team lead\nlisted,Shop,Ada,,\np,Payer,Grace,C1,Alan\n"
    columns = (
        "AccountName, AccountOwner, AccountCostCentre, AccountTeamLead, AccountEnvironment, "
        "AccountListed"
    )
    assert named(tmp_path, file, columns) == [
        ("Shop", "Ada", None, None, None, True),
        ("unlisted", "Grace", "C1", "Alan", None, False),  # the name of the payer is not its own
        ("Payer", "Grace", "C1", "Alan", None, True),
        ("Payer", "Grace", "C1", "Alan", None, True),
        ("unlisted", None, None, None, None, False),
    ]


def test_a_line_counts_from_its_first_to_its_last_day(tmp_path: Path) -> None:
    days = ["2023-12-31 23:59:59", "2024-01-01", "2024-01-31 23:00:00", "2024-02-01"]
    charges = [charge("a", str(cost), day=day) for cost, day in enumerate(days)]
    write_charges(tmp_path, "acme", "2024-01", *charges)
    file = "id,name,valid_from,valid_to\na,old,2024-01-01,2024-01-31\na,new,2024-02-01,\n"
    names = [name for (name,) in named(tmp_path, file, "AccountName")]
    assert names == ["a", "old", "old", "new"]


def test_old_months_follow_a_new_name_without_a_load(tmp_path: Path) -> None:
    write_charges(tmp_path, "acme", "2023-01", charge("a", "1"))
    for name in ("before", "after"):
        assert named(tmp_path, f"id,name\na,{name}\n", "AccountName") == [(name,)]


@pytest.mark.parametrize("written", ["0A1B", "0a1b", "/subscriptions/0A1B"])
def test_a_subscription_of_azure_is_found_by_its_id(tmp_path: Path, written: str) -> None:
    write_charges(tmp_path, "acme", "2024-01", charge("/subscriptions/0a1b", "1"))
    assert named(tmp_path, f"id,name\n{written},office\n", "AccountName") == [("office",)]


def test_ids_keep_their_zeros(tmp_path: Path) -> None:
    write_charges(tmp_path, "acme", "2024-01", charge("000000000123", "1"))
    for written, is_listed in {"000000000123": True, "123": False}.items():
        assert named(tmp_path, f"id\n{written}\n", "AccountListed") == [(is_listed,)]


HOSTILE = "'; DROP TABLE accounts; --", '"quoted"', "\U0001f600", "\u202eright", "<b>", "a" * 300


def test_hostile_headings_and_names_stay_text(tmp_path: Path) -> None:
    write_charges(tmp_path, "acme", "2024-01", charge("a", "1"))
    file = tmp_path / "accounts.csv"
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([["id", "name", *HOSTILE], ["a", *HOSTILE, "x"]])
    (row,) = named(tmp_path, file.read_text(), "*")
    assert set(HOSTILE) <= set(row)


ids, days = st.sampled_from("abc"), st.integers(1, 9).map(lambda day: f"2024-01-0{day}")


@settings(max_examples=12)
@given(
    lines=st.lists(st.tuples(ids, st.none() | days, st.none() | days), max_size=6),
    charges=st.lists(st.tuples(st.none() | ids, ids, days), min_size=1, max_size=20),
)
def test_no_charge_is_lost_or_counted_twice(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[tuple[str, str | None, str | None]],
    charges: list[tuple[str | None, str, str]],
) -> None:
    lake = tmp_path_factory.mktemp("lake")
    rows = [charge(sub, str(n), payer, day) for n, (sub, payer, day) in enumerate(charges)]
    write_charges(lake, "acme", "2024-01", *rows)
    written = [
        ",".join([id_, str(n), first or "", last or ""])
        for n, (id_, first, last) in enumerate(lines)
    ]
    text = "\n".join(["id,owner,valid_from,valid_to", *written])
    try:
        found = named(lake, text, "AccountOwner, CAST(BilledCost AS INTEGER)")
    except BillError as error:
        assert "same days" in str(error) or "before" in str(error)
        return

    def owner(account: str | None, day: str) -> str | None:
        valid = (
            str(n)
            for n, (id_, first, last) in enumerate(lines)
            if id_ == account and (first or "") <= day <= (last or "9")
        )
        return next(valid, None)

    assert found == [
        (owner(sub, day) or owner(payer, day), n) for n, (sub, payer, day) in enumerate(charges)
    ]
