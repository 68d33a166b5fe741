"""Restatements: what a load changed in a month, by service and account.

The ledger has them in `finops_state.restatements`, and the footer of the month's Parquet file has
them too. `restatements_of_footer` reads them there, without a database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from finops_dagster.billing.money import decimal_text, exact_sum

MAX_CHANGES = 1000
"""The number of services and accounts that a restatement lists; it adds up all others."""
MAX_RESTATEMENTS = 20
"""How many restatements of a month the ledger and the footer have: the newest ones."""
OTHER = "other"
"""Stands for service and account in the sum of those that a restatement does not list."""
_FOOTER_KEY = "restatements"


@dataclass(frozen=True)
class CostChange:
    """Headline cost and rows before and after a restatement, in one currency.

    Cost and rows are those of one service in one account. `service` and `account` are None for
    rows that name none. If both are `OTHER`, the change is a sum over several services and
    accounts: in a restatement, over all that it does not list.
    """

    currency: str | None
    service: str | None
    account: str | None
    cost_before: Decimal
    cost_after: Decimal
    rows_before: int
    rows_after: int

    @property
    def added_cost(self) -> Decimal:
        """The exact cost that was added; negative if it fell."""
        return exact_sum([self.cost_after, self.cost_before.copy_negate()])

    @property
    def added_rows(self) -> int:
        """The number of rows that were added; negative if there are fewer."""
        return self.rows_after - self.rows_before

    @property
    def is_sum(self) -> bool:
        """Whether this is a sum over several services and accounts: both are `OTHER`."""
        return self.service == self.account == OTHER


@dataclass(frozen=True)
class Restatement:
    """What the load of a version changed in a month whose version `replaced_id` it replaced.

    `number` counts the month's restatements, from 1, and `restated_at` is in UTC without a time
    zone. `changes` are sorted: services and accounts with another cost or number of rows, the
    largest change of cost first, then one `OTHER` for each currency with all that is not listed. So
    the changes of a currency add up to the costs of both versions.
    """

    number: int
    manifest_id: str
    replaced_id: str
    restated_at: datetime
    run_id: str
    changes: tuple[CostChange, ...]

    @property
    def listed_changes(self) -> list[CostChange]:
        """`changes` without the sums: one for each listed service and account, largest first."""
        return [change for change in self.changes if not change.is_sum]

    @property
    def changes_by_currency(self) -> tuple[CostChange, ...]:
        """The month's cost and rows in both versions, one sum for each currency.

        They are sorted by currency, with `OTHER` as service and account. The listed changes are in
        the sums too.
        """
        return summed_changes(self.changes)


def summed_changes(changes: Iterable[CostChange]) -> tuple[CostChange, ...]:
    """Return the exact sum of the changes in each currency, sorted by currency.

    Its service and account are `OTHER`.
    """
    by_currency: dict[str | None, list[CostChange]] = {}
    for change in changes:
        by_currency.setdefault(change.currency, []).append(change)
    return tuple(
        CostChange(
            currency,
            OTHER,
            OTHER,
            exact_sum(change.cost_before for change in group),
            exact_sum(change.cost_after for change in group),
            sum(change.rows_before for change in group),
            sum(change.rows_after for change in group),
        )
        for currency, group in sorted(by_currency.items(), key=lambda item: item[0] or "")
    )


def sorted_changes(changes: Iterable[CostChange]) -> tuple[CostChange, ...]:
    """Return the changes in the order that `Restatement.changes` has."""

    def order(change: CostChange) -> tuple[Any, ...]:
        names = (change.currency or "", change.service or "", change.account or "")
        # Not `-abs()`, which would round to 28 digits.
        cost = change.added_cost.copy_abs().copy_negate()
        return change.is_sum, cost, -abs(change.added_rows), names

    return tuple(sorted(changes, key=order))


def restatements_of_footer(texts: Mapping[str, str]) -> list[Restatement]:
    """Return a month's restatements from the footer of its Parquet file, the newest first.

    `texts` are those that `finops_dagster.lake.footer_texts` returns. A footer has at most the
    newest `MAX_RESTATEMENTS`. The list is empty if the month was loaded once, and for a file of an
    earlier release.
    """
    return [
        Restatement(
            row["number"],
            row["manifest_id"],
            row["replaced_id"],
            datetime.fromisoformat(row["restated_at"]),
            row["run_id"],
            sorted_changes(_change_of(change) for change in row["changes"]),
        )
        for row in json.loads(texts.get(_FOOTER_KEY, "[]"))
    ]


def restatement_number_in_footer(texts: Mapping[str, str]) -> int:
    """Return the number of the newest restatement in a footer's texts; 0 without any."""
    rows = json.loads(texts.get(_FOOTER_KEY, "[]"))
    return rows[0]["number"] if rows else 0


def footer_of_restatements(restatements: Sequence[Restatement]) -> dict[str, str]:
    """Return the texts of a footer that record the restatements, for `restatements_of_footer`.

    `restatements` are the newest first, and all of them are recorded: the ledger, from which they
    are, has at most `MAX_RESTATEMENTS`. Without any, the dict is empty.
    """
    rows = [
        {
            **vars(restatement),
            "restated_at": restatement.restated_at.isoformat(),
            "changes": [_change_row(change) for change in restatement.changes],
        }
        for restatement in restatements
    ]
    return {_FOOTER_KEY: json.dumps(rows, separators=(",", ":"))} if rows else {}


def _change_of(row: Sequence[Any]) -> CostChange:
    currency, service, account, before, after, *row_counts = row
    return CostChange(currency, service, account, Decimal(before), Decimal(after), *row_counts)


def _change_row(change: CostChange) -> list[Any]:
    # A list without names: a footer can have 20,000 of them.
    before, after = (decimal_text(cost) for cost in (change.cost_before, change.cost_after))
    names = (change.currency, change.service, change.account)
    return [*names, before, after, change.rows_before, change.rows_after]
