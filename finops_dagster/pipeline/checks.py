"""What is looked at in every month: what must hold, and what somebody should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import dagster as dg

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import RECONCILES, ROWS_BELONG, Totals, plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.tables.ledger import Load

_STALE_AFTER = timedelta(days=2)
_UNUSUAL_CHANGE = 0.5


@dataclass(frozen=True)
class Check:
    """A fact that a stage looks at; where a blocking one fails, the stage keeps the old month."""

    name: str
    description: str
    blocking: bool = False


TOTALS_CHECKS = (
    Check(
        RECONCILES,
        "Rows and total unblended cost equal, to the last digit, what was counted in the text of "
        "the vendor's files.",
        blocking=True,
    ),
    Check(ROWS_BELONG, "Every row says that it belongs to this billing month.", blocking=True),
)
ONE_VERSION = Check(
    "one_version",
    "The stage holds the version of the month that the stages before it hold.",
    blocking=True,
)
FRESH = Check(
    "manifest_is_fresh", "The manifest of the month in progress is not older than two days."
)
HAS_ROWS = Check("has_rows", "The month has rows; a month without any is legal, but rare.")
NOT_FEWER_ROWS = Check(
    "not_fewer_rows", "The month has no fewer rows than the version that it replaced."
)
USUAL_COST = Check("usual_cost", "The month's cost is within half of what the month before cost.")

ONE_CURRENCY = Check(
    "one_currency", "All costs of the month are in one currency; a total of several means nothing."
)

COSTS_NOT_ROUNDED = Check(
    "costs_not_rounded",
    'No amount of money was rounded because the export has decimals = "round". How many doubles '
    "of Parquet were, which are the vendor's own rounding, is said and is no warning.",
)


def totals_hold(totals: Totals) -> list[dg.AssetCheckResult]:
    """The blocking checks, passed: a stage that does not reconcile raises instead."""
    metadata: dict[str, int | str] = {"rows": totals.rows, "total_cost": plain(totals.cost)}
    return [
        dg.AssetCheckResult(passed=True, check_name=check.name, metadata=metadata)
        for check in TOTALS_CHECKS
    ]


def manifest_is_fresh(manifest: Manifest, month: BillingMonth) -> dg.AssetCheckResult:
    """AWS rewrites the month in progress at least daily; silence means that delivery stopped."""
    age = datetime.now(UTC) - manifest.source.last_modified
    in_progress = month == BillingMonth.current()
    return _noticed(
        FRESH,
        passed=not in_progress or age <= _STALE_AFTER,
        description=f"The manifest is {age.days} days old"
        + (" and AWS writes this month daily." if in_progress else "; the month is over."),
    )


def has_rows(totals: Totals) -> dg.AssetCheckResult:
    """An export can be empty, and then says so here."""
    return _noticed(HAS_ROWS, passed=totals.rows > 0, description=f"{totals.rows:,} rows.")


def not_fewer_rows(now: Load, before: Load | None) -> dg.AssetCheckResult:
    """A restatement can shrink a month, but it is worth a look."""
    if before is None:
        return _noticed(NOT_FEWER_ROWS, passed=True, description="This is the first version.")
    return _noticed(
        NOT_FEWER_ROWS,
        passed=now.totals.rows >= before.totals.rows,
        description=f"{now.totals.rows:,} rows after {before.totals.rows:,} "
        f"in version {before.manifest_id}.",
    )


def usual_cost(now: Load, month_before: Load | None) -> dg.AssetCheckResult:
    """A closed month that fell by half, or any that grew by half, is worth a look."""
    if month_before is None or month_before.totals.cost <= 0:
        return _noticed(USUAL_COST, passed=True, description="There is no month to compare with.")
    change = float(now.totals.cost / month_before.totals.cost) - 1
    in_progress = now.month == BillingMonth.current()
    return _noticed(
        USUAL_COST,
        passed=change <= _UNUSUAL_CHANGE and (in_progress or change >= -_UNUSUAL_CHANGE),
        description=f"{change:+.1%} against {month_before.month}.",
    )


def one_currency(costs: Sequence[tuple[str, Decimal]]) -> dg.AssetCheckResult:
    """AWS bills an account in one currency; a file of several is worth a look."""
    return _noticed(
        ONE_CURRENCY,
        passed=len(costs) <= 1,
        description=", ".join(f"{cost:,.2f} {currency}" for currency, cost in costs)
        or "There are no costs.",
    )


def costs_not_rounded(load: Load, *, round_money: bool) -> dg.AssetCheckResult:
    """Say how many amounts were rounded and by how much in all; a warning with `round_money`, as
    without it only doubles are, in nearly every month that AWS delivers as Parquet."""
    money = [
        f"{column.cells:,} of {column.name} by {plain(column.amount)} in all"
        for column in load.rounded or ()
        if column.amount is not None
    ]
    described = f"Rounded to 18 decimals: {', '.join(money)}." if money else "None was rounded."
    if load.rounded is None:
        described = "Nobody counted them when this version was loaded."
    return _noticed(COSTS_NOT_ROUNDED, passed=not (money and round_money), description=described)


def _noticed(check: Check, *, passed: bool, description: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        check_name=check.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
    )
