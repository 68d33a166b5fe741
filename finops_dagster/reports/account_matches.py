"""Compares the accounts of the bill with the lines of the accounts file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.reports.accounts import AccountLine, AccountsFile

# The newest charge of an account decides which line it has.
_ACCOUNTS = Sql("""
SELECT
    coalesce(SubAccountId, BillingAccountId) AS account,
    BillingCurrency AS currency,
    arg_max(AccountName, ChargePeriodStart) AS name,
    arg_max_null(AccountOwner, ChargePeriodStart) AS owner,
    arg_max_null(AccountEnvironment, ChargePeriodStart) AS environment,
    arg_max_null(AccountCostCentre, ChargePeriodStart) AS cost_centre,
    arg_max(AccountListed, ChargePeriodStart) AS listed,
    coalesce(sum(BilledCost) FILTER (
        WHERE x_billing_month = (SELECT max(x_billing_month) FROM focus)
    ), 0) AS cost
FROM focus_named
GROUP BY account, currency
ORDER BY listed, currency, cost DESC, account
""")
_IDS = Sql("SELECT DISTINCT unnest([SubAccountId, BillingAccountId]) FROM focus")
_MATCHED_LINES = Sql("""
WITH days AS (
    SELECT DISTINCT unnest([SubAccountId, BillingAccountId]) AS account,
        CAST(ChargePeriodStart AS DATE) AS day
    FROM focus
)
SELECT DISTINCT spelling, first_day
FROM account_spellings JOIN days ON account = spelling AND day BETWEEN first_day AND last_day
""")


@dataclass(frozen=True)
class BilledAccount:
    """An account of the bill in one currency, with its billed cost in the bill's newest month.

    `account_id` is that of the sub account or, for a charge without one, of the billing account.
    Name, owner, environment and cost centre are those of its newest charge. `listed` is whether
    the accounts file has a line for the account itself that was valid at that charge.
    """

    account_id: str
    currency: str
    name: str
    owner: str | None
    environment: str | None
    cost_centre: str | None
    listed: bool
    cost: Decimal


def billed_accounts(connection: DuckDBPyConnection) -> list[BilledAccount]:
    """Return each account of the charges once for each of its currencies.

    Accounts that are not listed come first. Both parts are sorted by currency, and then by cost,
    the largest first. Needs the relations `focus` and `focus_named`.
    """
    return [BilledAccount(*row) for row in connection.execute(_ACCOUNTS).fetchall()]


def unmatched_lines(connection: DuckDBPyConnection, accounts: AccountsFile) -> dict[int, str]:
    """Return {line number: reason} of the lines of the accounts file that no charge matches.

    A charge matches a line if its sub account or billing account has the id, and it begins on one
    of the line's days. Needs the relations `focus` and `account_spellings` of this accounts file.
    """
    matched = set(connection.execute(_MATCHED_LINES).fetchall())
    lost_zeros = accounts.ids_with_lost_zeros(id_ for (id_,) in connection.execute(_IDS).fetchall())

    def reason(line: AccountLine) -> str:
        if line.number in lost_zeros:
            return f"the bill has {lost_zeros[line.number]}: a spreadsheet drops leading zeros"
        days = " on the days of this line" if line.valid_from or line.valid_to else ""
        return f"no charge has this account{days}"

    return {
        line.number: reason(line)
        for line in accounts.lines
        if not any(
            (spelling, line.valid_from or date.min) in matched for spelling in line.spellings
        )
    }
