"""Asset checks of a month: `reconciles` and `adds_up` block, every other one warns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg

from finops_dagster.billing.errors import count_text, excerpts
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import Totals, decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load, Version
from finops_dagster.sources.base import Format

_UNUSUAL_CHANGE = 0.5
_MAX_FILES_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """A check of a stage. If it is `blocking` and fails, the stage keeps the version it had."""

    name: str
    description: str
    blocking: bool = False

    def warning_result(
        self, *, passed: bool, description: str, metadata: Mapping[str, Any] | None = None
    ) -> dg.AssetCheckResult:
        """Return the result of the check; if it fails, it only warns.

        For a blocking check, call it only if the check passed.
        """
        return dg.AssetCheckResult(
            passed=passed,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.WARN,
            description=description,
            metadata=metadata,
        )


RECONCILES = Check(
    "reconciles",
    "The stage has the same version as the previous stage. All rows belong to this billing month. "
    "Rows and costs equal, to the last digit, the totals that were counted in the vendor's files.",
    blocking=True,
)
ADDS_UP = Check(
    "adds_up",
    "The charges add up to the bill, to the last digit: BilledCost to its headline cost, and "
    "EffectiveCost to its amortized cost. What they leave out or move is listed, with its sums.",
    blocking=True,
)
CONFORMS = Check(
    "focus_conforms",
    "No charge breaks a rule of FOCUS; rules that are disputed are listed and do not count.",
)
IN_CATALOG = Check(
    "in_catalog",
    "The Iceberg catalog has the files of the lake: of this month and of all others of the export.",
)
FRESH = Check(
    "manifest_is_fresh", "The vendor still delivers the month in progress: its manifest is recent."
)
FILES_AVAILABLE = Check(
    "files_still_available", "The store still has every file of the month's newest version."
)
NOT_FEWER_ROWS = Check(
    "not_fewer_rows", "The month has rows, and no fewer than the version that it replaced."
)
USUAL_COST = Check(
    "usual_cost",
    "In each currency, the cost is at most 50 % higher than in the previous month and, once the "
    "month is over, at most 50 % lower.",
)
ONE_CURRENCY = Check(
    "one_currency",
    "All costs of the month are in one currency, if the vendor bills in one. Amounts in several "
    "currencies have no meaningful total.",
)
COSTS_NOT_ROUNDED = Check(
    "costs_not_rounded",
    'No amount of money was rounded to 18 decimals, which decimals = "round" permits.',
)


def passed_reconciles(version: Version) -> dg.AssetCheckResult:
    """Return the passed result of the check `reconciles`, with the version's rows and cost.

    It compares nothing: a version that does not reconcile has failed its stage before.
    """
    totals = version.totals
    return dg.AssetCheckResult(
        passed=True,
        check_name=RECONCILES.name,
        metadata={
            "manifest_id": version.manifest_id,
            "rows": totals.rows,
            "total_cost": decimal_text(totals.cost),
        },
    )


def manifest_is_fresh(
    manifest: Manifest, month: BillingMonth, max_age: timedelta
) -> dg.AssetCheckResult:
    """Check that the newest manifest is at most `max_age` old if the month is in progress.

    A month that is over always passes.
    """
    age = datetime.now(UTC) - manifest.source.last_modified
    age_text = f"The newest manifest is {count_text(age.days, 'day')} old"
    description, passed = f"{age_text}. The month is over.", True
    if month == BillingMonth.current():
        passed = age <= max_age
        description = f"{age_text}; up to {count_text(max_age.days, 'day')} are normal."
        if not passed:
            description += " Check that the vendor still delivers the export."
    return FRESH.warning_result(passed=passed, description=description)


def files_still_available(manifest: Manifest) -> dg.AssetCheckResult:
    """Check that the store still has every file of the manifest.

    The manifest itself says which files are deleted: no request is sent. The month keeps the rows
    of deleted files.
    """
    deleted = manifest.deleted_files
    description = f"The store has all {count_text(len(manifest.files), 'file')}."
    if deleted:
        description = (
            f"{manifest.source.location} no longer has {excerpts(deleted, _MAX_FILES_SHOWN)}. "
            "The month keeps their rows. If a later version fails without them, put them back."
        )
    return FILES_AVAILABLE.warning_result(passed=not deleted, description=description)


def not_fewer_rows(load: Load, superseded: Load | None) -> dg.AssetCheckResult:
    """Check that the month has rows, and no fewer than the load that it superseded, if any."""
    rows, description = load.totals.rows, f"{load.totals.rows:,} rows in the first version."
    passed = rows > 0
    if superseded is not None:
        superseded_rows = superseded.totals.rows
        passed = passed and rows >= superseded_rows
        description = f"{rows:,} rows; version {superseded.manifest_id} had {superseded_rows:,}."
    if not passed:
        description += f" finops state show {load.export} {load.month} shows what has changed."
    return NOT_FEWER_ROWS.warning_result(passed=passed, description=description)


def usual_cost(load: Load, previous_month_load: Load | None) -> dg.AssetCheckResult:
    """Check that the cost in each currency is within 50 % of that of the previous month.

    In the month in progress a lower cost passes. So does a currency that had no positive cost
    before, and a month whose previous month is not loaded. A currency that is gone has cost 0.
    """
    changes = {}
    if previous_month_load is not None:
        changes = _cost_changes(load.totals, previous_month_load.totals)
    # The month in progress grows day by day, so a low cost says nothing.
    least = -math.inf if load.month == BillingMonth.current() else -_UNUSUAL_CHANGE
    shown = ", ".join(
        f"{change:+.1%}{currency and f' in {currency}'}" for currency, change in changes.items()
    )
    passed = all(least <= change <= _UNUSUAL_CHANGE for change in changes.values())
    description = "There is no cost of the previous month to compare with."
    if previous_month_load is not None and changes:
        advice = "" if passed else " finops report shows which services and accounts have changed."
        description = f"{shown} compared with {previous_month_load.month}.{advice}"
    return USUAL_COST.warning_result(passed=passed, description=description)


def _cost_changes(totals: Totals, previous: Totals) -> dict[str, float]:
    """Return the relative change of the cost in each currency, 0.5 for half as much again.

    If either record is of a release without costs by currency, the whole cost has the key "".
    """
    costs, previous_costs = totals.costs, previous.costs
    if costs is None or previous_costs is None:
        costs, previous_costs = {"": totals.cost}, {"": previous.cost}
    return {
        currency: float(costs.get(currency, 0) / previous_cost) - 1
        for currency, previous_cost in sorted(previous_costs.items())
        if previous_cost > 0
    }


def one_currency(costs: Sequence[tuple[str, Decimal]], bill_format: Format) -> dg.AssetCheckResult:
    """Check that the costs are in one currency, unless the vendor bills in several.

    `costs` has one pair of currency and cost for each currency; one whose cost is 0 counts too.
    """
    passed = len(costs) <= 1 or not bill_format.expects_one_currency
    description = ", ".join(f"{cost:,.2f} {currency}" for currency, cost in costs)
    if not passed:
        description += ". Add up each currency on its own: the total of the month mixes them."
    return ONE_CURRENCY.warning_result(
        passed=passed, description=description or "There are no costs."
    )


def costs_not_rounded(load: Load) -> dg.AssetCheckResult:
    """Check that no amount of money was rounded to 18 decimals; rounded quantities pass.

    A load of an earlier release, which did not count rounded amounts, passes. The description has
    the number of amounts and their difference by column.
    """
    amounts = [
        f"{column.cells:,} of {column.name} by {decimal_text(column.amount)} in all"
        for column in load.rounded or ()
        if column.amount is not None
    ]
    description = (
        f"Rounded to 18 decimals: {', '.join(amounts)}. With "
        'decimals = "exact", such months are refused, unless only doubles in Parquet are rounded.'
        if amounts
        else "No amount was rounded."
    )
    if load.rounded is None:
        description = "Rounded amounts were not counted when this version was loaded."
    return COSTS_NOT_ROUNDED.warning_result(passed=not amounts, description=description)
