"""`finops accounts`: compare the accounts file with the bill, and fill it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from finops_dagster.billing.errors import count_text
from finops_dagster.cli.options import Group, Json, Options
from finops_dagster.cli.output import Headings, Row, show, value_text
from finops_dagster.terminal import print_error

if TYPE_CHECKING:
    from finops_dagster.reports.account_matches import BilledAccount
    from finops_dagster.reports.accounts import AccountsFile
    from finops_dagster.settings import Settings

app = typer.Typer(cls=Group, no_args_is_help=True)

_HEADINGS: Headings = {
    "account": "account_id",
    "name": "name",
    "owner": "owner",
    "environment": "environment",
    "cost centre": "cost_centre",
    "last month": "cost",
    "currency": "currency",
    "problem": "problem",
}


@app.command("list")
def list_accounts(context: typer.Context, json: Json = False) -> None:
    """List the accounts of the bill, and the lines of the accounts file that match none.

    First come the accounts that are not in the file, with their billed cost of the last month, and
    the lines that match nothing.

    $ finops accounts list
    """
    rows, summary = _accounts(Options.of(context).settings())
    show(rows, as_json=json, empty="no month has charges", headings=_HEADINGS)
    for line in summary:
        print_error(line)


def _accounts(settings: Settings) -> tuple[list[Row], list[str]]:
    """Return the rows of `accounts list`, and lines that count their problems.

    There is a row for each account and currency of the bill, and for each line that matches no
    account. Raises BillError.
    """
    from finops_dagster.reports import account_matches
    from finops_dagster.reports.accounts import read_accounts
    from finops_dagster.reports.relations import open_relations
    from finops_dagster.tables.database import DuckDB

    file, lines = settings.accounts.file, read_accounts(settings.accounts.file)
    database, lake = DuckDB.of(settings.database.duckdb), settings.storage.parquet_dir
    with open_relations(database, lake, settings.exports, settings.accounts) as (bill, relations):
        if "focus" not in relations:
            return [], []
        accounts = account_matches.billed_accounts(bill)
        unmatched = account_matches.unmatched_lines(bill, lines)
        month = f"{account_matches.last_month(bill):%Y-%m}"
    rows = [_account_row(account, month, file) for account in accounts]
    line_rows = _line_rows(lines, unmatched)
    problems = [row for row in rows if row["problem"]]
    fine = [row for row in rows if not row["problem"]]
    if file is None:
        return rows, ["no accounts file is set: set accounts.file (docs/accounts.md)"]
    return [*problems, *line_rows, *fine], [
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
        f"{amounts} of {month}"
    ]


def _unmatched_summary(unmatched: int, lines: int, file: Path) -> list[str]:
    matches = "matches" if unmatched == 1 else "match"
    text = f"{unmatched:,} of {count_text(lines, 'line')} of {file} {matches} no charge"
    return [text] if unmatched else []
