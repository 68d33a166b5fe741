"""`finops accounts`: compare the accounts file with the bill, and fill it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finops_dagster.billing.errors import BillError, count_text
from finops_dagster.cli.options import CommandGroup, ExternalId, Json, Options, Profile, Role
from finops_dagster.cli.output import Headings, Row, print_rows, value_text
from finops_dagster.terminal import print_error, print_line

if TYPE_CHECKING:
    from finops_dagster.reports.account_matches import BilledAccount
    from finops_dagster.reports.accounts import AccountsFile
    from finops_dagster.settings import Settings
    from finops_dagster.sources.aws.organization import Organization

app = typer.Typer(cls=CommandGroup, no_args_is_help=True)

_NO_FILE = "no accounts file is set: set accounts.file (docs/accounts.md)"
_HEADINGS: Headings = {
    "account": lambda row: _short_id(row["account_id"]),
    "name": "name",
    "owner": "owner",
    "cost centre": "cost_centre",
    "last month": "cost",
    "currency": "currency",
    "problem": "problem",
}


@app.command("list")
def list_accounts(context: typer.Context, json: Json = False) -> None:
    """List the accounts of the bill, with their names.

    First come the problems: accounts that are not in the accounts file, and lines of the file that
    no charge matches. The cost is the billed cost of the newest month that has charges.

    $ finops accounts list
    """
    rows, summary = _accounts(Options.of(context).settings())
    print_rows(rows, as_json=json, empty="no month has charges", headings=_HEADINGS)
    for line in summary:
        print_error(line)


@app.command()
def pull(
    context: typer.Context,
    region: Annotated[
        str, typer.Option(metavar="NAME", help="AWS region. Change it for China or GovCloud.")
    ] = "us-east-1",
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of AWS Organizations. Default: AWS's own."),
    ] = None,
    profile: Profile = None,
    role_arn: Role = None,
    external_id: ExternalId = None,
) -> None:
    """Add the accounts of an AWS organization to the accounts file.

    Creates the file that accounts.file names, if it is missing. Adds a line for each account that
    has none yet, with the account's name and tags: owner, environment, cost centre, and every other
    tag that is a column of the file. Existing lines do not change.

    $ finops accounts pull --profile management
    """
    from finops_dagster.sources.aws.organization import Organization

    file = Options.of(context).settings().accounts.file
    if file is None:
        raise BillError(f"{_NO_FILE}; this command then creates that file")
    organization = Organization(region, endpoint_url, profile, role_arn, external_id)
    added, present = _add_from(organization, file)
    print_line(
        f"{count_text(added, 'account')} {'is' if added == 1 else 'are'} added to {file}; "
        f"{present:,} {'was' if present == 1 else 'were'} in it already"
    )


def _add_from(organization: Organization, file: Path) -> tuple[int, int]:
    """Add the organization's accounts to the file; return how many, and how many it had already.

    Without the right to read tags, the lines have only ids and names, and a line on standard error
    says so. Raises BillError.
    """
    from finops_dagster.reports.accounts import heading_key, read_accounts
    from finops_dagster.reports.add_accounts import add_accounts
    from finops_dagster.sources.aws.organization import AccessDenied

    listed = {line.key for line in read_accounts(file).lines} if file.exists() else set[str]()
    names = organization.account_names()
    unlisted = {account: name for account, name in names.items() if account not in listed}
    lines, tags_allowed = [], True
    for account, name in unlisted.items():
        tags: Mapping[str, str] = {}
        if tags_allowed:
            try:
                tags = organization.tags(account)
            except AccessDenied as error:
                print_error(
                    f"{error}; the accounts are added without their tags; to have these, delete "
                    "the added lines, and run the command again"
                )
                tags_allowed = False
        cells = {heading_key(key): cell for key, cell in tags.items()}
        # A customer's tag may be called valid_from, which means something else in the file.
        own_cells = {"account_id": account, "name": name, "valid_from": "", "valid_to": ""}
        lines.append({**cells, **own_cells})
    if lines:
        add_accounts(file, lines)
    return len(lines), len(names) - len(lines)


def _accounts(settings: Settings) -> tuple[list[Row], list[str]]:
    """Return the rows of `accounts list`, and lines that count their problems.

    There is a row for each account and currency of the bill, and for each line that matches no
    account. Raises BillError.
    """
    from finops_dagster.cli.relations import open_bill_relations
    from finops_dagster.reports import account_matches
    from finops_dagster.reports.accounts import read_accounts
    from finops_dagster.reports.charges import newest_month

    file, lines = settings.accounts.file, read_accounts(settings.accounts.file)
    with open_bill_relations(settings) as (bill, relations):
        if "focus" not in relations:
            return [], []
        accounts = account_matches.billed_accounts(bill)
        if not accounts:
            return [], []
        unmatched = account_matches.unmatched_lines(bill, lines)
        month = str(newest_month(bill))
    rows = [_account_row(account, month, file) for account in accounts]
    line_rows = _line_rows(lines, unmatched)
    unlisted = [row for row in rows if row["problem"]]
    listed = [row for row in rows if not row["problem"]]
    if file is None:
        return rows, [_NO_FILE]
    return [*unlisted, *line_rows, *listed], [
        *_unlisted_summary(rows, month, file),
        *_unmatched_summary(len(line_rows), len(lines.lines), file),
    ]


def _account_row(account: BilledAccount, month: str, file: Path | None) -> Row:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "owner": account.owner,
        "environment": account.environment,
        "cost_centre": account.cost_centre,
        "month": month,
        "cost": account.cost,
        "currency": account.currency,
        "line": None,
        "problem": None if account.listed or file is None else "not in the file",
    }


def _short_id(account_id: str) -> str:
    """Return an id without the path that Azure puts before it."""
    path, slash, name = account_id.removeprefix("/subscriptions/").rpartition("/")
    return f"…/{name}" if slash and path else name


def _line_rows(lines: AccountsFile, unmatched: dict[int, str]) -> list[Row]:
    return [
        {
            "account_id": line.account_id,
            **{
                column: line.texts.get(column)
                for column in ("name", "owner", "environment", "cost_centre")
            },
            "month": None,
            "cost": None,
            "currency": None,
            "line": line.number,
            "problem": f"line {line.number}: {unmatched[line.number]}",
        }
        for line in lines.lines
        if line.number in unmatched
    ]


def _unlisted_summary(rows: Sequence[Row], month: str, file: Path) -> list[str]:
    costs: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        if row["problem"]:
            costs[row["currency"]] += row["cost"]
    accounts = {row["account_id"] for row in rows}
    unlisted = {row["account_id"] for row in rows if row["problem"]}
    if not unlisted:
        return []
    amounts = " and ".join(f"{value_text(cost)} {currency}" for currency, cost in costs.items())
    are = "is" if len(unlisted) == 1 else "are"
    return [
        f"{len(unlisted):,} of {count_text(len(accounts), 'account')} {are} not in {file}: "
        f"{amounts} of {month}; add a line for each"
    ]


def _unmatched_summary(unmatched: int, lines: int, file: Path) -> list[str]:
    matches, them = ("matches", "it") if unmatched == 1 else ("match", "them")
    text = (
        f"{unmatched:,} of {count_text(lines, 'line')} of {file} {matches} no charge; correct or "
        f"delete {them}"
    )
    return [text] if unmatched else []
