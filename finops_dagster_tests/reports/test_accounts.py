"""The accounts file: what it may look like, and what is said of a broken one."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finops_dagster.billing.errors import BillError
from finops_dagster.reports.accounts import AccountsFile, read_accounts
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT


def read(folder: Path, text: str | bytes) -> AccountsFile:
    """Write an accounts file into the folder, and read it."""
    file = folder / "accounts.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_accounts(file)


def problem(folder: Path, text: str | bytes) -> str:
    """Return what is said of a broken file, without its folder."""
    with pytest.raises(BillError) as raised:
        read(folder, text)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(folder / "accounts.csv"))
    return message.removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    "headings",
    [
        "account_id,name,owner,environment,cost_centre,valid_from,valid_to",
        "Account ID, Account name,Owner,Env,Cost Center,Valid from,Valid to",
        "subAccountId,NAME,owner,environment,costCentre,validFrom,valid-to",
        "\ufeffBillingAccountId,name,owner,environment,cost-center,valid_from,valid_to",
        "id,name,owner,environment,cost_centre,valid_from,valid_to",
    ],
)
def test_headings_have_several_spellings(tmp_path: Path, headings: str) -> None:
    row = '012345678901,"shop, production",Ada,prod, CC-1 ,2024-01-01,2024-12-31'
    (line,) = read(tmp_path, f"{headings}\r\n\r\n{row}\r\n").lines
    assert (line.number, line.account_id) == (3, "012345678901")
    assert line.texts == {
        "name": "shop, production",
        "owner": "Ada",
        "environment": "prod",
        "cost_centre": "CC-1",
    }
    assert (line.valid_from, line.valid_to) == (date(2024, 1, 1), date(2024, 12, 31))


def test_more_columns_are_taken_as_they_are(tmp_path: Path) -> None:
    accounts = read(tmp_path, "account_id,Team lead,PCI?,\n1,Ada,yes\n2,,,\n")
    assert accounts.text_columns[-2:] == ("Team lead", "PCI?")
    assert [line.texts for line in accounts.lines] == [{"Team lead": "Ada", "PCI?": "yes"}, {}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1: no column is called account_id; rename the column of the ids"),
        ("name,owner\n", "line 1: no column is called account_id"),
        ("account_id;name\n1;a\n", "line 1: the cells are separated by semicolons; save"),
        ("account_id\tname\n", "line 1: the cells are separated by tabs; save"),
        ("account_id,name\n1,a\n\n,b\n", "line 4: the line has no account_id; write it, or delete"),
        ('account_id,name\n1,"a\nb"\n,b\n', "line 4: the line has no account_id"),
        ('account_id,name\n1,a\n2,"b\n', "line 3: the line is not CSV: "),
        ("account_id,name\n1,a,b\n", "line 2: the line has 3 cells, but the first line has 2"),
        ("account_id,\n1,a\n", "line 2: 'a' is in a column without a heading; name it"),
        ("account_id,name\n1.23457E+11,a\n", "line 2: account_id '1.23457E+11' was changed by a"),
        ("account_id,name\n123456789012.0,a\n", "line 2: account_id '123456789012.0' was chang"),
        ("account_id,Team,team\n", "line 1: two columns are 'team', one of them 'Team'; rename"),
        ("id,Listed\n", "line 1: focus_named has a column AccountListed already; rename the"),
        ("account_id,id\n", "line 1: two columns are 'account_id', one of them 'account_id'"),
        (
            "account_id,name\n1,caf\xe9\n".encode("latin-1"),
            "line 2: the line is not in UTF-8; save the",
        ),
        ("account_id,name\n".encode("utf-16"), "line 1: the line is not in UTF-8"),
        ("id,valid_from\n1,01/02/2024\n", "line 2: valid_from '01/02/2024' is not a date; write"),
        ("id,valid_from\n1,2024-02-30\n", "line 2: valid_from '2024-02-30' is not a date"),
        ("id,valid_from\n1,20240201\n", "line 2: valid_from '20240201' is not a date"),
        (
            "id,valid_from,valid_to\n1,2024-02-01,2024-01-31\n",
            "line 2: valid_to 2024-01-31 is before valid_from 2024-02-01; exchange them",
        ),
        ("id,name\n1,a\n2,b\n1,a\n", "line 4: account '1' is valid on the same days as in line 2"),
        (
            "id,valid_from,valid_to\nA,2024-02-01,\na,,2024-02-01\n",
            "line 3: account 'A' is valid on the same days as in line 2; delete one of the lines",
        ),
        ("id\n/subscriptions/AB\nab\n", "line 3: account 'ab' is valid on the same days as in"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    assert problem(tmp_path, text).startswith(f"accounts.csv, {said}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BillError, match=r"accounts.csv, which accounts.file names, cannot be read"):
        read_accounts(tmp_path / "accounts.csv")
    with pytest.raises(BillError, match="cannot be read: Is a directory"):
        read_accounts(tmp_path)


@settings(max_examples=40)
@given(st.binary() | st.text(st.sampled_from('id,\n"1;\t2024-é \r')).map(str.encode))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(text)
    try:
        read_accounts(file)
    except BillError as error:
        assert str(error).startswith(str(file))


def test_lost_zeros_are_noticed_in_the_file_and_in_the_bill(tmp_path: Path) -> None:
    accounts = read(tmp_path, "id\n123456789012\n12345678901\n99\nabc\n012345678902\n")
    assert [line.number for line in accounts.lines_with_short_ids()] == [3, 4]
    bill = ["012345678901", "123456789012", "012345678902", "000000000100"]
    assert accounts.ids_with_lost_zeros(bill) == {3: "012345678901"}


@pytest.mark.parametrize(
    ("file", "column"),
    [("config/accounts.csv", "team"), ("finops_dagster/demo/accounts.csv", "business_unit")],
)
def test_the_examples_can_be_read(file: str, column: str) -> None:
    accounts = read_accounts(ROOT / file)
    assert len({line.key for line in accounts.lines}) < len(accounts.lines)
    assert column in accounts.text_columns


def test_config_check_says_what_is_wrong_with_the_file(finops: Finops) -> None:
    finops.environment["FINOPS_ACCOUNTS__FILE"] = "accounts.csv"

    def check() -> tuple[str, str]:
        (row,) = (r for r in finops.json("config", "check") if r["what"] == "accounts.file")
        return row["answer"], row["problem"]

    answer, missing = check()
    assert (answer, missing.partition(":")[0]) == (
        "",
        "accounts.csv, which accounts.file names, cannot be read",
    )
    file = finops.project.folder / "accounts.csv"
    file.write_text("id,name\n1,a,b\n")
    assert check()[1].startswith("accounts.csv, line 2: the line has 3 cells")
    file.write_text("id,name\n123456789012,a\n12345678901,b\n")
    assert check() == (
        "2 lines; ids of fewer than 12 digits, which a spreadsheet may have cut: compare line "
        "3 with the bill",
        "",
    )
