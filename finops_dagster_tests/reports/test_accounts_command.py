"""`finops accounts` compares the accounts file with the bill, and fills it."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from finops_dagster_tests.finops import Finops
from finops_dagster_tests.reports.charges import charge, write_charges
from finops_dagster_tests.servers.s3 import S3Server


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
        "2 of 4 accounts are not in accounts.csv: 2.00 EUR and 1,000.50 USD of 2024-02; add a line "
        "for each",
        "2 of 4 lines of accounts.csv match no charge; correct or delete them",
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
    assert line["problem"] == "line 2: no charge has this account on the days of this line"
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
    problem = "accounts.csv, line 2: the line has no account_id; write it, or delete the line\n"
    assert finops("accounts", "list", code=1) == problem
    assert finops("query", "SELECT 1", code=1) == problem


@pytest.fixture
def organization(s3: S3Server) -> Iterator[dict[str, str]]:
    """Create an organization of three accounts in the server, and yield their ids by name."""
    client = boto3.client("organizations", endpoint_url=s3.url, region_name="us-east-1")
    created = client.create_organization(FeatureSet="ALL")["Organization"]
    tags = {"Owner": "Ada, of shop", "cost-center": "CC-1", "Team": "web", "valid from": "soon"}
    members = {
        name: client.create_account(
            Email=f"{number}@example.com",
            AccountName=name,
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )["CreateAccountStatus"]["AccountId"]
        for number, name in enumerate(['the "shop"', "data"])
    }
    yield {"master": created["MasterAccountId"], **members}
    for account in members.values():
        client.remove_account_from_organization(AccountId=account)
    client.delete_organization()


def pull(finops: Finops, s3: S3Server, code: int = 0) -> str:
    return finops("accounts", "pull", "--endpoint-url", s3.url, code=code)


def test_pull_creates_the_file_from_names_and_tags(
    finops: Finops, lake: Path, s3: S3Server, organization: dict[str, str]
) -> None:
    assert pull(finops, s3) == "3 accounts are added to accounts.csv; 0 were in it already\n"
    shop, data = organization['the "shop"'], organization["data"]
    lines = (finops.project.folder / "accounts.csv").read_text().splitlines()
    assert lines == [
        "account_id,name,owner,environment,cost_centre,valid_from,valid_to",
        f"{organization['master']},master,,,,,",
        f'{shop},"the ""shop""","Ada, of shop",,CC-1,,',
        f'{data},data,"Ada, of shop",,CC-1,,',
    ]
    assert pull(finops, s3) == "0 accounts are added to accounts.csv; 3 were in it already\n"


def test_pull_only_adds_lines_to_what_a_person_wrote(
    finops: Finops, lake: Path, s3: S3Server, organization: dict[str, str]
) -> None:
    file, shop = finops.project.folder / "accounts.csv", organization['the "shop"']
    written = f'\ufeff"Owner",Account ID ,team,Notes\r\n"me", {shop} ,,\'"mine"\'\r\n,77,,'.encode()
    file.write_bytes(written)
    file.chmod(0o640)
    assert pull(finops, s3) == "2 accounts are added to accounts.csv; 1 was in it already\n"
    assert file.read_bytes().startswith(written + b"\r\n")
    assert file.read_bytes()[len(written) :].decode().split("\r\n") == [
        "",
        f",{organization['master']},,",
        f'"Ada, of shop",{organization["data"]},web,',
        "",
    ]
    assert file.stat().st_mode & 0o777 == 0o640
    assert not list(finops.project.folder.glob("*.part"))


Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes] | None]


def refusing(action: str, code: str = "AccessDeniedException") -> Wsgi:
    """Return a fault that refuses an action of Organizations, as AWS does."""

    def fault(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes] | None:
        if not environ.get("HTTP_X_AMZ_TARGET", "").endswith(f".{action}"):
            return None
        start("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "Message": "You don't have permissions."}).encode()]

    return fault


def test_a_refusal_names_the_right_that_is_missing(
    finops: Finops, lake: Path, s3: S3Server, organization: dict[str, str]
) -> None:
    s3.fault = refusing("ListAccounts")
    assert pull(finops, s3, code=1) == (
        "AWS refuses organizations:ListAccounts (AccessDeniedException: You don't have "
        "permissions); use credentials of the management account, or of a delegated "
        "administrator, whose policy allows organizations:ListAccounts\n"
    )
    s3.fault = refusing("ListAccounts", "AWSOrganizationsNotInUseException")
    assert "use credentials of an account that is in an organ" in pull(finops, s3, code=1)
    assert not (finops.project.folder / "accounts.csv").exists()
    s3.fault = refusing("ListTagsForResource")
    result = finops.run("accounts", "pull", "--endpoint-url", s3.url)
    assert result.stdout == "3 accounts are added to accounts.csv; 0 were in it already\n"
    (line,) = result.stderr.splitlines()
    assert line.startswith("AWS refuses organizations:ListTagsForResource (AccessDenied")
    assert "the accounts are added without their tags; to have these, delete the added" in line


def test_pull_needs_a_file_and_credentials(
    finops: Finops, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(finops.project.folder))
    assert finops("accounts", "pull", code=1).startswith(
        "no AWS credentials were found; use --profile"
    )
    missing = finops("accounts", "pull", "--profile", "none", code=1)
    assert missing.startswith("AWS Organizations: The config profile (none) could not be found; ")
    del finops.environment["FINOPS_ACCOUNTS__FILE"]
    assert finops("accounts", "pull", code=1).startswith("no accounts file is set: set accounts.f")
