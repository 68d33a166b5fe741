"""The texts of alerts: the number, the change, the reason, and a command that shows more."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Self

from finops_dagster.billing.errors import count_text, shortened
from finops_dagster.billing.restatement import CostChange, Restatement

_MAX_REASONS = 3


@dataclass(frozen=True)
class Alert:
    """A message to people. `key` identifies its event, such as a failure of a month.

    `title` and each of `lines` are one line, in which the text of vendors is escaped. `command` is
    a command that shows more. The names of the fields are stored as JSON, so they must not change.
    """

    key: str
    title: str
    lines: Sequence[str]
    command: str

    @classmethod
    def of(cls, key: str, title: str, lines: Sequence[str], command: str) -> Self:
        """Return an alert whose title and lines are escaped, each cut to about 1,000 characters.

        `key` and `command` stay as they are.
        """
        return cls(key, shortened(title), tuple(map(shortened, lines)), command)

    @property
    def text(self) -> str:
        """The alert as plain text of several lines: title, lines and command."""
        return "\n".join([self.title, "", *self.lines, "", f"To look further: {self.command}"])

    @property
    def digest(self) -> str:
        """A hash of the key in 32 hexadecimal digits; the same if the alert is sent again."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:32]


def sample_alert() -> Alert:
    """Return the alert that `finops alerts test` sends."""
    lines = ["This message was sent by finops alerts test. Nothing has happened to any month."]
    return Alert.of("test", "Test of the alerts of finops", lines, "finops state list")


def failed_month_alert(
    export: str, month: str, reason: str, failures: int, since: datetime, key: str
) -> Alert:
    """Return the alert of a month whose last run failed.

    `failures` is the number of failed runs since the last success, and `since` the time of the
    first of them, in UTC.
    """
    return Alert.of(
        key,
        f"{export} {month} failed",
        [
            f"Reason: {reason}",
            f"{count_text(failures, 'run')} failed since {_time(since)}.",
        ],
        f"finops state show {export} {month}",
    )


def exceeds_thresholds(restatement: Restatement, percent: float, amount: float) -> bool:
    """Return whether the cost in any currency rose or fell by at least both thresholds.

    `percent` is of the absolute cost before; if that was 0, only `amount` counts. `amount` is in
    units of the currency. A cost that did not change never counts, even if the thresholds are 0.
    """
    return any(
        abs(total.added_cost)
        >= max(Decimal(amount), abs(total.cost_before) * Decimal(percent) / 100)
        for total in restatement.changes_by_currency
        if total.added_cost
    )


def restatement_alert(export: str, month: str, restatement: Restatement, key: str) -> Alert:
    """Return the alert of a restatement that changed a cost.

    It has the costs of each currency that changed, and the three largest changes by service and
    account. Call it only if a cost changed, see `exceeds_thresholds`.
    """
    totals = [total for total in restatement.changes_by_currency if total.added_cost]
    changes = [f"{_added(total)}{_percent(total)}" for total in totals]
    reasons = [
        f"{change.service or '(none)'} in account {change.account or '(none)'} {_added(change)}"
        for change in restatement.changes
        if change.added_cost and not change.is_sum
    ]
    rows = sum(total.added_rows for total in restatement.changes_by_currency)
    return Alert.of(
        key,
        f"{export} {month} restated: {', '.join(changes)}",
        [
            *(
                f"Cost: {total.cost_before:,.2f} before, "
                f"{_amount(total.cost_after, total.currency)} now"
                for total in totals
            ),
            f"Reason: the vendor changed {', '.join(reasons[:_MAX_REASONS])}",
            f"Version {restatement.manifest_id} replaced {restatement.replaced_id}: "
            f"{count_text(rows, 'row', '+')}",
        ],
        f"finops state show {export} {month}",
    )


def silent_export_alert(
    export: str, newest: datetime | None, days: int, silent_days: int, key: str
) -> Alert:
    """Return the alert of an export of which the vendor has written no version for `days` days.

    `newest` is the time of its newest version in UTC. If no version was found, it is None, and
    `days` are those since the sensor first ran. Up to `silent_days` are normal by the settings.
    """
    version = f"Its newest version is of {_time(newest)}" if newest else "No version was found"
    return Alert.of(
        key,
        f"{export} has been silent for {count_text(days, 'day')}",
        [
            f"{version}; up to {count_text(silent_days, 'day')} are normal.",
            "Reason: the vendor writes no new version, or no run has read it.",
        ],
        "finops config check",
    )


def _amount(amount: Decimal, currency: str | None, sign: str = "") -> str:
    """Return an amount with its currency, which a bill may lack."""
    return f"{amount:{sign},.2f}{f' {currency}' if currency else ''}"


def _added(change: CostChange) -> str:
    return _amount(change.added_cost, change.currency, "+")


def _percent(change: CostChange) -> str:
    before = change.cost_before
    return f" ({change.added_cost / abs(before):+.1%})" if before else ""


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
